"""Names and numbers: the tables of a plane double always show what was asked for."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.apply.plane import Forwarding
from engine.errors import TowpathError
from engine.model import Via
from fastpath.values import Deliver, Encapsulate
from tests.engine.apply.hops import P1, P2, P3, TO_B, TO_C, TO_POD, TUNNEL
from tests.engine.fakes import REJECTED, FakePlane, FakePort


def test_routes_by_the_same_next_hop_share_one_adjacency(forwarding, plane):
    forwarding.attach(("tunnel", TUNNEL.key), FakePort("t"))
    forwarding.set_route(P1, (TO_B,))
    forwarding.set_route(P2, (TO_B,))
    assert plane.table[P1] == plane.table[P2]
    assert plane.meaning(P1) == Encapsulate(1, 1, TO_B.remote, 1450, 4789, TO_B.mac)
    forwarding.remove_route(P1)
    assert len(plane.adjacencies) == 1
    forwarding.remove_route(P2)
    assert plane.adjacencies == {}


def test_many_routes_are_one_change_and_count_their_users(forwarding, plane):
    forwarding.attach(("tunnel", TUNNEL.key), FakePort("t"))
    many = [ip_network(f"10.{n >> 8}.{n & 255}.0/24") for n in range(300)] + [ip_network("fd00::/64"), ip_network("fd01::/64")]
    plane.log.clear()
    assert forwarding.change_routes(dict.fromkeys(many, (TO_B,))) == {}
    assert plane.log == ["adjacency 1", "routes 300", "routes 2"]
    assert forwarding.slot_of((TO_B,)).users == 302
    half = {prefix: (TO_C,) if n % 2 else None for n, prefix in enumerate(many)}
    assert forwarding.change_routes(half) == {}
    assert forwarding.slot_of((TO_B,)) is None, "nobody uses it any more"
    assert forwarding.slot_of((TO_C,)).users == 151
    assert set(forwarding.routes) == set(plane.table) == set(many[1::2])
    assert plane.meaning(many[1]).remote == TO_C.remote
    assert forwarding.change_routes(dict.fromkeys(many)) == {}, "also of routes that are not there"
    assert plane.table == plane.adjacencies == forwarding.slots == {}


def test_a_change_the_plane_refuses_leaves_everything(forwarding, plane):
    forwarding.attach(("tunnel", TUNNEL.key), FakePort("t"))
    forwarding.set_route(P1, (TO_B,))

    def refuse(*_):
        raise MemoryError

    plane.change_routes = refuse
    with pytest.raises(MemoryError):
        forwarding.change_routes({P1: (TO_C,), P2: (TO_C,), P3: (TO_B,)})
    assert forwarding.routes == {P1: (TO_B,)}
    assert forwarding.slot_of((TO_C,)) is None
    assert forwarding.slot_of((TO_B,)).users == 1
    assert len(plane.adjacencies) == 1


@pytest.mark.parametrize("many", [1, 20])
@pytest.mark.parametrize("refused", [4, 6])
def test_what_the_plane_refuses_of_one_family_leaves_the_other(forwarding, plane, refused, many):
    forwarding.attach(("tunnel", TUNNEL.key), FakePort("t"))
    old = {P1: (TO_B,), ip_network("fd01::/64"): (TO_B,)}
    forwarding.change_routes(old)
    before = dict(plane.table)
    set_routes = plane.set_routes

    def refuse(version, *rows):
        if version == refused:
            raise MemoryError
        set_routes(version, *rows)

    plane.set_routes = refuse
    new = [*old, *(ip_network(f"10.9.{n}.0/24") for n in range(many)), *(ip_network(f"fd09:{n}::/64") for n in range(many))]
    with pytest.raises(MemoryError):
        forwarding.change_routes(dict.fromkeys(new, (TO_C,)))
    assert (plane.table, forwarding.routes) == (before, old)
    assert forwarding.slot_of((TO_C,)) is None


def test_another_name_changes_nothing_in_the_plane(forwarding, plane):
    forwarding.attach(("pod", "a"), FakePort("p"))
    forwarding.attach(("tunnel", TUNNEL.key), FakePort("t"))
    forwarding.change_routes({P1: (TO_POD,), P2: (TO_B, TO_POD), P3: (TO_B,)})
    before = dict(plane.adjacencies), dict(plane.table)
    plane.log.clear()
    forwarding.rename_pod("a", "b")
    as_b = replace(TO_POD, target="b")
    assert plane.log == []
    assert (plane.adjacencies, plane.table) == before
    assert forwarding.routes == {P1: (as_b,), P2: (TO_B, as_b), P3: (TO_B,)}
    forwarding.detach(("pod", "b"))
    assert plane.meaning(P1) == REJECTED
    forwarding.change_routes(dict.fromkeys((P1, P2, P3)))
    assert plane.adjacencies == forwarding.slots == forwarding._through == {}


class Counting(dict):
    """A mapping that counts how many of its items were looked at."""

    looked_at = 0

    def __getitem__(self, key):
        self.looked_at += 1
        return super().__getitem__(key)

    def _all(self, items):
        for item in items:
            self.looked_at += 1
            yield item

    def __iter__(self):
        return self._all(super().__iter__())

    def keys(self):
        return self._all(super().keys())

    def values(self):
        return self._all(super().values())

    def items(self):
        return self._all(super().items())


@pytest.mark.parametrize("led", [0, 3])
def test_another_name_costs_what_leads_through_the_pod(forwarding, led):
    forwarding.attach(("pod", "a"), FakePort("p"))
    prefixes = [ip_network(f"10.0.{n}.0/24") for n in range(200)]
    forwarding.change_routes(dict.fromkeys(prefixes[:10], (TO_POD,)))
    forwarding.change_routes({prefix: (TO_POD,) if n < led else (TO_B,) for n, prefix in enumerate(prefixes)})
    forwarding.routes = Counting(forwarding.routes)
    forwarding.rename_pod("a", "b")
    assert forwarding.routes.looked_at == led
    wanted = (replace(TO_POD, target="b"),)
    assert forwarding.routes == {prefix: wanted if n < led else (TO_B,) for n, prefix in enumerate(prefixes)}


@pytest.mark.parametrize("routed", [True, False])
def test_a_name_that_means_something_is_given_to_nothing_else(forwarding, plane, routed):
    forwarding.attach(("pod", "a"), FakePort("p"))
    forwarding.set_route(P1, (TO_POD,))
    if routed:
        forwarding.set_route(P2, (replace(TO_POD, target="b"),))
    else:
        forwarding.attach(("pod", "b"), FakePort("q"))
    before = dict(forwarding.slots), dict(forwarding.routes), dict(forwarding.ports)
    with pytest.raises(TowpathError, match="something else is called b"):
        forwarding.rename_pod("a", "b")
    assert (forwarding.slots, forwarding.routes, forwarding.ports) == before


def test_next_hops_without_a_number_refuse_their_own_routes_only(forwarding, plane):
    forwarding.set_route(P1, (TO_B,))

    def full(value, number=None):
        raise ValueError("there are already 65535 adjacencies")

    plane.set_adjacency = full
    failed = forwarding.change_routes({P1: None, P2: (TO_C,), P3: (TO_B,)})
    assert list(failed) == [P2]
    assert "next hop c: there are already" in str(failed[P2])
    assert forwarding.routes == {P3: (TO_B,)}


def test_a_new_mtu_changes_the_adjacency_and_no_route(forwarding, plane):
    forwarding.attach(("tunnel", TUNNEL.key), FakePort("t"))
    forwarding.set_route(P1, (TO_B,))
    forwarding.set_route(P2, (TO_B,))
    plane.log.clear()
    smaller = (replace(TO_B, mtu=1350),)
    forwarding.set_route(P1, smaller)
    forwarding.set_route(P2, smaller)
    assert plane.log == [f"adjacency {plane.table[P1]}"]
    assert plane.meaning(P2).mtu == 1350
    assert forwarding.routes[P2] == smaller


def test_a_route_without_its_port_rejects_until_the_port_is_there(forwarding, plane):
    forwarding.set_route(P1, (TO_POD,))
    assert plane.meaning(P1) == REJECTED
    number = forwarding.attach(("pod", "a"), FakePort("eth0"))
    assert plane.meaning(P1) == Deliver(number, 1450)
    forwarding.detach(("pod", "a"))
    assert plane.meaning(P1) == REJECTED


def test_equal_cost_next_hops_leave_out_those_without_a_port(forwarding, plane):
    other = replace(TO_C, target="udp/192.0.2.1:8285")
    forwarding.set_route(P1, (TO_B, other))
    assert plane.meaning(P1) == REJECTED
    forwarding.attach(("tunnel", TUNNEL.key), FakePort("t"))
    assert [hop.remote for hop in plane.meaning(P1)] == [TO_B.remote]
    forwarding.attach(("tunnel", other.target), FakePort("u"))
    assert [hop.remote for hop in plane.meaning(P1)] == [TO_B.remote, TO_C.remote]
    forwarding.set_route(P2, (TO_C,))
    forwarding.remove_route(P1)
    forwarding.remove_route(P2)
    assert plane.adjacencies == {}
    assert forwarding.slots == {}


def test_an_mtu_change_in_a_spread_reaches_its_members(forwarding, plane):
    forwarding.attach(("tunnel", TUNNEL.key), FakePort("t"))
    forwarding.set_route(P1, (TO_B, TO_C))
    forwarding.set_route(P1, (replace(TO_B, mtu=1300), TO_C))
    assert [hop.mtu for hop in plane.meaning(P1)] == [1300, 1450]


class Churn(RuleBasedStateMachine):
    """Ports come and go, routes change: the plane always shows what a plain dict says it should."""

    targets = ("x", "y")
    vias = st.lists(
        st.builds(
            Via,
            kind=st.just("tunnel"),
            target=st.sampled_from(targets),
            peer=st.just("p"),
            remote=st.sampled_from([ip_address("192.0.2.2"), ip_address("192.0.2.3")]),
        ),
        min_size=1,
        max_size=3,
        unique=True,
    ).map(tuple)

    def __init__(self):
        super().__init__()
        self.plane = FakePlane()
        self.forwarding = Forwarding(self.plane)
        self.model = {}

    @rule(prefix=st.sampled_from([P1, P2, P3]), vias=vias)
    def set_route(self, prefix, vias):
        self.forwarding.set_route(prefix, vias)
        self.model[prefix] = vias

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove_route(self, data):
        prefix = data.draw(st.sampled_from(sorted(self.model)))
        self.forwarding.remove_route(prefix)
        del self.model[prefix]

    @rule(name=st.sampled_from(targets))
    def flip_port(self, name):
        if ("tunnel", name) in self.forwarding.ports:
            self.forwarding.detach(("tunnel", name))
        else:
            self.forwarding.attach(("tunnel", name), FakePort(name))

    @invariant()
    def the_plane_shows_the_model(self):
        assert set(self.plane.table) == set(self.model)
        for prefix, vias in self.model.items():
            ports = self.forwarding.ports
            want = [(via.remote, ports["tunnel", via.target]) for via in vias if ("tunnel", via.target) in ports]
            meaning = self.plane.meaning(prefix)
            got = meaning if isinstance(meaning, tuple) else () if meaning == REJECTED else (meaning,)
            assert [(hop.remote, hop.port) for hop in got] == want

    @invariant()
    def nothing_unused_is_kept(self):
        if not self.model:
            assert self.plane.adjacencies == {}
        used = {hop for vias in self.model.values() for hop in vias}
        spreads = {vias for vias in self.model.values() if len(vias) > 1}
        assert len(self.plane.adjacencies) == len(used) + len(spreads)


Churn.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
test_churn = Churn.TestCase
