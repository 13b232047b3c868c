"""One block of addresses: who has which, and which are free in what order.

Owns: the rules by which an address is taken, given back, kept for its pod and given again.
Never: does I/O or reads a clock; every operation makes a new block.
Invariant: an offset is never used, taken, kept or released: in exactly one of
the four, and one that was released is given again only after its cool-down,
the longest free first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_network

import msgspec

from engine.model import Address, Prefix


class Taken(msgspec.Struct, frozen=True, array_like=True):
    """Who has an address. `sticky`: the identity it is kept for when it is given back."""

    handle: str
    since: float  # seconds since 1970
    node: str = ""
    sticky: str = ""


class Free(msgspec.Struct, frozen=True, array_like=True):
    """An address that was in use. `sticky`: kept for this identity."""

    offset: int
    since: float
    sticky: str = ""


class Block(msgspec.Struct, frozen=True, omit_defaults=True, dict=True):
    prefix: str
    node: str = ""  # whose it is; nobody's when empty
    fresh: int = 0  # the lowest offset that was never used, unless it is in `taken`
    taken: dict[int, Taken] = {}
    free: tuple[Free, ...] = ()  # the longest free first

    @cached_property
    def network(self) -> Prefix:
        return ip_network(self.prefix)

    @cached_property
    def size(self) -> int:
        return 1 << self.network.max_prefixlen - self.network.prefixlen

    @cached_property
    def handles(self) -> frozenset[str]:
        """Who has an address of it."""
        return frozenset(taken.handle for taken in self.taken.values())

    def address(self, offset: int) -> Address:
        return self.network[offset]

    def offset(self, address: Address) -> int:
        return int(address) - int(self.network.network_address)

    @property
    def is_unused(self) -> bool:
        """Nobody has, keeps or awaits an address of it."""
        return not self.taken and not any(free.sticky for free in self.free)


@dataclass(frozen=True, slots=True)
class Rules:
    """What an assignment heeds. `excluded`: never given away; `now` and `cooldown` in seconds."""

    excluded: Callable[[Address], bool]
    now: float
    cooldown: float


def find_free(block: Block, rules: Rules, sticky: str = "") -> int | None:
    """The offset to give next: the one kept for `sticky`, a fresh one, one released long ago, or one kept for others."""
    if sticky:
        for free in block.free:
            if free.sticky == sticky and not rules.excluded(block.address(free.offset)):
                return free.offset
    known = {free.offset for free in block.free}
    for offset in range(block.fresh, block.size):
        if offset not in block.taken and offset not in known and not rules.excluded(block.address(offset)):
            return offset
    for free in block.free:
        if not free.sticky and _has_cooled(free, rules) and not rules.excluded(block.address(free.offset)):
            return free.offset
    return None


def find_kept(block: Block, rules: Rules) -> int | None:
    """The offset kept for somebody for the longest time: the last resort when everything else is in use."""
    for free in block.free:
        if free.sticky and _has_cooled(free, rules) and not rules.excluded(block.address(free.offset)):
            return free.offset
    return None


def is_cooling(block: Block, rules: Rules) -> bool:
    """Whether an address becomes free by waiting."""
    return any(not _has_cooled(free, rules) and not rules.excluded(block.address(free.offset)) for free in block.free)


def take(block: Block, offset: int, taken: Taken) -> Block:
    """The block with `offset` given away; it must not be taken."""
    assert offset not in block.taken
    assert 0 <= offset < block.size
    given = {**block.taken, offset: taken}
    fresh = block.fresh
    released = {free.offset for free in block.free}
    while fresh in given or fresh in released:
        fresh += 1
    free = tuple(entry for entry in block.free if entry.offset != offset)
    return msgspec.structs.replace(block, taken=given, free=free, fresh=fresh)


def give_back(block: Block, offset: int, now: float, *, forget: bool = False) -> Block:
    """The block with `offset` released, kept for its sticky identity unless `forget`."""
    taken = block.taken.get(offset)
    others = {other: entry for other, entry in block.taken.items() if other != offset}
    sticky = taken.sticky if taken and not forget else ""
    free = tuple(entry for entry in block.free if entry.offset != offset)
    return msgspec.structs.replace(block, taken=others, free=(*free, Free(offset, now, sticky)))


def _has_cooled(free: Free, rules: Rules) -> bool:
    """A clock that was set back must not keep an address for longer than the cool-down from now."""
    return not rules.now - rules.cooldown < free.since <= rules.now or rules.cooldown == 0
