"""Whatever moves in one reload, a pod's packet to a Service's address is judged or comes to the host, at every step."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network

import pytest

from engine import Node, parse
from engine.apply.plane_routes import RouteDriver
from engine.apply.service_ranges import led_away, meeting, without
from engine.datapath import Datapath
from engine.desired.policy.compiler import Compiler
from engine.desired.policy.enforced import Enforced
from engine.desired.policy.model import Action, Endpoint, Snapshot, Stance
from engine.errors import TowpathError
from engine.model import Desired, TunnelPort, Unenforceable, Via
from fastpath.values import Encapsulate
from tests.engine.fakes import FakeKernel, FakePlane

TUNNEL = TunnelPort("vxlan/192.0.2.1:4789", "vxlan", ip_address("192.0.2.1"), 4789, 1)
PEER = (Via("tunnel", TUNNEL.key, "b", ip_address("192.0.2.2"), 4789, b"\2" * 6, 1450),)
HOST = (Via("host", "host", mtu=1450),)
BLACKHOLE = (Via("reject", "blackhole"),)
PODS = (ip_address("10.1.0.5"), ip_address("fd00:1::5"))
FAULT = MemoryError("no room")

# Ranges by name, in both families: two neighbours, what holds both, and parts of the first.
RANGES = {
    4: {"one": "10.96.0.0/16", "two": "10.97.0.0/16", "both": "10.96.0.0/15", "all": "0.0.0.0/0",
        "low": "10.96.0.0/17", "high": "10.96.128.0/17"},
    6: {"one": "fd96::/32", "two": "fd96:1::/32", "both": "fd96::/31", "all": "::/0",
        "low": "fd96::/33", "high": "fd96:0:8000::/33"},
}  # fmt: skip
State = tuple[tuple[str, ...], dict[str, tuple[Via, ...]]]  # services and routes; services None: no policy
MOVES: dict[str, tuple[State, State]] = {
    "added with its route": (((), {"one": PEER}), (("one",), {"one": HOST})),
    "added to the first policy": ((None, {"one": PEER}), (("one",), {"one": HOST})),
    "removed with its route": ((("one",), {"one": HOST}), ((), {"one": PEER})),
    "removed, the wider route takes its packets": ((("one",), {"one": HOST, "all": PEER}), ((), {"all": PEER})),
    "moved": ((("one",), {"one": HOST, "two": PEER}), (("two",), {"one": PEER, "two": HOST})),
    "moved below a route of both": ((("one",), {"both": HOST}), (("two",), {"both": PEER, "two": HOST})),
    "no part is a peer's any more": (((), {"one": HOST, "low": PEER}), (("one",), {"one": HOST})),
    "kept, its route in two": ((("one",), {"one": HOST}), (("one",), {"low": HOST, "high": HOST})),
    "kept, its route shorter": ((("one",), {"one": HOST, "all": PEER}), (("one",), {"both": HOST, "all": PEER})),
    "kept, its route longer": ((("one",), {"both": HOST, "all": PEER}), (("one",), {"one": HOST, "all": PEER})),
    "kept, others go to peers": ((("one",), {"both": HOST}), (("one",), {"one": HOST, "both": PEER, "all": PEER})),
    "wider": ((("one",), {"one": HOST, "both": PEER}), (("both",), {"both": HOST})),
    "narrower": ((("both",), {"both": HOST}), (("high",), {"high": HOST, "both": PEER})),
}  # fmt: skip


class Witness(list):
    """A plane's log that looks, at each change, where packets of the pod would come to.

    Whenever one passes it opens a flow, which stays whatever policy says later ("keep").
    """

    def __init__(self, plane):
        super().__init__()
        self.plane = plane
        self.seen = []  # which a driver cannot catch

    def append(self, entry):
        super().append(entry)
        for address in self.plane.probes:
            if self.plane.lets_pass(address):
                self.plane.flows.add(address)
            if address in self.plane.flows and self.plane.leads_to_a_peer(address):
                self.seen.append((address, [*self]))


class WatchedPlane(FakePlane):
    def __init__(self):
        super().__init__()
        self.probes = []
        self.flows = set()  # to these, and nobody judged them
        self.refuses_routes = None
        self.log = Witness(self)

    def lets_pass(self, address):
        """Whether a packet of the pod passes for all that its own policies say."""
        if self.policy is None:
            return False  # there is nothing to be kept then
        pod = PODS[address.version == 6]
        return self.policy.allows(self.policy.judge(pod, address, 17, 40_000, 53)[0])

    def leads_to_a_peer(self, address):
        found = self.lookup(address)
        return found is not None and isinstance(self.adjacencies[found[1]], Encapsulate)

    def change_routes(self, *rows):
        self._refuse()
        super().change_routes(*rows)

    def set_route(self, *row):
        self._refuse()
        super().set_route(*row)

    def remove_route(self, *row):
        self._refuse()
        super().remove_route(*row)

    def _refuse(self):
        if self.refuses_routes is not None:
            raise self.refuses_routes

    def forget_flows(self, whom):
        self.flows = {address for address in self.flows if address not in whom}
        self.log.append(f"forget {whom}")
        return 0


@dataclass
class World:
    """States by names of RANGES put into a datapath."""

    datapath: Datapath
    kernel: FakeKernel
    family: int
    known: dict = field(default_factory=dict)

    @property
    def plane(self):
        return self.datapath.plane

    def prefix(self, name):
        return ip_network(RANGES[self.family][name])

    def desired(self, state):
        services, routes = state
        if id(state) not in self.known:
            ranges = tuple(self.prefix(name) for name in services or ())
            policy = None if services is None else enforced(ranges)
            vias = {self.prefix(name): via for name, via in routes.items()}
            self.known[id(state)] = Desired(frozenset({TUNNEL}), routes=vias, policy=policy)
        return self.known[id(state)]

    def is_reached(self, state):
        services, routes = state
        assert self.datapath.forwarding.routes == {self.prefix(name): via for name, via in routes.items()}
        for address in self.plane.probes if services is not None else ():
            inside = any(address in self.prefix(name) for name in services)
            assert self.plane.lets_pass(address) is inside, address
        assert self.datapath.forwarding.unjudged is None
        assert self.datapath.reconciler.failures == []


def enforced(ranges):
    pods = {"default/a": Endpoint("a", "default", {}, PODS, (), "n", "default")}
    snapshot = Snapshot(endpoints=pods, stance=Stance(Action.DENY, (), (), ranges))
    return Enforced(Compiler().compile(snapshot), services=ranges)


@pytest.fixture(params=[4, 6])
def world(request, tmp_path):
    kernel = FakeKernel()
    datapath = Datapath(tmp_path, openers=kernel.openers, plane=WatchedPlane())
    datapath.forwarding.attach(("host", "host"), kernel._open("towpath0"))
    made = World(datapath, kernel, request.param)
    made.plane.probes = [made.prefix(name)[9] for name in ("one", "two", "low", "high")]
    yield made
    datapath.close()
    assert made.plane.log.seen == [], "what nobody judged came to a peer"


@pytest.fixture(params=MOVES.values(), ids=MOVES.keys())
def move(request, world):
    before, after = request.param
    assert world.datapath.apply(world.desired(before)).failed == []
    world.is_reached(before)
    world.plane.log.clear()
    return before, after


def test_the_order_is_right_in_both_directions(world, move):
    assert world.datapath.apply(world.desired(move[1])).failed == []
    world.is_reached(move[1])
    assert world.datapath.repair().done == [], "and nothing is left to do"


@pytest.mark.parametrize("wanted", ["refused", "not compiled"])
def test_no_route_leads_away_what_the_last_policy_lets_pass(world, move, wanted):
    before, after = move
    goal = world.desired(after)
    if wanted == "refused":
        world.plane.refuses_policy = FAULT
        world.datapath.apply(goal)
    else:
        world.datapath.apply(Desired(goal.tunnels, routes=goal.routes, policy=Unenforceable("it was not compiled")))
    assert world.datapath.forwarding.unjudged is not None
    kept = [name for name in before[0] or () if name not in after[0]]
    for name in kept:
        route = led_away(meeting(world.datapath.forwarding.routes, [world.prefix(name)]), [world.prefix(name)])
        assert route is None
    world.plane.refuses_policy = None
    world.datapath.reconciler.end_pauses()
    world.datapath.apply(goal)
    world.is_reached(after)


def test_what_waits_for_a_route_that_is_refused_is_judged_until_then(world, move):
    after = move[1]
    world.plane.refuses_routes = FAULT
    outcome = world.datapath.apply(world.desired(after))
    assert outcome.failed, "a change of routes is a part of every move"
    world.datapath.repair()
    world.plane.refuses_routes = None
    world.datapath.reconciler.end_pauses()
    world.datapath.repair()
    world.is_reached(after)


def test_one_route_alone_is_refused_as_many_are(world):
    world.datapath.apply(world.desired(MOVES["removed with its route"][0]))
    driver = RouteDriver(world.datapath.forwarding)
    with pytest.raises(TowpathError, match="stays as it was"):
        driver.set(world.prefix("one"), PEER)
    driver.set(world.prefix("all"), PEER)
    with pytest.raises(TowpathError, match="stays as it was"):
        driver.remove(world.prefix("one"))
    driver.set(world.prefix("low"), HOST)
    driver.remove(world.prefix("low"))
    assert set(world.datapath.forwarding.routes) == {world.prefix("one"), world.prefix("all")}


def test_why_services_are_judged_is_said(world):
    before, after = MOVES["added with its route"]
    world.datapath.apply(world.desired(before))
    world.plane.refuses_routes = FAULT
    failed = [str(failure) for failure in world.datapath.apply(world.desired(after)).failed]
    assert any(f"while route {world.prefix('one')} leads there to a peer" in text for text in failed)
    assert world.datapath.forwarding.unjudged is None, "everybody is judged"


def test_flows_to_addresses_that_are_no_services_any_more_are_forgotten(world):
    before, after = MOVES["narrower"]
    world.datapath.apply(world.desired(before))
    world.plane.log.clear()
    world.datapath.apply(world.desired(after))
    forgotten = [ip_network(entry.split()[1]) for entry in world.plane.log if entry.startswith("forget")]
    assert set(forgotten) == {world.prefix("low"), world.prefix("two")}
    order = [entry.split()[0] for entry in world.plane.log]
    assert order.index("policy") < order.index("forget") < order.index("routes")


def test_a_successor_forgets_flows_of_its_predecessors_ranges(world):
    """It forwards as its own configuration says, which may lead elsewhere. Its own ranges keep their flows."""
    before, after = MOVES["narrower"]
    world.datapath.apply(world.desired(before))
    known = world.datapath.pause()
    world.datapath.apply(world.desired(after))
    world.plane.log.clear()
    sorted_out = []
    world.datapath.go_on(known, sort_out=lambda: sorted_out.append(world.plane.running))
    assert sorted_out == [False], "before anything is forwarded"
    assert {*world.plane.log} >= {f"forget {world.prefix('low')}", f"forget {world.prefix('two')}"}
    assert f"forget {world.prefix('high')}" not in world.plane.log
    world.plane.log.clear()
    world.datapath.go_on(world.datapath.pause())
    assert not [entry for entry in world.plane.log if entry.startswith("forget")]


def test_flows_of_before_a_wait_are_forgotten_when_their_range_goes(world):
    before, waiting = (("one",), {"one": HOST, "two": PEER}), (("one", "two"), {"one": HOST, "two": HOST})
    world.datapath.apply(world.desired(before))
    world.plane.refuses_routes = FAULT
    assert world.datapath.apply(world.desired(waiting)).failed
    world.plane.refuses_routes = None
    world.plane.log.clear()
    after = ((), {"one": PEER, "two": PEER})
    assert world.datapath.apply(world.desired(after)).failed == []
    assert f"forget {world.prefix('one')}" in world.plane.log
    world.is_reached(after)


def test_flows_of_before_a_wait_are_not_led_away_meanwhile(world):
    """What they belong to waits as a part of a wider range, so that no packet that is new passes."""
    before, waiting = (("one",), {"one": HOST, "both": PEER}), (("both",), {"one": HOST, "both": HOST})
    world.datapath.apply(world.desired(before))
    world.plane.refuses_routes = FAULT
    assert world.datapath.apply(world.desired(waiting)).failed
    world.plane.refuses_routes = None
    driver = RouteDriver(world.datapath.forwarding)
    with pytest.raises(TowpathError, match="stays as it was"):
        driver.remove(world.prefix("one"))
    driver.set(world.prefix("low"), HOST)
    assert world.plane.flows


def test_what_is_left_of_a_change_leads_nothing_away(world, monkeypatch):
    """The plane has no number for one of its next hops; what does not concern the range is done."""
    before = (("one",), {"both": HOST, "all": PEER})
    after = (("one",), {"one": BLACKHOLE, "all": PEER, "two": HOST})
    world.datapath.apply(world.desired(before))
    full = ValueError("there are already 65535 adjacencies")
    monkeypatch.setattr(world.plane, "set_adjacency", lambda *_: (_ for _ in ()).throw(full))
    failed = {
        str(failure.operation): str(failure.error) for failure in world.datapath.apply(world.desired(after)).failed
    }
    assert "65535 adjacencies" in failed[f"set route {world.prefix('one')}"]
    assert "stays as it was" in failed[f"remove route {world.prefix('both')}"]
    assert world.datapath.forwarding.routes.keys() == {world.prefix(name) for name in ("both", "all", "two")}
    monkeypatch.undo()
    world.datapath.reconciler.end_pauses()
    world.datapath.repair()
    world.is_reached(after)
    users = {slot.vias: slot.users for slot in world.datapath.forwarding.slots.values()}
    assert users == {BLACKHOLE: 1, PEER: 1, HOST: 1}


def test_what_failed_beside_a_wait_that_is_over_is_said(world):
    before, after = MOVES["added with its route"]
    world.datapath.apply(world.desired(before))
    missing = TunnelPort("vxlan/192.0.2.3:4789", "vxlan", ip_address("192.0.2.3"), 4789, 1)
    world.kernel.refuse[missing.key] = OSError(13, "not permitted")
    wanted = replace(world.desired(after), tunnels=frozenset({TUNNEL, missing}))
    for _ in ("it fails", "it is still in its pause, and not tried"):
        outcome = world.datapath.apply(wanted)
    assert outcome.failed == [] and outcome.postponed == 1
    world.datapath.apply(world.desired(before))
    outcome = world.datapath.apply(wanted)
    assert [str(failure.operation) for failure in outcome.failed] == [f"set tunnel {missing.key}"]
    assert world.plane.lets_pass(world.prefix("one")[9])
    del world.kernel.refuse[missing.key]
    world.datapath.reconciler.end_pauses()
    assert world.datapath.apply(world.desired(before)).failed == []
    assert world.datapath.apply(wanted).failed == []


def test_a_range_that_waits_does_not_close_the_others(world):
    before, after = (("one",), {"one": HOST, "two": PEER}), (("one", "two"), {"one": HOST, "two": HOST})
    one, two = (world.prefix(name)[9] for name in ("one", "two"))
    world.datapath.apply(world.desired(before))
    world.plane.refuses_routes = FAULT
    world.datapath.apply(world.desired(after))
    assert world.plane.lets_pass(one) and not world.plane.lets_pass(two)
    world.plane.log.clear()
    for _ in range(3):
        world.datapath.reconciler.end_pauses()
        world.datapath.repair()
    assert "policy" not in world.plane.log, "flows that were judged need not be again"
    world.plane.refuses_routes = None
    world.datapath.reconciler.end_pauses()
    world.datapath.repair()
    world.is_reached(after)


def test_each_range_waits_for_its_own_routes(world, monkeypatch):
    before, after = ((), {"one": PEER, "two": PEER}), (("two", "one"), {"one": HOST, "two": BLACKHOLE})
    one, two = (world.prefix(name)[9] for name in ("one", "two"))
    world.datapath.apply(world.desired(before))
    world.datapath.forwarding.set_route(world.prefix("low"), HOST)  # there is an adjacency of it
    full = ValueError("there are already 65535 adjacencies")
    monkeypatch.setattr(world.plane, "set_adjacency", lambda *_: (_ for _ in ()).throw(full))
    failed = [str(failure) for failure in world.datapath.apply(world.desired(after)).failed]
    assert any(f"what goes to {world.prefix('two')} of policy.services is judged" in text for text in failed)
    assert world.plane.lets_pass(one) and not world.plane.lets_pass(two)
    monkeypatch.undo()
    world.datapath.reconciler.end_pauses()
    world.datapath.repair()
    world.is_reached(after)


def test_a_policy_of_which_the_plane_may_have_a_part_is_set_again(world):
    desired = world.desired(MOVES["removed with its route"][0])
    world.datapath.apply(desired)
    world.plane.refuses_policy = FAULT
    world.datapath.apply(replace(desired, policy=enforced(())))
    world.plane.refuses_policy = None
    world.plane.log.clear()
    world.datapath.apply(desired)
    assert "policy" in world.plane.log


TEXT = """
[node]
name = "a"
underlay = ["127.0.0.1/8"]
prefixes = ["10.1.0.0/24"]
[state]
directory = "{0}"
[host]
enabled = false
[[peers]]
name = "b"
underlay = ["127.0.0.2"]
prefixes = ["10.2.0.0/24"]
[policy]
default = "deny"
{1}
[[routes]]
prefix = "10.96.0.0/16"
via = ["{2}"]
"""


def test_a_node_that_is_reloaded_keeps_the_order(tmp_path):
    plane = WatchedPlane()
    plain = parse(TEXT.format(tmp_path, "", "b"), file="test")
    moved = parse(TEXT.format(tmp_path, 'services = ["10.96.0.0/16"]', "blackhole"), file="test")
    with Node(plain, openers=FakeKernel().openers, plane=plane) as node:
        for config, expected in ((moved, ["policy", "route", "policy"]), (plain, ["policy", "forget", "route"])):
            plane.log.clear()
            assert node.reload(config).problems == []
            found = [entry.split()[0] for entry in plane.log]
            assert [word for word in found if word in ("policy", "route", "forget")] == expected


# -- the comparison ----------------------------------------------------------------
def test_ranges_without_others():
    one, low, high, two = (ip_network(RANGES[4][name]) for name in ("one", "low", "high", "two"))
    assert without([one], [low]) == [high]
    assert without([one, two], [one]) == [two]
    assert without([low], [one]) == []
    assert without([one], [two, ip_network("fd00::/8")]) == [one]
    assert without([one], [low, high]) == []


def test_of_a_million_routes_those_that_meet_a_range_count():
    one, part, whole = ip_network("10.96.0.0/16"), ip_network("10.96.3.0/24"), ip_network("10.0.0.0/8")
    others = [ip_network("10.97.0.0/16"), ip_network("0a60::/16"), ip_network("10.64.0.0/11")]
    routes = dict.fromkeys([part, whole, *others[:2]], HOST)
    assert set(meeting(routes, [one])) == {part, whole}
    assert led_away({whole: PEER, one: HOST}, [one]) is None
    assert led_away({whole: PEER, one: HOST, part: PEER}, [one]) == part
    assert led_away({whole: PEER, part: HOST}, [one]) == whole
