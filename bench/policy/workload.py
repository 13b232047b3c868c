"""The scale workloads: one endpoint's production shape, and a hardened one.

Owns: the generation of both, seeded.
Never: measures.
Invariant: equal arguments give equal snapshots.

The production shape: 294 policies of 68 rules in one tier (10 deny, 1 allow,
the rest pass), 24.2 % of the rules naming one of 3,708 network sets whose
sizes follow the published buckets. Sizes are skewed to the lower edge of each
bucket, so that the members add up to about 256,000. All rules carry one guard
port. The hardened shape draws ports, ranges, protocols, prefixes and
negations at random and spreads overlapping policy lists over 500 endpoints.
"""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv4Network, ip_address

from engine.desired.policy.model import (
    SCTP,
    TCP,
    UDP,
    Action,
    CalicoPolicy,
    CalicoPort,
    CalicoRule,
    Connection,
    Endpoint,
    Entity,
    Namespace,
    NetworkSet,
    Snapshot,
)
from engine.desired.policy.nets import Nets
from engine.desired.policy.selector import In, equals

POLICIES = 294
RULES = 68
SHARE_WITH_SET = 0.242
BUCKETS = ((4, 0, 0), (3035, 1, 9), (446, 10, 99), (64, 100, 999), (158, 1000, 9999), (1, 54_566, 54_566))
PROBE = Connection(ip_address("192.0.2.10"), ip_address("198.51.100.20"), TCP, 8080, 45_000)
POD = ip_address("192.0.2.10")
GUARD = (CalicoPort(65_000, 65_000),)


def production(seed: int = 1) -> Snapshot:
    """One pod at the probe's source, 19,992 egress rules, no rule matching the probe."""
    draw = random.Random(seed)
    sets = _sets(draw)
    actions = _actions(draw)
    policies = []
    for number in range(POLICIES):
        rules = tuple(_guarded_rule(draw, next(actions), len(sets)) for _ in range(RULES))
        policies.append(_policy(number, equals("app", "web"), (), rules))
    pod = Endpoint("web", "default", {"app": "web"}, (POD,))
    return Snapshot(
        namespaces={"default": Namespace("default")}, endpoints={pod.key: pod}, sets=sets, policies=tuple(policies)
    )


def hardened(seed: int = 1, endpoints: int = 500) -> Snapshot:
    """As many rules and sets, nothing alike, both directions, endpoints with overlapping policy lists."""
    draw = random.Random(seed)
    sets = _sets(draw)
    actions = _actions(draw)
    policies = []
    for number in range(POLICIES):
        rules = tuple(_hard_rule(draw, next(actions), len(sets)) for _ in range(RULES))
        half = RULES // 2
        values = frozenset(f"g{draw.randrange(60)}" for _ in range(draw.randint(1, 12)))
        policies.append(_policy(number, In("group", values), rules[:half], rules[half:]))
    pods = {}
    for number in range(endpoints):
        address = IPv4Address("172.16.0.0") + number
        labels = {"group": f"g{draw.randrange(60)}", "app": f"a{draw.randrange(20)}", "env": f"e{draw.randrange(4)}"}
        pod = Endpoint(f"p{number}", f"n{number % 10}", labels, (address,))
        pods[pod.key] = pod
    namespaces = {f"n{i}": Namespace(f"n{i}") for i in range(10)}
    return Snapshot(namespaces=namespaces, endpoints=pods, sets=sets, policies=tuple(policies))


def members(snapshot: Snapshot) -> int:
    return sum(len(network_set.nets) for network_set in snapshot.sets)


def _sets(draw: random.Random) -> tuple[NetworkSet, ...]:
    sizes = [low + int((high - low) * draw.random() ** 50) for count, low, high in BUCKETS for _ in range(count)]
    draw.shuffle(sizes)
    return tuple(NetworkSet(f"s{i}", "", {"set": f"s{i}"}, _hosts(draw, size)) for i, size in enumerate(sizes))


def _hosts(draw: random.Random, size: int) -> Nets:
    return Nets.parse([str(IPv4Address(0x0A000000 | number)) for number in draw.sample(range(1 << 24), size)])


def _actions(draw: random.Random):
    actions = [Action.DENY] * 10 + [Action.ALLOW] + [Action.PASS] * (POLICIES * RULES - 11)
    draw.shuffle(actions)
    return iter(actions)


def _policy(number: int, selector: In, ingress: tuple[CalicoRule, ...], egress: tuple[CalicoRule, ...]) -> CalicoPolicy:
    types = frozenset(("ingress", "egress") if ingress else ("egress",))
    return CalicoPolicy(
        f"p{number}", "", order=float(number), selector=selector, types=types, ingress=ingress, egress=egress,
        kind="GlobalNetworkPolicy",
    )  # fmt: skip


def _guarded_rule(draw: random.Random, action: Action, sets: int) -> CalicoRule:
    named = equals("set", f"s{draw.randrange(sets)}") if draw.random() < SHARE_WITH_SET else None
    return CalicoRule(action, protocol=TCP, destination=Entity(selector=named, ports=GUARD))


def _hard_rule(draw: random.Random, action: Action, sets: int) -> CalicoRule:
    protocol = draw.choice((TCP, TCP, UDP, SCTP))
    low = draw.randrange(65_536)
    ports = (CalicoPort(low, min(65_535, low + draw.choice((0, 0, 9, 200)))),)
    return CalicoRule(
        action, protocol=protocol, source=_hard_side(draw, sets, ()), destination=_hard_side(draw, sets, ports)
    )


def _hard_side(draw: random.Random, sets: int, ports: tuple[CalicoPort, ...]) -> Entity:
    named = equals("set", f"s{draw.randrange(sets)}") if draw.random() < SHARE_WITH_SET / 2 else None
    negated = equals("app", f"a{draw.randrange(20)}") if draw.random() < 0.05 else None
    nets = (_net(draw),) if draw.random() < 0.15 else ()
    not_nets = (_net(draw),) if draw.random() < 0.05 else ()
    return Entity(nets=nets, not_nets=not_nets, selector=named, not_selector=negated, ports=ports)


def _net(draw: random.Random) -> IPv4Network:
    length = draw.randint(8, 32)
    number = (draw.choice((0x0A, 0xAC, 0xC0)) << 24 | draw.randrange(1 << 24)) >> (32 - length) << (32 - length)
    return IPv4Network((number, length))
