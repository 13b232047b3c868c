"""Synthetic routing tables in the shape of real ones, from published histograms.

Owns: how many prefixes of each length, how they nest and cluster, and next hops
with the locality of real ones. `statistics` measures what tests/bench asserts.
Never: contains a real route. The same seed gives the same table.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

V4_LENGTHS = {
    8: 16, 9: 13, 10: 38, 11: 103, 12: 299, 13: 581, 14: 1203, 15: 2100, 16: 13490, 17: 8235, 18: 13798, 19: 24870, 20: 42611,
    21: 50750, 22: 108623, 23: 96510, 24: 537698, 25: 20, 26: 3, 27: 11, 28: 18, 29: 17, 30: 3, 31: 3, 32: 886,
}  # fmt: skip
V6_LENGTHS = {
    16: 1, 19: 1, 20: 16, 21: 3, 22: 7, 23: 8, 24: 30, 25: 8, 26: 15, 27: 20, 28: 193, 29: 4371, 30: 650, 31: 284, 32: 22548, 33: 2926,
    34: 2603, 35: 1043, 36: 5996, 37: 880, 38: 1617, 39: 1377, 40: 13418, 41: 903, 42: 2301, 43: 1001, 44: 14365, 45: 1553, 46: 3039,
    47: 3153, 48: 75488, 49: 11, 50: 3, 52: 1, 55: 1, 56: 24, 58: 20, 60: 2, 64: 184, 112: 2, 122: 1, 124: 4, 125: 9, 126: 19, 127: 42,
    128: 6,
}  # fmt: skip
V4_NESTING = (0.49, 0.36, 0.11, 0.03)  # shares of prefixes inside 0, 1, 2, 3 others
V4_HEADS = 35_192  # /16s with a prefix
V4_BUSY = 25_398  # /16s with a prefix longer than /16
V4_LONG_SITES = 451  # /24s with a prefix longer than /24
V6_HEADS = {16: 60, 20: 618, 24: 7267, 32: 34317, 40: 70825, 48: 153104}  # distinct leading bits


@dataclass(frozen=True)
class Table:
    """Routes of one family, sorted: uint32 (n,) or uint64 (n, 2) addresses, uint8 lengths, uint32 next hops."""

    version: int
    addresses: NDArray[np.uint32] | NDArray[np.uint64]
    lengths: NDArray[np.uint8]
    hops: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.lengths)


def hops_at_random(n: int, rng: np.random.Generator, different: int = 255) -> NDArray[np.uint32]:
    """The worst case: neighbours have nothing in common."""
    return rng.integers(1, different + 1, n, dtype=np.uint32)


def hops_by_origin(n: int, rng: np.random.Generator, different: int = 64) -> NDArray[np.uint32]:
    """As routers have them: neighbours often share an origin, and an origin has one next hop."""
    new = rng.random(n) > 0.6
    new[0] = True
    return hops_at_random(int(new.sum()), rng, different)[np.cumsum(new) - 1]


def full_v4(seed: int = 1, scale: float = 1.0, hops: str = "random") -> Table:
    """A tier-1 table of 901,899 routes, or of `scale` times as many."""
    rng = np.random.default_rng(seed)
    heads = rng.choice(np.arange(1 << 8, 224 << 8, dtype=np.uint32), V4_HEADS, replace=False)
    weights = rng.gamma(0.8, size=V4_BUSY) + 0.03
    site = (heads[:V4_BUSY], weights / weights.sum())
    depth = np.zeros(1 << 24, np.uint8)  # how many placed prefixes cover each /24
    placed: list[NDArray[np.uint32]] = []
    for length, count in V4_LENGTHS.items():
        n = max(1, int(count * scale))
        if length <= 16:
            starts = _short(rng, heads, length, n)
        elif length <= 24:
            starts = _nested(rng, site, depth, length, n, busy_first=length == 24)
        else:
            starts = _long(rng, placed[-1] if length == 25 else _sites(placed, length), length, n)
        placed.append(starts)
        if length <= 24:
            _cover(depth, starts, length)
    return _table4(placed, rng, hops)


def _short(rng, heads, length, n):
    """Prefixes up to /16: the heads of /16s; as many of them as there are have something longer too."""
    if length == 16:  # those without anything longer first, so that every head is used
        free = np.concatenate([heads[V4_BUSY:], rng.permutation(heads[:V4_BUSY])])
        return free[:n].astype(np.uint32) << np.uint32(16)
    starts = np.unique(heads >> np.uint32(16 - length))
    return rng.permutation(starts)[:n].astype(np.uint32) << np.uint32(32 - length)


def _nested(rng, site, depth, length, n, *, busy_first):
    """n distinct prefixes in busy /16s whose nesting has the shares of V4_NESTING."""
    heads, weights = site
    wanted = [int(n * share) for share in V4_NESTING]
    chosen = np.empty(0, np.uint32)
    free_bits = length - 16
    some = heads if busy_first else heads[:0]
    for _ in range(10):
        drawn = np.concatenate([some, rng.choice(heads, 2 * n, p=weights)]).astype(np.uint32)
        some = heads[:0]
        starts = drawn << np.uint32(16) | rng.integers(0, 1 << free_bits, len(drawn), dtype=np.uint32) << np.uint32(
            32 - length
        )
        starts = np.setdiff1d(starts, chosen)
        classes = np.minimum(depth[starts >> np.uint32(8)], len(V4_NESTING) - 1)
        taken = []
        for level in range(len(V4_NESTING)):
            there = rng.permutation(starts[classes == level])[: wanted[level]]
            wanted[level] -= len(there)
            taken.append(there)
        chosen = np.concatenate([chosen, *taken])
        if sum(wanted) <= 0:
            break
    if len(chosen) < n:  # what could not be nested as wanted, anywhere
        drawn = rng.choice(heads, 4 * n).astype(np.uint32)
        starts = drawn << np.uint32(16) | rng.integers(0, 1 << free_bits, len(drawn), dtype=np.uint32) << np.uint32(
            32 - length
        )
        chosen = np.concatenate([chosen, rng.permutation(np.setdiff1d(starts, chosen))[: n - len(chosen)]])
    return chosen


def _sites(placed, length):
    return placed[24 - 8]


def _long(rng, slash24, length, n):
    """Prefixes longer than /24, in few /24s."""
    sites = slash24[:V4_LONG_SITES]
    found = np.empty(0, np.uint32)
    while len(found) < n:
        starts = rng.choice(sites, 2 * n) | rng.integers(0, 1 << (length - 24), 2 * n, dtype=np.uint32) << np.uint32(
            32 - length
        )
        found = np.union1d(found, starts)
    return rng.permutation(found)[:n].astype(np.uint32)


def _cover(depth, starts, length):
    """Count the new prefixes in every /24 they cover."""
    edges = np.zeros((1 << 24) + 1, np.int32)
    first = starts >> np.uint32(8)
    np.add.at(edges, first, 1)
    np.add.at(edges, first.astype(np.int64) + (1 << (24 - length)), -1)
    depth += np.cumsum(edges[:-1], dtype=np.int32).astype(np.uint8)


def _table4(placed, rng, hops):
    addresses = np.concatenate(placed)
    lengths = np.repeat(np.array(list(V4_LENGTHS), np.uint8), [len(p) for p in placed])
    order = np.lexsort((lengths, addresses))
    values = (hops_at_random if hops == "random" else hops_by_origin)(len(order), rng)
    return Table(4, addresses[order], lengths[order], values)


def full_v6(seed: int = 1, scale: float = 1.0, hops: str = "random") -> Table:
    """A tier-1 table of 160,147 routes, or of `scale` times as many."""
    rng = np.random.default_rng(seed)
    rows: list[tuple[int, int]] = []  # (address as an integer, length)
    boundaries = [*V6_HEADS, 128]
    pool = _first_heads(rng)
    for i, start in enumerate(boundaries[:-1]):
        end = boundaries[i + 1]
        lengths = [n for n in V6_LENGTHS if (start <= n < end if start == 16 else start < n < end) or n == end]
        fresh = _place(rng, pool, start, lengths, scale)
        rows += fresh
        if end <= 48:
            pool = _grow(rng, pool, rows, start, end, int(V6_HEADS[end] * scale) if scale < 1 else V6_HEADS[end])
    rows = sorted(set(rows))
    addresses = np.array([(a >> 64, a & 2**64 - 1) for a, _ in rows], np.uint64)
    values = (hops_at_random if hops == "random" else hops_by_origin)(len(rows), rng)
    return Table(6, addresses, np.array([n for _, n in rows], np.uint8), values)


def _first_heads(rng) -> list[int]:
    """/16s of global unicast, 2000::/4 mostly."""
    return [(0x2400 + int(i)) << 112 for i in rng.choice(0x0C10 - 0x0400 + 0x400, V6_HEADS[16] - 1, replace=False)] + [
        0x2001 << 112
    ]


def _place(rng, pool, start, lengths, scale):
    """Prefixes of the given lengths below the heads of a pool, unused heads first."""
    found: set[tuple[int, int]] = set()
    for length in lengths:
        wanted = len(found) + max(1, int(V6_LENGTHS[length] * scale))
        cursor = 0
        while len(found) < wanted:
            head = pool[cursor] if cursor < len(pool) else pool[int(len(pool) * rng.random() ** 3)]
            cursor += 1
            bits = int(rng.integers(0, 1 << min(length - start, 62))) if length > start else 0
            if length > start + 62:
                bits = bits << (length - start - 62)
            found.add((head | bits << (128 - length), length))
        rng.shuffle(pool)
    return list(found)


def _grow(rng, pool, rows, start, end, target):
    """The heads of the next boundary: those of all prefixes so far, and new ones below the old."""
    heads = {address >> (128 - end) << (128 - end) for address, _ in rows}
    cursor = 0
    parents = list(pool)
    while len(heads) < target:
        parent = parents[cursor] if cursor < len(parents) else parents[int(len(parents) * rng.random() ** 3)]
        cursor += 1
        heads.add(parent | int(rng.integers(0, 1 << (end - start))) << (128 - end))
    grown = list(heads)
    rng.shuffle(grown)
    return grown


def pods(seed: int = 1) -> Table:
    """A node of a cluster: 3,000 pod prefixes of other nodes, 500 pods of its own, infrastructure, a default route."""
    rng = np.random.default_rng(seed)
    remote = np.uint32(10 << 24) + np.arange(3000, dtype=np.uint32) * np.uint32(64)
    local = np.uint32(10 << 24 | 3 << 20) + rng.choice(2048, 500, replace=False).astype(np.uint32)
    infrastructure = np.uint32(192 << 24 | 168 << 16) + np.arange(20, dtype=np.uint32) * np.uint32(256)
    addresses = np.concatenate([remote, local, infrastructure, np.zeros(1, np.uint32)])
    lengths = np.repeat(np.array([26, 32, 24, 0], np.uint8), [3000, 500, 20, 1])
    order = np.lexsort((lengths, addresses))
    return Table(4, addresses[order], lengths[order], hops_at_random(len(order), rng, 3521))


def pods_v6(seed: int = 1) -> Table:
    """The same in IPv6, as Calico cuts a pool: blocks of /122 out of one /64."""
    rng = np.random.default_rng(seed)
    pool, default = np.uint64(0xFD80_24E2_F998_72D6), np.zeros(1, np.uint64)
    remote = np.unique(rng.integers(0, 1 << 32, 3000, dtype=np.uint64)) << np.uint64(6)
    local = remote[:8, None] + np.arange(62, dtype=np.uint64)
    infrastructure = np.uint64(0xFD00 << 48) + np.arange(20, dtype=np.uint64)
    upper = [np.full(len(remote), pool), np.full(local.size, pool), infrastructure, default]
    lower = [remote, local.ravel(), np.zeros(20, np.uint64), default]
    return _table6(upper, lower, [122, 128, 64, 0], rng)


def nodes_v6(seed: int = 1) -> Table:
    """A /64 for each of 256 nodes, as flannel and many clouds cut a network, and a default route."""
    rng = np.random.default_rng(seed)
    upper = [np.uint64(0xFD00_0010_0244_0000) + np.arange(256, dtype=np.uint64), np.zeros(1, np.uint64)]
    return _table6(upper, [np.zeros(256, np.uint64), np.zeros(1, np.uint64)], [64, 0], rng)


def _table6(upper: list[np.ndarray], lower: list[np.ndarray], lengths: list[int], rng: np.random.Generator) -> Table:
    addresses = np.stack([np.concatenate(upper), np.concatenate(lower)], axis=1)
    of_each = np.repeat(np.array(lengths, np.uint8), [len(part) for part in upper])
    order = np.lexsort((of_each, addresses[:, 1], addresses[:, 0]))
    return Table(6, addresses[order], of_each[order], hops_at_random(len(order), rng, len(order)))


def statistics(table: Table) -> dict[str, object]:
    """The figures by which a synthetic table is compared with a real one."""
    if table.version == 6:
        upper, lower = table.addresses[:, 0], table.addresses[:, 1]
        return {"routes": len(table), "longer than /64": int((table.lengths > 64).sum()),
                "heads": {n: len(np.unique(upper >> np.uint64(64 - n))) for n in V6_HEADS}, "lower": int((lower > 0).sum())}  # fmt: skip
    heads = table.addresses >> np.uint32(16)
    return {
        "routes": len(table),
        "heads": len(np.unique(heads)),
        "busy": len(np.unique(heads[table.lengths > 16])),
        "long sites": len(np.unique(table.addresses[table.lengths > 24] >> np.uint32(8))),
        "nesting": _nesting(table),
    }


def _nesting(table):
    """Shares of the prefixes that lie inside 0, 1, 2, 3 others."""
    ends: list[int] = []
    counts = [0] * 40
    for start, length in zip(table.addresses.tolist(), table.lengths.tolist(), strict=True):
        while ends and ends[-1] < start:
            ends.pop()
        counts[len(ends)] += 1
        ends.append(start + (1 << (32 - length)) - 1)
    return [count / len(table) for count in counts[:4]]
