"""The addresses of the traffic patterns, for a table of either family.

Owns: patterns 1 to 5, 7 and 8 as arrays; 6 (dependent) and 9 (under updates) are ways to ask them.
Never: looks anything up.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bench.lookup.tables import Table

N = 1 << 20


def hosts(table: Table, rng: np.random.Generator, n: int = N) -> np.ndarray:
    """A random host in a random prefix."""
    i = rng.integers(0, len(table), n)
    lengths = table.lengths[i].astype(np.int64)
    if table.version == 4:
        free = (np.uint64(1) << (32 - lengths).astype(np.uint64)) - np.uint64(1)
        return table.addresses[i] | (rng.integers(0, 2**32, n, dtype=np.uint64) & free).astype(np.uint32)
    every = np.uint64(2**64 - 1)
    upper = np.where(lengths >= 64, 0, every >> np.minimum(lengths, 63).astype(np.uint64)).astype(np.uint64)
    lower = np.where(
        lengths <= 64, every, np.where(lengths == 128, 0, every >> np.clip(lengths - 64, 0, 63).astype(np.uint64))
    )
    noise = rng.integers(0, 2**64, (n, 2), dtype=np.uint64)
    return table.addresses[i] | (noise & np.stack([upper, lower.astype(np.uint64)], axis=1))


def uniform(table: Table, rng: np.random.Generator) -> np.ndarray:
    if table.version == 4:
        return rng.integers(0, 2**32, N, dtype=np.uint32)
    keys = rng.integers(0, 2**64, (N, 2), dtype=np.uint64)
    keys[:, 0] = keys[:, 0] >> np.uint64(3) | np.uint64(1 << 61)
    return keys


def repeated(table: Table, rng: np.random.Generator) -> np.ndarray:
    return np.repeat(hosts(table, rng, N // 16), 16, axis=0)


def sequential(table: Table, rng: np.random.Generator) -> np.ndarray:
    """A scan upwards from the middle of the table, an address at a time (IPv6: a /64 at a time)."""
    start = table.addresses[len(table) // 2]
    if table.version == 4:
        return (np.arange(N, dtype=np.uint64) + np.uint64(start)).astype(np.uint32)
    return np.stack([start[0] + np.arange(N, dtype=np.uint64), np.zeros(N, np.uint64)], axis=1)


def zipf(table: Table, rng: np.random.Generator) -> np.ndarray:
    """Skew 1.1 over 65,536 in-table hosts."""
    some = hosts(table, rng, 65536)
    shares = 1 / np.arange(1, 65537) ** 1.1
    return some[rng.choice(65536, N, p=shares / shares.sum())]


def all_miss(table: Table, rng: np.random.Generator) -> np.ndarray:
    """Addresses the table has nothing for but a default route."""
    if table.version == 4:
        return rng.integers(240 << 24, 2**32, N, dtype=np.uint64).astype(np.uint32)
    return np.stack(
        [rng.integers(0xFC << 56, 0xFE << 56, N, dtype=np.uint64), rng.integers(0, 2**64, N, dtype=np.uint64)], axis=1
    )


def deepest(table: Table, rng: np.random.Generator) -> np.ndarray:
    """Hosts in and beside the longest prefixes."""
    longest = np.argsort(table.lengths, kind="stable")[-min(1000, len(table)) :]
    few = Table(table.version, table.addresses[longest], table.lengths[longest], table.hops[longest])
    return hosts(few, rng)


PATTERNS: dict[str, Callable[[Table, np.random.Generator], np.ndarray]] = {
    "uniform": uniform,
    "in-table": hosts,
    "repeated": repeated,
    "sequential": sequential,
    "zipf": zipf,
    "all-miss": all_miss,
    "deepest": deepest,
}
