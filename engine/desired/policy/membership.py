"""Which addresses belong to which sets: the classes of a snapshot, and the sets of each class.

Owns: the members of all sets in use as spans and endpoints, their grouping
into classes, and the class lists of sets that are derived from others.
Never: knows rows, blocks or groups.
Invariant: addresses are handled by numpy, whole sets at a time; Python loops
run over sets and endpoints only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.desired.policy.classes import (
    U32,
    U64,
    Indexes,
    Intervals,
    Keys,
    LaneError,
    Spans,
    cut,
    distinct,
    expand,
    group,
    keys,
)
from engine.desired.policy.model import NetworkSet
from engine.desired.policy.nets import Family, Nets
from engine.desired.policy.population import Population
from engine.desired.policy.program import Table
from engine.desired.policy.sets import OWN_NODE, Base, Derived, SetTable

VERSIONS = (4, 6)
DRAWS = 16  # of random weights, before something is wrong with them
Weights = tuple[U64, U64]
Pairs = tuple[Indexes, Indexes]
Classes = NDArray[np.int32]


def draw(random: np.random.Generator, count: int) -> U64:
    return random.integers(0, 2**64, count, np.uint64)


# -- the members of sets -----------------------------------------------------
@dataclass(slots=True)
class Members:
    """What is gathered of all sets in use, in their order."""

    first: dict[int, list[int]] = field(default_factory=lambda: {v: [] for v in VERSIONS})
    last: dict[int, list[int]] = field(default_factory=lambda: {v: [] for v in VERSIONS})
    owner: dict[int, list[int]] = field(default_factory=lambda: {v: [] for v in VERSIONS})
    network_sets: list[int] = field(default_factory=list)
    network_set_owner: list[int] = field(default_factory=list)
    endpoints: list[int] = field(default_factory=list)
    endpoints_owner: list[int] = field(default_factory=list)

    def spans(self, version: int, sets: tuple[NetworkSet, ...]) -> Spans:
        """The spans written one by one, then those of whole network sets."""
        families = [_family(sets[number], version) for number in self.network_sets]
        owners = np.repeat(np.array(self.network_set_owner, np.uint32), [len(family[0]) for family in families])
        return Spans(
            np.concatenate([keys(version, self.first[version]), *(family[0] for family in families)]),
            np.concatenate([keys(version, self.last[version]), *(family[1] for family in families)]),
            np.concatenate([np.array(self.owner[version], np.uint32), owners]),
            len(self.owner[version]),
        )

    def pairs(self) -> Pairs:
        """Endpoint and set, sorted by endpoint."""
        owners, owned = np.array(self.endpoints, np.int64), np.array(self.endpoints_owner, np.int64)
        order = np.argsort(owners, kind="stable")
        return owners[order], owned[order]


_NO_FAMILY = {v: (keys(v, ()), keys(v, ())) for v in VERSIONS}


def _family(network_set: NetworkSet, version: int) -> Family:
    nets = network_set.nets if isinstance(network_set.nets, Nets) else Nets.of(network_set.nets)
    return nets.spans.get(version, _NO_FAMILY[version])


def gather(population: Population, sets: SetTable, bases: list[int]) -> Members:
    found = Members()
    for number in bases:
        definition = sets.definitions[number]
        assert isinstance(definition, Base)
        endpoints: Sequence[int] = ()
        for part in definition.parts:
            for version, first, last in population.spans(part):
                found.first[version].append(first)
                found.last[version].append(last)
                found.owner[version].append(number)
            chosen = population.network_sets(part)
            if chosen:
                found.network_sets += chosen
                found.network_set_owner += [number] * len(chosen)
            members = population.members(part)
            endpoints = sorted({*endpoints, *members}) if endpoints and members else members or endpoints
        if endpoints:
            found.endpoints += endpoints
            found.endpoints_owner += [number] * len(endpoints)
    return found


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
    representative: dict[int, tuple[Indexes, Indexes, Indexes]]  # interval, class, owner or -1; sorted by interval

    def table(self, version: int, groups: U32) -> Table:
        start, classes = self.intervals[version].start, self.range_class[version]
        kept = np.append(True, classes[1:] != classes[:-1])
        return Table(
            self.entry_key[version], self.entry_class[version], groups, self.entry_owner[version],
            start[kept], classes[kept],
        )  # fmt: skip


def classify(population: Population, sets: SetTable, bases: list[int], random: np.random.Generator) -> Parts:
    members = gather(population, sets, bases)
    spans, pairs = {v: members.spans(v, population.snapshot.sets) for v in VERSIONS}, members.pairs()
    for _ in range(DRAWS):
        count = len(sets.definitions)
        try:
            return _classify(population, spans, pairs, (draw(random, count), draw(random, count)))
        except LaneError:
            continue
    raise AssertionError(f"{DRAWS} draws of random weights collided")


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
    entries: dict[int, tuple[Keys, U32]], label: U32, first: Indexes, lanes: Weights,
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
        interval = np.concatenate([np.arange(middle - at), intervals[v].where(entries[v][0])])[where]
        owner = np.concatenate([np.full(middle - at, -1, np.int64), entries[v][1].astype(np.int64)])[where]
        order = np.argsort(interval, kind="stable")
        representative[v] = (interval[order], mine[order], owner[order])
        at = end
    return Parts(
        weights, spans, pairs, intervals, {v: e[0] for v, e in entries.items()}, {v: e[1] for v, e in entries.items()},
        entry_class, range_class, family, (lanes[0][first], lanes[1][first]), representative,
    )  # fmt: skip


# -- the sets of each class --------------------------------------------------
def membership(parts: Parts, sets: SetTable, used: NDArray[np.bool_]) -> tuple[U32, U32]:
    """For each class the referenced sets it is in, as one list cut by offsets."""
    classes, numbers = _base_membership(parts)
    derived = [int(n) for n in np.flatnonzero(used) if isinstance(sets.definitions[n], Derived)]
    extra = _derived_membership(classes, numbers, sets, derived, len(parts.class_family)) if derived else None
    kept = used[numbers]
    classes, numbers = classes[kept], numbers[kept]
    if extra is not None:
        classes, numbers = np.concatenate([classes, extra[0]]), np.concatenate([numbers, extra[1]])
    return _sets_of_classes(classes, numbers, len(parts.class_family))


def _sets_of_classes(classes: Indexes, numbers: Indexes, count: int) -> tuple[U32, U32]:
    """Where the list of each of `count` classes begins, and the end; the lists, ascending, each set once."""
    bits = int(numbers.max(initial=0)).bit_length()
    kind = np.uint32 if count << bits <= 1 << 32 else np.int64  # half the bytes are sorted in half the time
    pairs = distinct((classes << bits | numbers).astype(kind))
    begin = np.searchsorted(pairs, (np.arange(count) << bits).astype(kind))
    return np.append(begin, len(pairs)).astype(np.uint32), (pairs & kind((1 << bits) - 1)).astype(np.uint32, copy=False)


def _classes_of_sets(classes: Indexes, numbers: Indexes, count: int) -> tuple[list[int], Classes]:
    """Where the list of each of `count` sets begins, and the end; the lists, in no order and with repetitions."""
    narrow = numbers.astype(np.uint16) if count <= 1 << 16 else numbers  # which numpy sorts without comparing
    offset = np.concatenate([[0], np.cumsum(np.bincount(numbers, minlength=count))])
    return offset.tolist(), classes[np.argsort(narrow, kind="stable")].astype(np.int32)


def _base_membership(parts: Parts) -> Pairs:
    classes, numbers = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for v in VERSIONS:
        interval, label, owner = parts.representative[v]
        spans, cuts = parts.spans[v], parts.intervals[v]
        before = np.zeros(len(cuts.start) + 1, np.int64)  # representatives before each interval
        np.cumsum(np.bincount(interval, minlength=len(cuts.start)), out=before[1:])
        low, high = before[cuts.low], before[cuts.high]
        covering = np.flatnonzero(high > low)
        which, position = expand(low[covering], high[covering])
        classes.append(label[position])
        numbers.append(spans.owner[covering[which]].astype(np.int64))
        mine = np.flatnonzero(owner >= 0)
        low = np.searchsorted(parts.pairs[0], owner[mine])
        high = np.searchsorted(parts.pairs[0], owner[mine], "right")
        which, position = expand(low, high)
        classes.append(label[mine][which])
        numbers.append(parts.pairs[1][position])
    return np.concatenate(classes), np.concatenate(numbers)


def _derived_membership(
    classes: Indexes, numbers: Indexes, sets: SetTable, derived: list[int], class_count: int
) -> Pairs:
    bounds, members = _classes_of_sets(classes, numbers, len(sets.definitions))
    scratch = np.zeros(class_count, bool)
    found = []
    for number in derived:
        definition = sets.definitions[number]
        assert isinstance(definition, Derived)
        inside, outside = (
            [members[bounds[n] : bounds[n + 1]] for n in part] for part in (definition.inside, definition.outside)
        )
        found.append(derive(inside, outside, scratch))
    return np.concatenate(found).astype(np.int64), np.repeat(np.array(derived, np.int64), list(map(len, found)))


def derive(inside: list[Classes], outside: list[Classes], scratch: NDArray[np.bool_]) -> Classes:
    """The members of a derived set from those of its parts. `scratch`, one place a class, is false before and after."""
    if not inside:
        return distinct(np.concatenate(outside))
    inside = sorted(inside, key=len)
    found = inside[0]
    for wanted, others in ((True, inside[1:]), (False, outside)):
        for members in others:
            scratch[members] = True
            found = found[scratch[found] == wanted]
            scratch[members] = False
    return found
