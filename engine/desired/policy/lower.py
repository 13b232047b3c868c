"""From a policy's rules to rows: the flat form that is compiled.

Owns: what each criterion of the three languages becomes in a row.
Never: orders policies, knows groups, or computes the members of a set.
Invariant: the rows of a rule stand together and carry its number; a packet
matches the rule exactly when it matches at least one of them.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from operator import attrgetter
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.desired.policy.classes import span_of
from engine.desired.policy.model import (
    ICMP_PROTOCOLS,
    PORT_PROTOCOLS,
    Action,
    Block,
    CalicoPolicy,
    CalicoPort,
    CalicoRule,
    Direction,
    Entity,
    IcmpMatch,
    KubernetesPolicy,
    NodePeer,
    PeerRule,
    PodPeer,
    Policy,
    PortMatch,
    Service,
    Snapshot,
    UnknownPeer,
)
from engine.desired.policy.order import ACCOUNT_LABEL, ACCOUNT_PREFIX, NAMESPACE_LABEL, namespace_scope
from engine.desired.policy.selector import EVERYTHING, In, Selector, equals, every, prefixed
from engine.desired.policy.sets import ANY, OWN_NODE, Known, Listed, Literal, Named, Part, PodsIn, SetTable
from engine.model import Address, Failsafe, Prefix

SOURCE, DESTINATION, LOW, HIGH, SOURCE_LOW, SOURCE_HIGH, FAMILY, ACTION, RULE = range(9)
COLUMNS: Final = 9
IPV4, IPV6, BOTH = 1, 2, 3  # bits of FAMILY
LAST_KEY: Final = 0xFFFFFF

Rows = NDArray[np.uint32]
Range = tuple[int, int]
Row = tuple[int, int, int, int, int, int, int, int, int]
_ALL_PORTS: Final[Range] = (0, 65535)


Variant = tuple[tuple[Literal, ...], int, int]  # what an address must be for the ports from..to to count
_EVERY_PORT: Final[list[Variant]] = [((), *_ALL_PORTS)]


@dataclass(slots=True)
class Facts:
    """What lowering may ask about the cluster; `asked` makes the answer part of a cache key."""

    names: Mapping[str, tuple[tuple[int, int], ...]]  # port name -> (protocol, port), sorted
    services: Mapping[tuple[str, str], Service]
    asked: dict[tuple[str, ...], object] = field(default_factory=dict)

    def named(self, name: str) -> tuple[tuple[int, int], ...]:
        answer = self.names.get(name, ())
        self.asked["port", name] = answer
        return answer

    def service(self, namespace: str, name: str) -> Service:
        answer = self.services.get((namespace, name)) or Service(name, namespace)
        self.asked["service", namespace, name] = answer
        return answer

    def answer(self, question: tuple[str, ...]) -> object:
        """What `asked` would hold now."""
        if question[0] == "port":
            return self.names.get(question[1], ())
        return self.services.get((question[1], question[2])) or Service(question[2], question[1])


def facts_of(snapshot: Snapshot) -> Facts:
    names: dict[str, set[tuple[int, int]]] = {}
    for endpoint in snapshot.endpoints.values():
        if not endpoint.host_network:
            for port in endpoint.ports:
                names.setdefault(port.name, set()).add((port.protocol, port.port))
    return Facts({name: tuple(sorted(pairs)) for name, pairs in names.items()}, snapshot.services)


# -- policies ----------------------------------------------------------------
def lower_policy(policy: Policy, direction: Direction, sets: SetTable, facts: Facts) -> Rows:
    """Rule number 0 is the policy's own; its rules count from 1."""
    if isinstance(policy, CalicoPolicy):
        rules = policy.ingress if direction == "ingress" else policy.egress
        return as_rows(_calico_rows(rules, policy.namespace, sets, facts))
    rows: list[Row] = []
    if isinstance(policy, KubernetesPolicy) and direction == "egress":
        rows.append(_row(destination=OWN_NODE << 1, action=Action.ALLOW))
    for index, rule in enumerate(policy.ingress if direction == "ingress" else policy.egress, 1):
        rows.extend(_lower_peers(rule, policy.namespace, direction, index, sets, facts))
    return as_rows(rows)


