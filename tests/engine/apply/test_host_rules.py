"""The host's table at a start: written before the workers run where there is none, adopted unread where one stands."""

from __future__ import annotations

import errno
import os
import re
import select
import socket
import struct
import subprocess
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from engine.apply import conversations, host_rules
from engine.apply.host_rules import HostRulesDriver, Left
from engine.apply.inheritance import Inheritance
from engine.apply.plane import kernel_openers
from engine.apply.ruleset import forwards_in, ruleset
from engine.apply.table_record import TableRecord
from engine.datapath import Datapath
from engine.errors import KernelError
from engine.model import Desired, HostDevice, HostRules, PortForward, Via
from engine.pod.namespace import run_inside
from tests.engine.fakes import FakePlane
from tests.engine.namespaces import device, namespaces, path_of, routes

pytestmark = [pytest.mark.root, pytest.mark.needs("ip", "nft")]

MAKER = "0123456789abcdef"
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


A, B, A6, AT, AT6 = map(ip_address, ("10.1.0.5", "10.1.0.6", "fd00:1::5", "192.0.2.1", "2001:db8::1"))
STAYS, STAYS6 = PortForward("udp", 53, None, A, 53), PortForward("udp", 53, AT6, A6, 5353)
MOVES, GOES, COMES = (PortForward("udp", port, AT, A, 53) for port in (5300, 5301, 5302))
MOVED = replace(MOVES, pod_address=B)
BEFORE = replace(WANTED.rules, forwards=(STAYS, STAYS6, MOVES, GOES))
AFTER = replace(WANTED.rules, forwards=(STAYS, STAYS6, MOVED, COMES))
DIFFERENCE = {MOVES, MOVED, GOES, COMES}


@pytest.fixture
def forgotten(monkeypatch):
    """The forwards whose conversations were forgotten, each time."""
    heard = []
    monkeypatch.setattr(conversations, "forget", lambda forwards: heard.append(set(forwards)))
    return heard


def driven(work):
    """`work` with a driver, in a namespace of its own."""

    def with_driver():
        driver = HostRulesDriver(lambda _: None, TableRecord(Path(folder) / "tables.json"))
        try:
            work(driver)
        finally:
            driver.close()

    with namespaces(1) as (name,), TemporaryDirectory() as folder:
        run_inside(path_of(name), with_driver, where="test")


def test_ports_are_read_as_they_were_written():
    protocols = [replace(STAYS, protocol=protocol) for protocol in ("tcp", "udp", "sctp")]
    written = replace(WANTED.rules, forwards=(*protocols, STAYS6, replace(STAYS6, host_address=None), MOVES))

    def work(_):
        host_rules.nft(ruleset(written, MAKER))
        assert forwards_in(host_rules.listing("towpath0")) == set(written.forwards)
        host_rules.nft(ruleset(WANTED.rules, MAKER))
        assert forwards_in(host_rules.listing("towpath0")) == set()

    driven(work)


@pytest.mark.parametrize(("wanted", "outdated"), [(AFTER, DIFFERENCE), (BEFORE, set())], ids=["changed", "unchanged"])
def test_who_was_led_by_an_earlier_run_is_led_anew_where_that_changed(forgotten, wanted, outdated):
    def work(driver):
        host_rules.nft(ruleset(BEFORE, MAKER))
        driver.adopt("towpath0")
        driver.set("host", wanted)
        assert forgotten == [outdated]

    driven(work)


def start_again(datapath, desired, _):
    assert datapath.prepare(desired).failed == []


def take_over(datapath, desired, estate):
    copies = [replace(left, descriptors=tuple(map(os.dup, left.descriptors))) for left in estate]
    datapath.adopt(desired, Inheritance(copies))


@pytest.mark.parametrize("begin", [start_again, take_over])
def test_a_run_that_follows_another_leads_anew_what_is_not_as_the_other_left_it(tmp_path, forgotten, begin):
    def work():
        earlier, _ = prepared(tmp_path)
        earlier.apply(replace(WANTED, rules=BEFORE))
        estate = earlier.estate() if begin is take_over else []
        if begin is start_again:
            earlier.leave()  # as a kill does
        forgotten.clear()
        later = Datapath(tmp_path, openers=kernel_openers(), plane=FakePlane())
        try:
            begin(later, replace(WANTED, rules=AFTER), estate)
            assert forgotten == []
            assert later.apply(replace(WANTED, rules=AFTER)).failed == []
            assert forgotten == [DIFFERENCE]
        finally:
            earlier.leave()
            later.close()

    with namespaces(1) as (name,):
        run_inside(path_of(name), work, where="test")


