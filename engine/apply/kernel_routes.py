"""The only writer of the host kernel's routes.

Owns: the routes marked with our protocol number in the main table: pod
prefixes into the host port, and, without encapsulation, peers' prefixes.
Never: changes or removes a route of another protocol.
Invariant: what the kernel holds under our number is what is desired, or is
being removed; a route of somebody else in our place is an error, not a victim.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Hashable, Mapping
from typing import cast

from engine.apply import route_message
from engine.apply.bell import Heard
from engine.apply.delta import Kind
from engine.apply.links import ROUTE_PROTOCOL
from engine.apply.refusal import refusal
from engine.apply.route_message import FAMILIES, Found, Verb
from engine.apply.route_socket import RouteSocket
from engine.errors import KernelError, TowpathError
from engine.model import Address, Prefix

_GONE = (errno.ESRCH, errno.ENODEV)
Via = tuple[Address, ...]


class KernelRouteDriver:
    """Next hops are addresses; none at all means into the host port, whose name `device` says.

    Used by one thread, in whose namespace the routes are. Nobody else changes
    them unnoticed: who hears that somebody did calls `audit`.
    """

    kind = Kind.KERNEL_ROUTE
    drifts = False

    def __init__(self, device: Callable[[], str]) -> None:
        self._device = device
        self._known: dict[Hashable, object] | None = None
        self._added: set[Hashable] = set()  # by this run
        self._opened: RouteSocket | None = None

    @property
    def _socket(self) -> RouteSocket:
        if self._opened is None:
            self._opened = RouteSocket()
        return self._opened

    @property
    def port(self) -> int:
        """Of the netlink socket, by which announcements of our own changes are told from others'."""
        return self._socket.port

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def actual(self) -> Mapping[Hashable, object]:
        if self._known is None:
            self._known = self._read()
        return self._known

    def set(self, key: Hashable, value: object) -> None:
        self._one(key, value)

    def remove(self, key: Hashable) -> None:
        self._one(key, None)

    def change(self, wanted: Mapping[Hashable, object | None]) -> Mapping[Hashable, TowpathError]:
        """Set these routes, or remove them where the value is None; those that were refused, and why."""
        known = cast("dict[Hashable, object]", self.actual())
        device = self._index()
        failed: dict[Hashable, TowpathError] = {}
        numbered: list[tuple[int, bytes]] = []
        asked: list[tuple[int, Hashable, object | None, Verb | None]] = []
        for key, value in wanted.items():
            if value == () and not device:
                failed[key] = KernelError(f"device {self._device()} is missing", where=f"kernel route {key}")
                continue
            verb: Verb | None = None if value is None else "replace" if key in known else "add"
            sequence = self._socket.next_sequence()
            numbered.append((sequence, _message(sequence, cast(Prefix, key), verb, cast("Via | None", value), device)))
            asked.append((sequence, key, value, verb))
        refused = self._send(numbered)
        for sequence, key, value, verb in asked:
            number = refused.get(sequence, 0)
            if number and not (verb is None and number in _GONE):
                failed[key] = _refusal(number, key, verb)
            elif verb is None:
                known.pop(key, None)
            else:
                known[key] = value
                if verb == "add":
                    self._added.add(key)
        return failed

    def undo(self) -> None:
        """Remove what this run added."""
        for error in self.change(dict.fromkeys(self._added)).values() if self._added else ():
            raise error

    def audit(self, heard: Heard) -> bool:
        """Believe nothing that what was heard may concern; whether the kernel has not what we left in it."""
        if self._known is None or not self._concerns(heard, self._known):
            return False
        before, self._known = self._known, None
        return self.actual() != before

    # -- the kernel ------------------------------------------------------------
    def _one(self, key: Hashable, value: object | None) -> None:
        for error in self.change({key: value}).values():
            raise error

    def _concerns(self, heard: Heard, known: Mapping[Hashable, object]) -> bool:
        if heard.devices:  # routes go with a device or an address, and nothing says which
            return True
        return any(news.protocol == ROUTE_PROTOCOL or news.prefix in known for news in heard.routes)

    def _send(self, numbered: list[tuple[int, bytes]]) -> Mapping[int, int]:
        try:
            return self._socket.change(numbered) if numbered else {}
        except OSError:
            self.close()  # what was answered meanwhile is lost: look at the kernel again
            self._known = None
            raise

    def _read(self) -> dict[Hashable, object]:
        """Our routes in the kernel; one whose next hops we cannot name gets a value nobody desires."""
        device = self._index()
        try:
            found = [route for version in FAMILIES for route in self._socket.routes(version, ROUTE_PROTOCOL)]
        except OSError as error:
            self.close()
            raise refusal(error, where="kernel routes", doing="cannot list them") from error
        return {route.prefix: _via_of(route, device) for route in found}

    def _index(self) -> int:
        """Of the host port; 0 when there is none."""
        try:
            return socket.if_nametoindex(self._device())
        except OSError:
            return 0


def _via_of(route: Found, host_device: int) -> object:
    gateways = [hop.gateway for hop in route.hops]
    if len(gateways) == 1 and gateways[0] is None:
        return () if route.hops[0].device == host_device and host_device else None
    named = [address for address in gateways if address is not None]
    return tuple(sorted(named, key=str)) if len(named) == len(gateways) else None


def _message(sequence: int, prefix: Prefix, verb: Verb | None, via: Via | None, device: int) -> bytes:
    if verb is None:
        return route_message.removal(sequence, prefix, ROUTE_PROTOCOL)
    hops = route_message.next_hops(via or (), device)
    return route_message.setting(verb, sequence, prefix, ROUTE_PROTOCOL, hops, linked=not via)


def _refusal(number: int, prefix: Hashable, verb: Verb | None) -> KernelError:
    error = OSError(number, os.strerror(number))
    return refusal(error, where=f"kernel route {prefix}", doing=f"cannot {verb or 'del'} it")