def lower_rules(rules: Iterable[CalicoRule], sets: SetTable, facts: Facts) -> Rows:
    """A profile's rules: only Allow and Deny mean anything there."""
    return as_rows(
        row
        for index, rule in enumerate(rules, 1)
        if rule.action in (Action.ALLOW, Action.DENY)
        for row in lower_calico(rule, "", index, sets, facts)
    )


def lower_failsafes(failsafes: Iterable[Failsafe], direction: Direction, sets: SetTable) -> Rows:
    rows: list[Row] = []
    for failsafe in failsafes:
        remote = ANY if failsafe.net is None else sets.reference([((span_of(failsafe.net),), False)])
        key = failsafe.protocol << 16 | failsafe.port
        source, destination = (remote, ANY) if direction == "ingress" else (ANY, remote)
        rows.append(_row(source=source, destination=destination, low=key, high=key, action=Action.ALLOW))
    return as_rows(rows)


def lower_services(ranges: Iterable[Prefix], hosts: Iterable[Address], sets: SetTable) -> Rows:
    """What a pod sends to the address of a service is judged by the address that its host puts in its place.

    A row a range, so that each can be withheld by itself. No host puts anything in the place of a pod's or node's address, so these are none of a service. `hosts`:
    the addresses of host endpoints.
    """
    ends = (PodsIn(EVERYTHING, EVERYTHING), NodePeer(), Listed(tuple(hosts)))
    destinations = [sets.reference([((span_of(one),), False), (ends, True)]) for one in ranges]
    return as_rows(_row(destination=destination, action=Action.ALLOW) for destination in destinations)


def lower_final(action: Action) -> Rows:
    """One row that matches everything."""
    return as_rows([_row(action=action)])


def as_rows(rows: Iterable[Row]) -> Rows:
    return np.frombuffer(array("I", chain.from_iterable(rows)), np.uint32).reshape(-1, COLUMNS)


def _row(
    *, source: int = ANY, destination: int = ANY, low: int = 0, high: int = LAST_KEY, action: Action, rule: int = 0
) -> Row:
    return (source, destination, low, high, *_ALL_PORTS, BOTH, int(action), rule)


# -- the two Kubernetes languages --------------------------------------------
def _lower_peers(
    rule: PeerRule, namespace: str, direction: Direction, index: int, sets: SetTable, facts: Facts
) -> list[Row]:
    if rule.unknown or any(isinstance(peer, UnknownPeer) for peer in rule.peers or ()):
        return [] if rule.action == Action.ALLOW else [_row(action=Action.DENY, rule=index)]
    parts = () if rule.peers is None else tuple(_part(peer, namespace) for peer in rule.peers)
    peers: tuple[Literal, ...] = () if rule.peers is None else ((parts, False),)
    remote = sets.reference(peers)
    action = int(rule.action)
    rows: list[Row] = []
    for literals, low, high in _peer_ports(rule.ports, facts):
        if direction == "ingress":
            source, destination = remote, sets.reference(literals) if literals else ANY
        else:
            source, destination = ANY, sets.reference((*peers, *literals)) if literals else remote
        rows.append((source, destination, low, high, *_ALL_PORTS, BOTH, action, index))
    return rows


def _part(peer: PodPeer | Block | Part | UnknownPeer, namespace: str) -> Part:
    if isinstance(peer, PodPeer):
        return PodsIn(peer.pods, peer.namespaces, "" if peer.namespaces else namespace)
    if isinstance(peer, Block) and not peer.excepted:
        return span_of(peer.net)
    assert not isinstance(peer, UnknownPeer)
    return peer


def _peer_ports(ports: tuple[PortMatch, ...] | None, facts: Facts) -> list[Variant]:
    if ports is None:
        return [((), 0, LAST_KEY)]
    found: list[Variant] = []
    for port in ports:
        if not port.name:
            assert port.protocol is not None
            found.append(((), port.protocol << 16 | port.low, port.protocol << 16 | port.high))
            continue
        for protocol, number in facts.named(port.name):
            if port.protocol in (None, protocol):
                key = protocol << 16 | number
                found.append(((((Named(port.name, protocol, number),), False),), key, key))
    return found


