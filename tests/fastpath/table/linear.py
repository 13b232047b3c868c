"""The golden twin of the compiled tables: a dict of prefixes, searched from one end to the other.

Owns: the meaning of longest-prefix match, in the fewest words.
Never: shares an idea with what it checks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import numpy as np

BITS = {4: 32, 6: 128}


@dataclass
class Linear:
    """Values by (address, length) of one family."""

    version: int
    routes: dict[tuple[int, int], int] = field(default_factory=dict)

    @property
    def bits(self) -> int:
        return BITS[self.version]

    def find(self, address: int) -> int:
        best = (-1, 0)
        for (start, length), value in self.routes.items():
            if address >> (self.bits - length) == start >> (self.bits - length):
                best = max(best, (length, value))
        return best[1]

    def find_many(self, addresses: np.ndarray) -> np.ndarray:
        """The same for an array: every route is laid over the answers, the longer over the shorter."""
        answers = np.zeros(len(addresses), np.uint32)
        for (start, length), value in sorted(self.routes.items(), key=lambda route: route[0][1]):
            answers[self.covered(addresses, start, length)] = value
        return answers

    def covered(self, addresses: np.ndarray, start: int, length: int) -> np.ndarray:
        if self.version == 4:
            return addresses & np.uint32(mask(32, length)) == np.uint32(start)
        whole = mask(128, length)
        upper = addresses[:, 0] & np.uint64(whole >> 64) == np.uint64(start >> 64)
        return upper & (addresses[:, 1] & np.uint64(whole & 2**64 - 1) == np.uint64(start & 2**64 - 1))


def mask(bits: int, length: int) -> int:
    return (1 << bits) - (1 << (bits - length))


def random_prefix(random: Random, bits: int, bases: list[int]) -> tuple[int, int]:
    """A prefix near one of the bases, so that prefixes nest and touch."""
    length = random.choice([random.randint(0, bits), random.randint(bits // 4, bits // 2), random.randint(bits - 10, bits)])
    address = random.choice(bases) ^ random.getrandbits(random.choice([bits, bits // 2, 8]))
    return address & mask(bits, length), length


def edge_addresses(routes: list[tuple[int, int]], bits: int) -> list[int]:
    """First and last address of each route, and their outer neighbours."""
    found = []
    for start, length in routes:
        end = start + (1 << (bits - length)) - 1
        found += [start, end, (start - 1) % (1 << bits), (end + 1) % (1 << bits)]
    return found


def as_array(version: int, addresses: list[int]) -> np.ndarray:
    if version == 4:
        return np.array(addresses, np.uint32)
    return np.array([(a >> 64, a & 2**64 - 1) for a in addresses], np.uint64).reshape(-1, 2)
