"""The host's table at a start: written before the workers run where there is none, adopted unread where one stands."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface, ip_network

import pytest

from engine.apply import host_rules
from engine.apply.plane import kernel_openers
from engine.datapath import Datapath
from engine.errors import KernelError
from engine.model import Desired, HostDevice, HostRules, Via
from engine.pod.namespace import run_inside
from tests.engine.fakes import FakePlane
from tests.engine.namespaces import device, namespaces, path_of, routes

pytestmark = [pytest.mark.root, pytest.mark.needs("ip", "nft")]

OWN, PREFIX, OTHER = ip_interface("10.1.0.1/32"), ip_network("10.1.0.0/24"), ip_network("10.9.0.0/24")
WANTED = Desired(
    host=HostDevice((OWN,), 1450, (PREFIX,)),
    rules=HostRules("towpath0", (PREFIX,), (PREFIX,)),
    routes={ip_network("10.1.0.1/32"): (Via("host", "host", mtu=1450),)},
)


def prepared(tmp_path):
    datapath = Datapath(tmp_path, openers=kernel_openers(), plane=FakePlane())
    return datapath, datapath.prepare(WANTED)


def test_a_table_that_is_missing_is_there_before_anything_is_forwarded(tmp_path, monkeypatch):
    def work():
        assert not host_rules.stands("towpath0")
        datapath, outcome = prepared(tmp_path)
        try:
            assert outcome.failed == []
            assert host_rules.stands("towpath0")
            assert not host_rules.stands("towpath1")
            assert datapath.plane.detour is not None
            assert datapath.apply(WANTED).failed == []
        finally:
            datapath.close()
        assert not host_rules.stands("towpath0")

    with namespaces(1) as (name,):
        run_inside(path_of(name), work, where="test")


def test_a_table_that_stands_is_adopted_without_a_program(tmp_path, monkeypatch):
    def refuse(*_):
        raise KernelError("no program may be run now")

    def work():
        host_rules.nft("table inet towpath { }\n")
        with monkeypatch.context() as patched:
            patched.setattr(host_rules, "_run", refuse)
            datapath, outcome = prepared(tmp_path)
        try:
            assert outcome.failed == []
            assert datapath.plane.detour is not None
            assert "set host rules host" in map(str, datapath.apply(WANTED).done), "nobody had looked at it yet"
            assert "masquerade" in host_rules.listing("towpath0")
        finally:
            datapath.close()

    with namespaces(1) as (name,):
        run_inside(path_of(name), work, where="test")


def left_standing(name):
    return host_rules.stands("towpath0"), device(name, "towpath0") is not None, routes(name, "proto", "116")


@pytest.mark.parametrize("applied", [False, True])
def test_a_start_that_is_given_up_leaves_what_an_earlier_run_left(tmp_path, applied):
    def given_up():
        datapath, outcome = prepared(tmp_path)
        assert outcome.failed == []
        if applied:
            datapath.apply(replace(WANTED, host=replace(WANTED.host, routes=(PREFIX, OTHER))))
        datapath.abandon()

    def work():
        given_up()
        assert left_standing(name) == (False, False, []), "what it made goes with it"
        earlier, _ = prepared(tmp_path)
        earlier.apply(WANTED)
        earlier.leave()  # as a kill does
        before = left_standing(name)
        assert before == (True, True, [(str(PREFIX), "towpath0")])
        given_up()
        assert left_standing(name) == before
        last, _ = prepared(tmp_path)
        last.close()
        assert left_standing(name) == (False, False, [])

    with namespaces(1) as (name,):
        run_inside(path_of(name), work, where="test")