# -- Calico ------------------------------------------------------------------
_ADDRESS: Final = attrgetter(
    "nets", "not_nets", "selector", "not_selector", "namespace_selector", "account_names", "account_selector", "service"
)
_ANY_ADDRESS: Final = _ADDRESS(Entity())
_PORTED: Final = frozenset(PORT_PROTOCOLS)
_FAMILIES: Final = {None: BOTH, 4: IPV4, 6: IPV6}


def _calico_rows(rules: Iterable[CalicoRule], namespace: str, sets: SetTable, facts: Facts) -> Iterator[Row]:
    """Rules of one protocol and at most one range of destination ports, which most are, take the short way."""
    for index, rule in enumerate(rules, 1):
        source, destination, protocol = rule.source, rule.destination, rule.protocol
        ports = destination.ports
        if (
            protocol not in _PORTED
            or rule.not_protocol is not None
            or destination.not_ports
            or source.ports
            or source.not_ports
            or (ports and (len(ports) > 1 or ports[0].name))
        ):
            yield from lower_calico(rule, namespace, index, sets, facts)
            continue
        here, there = _ADDRESS(source), _ADDRESS(destination)
        family = _families(rule) if here[0] or here[1] or there[0] or there[1] else _FAMILIES[rule.ip_version]
        if family:
            base = protocol << 16
            yield (
                ANY if here == _ANY_ADDRESS else sets.reference(_literals(source, namespace, facts)),
                ANY if there == _ANY_ADDRESS else sets.reference(_literals(destination, namespace, None)),
                base | ports[0].low if ports else base,
                base | ports[0].high if ports else base | 65535,
                *_ALL_PORTS,
                family,
                rule.action,
                index,
            )


def lower_calico(rule: CalicoRule, namespace: str, index: int, sets: SetTable, facts: Facts) -> list[Row]:
    """Every rule there can be."""
    family = _families(rule)
    if not family:
        return []
    source_literals = _literals(rule.source, namespace, facts)
    destination_literals = _literals(rule.destination, namespace, None)
    origin, to = sets.reference(source_literals), sets.reference(destination_literals)
    action = int(rule.action)
    keys = _keys(rule, namespace, facts)
    source_ports = _port_variants(rule.source, rule.protocol, facts)
    rows: list[Row] = []
    for literals, low, high in keys:
        there = sets.reference((*destination_literals, *literals)) if literals else to
        for more, first, last in source_ports:
            here = sets.reference((*source_literals, *more)) if more else origin
            rows.append((here, there, low, high, first, last, family, action, index))
    return rows


def _families(rule: CalicoRule) -> int:
    """The families in which the rule exists: each list must keep an entry of the family."""
    family = _FAMILIES[rule.ip_version]
    source, destination = rule.source, rule.destination
    for nets in (source.nets, source.not_nets, destination.nets, destination.not_nets):
        if nets:
            versions = {net.version for net in nets}
            family &= (IPV4 if 4 in versions else 0) | (IPV6 if 6 in versions else 0)
    return family


def _literals(entity: Entity, namespace: str, facts: Facts | None) -> tuple[Literal, ...]:
    """`facts`: where a Service on this side means its addresses alone."""
    if _ADDRESS(entity) == _ANY_ADDRESS:
        return ()
    found: list[Literal] = []
    if entity.nets:
        found.append((tuple(map(span_of, entity.nets)), False))
    if entity.not_nets:
        found.append((tuple(map(span_of, entity.not_nets)), True))
    selector = entity_selector(entity, namespace)
    if selector is not None:
        found.append(((Known(selector),), False))
    if entity.not_selector is not None:
        found.append(((Known(entity.not_selector),), True))
    if entity.service is not None and facts is not None:
        backends = facts.service(entity.service[0] or namespace, entity.service[1]).backends
        found.append(((Listed(tuple(b.address for b in backends)),), False))
    return tuple(found)


