"""Equivalence classes: addresses that no rule can tell apart, and L4 keys likewise.

Owns: the arithmetic that finds them in one pass over all prefixes and ports.
Never: knows rules or policies; it sees numbered sets.
Invariant: two addresses share a class only if they are in exactly the same
sets. Signatures are sums of secret random numbers, one for each membership,
kept in two independent lanes; a disagreement of the lanes redraws them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.desired.policy.model import ICMP_PROTOCOLS, PORT_PROTOCOLS, Block
from engine.model import Address, Prefix

U16 = NDArray[np.uint16]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]
Indexes = NDArray[np.int64]
Keys = NDArray[Any]  # addresses of one family: uint32, or 16 bytes in network order

WIDTH: Final = {4: 32, 6: 128}
DTYPE: Final = {4: np.dtype(np.uint32), 6: np.dtype("S16")}


# -- address arithmetic ------------------------------------------------------
def address_key(version: int, number: int) -> Any:
    return number if version == 4 else number.to_bytes(16, "big")


def keys(version: int, numbers: Sequence[int]) -> Keys:
    """Addresses as an array that sorts in address order."""
    if version == 4:
        return np.array(numbers, np.uint32)
    return np.array([number.to_bytes(16, "big") for number in numbers], DTYPE[6])


def key_of(address: Address) -> Keys:
    return keys(address.version, [int(address)])


def address_of(version: int, key: Any) -> Address:
    return IPv4Address(int(key)) if version == 4 else IPv6Address(bytes(key).ljust(16, b"\0"))


class Span(NamedTuple):
    """Neighbouring addresses, as numbers. A tuple, since compiling hashes it more than anything else."""

    version: int
    first: int
    last: int


def span_of(net: Prefix) -> Span:
    first = int(net.network_address)
    return Span(net.version, first, first | ((1 << (net.max_prefixlen - net.prefixlen)) - 1))


def block_spans(block: Block) -> list[Span]:
    """The addresses of a prefix without its exceptions, as disjoint ascending spans."""
    spans = [span_of(block.net)]
    for net in block.excepted:
        _, low, high = span_of(net)
        spans = [
            part
            for version, first, last in spans
            for part in (Span(version, first, min(last, low - 1)), Span(version, max(first, high + 1), last))
            if part.first <= part.last
        ]
    return sorted(set(spans))


_SIDES: Final[tuple[Literal["left", "right"], ...]] = ("left", "right")


@dataclass(frozen=True, slots=True)
class Spans:
    """Spans of one family with the number of the set each belongs to: two runs, each ascending by owner."""

    first: Keys
    last: Keys
    owner: U32
    run: int  # where the second run begins

    def around(self, address: Keys, owners: Iterable[int]) -> set[int]:
        """Those of `owners` that have a span around the address."""
        asked = np.fromiter(owners, np.uint32)
        found: set[int] = set()
        for begin, end in ((0, self.run), (self.run, len(self.owner))):
            low, high = (begin + np.searchsorted(self.owner[begin:end], asked, side) for side in _SIDES)
            which, position = expand(low, high)
            holding = (self.first[position] <= address) & (self.last[position] >= address)
            found.update(asked[which[holding]].tolist())
        return found


def _after(version: int, last: Keys) -> tuple[Keys, NDArray[np.bool_]]:
    """The address after each, and which of them exist."""
    if version == 4:
        exists = last != np.uint32(0xFFFFFFFF)
        return (last + np.uint32(1))[exists], exists
    numbers = [int.from_bytes(bytes(key).ljust(16, b"\0"), "big") + 1 for key in last]
    exists = np.array([number >> 128 == 0 for number in numbers], bool)
    return keys(6, [number for number in numbers if number >> 128 == 0]), exists


@dataclass(frozen=True, slots=True)
class Intervals:
    """The line of all addresses cut where membership changes, with two lanes of signature.

    `low[i]`, `high[i]`: span i covers the intervals from `low` up to, but not with, `high`.
    """

    start: Keys
    lanes: tuple[U64, U64]
    low: Indexes
    high: Indexes

    def where(self, addresses: Keys) -> Indexes:
        return np.searchsorted(self.start, addresses, "right") - 1

    def at(self, addresses: Keys) -> tuple[U64, U64]:
        where = self.where(addresses)
        return self.lanes[0][where], self.lanes[1][where]


def cut(version: int, spans: Spans, weights: tuple[U64, U64]) -> Intervals:
    """`weights`: two random numbers for each set."""
    after, exists = _after(version, spans.last)
    bounds = np.concatenate([keys(version, [0]), spans.first, after])
    order = _order(version, bounds)
    bounds = bounds[order]
    begins = np.append(True, bounds[1:] != bounds[:-1])
    ends = np.append(begins[1:], True)
    lanes = []
    for weight in weights:
        gain = weight[spans.owner]
        steps = np.concatenate([np.zeros(1, np.uint64), gain, np.uint64(0) - gain[exists]])
        lanes.append(np.cumsum(steps[order], dtype=np.uint64)[ends])
    interval = np.empty(len(order), np.int64)
    interval[order] = np.cumsum(begins) - 1
    high = np.full(len(exists), int(begins.sum()))
    high[exists] = interval[1 + len(exists) :]
    return Intervals(bounds[ends], (lanes[0], lanes[1]), interval[1 : 1 + len(exists)], high)


def _order(version: int, bounds: Keys) -> Indexes:
    """As argsort. Numbers with their place in the lower half are sorted several times faster."""
    if version == 6:
        return np.argsort(bounds)
    packed = bounds.astype(np.uint64) << np.uint64(32) | np.arange(len(bounds), dtype=np.uint64)
    return (np.sort(packed) & np.uint64(0xFFFFFFFF)).astype(np.int64)


# -- grouping equal signatures -----------------------------------------------
@dataclass(frozen=True, slots=True)
class Grouping:
    """`label[i]`: the class of item i; `first[c]`: the first item of class c. Ordered by first item."""

    label: U32
    first: Indexes


class LaneError(Exception):
    """Two different signatures agreed where they should not: draw new weights."""


MANY: Final = 1 << 20  # items beyond which too few bits are left for `_packed_order`


def group(lanes: tuple[U64, U64]) -> Grouping:
    count = len(lanes[0])
    item = _packed_order(lanes[0]) if count <= MANY else np.argsort(lanes[0], kind="stable")
    first, second = lanes[0][item], lanes[1][item]
    begins = np.append(True, first[1:] != first[:-1])
    if (second[1:] != second[:-1])[~begins[1:]].any():
        raise LaneError
    is_first = np.zeros(count, bool)
    is_first[item[begins]] = True
    rank = np.cumsum(is_first) - 1
    label = np.empty(count, np.uint32)
    label[item] = rank[item[begins]][np.cumsum(begins) - 1]
    return Grouping(label, np.flatnonzero(is_first))


def _packed_order(lane: U64) -> Indexes:
    """As a stable argsort, but by the upper bits: sums of random numbers differ there, or new ones are drawn."""
    places = np.uint64((1 << len(lane).bit_length()) - 1)
    ordered = np.sort(lane & ~places | np.arange(len(lane), dtype=np.uint64))
    item = (ordered & places).astype(np.int64)
    upper, sums = ordered & ~places, lane[item]
    if ((upper[1:] == upper[:-1]) & (sums[1:] != sums[:-1])).any():
        raise LaneError
    return item


def distinct(values: NDArray[Any]) -> NDArray[Any]:
    """Sorted, without repetitions. By sorting: a hash of such regular numbers collides."""
    ordered = np.sort(values)
    return ordered[np.append(ordered[1:] != ordered[:-1], True)] if len(ordered) else ordered


def expand(first: Indexes, last: Indexes) -> tuple[Indexes, Indexes]:
    """For half-open ranges: which range, and which position, for every position of every range."""
    count = np.maximum(last - first, 0)
    which = np.repeat(np.arange(len(first)), count)
    offset = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
    return which, first[which] + offset


# -- L4 keys -----------------------------------------------------------------
SLOT_PROTOCOLS: Final = (*PORT_PROTOCOLS, *ICMP_PROTOCOLS)


@dataclass(frozen=True, slots=True)
class L4Classes:
    """Per protocol with ports (or ICMP types): a table from port to class; per other protocol one class.

    `slot[p]`: row of `table` for protocol p, 255 when it has none.
    """

    slot: NDArray[np.uint8]
    table: U16
    count: tuple[int, ...]  # classes in each slot

    @classmethod
    def of(cls, low: U32, high: U32, weight: U64) -> L4Classes:
        """`low`, `high`: the distinct key ranges that rows use (protocol * 65536 + port)."""
        slot = np.full(256, 255, np.uint8)
        table = np.zeros((len(SLOT_PROTOCOLS), 65536), np.uint16)
        count = []
        for number, protocol in enumerate(SLOT_PROTOCOLS):
            slot[protocol] = number
            base = np.int64(protocol << 16)
            first = np.clip(low.astype(np.int64) - base, 0, 65536)
            after = np.clip(high.astype(np.int64) - base + 1, 0, 65536)
            table[number] = port_classes(first, after, weight)
            count.append(int(table[number].max()) + 1)
        return cls(slot, table, tuple(count))


def source_classes(low: U32, high: U32, random: np.random.Generator) -> U16:
    """Classes of source ports, whatever the protocol."""
    spans = distinct(low.astype(np.int64) << 16 | high)
    weight = random.integers(0, 2**64, len(spans), np.uint64)
    return port_classes(spans >> 16, (spans & 65535) + 1, weight)


def port_classes(first: Indexes, after: Indexes, weight: U64) -> U16:
    """The class of each of 65,536 ports, given half-open ranges: as many as there are sums where sums can change."""
    steps = np.zeros(65537, np.uint64)
    np.add.at(steps, first, weight)
    np.subtract.at(steps, after, weight)
    changes = np.flatnonzero(steps[1:65536]) + 1
    sums = np.cumsum(np.append(steps[0], steps[changes]), dtype=np.uint64)
    _, inverse = np.unique(sums, return_inverse=True)
    return np.repeat(inverse.astype(np.uint16), np.diff(np.concatenate(([0], changes, [65536]))))
