"""Where addresses come from: pools, the blocks they are cut into, and what is never given away.

Owns: the arithmetic of pools and blocks.
Never: knows what is in use.
Invariant: a block lies in exactly one pool and has at most 256 addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from engine.model import Address, Prefix

LARGEST_BLOCK = 8  # bits of host part


@dataclass(frozen=True, slots=True)
class Pool:
    """A prefix that pods may have addresses of, in blocks of length `block_length`."""

    prefix: Prefix
    block_length: int

    def __post_init__(self) -> None:
        if not self.prefix.prefixlen <= self.block_length <= self.prefix.max_prefixlen:
            raise ValueError(f"{self.prefix} has no blocks of length {self.block_length}")
        if self.prefix.max_prefixlen - self.block_length > LARGEST_BLOCK:
            raise ValueError(f"a block of length {self.block_length} is too large")

    @property
    def version(self) -> int:
        return self.prefix.version

    def blocks(self, reserved: Collection[Prefix] = ()) -> Iterator[Prefix]:
        """All blocks in order but for those that are reserved as a whole; very many for a large pool."""
        size = 1 << self.prefix.max_prefixlen - self.block_length
        ranges = sorted((_numbers(prefix) for prefix in reserved if prefix.version == self.version), key=_end)
        at, end = _numbers(self.prefix)
        while at < end:
            skipped = next((stop for start, stop in ranges if start <= at and at + size <= stop), at)
            if skipped == at:
                yield ip_network((type(self.prefix.network_address)(at), self.block_length))
                at += size
            else:
                at += (skipped - at) // size * size

    def block_of(self, address: Address) -> Prefix | None:
        if address not in self.prefix:
            return None
        return ip_network((address, self.block_length), strict=False)


def _numbers(prefix: Prefix) -> tuple[int, int]:
    """The first address, and the one behind the last."""
    return int(prefix.network_address), int(prefix.broadcast_address) + 1


def _end(numbers: tuple[int, int]) -> int:
    return -numbers[1]


def pool_of(prefix: Prefix, length4: int, length6: int) -> Pool:
    """A pool with blocks of the wanted length, or of its own when it is smaller."""
    wanted = length4 if prefix.version == 4 else length6
    return Pool(prefix, max(wanted, prefix.prefixlen))


def is_within(inner: Prefix, outer: Prefix) -> bool:
    if isinstance(inner, IPv4Network):
        return isinstance(outer, IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, IPv6Network) and inner.subnet_of(outer)


def exclusion(
    prefixes: Collection[Prefix], reserved: Collection[Prefix], taken: Collection[Address]
) -> Callable[[Address], bool]:
    """Tells what is never given away: the ends of the node's prefixes, reserved ranges, addresses used otherwise."""
    numbers: set[tuple[int, int]] = {(address.version, int(address)) for address in taken}
    for prefix in prefixes:
        if prefix.max_prefixlen - prefix.prefixlen >= 2:
            numbers.add((prefix.version, int(prefix.network_address)))
            if prefix.version == 4:
                numbers.add((4, int(prefix.broadcast_address)))
    ranges = tuple(reserved)

    def is_excluded(address: IPv4Address | IPv6Address) -> bool:
        return (address.version, int(address)) in numbers or any(address in prefix for prefix in ranges)

    return is_excluded