def entity_selector(entity: Entity, namespace: str) -> Selector | None:
    """All positive selectors of one side as one, over derived labels; None when there are none.

    Any selector at all, a negative one included, confines a namespaced policy
    to its own namespace.
    """
    parts: list[Selector] = []
    if entity.selector is not None:
        parts.append(entity.selector)
    if entity.account_selector is not None:
        parts.append(prefixed(entity.account_selector, ACCOUNT_PREFIX))
    if entity.account_names:
        parts.append(In(ACCOUNT_LABEL, frozenset(entity.account_names)))
    if entity.namespace_selector is not None:
        return every(namespace_scope(entity.namespace_selector), *parts)
    if namespace and (parts or entity.not_selector is not None):
        return every(equals(NAMESPACE_LABEL, namespace), *parts)
    return every(*parts) if parts else None


def _keys(rule: CalicoRule, namespace: str, facts: Facts) -> list[Variant]:
    """Protocol and destination port (or ICMP type and code) as ranges of the L4 key."""
    protocol, other = rule.protocol, rule.not_protocol
    if rule.destination.service is not None:
        return _service_keys(facts.service(rule.destination.service[0] or namespace, rule.destination.service[1]))
    if protocol is None:
        hole = (other << 16, other << 16 | 65535) if other is not None else None
        return [((), *span) for span in _without((0, LAST_KEY), hole)]
    if protocol == other:
        return []
    base = protocol << 16
    if protocol in ICMP_PROTOCOLS:
        return [((), base | low, base | high) for low, high in _icmp_ranges(rule.icmp, rule.not_icmp)]
    variants = _port_variants(rule.destination, protocol, facts)
    return [(literals, base | low, base | high) for literals, low, high in variants]


def _service_keys(service: Service) -> list[Variant]:
    addresses: dict[int, list[Part]] = {}
    for backend in service.backends:
        key = backend.protocol << 16 | (backend.port if backend.protocol in PORT_PROTOCOLS else 0)
        addresses.setdefault(key, []).append(Listed((backend.address,)))
    return [(((tuple(parts), False),), key, key) for key, parts in sorted(addresses.items())]


def _icmp_ranges(wanted: IcmpMatch | None, unwanted: IcmpMatch | None) -> list[Range]:
    span = _ALL_PORTS if wanted is None else _icmp_range(wanted)
    return _without(span, None if unwanted is None else _icmp_range(unwanted))


def _icmp_range(match: IcmpMatch) -> Range:
    if match.type is None:
        return _ALL_PORTS
    low = match.type << 8
    return (low, low | 255) if match.code is None else (low | match.code, low | match.code)


def _without(span: Range, hole: Range | None) -> list[Range]:
    if hole is None or hole[1] < span[0] or span[1] < hole[0]:
        return [span]
    parts = [(span[0], hole[0] - 1), (hole[1] + 1, span[1])]
    return [(low, high) for low, high in parts if low <= high]


def _port_variants(entity: Entity, protocol: int | None, facts: Facts) -> list[Variant]:
    if not entity.ports and not entity.not_ports:
        return _EVERY_PORT
    variants = _wanted_ports(entity.ports, protocol, facts) if entity.ports else _EVERY_PORT
    for port in entity.not_ports:
        for hole in _wanted_ports((port,), protocol, facts):
            variants = [part for variant in variants for part in _cut(variant, hole)]
    return variants


def _wanted_ports(ports: Iterable[CalicoPort], protocol: int | None, facts: Facts) -> list[Variant]:
    found: list[Variant] = []
    for port in ports:
        if not port.name:
            found.append(((), port.low, port.high))
            continue
        for number_protocol, number in facts.named(port.name):
            if number_protocol == protocol:
                found.append(((((Named(port.name, number_protocol, number),), False),), number, number))
    return found


def _cut(variant: Variant, hole: Variant) -> list[Variant]:
    """The variant without the hole; where the hole asks for an address, with its complement there."""
    literals, first, last = variant
    asked, low, high = hole
    rest: list[Variant] = [(literals, *span) for span in _without((first, last), (low, high))]
    low, high = max(first, low), min(last, high)
    if low <= high and asked:
        ((parts, _),) = asked
        rest.append(((*literals, (parts, True)), low, high))
    return rest
