"""Which addresses belong to which sets: the classes of a snapshot, and the sets of each class.

Owns: the members of all sets in use as spans and endpoints, their grouping
into classes, and the class lists of sets that are derived from others.
Never: knows rows, blocks or groups.
Invariant: addresses are handled by numpy, whole sets at a time; Python loops
run over sets and endpoints only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from engine.desired.policy.classes import (
    U32,
    U64,
    Intervals,
    Keys,
    LaneError,
    Span,
    Spans,
    cut,
    distinct,
    expand,
    group,
    keys,
)
from engine.desired.policy.index import numbers_of
from engine.desired.policy.model import NetworkSet
from engine.desired.policy.population import Population
from engine.desired.policy.program import Table
from engine.desired.policy.sets import OWN_NODE, Base, Derived, SetTable

VERSIONS = (4, 6)
_NETWORK = attrgetter("network_address")
_LENGTH = attrgetter("prefixlen")
Weights = tuple[U64, U64]
Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]


# -- network sets ------------------------------------------------------------
@dataclass(slots=True)
class SpanCache:
    """The spans of network sets, kept while the set stays the same object."""

    kept: dict[tuple[str, str], tuple[NetworkSet, dict[int, tuple[Keys, Keys]]]] = field(default_factory=dict)

    def spans(self, network_set: NetworkSet, number: int) -> dict[int, Spans]:
        key = (network_set.namespace, network_set.name)
        found = self.kept.get(key)
        if found is None or found[0] is not network_set:
            found = self.kept[key] = (network_set, _pack(network_set))
        return {v: Spans(first, last, np.full(len(first), number, np.uint32)) for v, (first, last) in found[1].items()}


def _pack(network_set: NetworkSet) -> dict[int, tuple[Keys, Keys]]:
    packed: dict[int, tuple[Keys, Keys]] = {}
    four = [net for net in network_set.nets if isinstance(net, IPv4Network)]
    if four:
        first = np.fromiter(map(int, map(_NETWORK, four)), np.uint32, len(four))
        length = np.fromiter(map(_LENGTH, four), np.uint64, len(four))
        packed[4] = (first, first | ((np.uint64(1) << (np.uint64(32) - length)) - np.uint64(1)).astype(np.uint32))
    if len(four) < len(network_set.nets):
        six = [net for net in network_set.nets if not isinstance(net, IPv4Network)]
        packed[6] = (
            keys(6, [int(net.network_address) for net in six]),
            keys(6, [int(net.broadcast_address) for net in six]),
        )
    return packed


def draw(random: np.random.Generator, count: int) -> U64:
    return random.integers(0, 2**64, count, np.uint64)


# -- classes -----------------------------------------------------------------
@dataclass(slots=True)
class Parts:
    """How addresses fell into classes, before sets are listed for each class."""

    weights: Weights
    spans: dict[int, Spans]
    pairs: Pairs  # endpoint, base set; sorted by endpoint
    intervals: dict[int, Intervals]
    entry_key: dict[int, Keys]
    entry_owner: dict[int, U32]
    entry_class: dict[int, U32]
    range_class: dict[int, U32]
    class_family: NDArray[np.uint8]
    class_lanes: Weights
    representative: dict[int, tuple[Keys, NDArray[np.int64], NDArray[np.int64]]]  # key, class, owner or -1

    def table(self, version: int, groups: U32) -> Table:
        start, classes = self.intervals[version].start, self.range_class[version]
        kept = np.append(True, classes[1:] != classes[:-1])
        return Table(
            self.entry_key[version], self.entry_class[version], groups, self.entry_owner[version],
            start[kept], classes[kept],
        )  # fmt: skip


def classify(
    population: Population, sets: SetTable, bases: list[int], cache: SpanCache, random: np.random.Generator
) -> Parts:
    spans, pairs = _members(population, sets, bases, cache)
    for _ in range(3):
        count = len(sets.definitions)
        try:
            return _classify(population, spans, pairs, (draw(random, count), draw(random, count)))
        except LaneError:
            continue
    raise AssertionError("three draws of random weights collided")


def _members(
    population: Population, sets: SetTable, bases: list[int], cache: SpanCache
) -> tuple[dict[int, Spans], Pairs]:
    """Every base set's spans, and its endpoints as pairs."""
    listed: dict[int, tuple[list[Span], list[int]]] = {v: ([], []) for v in VERSIONS}
    packed: dict[int, list[Spans]] = {v: [] for v in VERSIONS}
    endpoints: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
    counts: list[int] = []
    for number in bases:
        definition = sets.definitions[number]
        assert isinstance(definition, Base)
        for part in definition.parts:
            for version, found in population.spans(part).items():
                listed[version][0].extend(found)
                listed[version][1].extend([number] * len(found))
            for which in numbers_of(population.network_sets(part)):
                for version, spans in cache.spans(population.snapshot.sets[which], number).items():
                    packed[version].append(spans)
        endpoints.append(numbers_of(population.endpoint_bits(definition.parts)))
        counts.append(len(endpoints[-1]))
    owners, owned = np.concatenate(endpoints), np.repeat(np.array(bases, np.int64), counts)
    order = np.lexsort((owned, owners))
    joined = {v: Spans.join(v, [Spans.of(v, *listed[v]), *packed[v]]) for v in VERSIONS}
    return joined, (owners[order], owned[order])


