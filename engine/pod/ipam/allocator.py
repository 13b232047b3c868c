"""Gives addresses to handles: blocks are claimed for this node, and addresses taken in them, by compare and swap.

Owns: which block is asked next: our own, then an unclaimed one, then another node's.
Never: knows what a handle stands for, or whether its pod lives.
Invariant: an address is in one `taken` of one block of the store; several
allocators on one store never give it twice. What a failed assignment took it
gives back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import msgspec

from engine.errors import TowpathError
from engine.model import Address, Prefix
from engine.pod.ipam.block import Block, Rules, Taken, find_free, find_kept, give_back, is_cooling, take
from engine.pod.ipam.pool import Pool
from engine.pod.store import ConflictError, Store, change

BLOCKS = "block/"
_BLOCKS_LOOKED_AT = 64  # in search of one with an address that may be given


class NoAddressError(TowpathError):
    """Nothing is left to give. `soon`: waiting helps, an address is cooling down."""

    def __init__(self, what: str, *, where: str = "", remedy: str = "", soon: bool = False) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.soon = soon


class TakenError(TowpathError):
    """The wanted address belongs to somebody else, or to no pool."""


@dataclass(frozen=True, slots=True)
class Settings:
    """`forbidden`: addresses never given, `excluded`: never unasked. `borrow`: use other nodes' blocks when ours are full."""

    node: str
    pools: tuple[Pool, ...]
    excluded: Callable[[Address], bool] = lambda _: False
    forbidden: Callable[[Address], bool] = lambda _: False
    reserved: tuple[Prefix, ...] = ()  # of what is excluded, whole ranges
    cooldown: float = 0.0
    borrow: bool = False
    blocks_limit: int = 1 << 16  # of this node


@dataclass(frozen=True, slots=True)
class Given:
    """An address in use."""

    address: Address
    block: Prefix
    taken: Taken