def test_who_was_led_by_an_earlier_run_is_led_nowhere_when_its_table_goes(forgotten):
    def work(driver):
        host_rules.nft(ruleset(BEFORE, MAKER))
        driver.adopt("towpath0")
        driver.remove("host")
        assert not host_rules.stands("towpath0")
        assert forgotten == [set(BEFORE.forwards)]

    driven(work)


@pytest.mark.parametrize("retried", [BEFORE, AFTER], ids=["the same", "others"])
def test_who_was_led_by_what_somebody_else_wrote_is_led_anew(forgotten, retried):
    def work(driver):
        driver.set("host", BEFORE)
        host_rules.nft(ruleset(replace(BEFORE, forwards=(STAYS, STAYS6, MOVED, GOES)), MAKER))
        forgotten.clear()
        assert driver.audit()
        driver.set("host", retried)
        assert forgotten == [{MOVES, MOVED} if retried is BEFORE else DIFFERENCE]

    driven(work)


def test_what_a_change_left_undone_is_not_lost_with_it(forgotten, monkeypatch):
    def refuse(_):
        raise KernelError("not now")

    def work(driver):
        driver.set("host", BEFORE)
        forgotten.clear()
        with monkeypatch.context() as patched:
            patched.setattr(host_rules, "listing", refuse)
            with pytest.raises(KernelError):
                driver.set("host", AFTER)  # which is in force nevertheless
        driver.set("host", AFTER)
        assert forgotten == [DIFFERENCE]

    driven(work)


# -- what an earlier run made, and nobody wants any more -------------------------------
NOBODY = Desired()


def named(device):
    return replace(WANTED, host=replace(WANTED.host, name=device), rules=replace(WANTED.rules, device=device))


RENAMED = named("other0")


def run_and_killed(folder, desired=WANTED):
    """A run of this state directory that nobody stopped."""
    folder.mkdir(exist_ok=True)
    earlier = Datapath(folder, openers=kernel_openers(), plane=FakePlane())
    assert earlier.prepare(desired).failed == []
    assert earlier.apply(desired).failed == []
    earlier.leave()


@pytest.fixture
def inside(tmp_path):
    """Runs a function in a namespace of its own."""
    with namespaces(1) as (name,):
        yield lambda work: run_inside(path_of(name), work, where="test")


def tables():
    listed = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    return sorted(listed.replace("table inet ", "").split())


@pytest.mark.parametrize(
    ("begin", "desired", "left"),
    [(start_again, NOBODY, []), (start_again, RENAMED, ["towpath_other0"]), (take_over, NOBODY, [])],
    ids=["none", "renamed", "none after a takeover"],
)
def test_a_table_that_is_wanted_no_more_goes(tmp_path, inside, forgotten, desired, left, begin):
    def work():
        run_and_killed(tmp_path, replace(WANTED, rules=BEFORE))
        forgotten.clear()
        later = Datapath(tmp_path, openers=kernel_openers(), plane=FakePlane())
        try:
            begin(later, desired, [])
            assert later.apply(desired).failed == []
            assert tables() == left
            assert set(BEFORE.forwards) in forgotten
        finally:
            later.leave()
        assert len(TableRecord(tmp_path / "tables.json").devices) == len(left)

    inside(work)


def test_a_new_name_that_gives_the_table_the_same_name_keeps_it(tmp_path, inside):
    def work():
        run_and_killed(tmp_path, named("a-b"))
        run_and_killed(tmp_path, named("a_b"))
        assert tables() == ["towpath_a_b"]
        assert TableRecord(tmp_path / "tables.json").devices == ("a_b",)

    inside(work)