def _classify(population: Population, spans: dict[int, Spans], pairs: Pairs, weights: Weights) -> Parts:
    gains = [np.zeros(len(population.endpoints), np.uint64) for _ in weights]
    for gain, weight in zip(gains, weights, strict=True):
        np.add.at(gain, pairs[0], weight[pairs[1]])
    intervals = {v: cut(v, spans[v], weights) for v in VERSIONS}
    entries = {v: _entries(population, v) for v in VERSIONS}
    lanes: list[U64] = []
    for lane, (gain, weight) in enumerate(zip(gains, weights, strict=True)):
        pieces = []
        for v in VERSIONS:
            family = weight[OWN_NODE] if v == 6 else np.uint64(0)  # set 1 has no members of its own
            pieces.append(intervals[v].lanes[lane] + family)
            pieces.append(intervals[v].at(entries[v][0])[lane] + gain[entries[v][1]] + family)
        lanes.append(np.concatenate(pieces))
    grouping = group((lanes[0], lanes[1]))
    return _as_parts(weights, spans, pairs, intervals, entries, grouping.label, grouping.first, (lanes[0], lanes[1]))


def _entries(population: Population, version: int) -> tuple[Keys, U32]:
    """Endpoint addresses of one family, sorted; of two claimants the first by name has it."""
    listed = [(int(a), n) for n, e in enumerate(population.endpoints) for a in e.addresses if a.version == version]
    found = keys(version, [address for address, _ in listed])
    unique, first = np.unique(found, return_index=True)
    return unique, np.array([n for _, n in listed], np.uint32)[first]


def _as_parts(
    weights: Weights, spans: dict[int, Spans], pairs: Pairs, intervals: dict[int, Intervals],
    entries: dict[int, tuple[Keys, U32]], label: U32, first: NDArray[np.int64], lanes: Weights,
) -> Parts:  # fmt: skip
    at = 0
    range_class, entry_class = {}, {}
    family = np.zeros(len(first), np.uint8)
    representative = {}
    for v in VERSIONS:
        middle, end = at + len(intervals[v].start), at + len(intervals[v].start) + len(entries[v][0])
        range_class[v], entry_class[v] = label[at:middle], label[middle:end]
        mine = np.flatnonzero((first >= at) & (first < end))
        family[mine] = v
        where = first[mine] - at
        key = np.concatenate([intervals[v].start, entries[v][0]])[where]
        owner = np.concatenate([np.full(middle - at, -1, np.int64), entries[v][1].astype(np.int64)])[where]
        order = np.argsort(key)
        representative[v] = (key[order], mine[order], owner[order])
        at = end
    return Parts(
        weights, spans, pairs, intervals, {v: e[0] for v, e in entries.items()}, {v: e[1] for v, e in entries.items()},
        entry_class, range_class, family, (lanes[0][first], lanes[1][first]), representative,
    )  # fmt: skip


# -- the sets of each class --------------------------------------------------
def membership(parts: Parts, sets: SetTable, used: NDArray[np.bool_]) -> tuple[U32, U32]:
    """For each class the referenced sets it is in, as one list cut by offsets."""
    classes, numbers = _base_membership(parts)
    count = len(sets.definitions)
    derived = [int(n) for n in np.flatnonzero(used) if isinstance(sets.definitions[n], Derived)]
    if derived:
        extra = _derived_membership(classes, numbers, sets, derived, len(parts.class_family))
        classes, numbers = np.concatenate([classes, extra[0]]), np.concatenate([numbers, extra[1]])
    kept = used[numbers]
    pairs = distinct(classes[kept] * count + numbers[kept])
    offset = np.searchsorted(pairs, np.arange(len(parts.class_family) + 1) * count)
    return offset.astype(np.uint32), (pairs % count).astype(np.uint32)


def _base_membership(parts: Parts) -> Pairs:
    classes, numbers = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for v in VERSIONS:
        key, label, owner = parts.representative[v]
        spans = parts.spans[v]
        which, position = expand(np.searchsorted(key, spans.first), np.searchsorted(key, spans.last, "right"))
        classes.append(label[position])
        numbers.append(spans.owner[which].astype(np.int64))
        mine = np.flatnonzero(owner >= 0)
        low = np.searchsorted(parts.pairs[0], owner[mine])
        high = np.searchsorted(parts.pairs[0], owner[mine], "right")
        which, position = expand(low, high)
        classes.append(label[mine][which])
        numbers.append(parts.pairs[1][position])
    return np.concatenate(classes), np.concatenate(numbers)


def _derived_membership(
    classes: NDArray[np.int64], numbers: NDArray[np.int64], sets: SetTable, derived: list[int], class_count: int
) -> Pairs:
    pairs = distinct(numbers * class_count + classes)
    bounds = np.searchsorted(pairs, np.arange(len(sets.definitions) + 1) * class_count)
    members = pairs % class_count
    found = []
    for number in derived:
        definition = sets.definitions[number]
        assert isinstance(definition, Derived)
        inside, outside = (
            [members[bounds[n] : bounds[n + 1]] for n in part] for part in (definition.inside, definition.outside)
        )
        found.append(derive(inside, outside))
    return np.concatenate(found), np.repeat(np.array(derived, np.int64), [len(f) for f in found])


def derive(inside: list[NDArray[np.int64]], outside: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """The members of a derived set from those of its parts."""
    if not inside:
        return distinct(np.concatenate(outside))
    found = inside[0]
    for members in inside[1:]:
        found = np.intersect1d(found, members, assume_unique=True)
    for members in outside:
        found = np.setdiff1d(found, members, assume_unique=True)
    return found
