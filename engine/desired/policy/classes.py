"""Equivalence classes: addresses that no rule can tell apart, and L4 keys likewise.

Owns: the arithmetic that finds them in one pass over all prefixes and ports.
Never: knows rules or policies; it sees numbered sets.
Invariant: two addresses share a class only if they are in exactly the same
sets. Signatures are sums of secret random numbers, one for each membership,
kept in two independent lanes; a disagreement of the lanes redraws them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engine.desired.policy.model import ICMP_PROTOCOLS, PORT_PROTOCOLS, Block
from engine.model import Address

U16 = NDArray[np.uint16]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]
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


Span = tuple[int, int]  # first and last address, as numbers


def block_spans(block: Block) -> list[Span]:
    """The addresses of a prefix without its exceptions, as disjoint ascending spans."""
    spans = [(int(block.net.network_address), int(block.net.broadcast_address))]
    for net in block.excepted:
        low, high = int(net.network_address), int(net.broadcast_address)
        spans = [
            part
            for first, last in spans
            for part in ((first, min(last, low - 1)), (max(first, high + 1), last))
            if part[0] <= part[1]
        ]
    return sorted(set(spans))


@dataclass(frozen=True, slots=True)
class Spans:
    """Spans of one family with the number of the set each belongs to."""

    first: Keys
    last: Keys
    owner: U32

    @classmethod
    def of(cls, version: int, spans: Sequence[Span], owners: Sequence[int]) -> Spans:
        return cls(
            keys(version, [span[0] for span in spans]),
            keys(version, [span[1] for span in spans]),
            np.array(owners, np.uint32),
        )

    @classmethod
    def join(cls, version: int, parts: Sequence[Spans]) -> Spans:
        if not parts:
            return cls.of(version, (), ())
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("first", "last", "owner")))


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
    """The line of all addresses cut where membership changes, with two lanes of signature."""

    start: Keys
    lanes: tuple[U64, U64]

    def at(self, addresses: Keys) -> tuple[U64, U64]:
        where = np.searchsorted(self.start, addresses, "right") - 1
        return self.lanes[0][where], self.lanes[1][where]


def cut(version: int, spans: Spans, weights: tuple[U64, U64]) -> Intervals:
    """`weights`: two random numbers for each set."""
    after, exists = _after(version, spans.last)
    bounds = np.concatenate([keys(version, [0]), spans.first, after])
    order = np.argsort(bounds)
    bounds = bounds[order]
    ends = np.append(bounds[1:] != bounds[:-1], True)
    lanes = []
    for weight in weights:
        gain = weight[spans.owner]
        steps = np.concatenate([np.zeros(1, np.uint64), gain, np.uint64(0) - gain[exists]])
        lanes.append(np.cumsum(steps[order], dtype=np.uint64)[ends])
    return Intervals(bounds[ends], (lanes[0], lanes[1]))


# -- grouping equal signatures -----------------------------------------------
@dataclass(frozen=True, slots=True)
class Grouping:
    """`label[i]`: the class of item i; `first[c]`: the first item of class c. Ordered by first item."""

    label: U32
    first: NDArray[np.int64]


class LaneError(Exception):
    """Two different signatures agreed in one lane: draw new weights."""


def group(lanes: tuple[U64, U64]) -> Grouping:
    _, first, inverse = np.unique(lanes[0], return_index=True, return_inverse=True)
    if not np.array_equal(lanes[1], lanes[1][first][inverse]):
        raise LaneError
    order = np.argsort(first)
    rank = np.empty(len(order), np.uint32)
    rank[order] = np.arange(len(order), dtype=np.uint32)
    return Grouping(rank[inverse], first[order])


def distinct(values: NDArray[Any]) -> NDArray[Any]:
    """Sorted, without repetitions. By sorting: a hash of such regular numbers collides."""
    ordered = np.sort(values)
    return ordered[np.append(ordered[1:] != ordered[:-1], True)] if len(ordered) else ordered


def expand(first: NDArray[np.int64], last: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
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
            steps = np.zeros(65537, np.uint64)
            np.add.at(steps, first, weight)
            np.subtract.at(steps, after, weight)
            sums = np.cumsum(steps[:65536], dtype=np.uint64)
            _, inverse = np.unique(sums, return_inverse=True)
            table[number] = inverse
            count.append(int(inverse.max()) + 1)
        return cls(slot, table, tuple(count))


def source_classes(low: U32, high: U32, random: np.random.Generator) -> U16:
    """Classes of source ports, whatever the protocol."""
    spans = distinct(low.astype(np.int64) << 16 | high)
    weight = random.integers(0, 2**64, len(spans), np.uint64)
    steps = np.zeros(65537, np.uint64)
    np.add.at(steps, spans >> 16, weight)
    np.subtract.at(steps, (spans & 65535) + 1, weight)
    _, inverse = np.unique(np.cumsum(steps[:65536], dtype=np.uint64), return_inverse=True)
    return inverse.astype(np.uint16)