@pytest.mark.parametrize("desired", [NOBODY, RENAMED], ids=["none", "renamed"])
def test_the_table_that_another_made_in_its_place_stays(tmp_path, inside, desired):
    def work():
        run_and_killed(tmp_path / "ours")
        run_and_killed(tmp_path / "another", RENAMED)
        run_and_killed(tmp_path / "third")
        before = host_rules.listing("towpath0"), host_rules.listing("other0")
        run_and_killed(tmp_path / "ours", desired)
        assert host_rules.listing("towpath0") == before[0]
        assert "towpath_other0" in tables()

    inside(work)


def test_one_that_cannot_be_removed_is_not_forgotten(tmp_path, inside, monkeypatch):
    def refuse(*_):
        raise KernelError("not now")

    def work():
        run_and_killed(tmp_path)
        later = Datapath(tmp_path, openers=kernel_openers(), plane=FakePlane())
        with monkeypatch.context() as patched:
            patched.setattr(host_rules, "_run", refuse)
            assert [str(failure.error.what) for failure in later.apply(NOBODY).failed] == ["not now"]
        later.leave()
        run_and_killed(tmp_path, NOBODY)
        assert tables() == []

    inside(work)


def test_a_new_name_needs_no_room_on_the_disk(tmp_path, inside, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def work():
        driver = HostRulesDriver(lambda _: None, TableRecord(tmp_path / "tables.json"))
        driver.set("host", WANTED.rules)
        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", full)
            driver.set("host", RENAMED.rules)
        assert tables() == ["towpath_other0"]
        assert driver.actual() == {"host": RENAMED.rules, Left("towpath0"): ()}
        driver.remove(Left("towpath0"))
        assert driver.actual() == {"host": RENAMED.rules}
        driver.close()

    inside(work)


class MuteSocket(socket.socket):
    """Nothing comes back, of what the kernel may have said."""

    def recv(self, *_):
        raise self.said

    said = TimeoutError("timed out")


class RefusingSocket(MuteSocket):
    said = OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))


@pytest.mark.parametrize("kernel", [MuteSocket, RefusingSocket])
def test_one_that_cannot_be_looked_for_is_not_forgotten(tmp_path, inside, monkeypatch, kernel):
    def work():
        run_and_killed(tmp_path)
        driver = HostRulesDriver(lambda _: None, TableRecord(tmp_path / "tables.json"))
        with monkeypatch.context() as patched:
            patched.setattr(host_rules.socket, "socket", kernel)
            with pytest.raises(KernelError, match="cannot see whether the table towpath stands"):
                driver.remove(Left("towpath0"))
        assert driver.actual() == {Left("towpath0"): ()}
        driver.remove(Left("towpath0"))
        assert driver.actual() == {}
        assert tables() == []
        driver.close()

    inside(work)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EINVAL, errno.EOPNOTSUPP])
def test_what_the_kernel_says_is_not_there_is_not(monkeypatch, number):
    class Answering(socket.socket):
        def recv(self, *_):
            return struct.pack("=IHHIIi", 20, 2, 0, 1, 0, -number)

    monkeypatch.setattr(host_rules.socket, "socket", Answering)
    assert not host_rules.stands("towpath0")


MARKS = (b"x", b"0a", MAKER.upper().encode(), MAKER.encode() + b"\\n", b" ".join([b"0a"] * 8))


@pytest.mark.parametrize("content", [b"", b"[1]", *(b'{"mark": "%s"}' % mark for mark in MARKS), b" " * 100_000])
def test_a_record_that_nobody_can_read_counts_as_none(tmp_path, content):
    (tmp_path / "tables.json").write_bytes(content)
    record = TableRecord(tmp_path / "tables.json")
    assert re.fullmatch("[0-9a-f]{16}", record.mark)
    record.add("towpath0")
    again = TableRecord(tmp_path / "tables.json")
    assert (again.mark, again.devices) == (record.mark, ("towpath0",))


def test_a_kernel_without_netfilter_has_a_bell_that_never_rings(monkeypatch):
    whole = socket.socket

    def without_netfilter(family, *rest):
        if family == socket.AF_NETLINK:
            raise OSError(errno.EPROTONOSUPPORT, "Protocol not supported")
        return whole(family, *rest)

    monkeypatch.setattr(host_rules.socket, "socket", without_netfilter)
    bell = host_rules.RulesBell()
    bell.mind("towpath_towpath0")
    assert select.select([bell], [], [], 0) == ([], [], [])
    assert not bell.listen()
    bell.close()
