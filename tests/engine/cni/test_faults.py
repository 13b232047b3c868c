"""Faults of ours and of the system at every step of a verb: the caller is told, and the next call is served."""

from __future__ import annotations

import errno
import os
import threading
from contextlib import contextmanager

import pytest

from engine.cni import addition
from engine.errors import KernelError
from engine.pod import departure
from fastpath.port.tun import TunPort
from tests.engine.cni.home import Home, ending, failing
from tests.engine.namespaces import device

pytestmark = [pytest.mark.root, pytest.mark.needs("ip")]


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


# -- devices that the kernel does not let go ------------------------------------------
@pytest.fixture
def stubborn(monkeypatch):
    """While the block runs, no device is deleted, by whichever way."""

    @contextmanager
    def stubborn(number):
        refusal = OSError(number, os.strerror(number))
        with (
            failing(monkeypatch, TunPort, "delete", refusal, times=999),
            failing(monkeypatch, departure, "delete", refusal, times=999),
        ):
            yield

    return stubborn


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EPERM, errno.ENOBUFS])
def test_an_address_is_kept_until_the_device_is_gone(home, sandbox, stubborn, number):
    assert home.add("c1", sandbox)["ips"]
    with stubborn(number):
        for _ in range(2):
            refused = home.delete("c1")
            assert refused["code"] == 100
            assert os.strerror(number) in refused["msg"]
            assert home.given() == ["pods/c1/eth0"]
            assert device(sandbox) is not None
        assert home.add("c1", sandbox)["code"] == 100, "it is removed first"
        assert "pod" in home.node.problems()[0].what
    assert home.delete("c1") is None
    nothing_is_left(home, sandbox)


def test_a_removal_that_failed_is_made_up_for_when_nobody_asks_again(home, sandbox, stubborn):
    assert home.add("c1", sandbox)["ips"]
    with stubborn(errno.EBUSY):
        assert home.delete("c1")["code"] == 100
        home.verbs.collect()
        home.settle()
        assert home.given() == ["pods/c1/eth0"]
    home.verbs.collect()
    home.settle()
    nothing_is_left(home, sandbox)


def test_a_device_that_one_way_does_not_remove_goes_by_the_other(home, sandbox, monkeypatch):
    assert home.add("c1", sandbox)["ips"]
    with failing(monkeypatch, TunPort, "delete", OSError(errno.EBUSY, "busy")):
        assert home.delete("c1") is None
    nothing_is_left(home, sandbox)


def test_a_thread_that_fails_costs_no_device(home, sandbox, monkeypatch):
    assert home.add("c1", sandbox)["ips"]
    with failing(monkeypatch, departure.Departure, "delete", RuntimeError("can't start new thread")):
        assert home.delete("c1")["code"] == 100
    assert home.given() == ["pods/c1/eth0"]
    home.verbs.collect()
    home.settle()
    nothing_is_left(home, sandbox)


def test_what_is_tried_again_keeps_nobody_waiting(home, sandbox, stubborn, monkeypatch):
    assert home.add("c1", sandbox)["ips"]
    visits, delete = [], departure._delete_standing

    def visit(*left):
        visits.append(threading.current_thread() is threading.main_thread())
        delete(*left)

    monkeypatch.setattr(departure, "_delete_standing", visit)
    with stubborn(errno.EBUSY):
        for _ in range(2):
            assert home.delete("c1")["code"] == 100
            home.node._keeper.datapath.reconciler.end_pauses()
            home.node._keeper.datapath.repair()
    home.verbs.collect()
    home.settle()
    assert visits == [False] * 3
    nothing_is_left(home, sandbox)


@pytest.mark.parametrize("way", ["killed", "stopped"])
def test_who_was_to_go_does_not_come_back_with_the_next_daemon(tmp_path, sandbox, stubborn, monkeypatch, way):
    with ending(tmp_path, way) as home, stubborn(errno.EBUSY):
        assert home.add("c1", sandbox)["ips"]
        assert home.delete("c1")["code"] == 100
    with Home(tmp_path) as home:
        with failing(monkeypatch, departure, "delete", OSError(errno.EBUSY, "busy")):
            home.verbs.collect()
            home.settle()
            assert home.node.residents.pods() == ()
            assert home.given() == ["pods/c1/eth0"]
            assert "busy" in home.node.problems()[0].what
        home.verbs.collect()
        home.settle()
        nothing_is_left(home, sandbox)


@pytest.mark.parametrize("journal", ["residents", "addresses"])
def test_a_full_disk_keeps_what_cannot_be_written_off(home, sandbox, monkeypatch, journal):
    assert home.add("c1", sandbox)["ips"]
    store = home.node.residents._store if journal == "residents" else home.node.addresses.store
    with failing(monkeypatch, store, "delete" if journal == "residents" else "put", KernelError("no space left")):
        assert home.delete("c1")["code"] == 100
    assert len(home.node.residents.leaving) == 1
    home.verbs.collect()
    home.settle()
    nothing_is_left(home, sandbox)
