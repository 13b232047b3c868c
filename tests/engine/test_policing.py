"""Policing without a node: whose flows are forgotten when pods come and go."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from ipaddress import ip_address

import pytest

from engine.loop import Loop
from engine.model import Address, Bandwidth, Facts, Node, Pod
from engine.policing import Policing

FOUR, SIX, OTHER = ip_address("10.1.0.5"), ip_address("fd00:1::5"), ip_address("10.1.0.6")
POD = Pod("default/a", "/run/netns/a", (FOUR, SIX))


@dataclass
class Plane:
    forgotten: list[Address] = field(default_factory=list)

    def forget_flows(self, address: Address) -> None:
        self.forgotten.append(address)


class Settled:
    """settled(*pods) -> the addresses whose flows are forgotten."""

    def __init__(self, folder):
        self.plane = Plane()
        self.policing = Policing(Loop(), folder, self.plane, lambda: None)

    def __call__(self, *pods: Pod) -> set[Address]:
        self.plane.forgotten.clear()
        self.policing.forget_departed(Facts(Node("n", (), ()), pods=pods))
        return set(self.plane.forgotten)


@pytest.fixture
def settled(tmp_path):
    return Settled(tmp_path)


@pytest.fixture
def successor(tmp_path):
    return Settled(tmp_path)


def test_a_pod_that_stays_keeps_its_flows_whatever_else_is_said_of_it(settled):
    assert settled(POD) == set()
    assert settled(POD, replace(POD, name="default/b", addresses=(OTHER,))) == set()
    assert settled(replace(POD, bandwidth=Bandwidth(ingress=10**6))) == {OTHER}
    assert settled(replace(POD, addresses=(FOUR,))) == {SIX}
    assert settled() == {FOUR}


@pytest.mark.parametrize(
    "heir",
    [
        replace(POD, name="default/b", namespace="/run/netns/b"),
        replace(POD, namespace="/run/netns/a-again"),
        replace(POD, namespace_id=(4, 4026532000)),
        replace(POD, name="default/b", namespace="/run/netns/b", addresses=(FOUR,)),
    ],
)
def test_who_gets_the_address_of_a_pod_that_is_gone_inherits_no_flows(settled, heir):
    settled(POD)
    assert settled(heir) == {FOUR, SIX}
    assert settled(heir) == set()


def test_an_address_that_moves_between_two_that_stay_is_forgotten(settled):
    other = replace(POD, name="default/b", namespace="/run/netns/b", addresses=(OTHER,))
    settled(POD, other)
    assert settled(replace(POD, addresses=(SIX,)), replace(other, addresses=(OTHER, FOUR))) == {FOUR}


def test_a_successor_forgets_whoever_left_while_daemons_changed(settled, successor):
    stays = replace(POD, name="default/b", namespace="/run/netns/b", addresses=(OTHER,), namespace_id=(4, 4026532000))
    settled(POD, stays)
    successor.policing.inherit(settled.policing.whose_flows())
    assert successor(stays) == {FOUR, SIX}
    assert successor(POD, stays) == set()


def test_an_address_that_moved_while_daemons_changed_is_forgotten(settled, successor):
    other = replace(POD, name="default/b", namespace="/run/netns/b", addresses=(OTHER,))
    settled(POD, other)
    successor.policing.inherit(settled.policing.whose_flows())
    assert successor(replace(POD, addresses=(SIX,)), replace(other, addresses=(OTHER, FOUR))) == {FOUR}


@pytest.mark.parametrize("babble", [b"", b"{}", b"[[1]]", b'[["a", "/x", null, ["nonsense"]]]', b"\xff"])
def test_a_predecessor_that_cannot_be_understood_ends_nothing(successor, caplog, babble):
    successor.policing.inherit(babble)
    assert "is not known" in caplog.text
    assert successor(POD) == set()