@dataclass(slots=True)
class Allocator:
    store: Store
    settings: Settings
    clock: Callable[[], float] = field(default=time.time)
    _decoded: dict[str, tuple[int, Block]] = field(default_factory=dict)  # by key: as of which revision

    def assign(
        self,
        handle: str,
        versions: Iterable[int],
        *,
        wanted: Sequence[Address] = (),
        sticky: str = "",
        within: Sequence[Prefix] = (),
    ) -> tuple[Address, ...]:
        """An address of each IP version, `wanted` where given, the others from pools inside `within` (any when empty).

        All or none: NoAddressError or TakenError when one cannot be had.
        """
        given: list[Address] = []
        taken = Taken(handle, round(self.clock(), 3), self.settings.node, sticky)
        try:
            for address in wanted:
                self._take_wanted(address, taken)
                given.append(address)
            present = {address.version for address in wanted}
            for version in sorted(set(versions) - present):
                given.append(self._take_any(version, taken, within))  # noqa: PERF401 - one that fails leaves the others
        except BaseException:
            self.release(handle, given)
            raise
        return tuple(given)

    def release(self, handle: str, addresses: Iterable[Address], *, forget: bool = False) -> list[Address]:
        """Give back those of `addresses` that `handle` has; `forget`: nothing is kept for a sticky identity."""
        released = []
        for address in addresses:
            found = self._find(address)
            if found is not None and found.taken.handle == handle:
                self._give_back(found, forget=forget)
                released.append(address)
        return released

    def release_address(self, address: Address) -> str | None:
        """Give back an address whoever has it, and forget whom it was kept for; the handle it had."""
        found = self._find(address)
        if found is None:
            for key, block in self.blocks():
                if address in block.network and any(free.offset == block.offset(address) for free in block.free):
                    self._rewrite(key, lambda present: _without_sticky(present, address))
            return None
        self._give_back(found, forget=True)
        return found.taken.handle

    def has_free(self, version: int, within: Sequence[Prefix] = ()) -> bool:
        """Whether an assignment now would find an address of this version."""
        pools = [pool for pool in self.settings.pools if pool.version == version and _allowed(pool, within)]
        rules = self._rules()
        for _, block in self._blocks_in(pools):
            usable = block.node == self.settings.node or self.settings.borrow
            if usable and (find_free(block, rules) is not None or find_kept(block, rules) is not None):
                return True
        return any(self._unclaimed(pool) is not None for pool in pools)

    def given(self) -> Iterator[Given]:
        """Every address in use, in order."""
        for _, block in self.blocks():
            for offset in sorted(block.taken):
                yield Given(block.address(offset), block.network, block.taken[offset])

    def given_to(self, handle: str) -> list[Address]:
        """What this handle has. Many may be asked for in a row: nothing is made of what others have."""
        return [
            block.address(offset)
            for _, block in self.blocks()
            if handle in block.handles
            for offset, taken in sorted(block.taken.items())
            if taken.handle == handle
        ]

    def blocks(self) -> Iterator[tuple[str, Block]]:
        for key, stored in list(self.store.items(BLOCKS)):
            known = self._decoded.get(key)
            if known is None or known[0] != stored.revision:
                known = self._decoded[key] = stored.revision, msgspec.json.decode(stored.value, type=Block)
            yield key, known[1]

    def reclaim(self) -> int:
        """Let go of our blocks that nobody uses or waits for; how many."""
        rules = self._rules()
        count = 0
        for key, block in self.blocks():
            if block.node == self.settings.node and block.is_unused and not is_cooling(block, rules):
                before = self.store.get(key)
                if before is not None and msgspec.json.decode(before.value, type=Block) == block:
                    try:
                        self.store.delete(key, before.revision)
                        count += 1
                    except ConflictError:
                        pass  # it is in use after all
        return count

    # -- one address -----------------------------------------------------------
    def _take_wanted(self, address: Address, taken: Taken) -> None:
        where = f"address {address}"
        pool = next((pool for pool in self.settings.pools if address in pool.prefix), None)
        network = pool.block_of(address) if pool else None
        if network is None or self.settings.forbidden(address):
            raise TakenError(
                "is in no pool of this node, or not a pod's", where=where, remedy="ask for another, or see ipam.pools"
            )

        def rewrite(value: bytes | None) -> bytes:
            block = _decode(value) or Block(str(network), self.settings.node)
            offset = block.offset(address)
            owner = block.taken.get(offset)
            if owner is not None:
                raise TakenError(f"belongs to {owner.handle}", where=where, remedy="ask for another")
            if block.node != self.settings.node and not self.settings.borrow:
                raise TakenError(f"lies in a block of node {block.node}", where=where, remedy="ask for another")
            return _encode(take(block, offset, taken))

        change(self.store, _key(network), rewrite)

    def _take_any(self, version: int, taken: Taken, within: Sequence[Prefix]) -> Address:
        pools = [pool for pool in self.settings.pools if pool.version == version and _allowed(pool, within)]
        for key in self._candidates(pools, taken.sticky):
            address = self._take_from(key, taken, find_free)
            if address is not None:
                return address
        for key, block in self._ours(pools):
            if any(free.sticky for free in block.free):
                address = self._take_from(key, taken, lambda found, rules, _: find_kept(found, rules))
                if address is not None:
                    return address
        soon = any(is_cooling(block, self._rules()) for _, block in self._ours(pools))
        where = f"pools {', '.join(str(pool.prefix) for pool in pools)}" if pools else "ipam.pools"
        what = f"no IPv{version} address is free" if pools else f"there is no IPv{version} pool"
        what += ", those that were given back are cooling down" if soon else ""
        raise NoAddressError(what, where=where, remedy="try again later, release addresses or add a pool", soon=soon)

    def _candidates(self, pools: Sequence[Pool], sticky: str) -> Iterator[str]:
        """The blocks to ask, in order; one that is claimed while we look is ours then."""
        ours = list(self._ours(pools))
        if sticky:  # the block that keeps an address for us first
            ours.sort(key=lambda entry: not any(free.sticky == sticky for free in entry[1].free))
        yield from (key for key, _ in ours)
        if len(ours) < self.settings.blocks_limit:
            for pool in pools:
                claimed = self._claim(pool)
                if claimed is not None:
                    yield claimed
        if self.settings.borrow:
            yield from (key for key, block in self._blocks_in(pools) if block.node != self.settings.node)

    def _claim(self, pool: Pool) -> str | None:
        """Make the first block of the pool that nobody has ours; None when all are had or none has room."""
        while (block := self._unclaimed(pool)) is not None:
            try:
                self.store.put(_key(block.network), _encode(block), 0)
            except ConflictError:
                continue  # another node was faster
            return _key(block.network)
        return None

    def _unclaimed(self, pool: Pool) -> Block | None:
        """The first block of the pool that nobody has and that is not reserved as a whole."""
        existing = {block.network for _, block in self._blocks_in([pool])}
        rules = self._rules()
        for network in islice(pool.blocks(self.settings.reserved), len(existing) + _BLOCKS_LOOKED_AT):
            if network not in existing:
                block = Block(str(network), self.settings.node)
                if find_free(block, rules) is not None:
                    return block
        return None

    def _take_from(self, key: str, taken: Taken, choose: Callable[[Block, Rules, str], int | None]) -> Address | None:
        chosen: list[Address] = []

        def rewrite(value: bytes | None) -> bytes | None:
            chosen.clear()
            block = _decode(value)
            offset = choose(block, self._rules(), taken.sticky) if block else None
            if block is None or offset is None:
                return value
            chosen.append(block.address(offset))
            return _encode(take(block, offset, taken))

        change(self.store, key, rewrite)
        return chosen[0] if chosen else None

    def _give_back(self, given: Given, *, forget: bool) -> None:
        def rewrite(block: Block) -> Block:
            offset = block.offset(given.address)
            if block.taken.get(offset) != given.taken:
                return block
            return give_back(block, offset, self.clock(), forget=forget)

        self._rewrite(_key(given.block), rewrite)

    def _rewrite(self, key: str, rewrite: Callable[[Block], Block]) -> None:
        def on_text(value: bytes | None) -> bytes | None:
            block = _decode(value)
            return None if block is None else _encode(rewrite(block))

        change(self.store, key, on_text)

    # -- looking ---------------------------------------------------------------
    def _find(self, address: Address) -> Given | None:
        for _, block in self.blocks():
            if block.network.version == address.version and address in block.network:
                taken = block.taken.get(block.offset(address))
                if taken is not None:
                    return Given(address, block.network, taken)
        return None

    def _ours(self, pools: Sequence[Pool]) -> Iterator[tuple[str, Block]]:
        return (entry for entry in self._blocks_in(pools) if entry[1].node == self.settings.node)

    def _blocks_in(self, pools: Sequence[Pool]) -> Iterator[tuple[str, Block]]:
        for key, block in self.blocks():
            if any(block.network.network_address in pool.prefix for pool in pools):
                yield key, block

    def _rules(self) -> Rules:
        return Rules(self.settings.excluded, self.clock(), self.settings.cooldown)


def _allowed(pool: Pool, within: Sequence[Prefix]) -> bool:
    return not within or any(pool.prefix == prefix for prefix in within)


def _key(network: Prefix) -> str:
    return f"{BLOCKS}{str(network).replace('/', '-')}"


def _encode(block: Block) -> bytes:
    return msgspec.json.encode(block)


def _decode(value: bytes | None) -> Block | None:
    return None if value is None else msgspec.json.decode(value, type=Block)


def _without_sticky(block: Block, address: Address) -> Block:
    free = tuple(
        msgspec.structs.replace(entry, sticky="") if entry.offset == block.offset(address) else entry
        for entry in block.free
    )
    return msgspec.structs.replace(block, free=free)
