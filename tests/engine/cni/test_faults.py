"""Faults of ours and of the system at every step of a verb: the caller is told, and the next call is served."""

from __future__ import annotations

import pytest

from engine.cni import addition
from tests.engine.cni.home import Home, failing
from tests.engine.namespaces import device, namespaces

pytestmark = [pytest.mark.root, pytest.mark.needs("ip")]


@pytest.fixture
def home(tmp_path):
    with Home(tmp_path) as made:
        yield made


@pytest.fixture
def sandbox():
    with namespaces(1) as (name,):
        yield name


def nothing_is_left(home, sandbox):
    assert home.node.residents.attachments == []
    assert home.given() == []
    assert device(sandbox) is None
    assert home.node.problems() == []


STEPS_OF_ADD = {
    "looking": lambda home: (addition.sandbox, "look"),
    "an address": lambda home: (home.node.addresses, "assign"),
    "the plan": lambda home: (addition.planning, "routes"),
    "the attachment": lambda home: (home.node.residents, "put"),
    "the device": lambda home: (home.node, "attach"),
    "the answer": lambda home: (addition, "success"),
}


@pytest.mark.parametrize("step", STEPS_OF_ADD)
def test_an_addition_that_fails_says_so_and_leaves_nothing(home, sandbox, monkeypatch, step):
    with failing(monkeypatch, *STEPS_OF_ADD[step](home)):
        first, second = home.begin("ADD", "c1", sandbox), home.begin("ADD", "c1", sandbox)
        home.settle()
    assert (first[0]["code"], first[0]["msg"]) == (999, "internal error")
    assert second[0]["ips"], "who waited behind it has its turn"
    assert home.delete("c1") is None
    nothing_is_left(home, sandbox)


@pytest.mark.parametrize("step", ["begin_to_detach", "end_detaching"])
def test_a_deletion_that_fails_says_so_and_can_be_repeated(home, sandbox, monkeypatch, step):
    assert home.add("c1", sandbox)["ips"]
    with failing(monkeypatch, home.node, step):
        first = home.begin("DEL", "c1")
        home.turn_until(lambda: first)
        second = home.begin("DEL", "c1")
        home.settle()
    assert first[0]["code"] == 999
    assert second == [None]
    nothing_is_left(home, sandbox)


def test_an_answer_that_cannot_be_given_is_one_that_was_not_taken(home, sandbox, caplog):
    def refuse(reply, ended):
        raise RuntimeError("a fault of ours")

    serve = home.verbs.serve
    home.verbs.serve = lambda call, answer: serve(call, refuse)
    for verb in ("ADD", "DEL", "CHECK"):
        assert home.begin(verb, "c1", sandbox) == []
        home.settle()
    assert "a fault of ours" in caplog.text
    home.verbs.serve = serve
    nothing_is_left(home, sandbox)
    assert home.add("c1", sandbox)["ips"]
