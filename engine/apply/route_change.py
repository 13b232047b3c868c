"""Many routes of the plane that become others at once.

Owns: what the plane is to be told of one change, and which slots it uses and frees.
Never: knows what a slot means.
Invariant: until `publish` has returned, `undo` leaves everything as it was; the
plane is told of both families in one call, which happens as a whole or not at all.
"""

from __future__ import annotations

import contextlib
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Generic, Protocol, TypeVar

from engine.errors import TowpathError
from engine.model import Prefix, Via


class Numbered(Protocol):
    number: int
    users: int


class RouteTable(Protocol):
    """What is used of the plane."""

    def set_route(self, prefix: Prefix, adjacency: int) -> None: ...
    def remove_route(self, prefix: Prefix) -> None: ...
    def change_routes(self, ipv4: Any, ipv6: Any) -> None: ...


S = TypeVar("S", bound=Numbered)
T = TypeVar("T", bound=Numbered, covariant=True)  # noqa: PLC0105 - S, where it is only given out


class SlotTable(Protocol[T]):
    """Slots by next hops; each counts its users."""

    @property
    def plane(self) -> RouteTable: ...
    def slot_of(self, vias: tuple[Via, ...]) -> T | None: ...
    def acquire(self, vias: tuple[Via, ...]) -> T: ...
    def release(self, vias: tuple[Via, ...], times: int = 1) -> None: ...


class RouteChange(Generic[S]):
    """Routes by the same next hops usually have the very same tuple of them, so each is looked at once."""

    def __init__(self, table: SlotTable[S]) -> None:
        self.done: list[tuple[Prefix, tuple[Via, ...] | None, S | None, S | None]] = []  # with its slots: old, new
        self.refused: dict[Prefix, TowpathError] = {}
        self._table = table
        self._rows: dict[int, list[tuple[int, int, int]]] = {4: [], 6: []}  # address, length, adjacency; by IP version
        self._slots: dict[int, S | TowpathError] = {}  # by the identity of next hops
        self._uses: dict[int, tuple[tuple[Via, ...], int]] = {}  # acquired: next hops and how often, by identity
        self._past: dict[int, tuple[tuple[Via, ...], int]] = {}  # as _uses, of what is replaced

    def add(self, prefix: Prefix, vias: tuple[Via, ...] | None, before: tuple[Via, ...] | None) -> None:
        slot = None if vias is None else self._slot(vias)
        if isinstance(slot, TowpathError):
            self.refused[prefix] = slot
            return
        old = None if before is None else self._table.slot_of(before)
        if slot is not old or slot is None:
            self._rows[prefix.version].append(
                (int(prefix.network_address), prefix.prefixlen, 0 if slot is None else slot.number)
            )
        if before is not None:
            self._past[id(before)] = before, self._past.get(id(before), (before, 0))[1] + 1
        self.done.append((prefix, vias, old, slot))

    def _slot(self, vias: tuple[Via, ...]) -> S | TowpathError:
        slot = self._slots.get(id(vias))
        if slot is not None and not isinstance(slot, TowpathError):
            slot.users += 1
            self._uses[id(vias)] = vias, self._uses[id(vias)][1] + 1
        elif slot is None:
            try:
                slot = self._table.acquire(vias)
                self._uses[id(vias)] = vias, 1
            except ValueError as error:
                slot = TowpathError(str(error), where=f"next hop {vias[0].peer or vias[0].target}")
            self._slots[id(vias)] = slot
        return slot

    def publish(self) -> None:
        rows = [(version, *row) for version, rows in self._rows.items() for row in rows]
        if len(rows) == 1:
            self._publish_one(*rows[0])
        elif rows:
            self._table.plane.change_routes(*(_arrays(version, rows) for version, rows in self._rows.items()))

    def _publish_one(self, version: int, address: int, length: int, adjacency: int) -> None:
        prefix = IPv4Network((address, length)) if version == 4 else IPv6Network((address, length))
        if adjacency:
            self._table.plane.set_route(prefix, adjacency)
        else:
            with contextlib.suppress(KeyError):
                self._table.plane.remove_route(prefix)

    def undo(self) -> None:
        self._release(self._uses)

    def release_what_was(self) -> None:
        self._release(self._past)

    def _release(self, uses: dict[int, tuple[tuple[Via, ...], int]]) -> None:
        for vias, times in uses.values():
            self._table.release(vias, times)


def _arrays(version: int, rows: list[tuple[int, int, int]]) -> tuple[Any, Any, Any]:
    """The rows of one family as `change_routes` of the plane takes them."""
    import numpy

    lengths = numpy.array([length for _, length, _ in rows], numpy.uint8)
    adjacencies = numpy.array([adjacency for _, _, adjacency in rows], numpy.uint32)
    if version == 4:
        return numpy.array([address for address, _, _ in rows], numpy.uint32), lengths, adjacencies
    halves = [(address >> 64, address & 0xFFFFFFFFFFFFFFFF) for address, _, _ in rows]
    return numpy.array(halves, numpy.uint64).reshape(-1, 2), lengths, adjacencies
