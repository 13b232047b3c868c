"""Many routes into the kernel, and out of it, with few system calls.

Owns: one netlink socket of the namespace of the thread that made it.
Never: decides what to write, or looks into a route.
Invariant: of every message sent it is known afterwards whether the kernel did
it; where an answer was lost, `change` raises and nothing is known.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Sequence

from engine.apply.route_message import (
    DONE,
    ERROR,
    HEADER,
    INTERRUPTED,
    MAIN_TABLE,
    NEW_ROUTE,
    Found,
    acknowledged,
    decode,
    error_number,
    is_default,
    listing,
    messages,
)

_AT_ONCE = 128  # messages a send: their errors fit into the smallest usual receive buffer
_RECEIVE = 1 << 18  # bytes; the kernel fills at most 32 KiB of it
_BUFFER = 4 << 20
_LISTINGS = 5  # tries to list while others change
_DEADLINE = 15.0  # seconds; the kernel answers at once or not at all
_SOL_NETLINK, _CAP_ACK, _STRICT_CHECK = 270, 10, 12
_SO_RCVBUFFORCE = 33

Wanted = Callable[[bytes, int, int], bool]  # a message, where it starts and ends -> whether it is to be decoded


class RouteSocket:
    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        self._socket.settimeout(_DEADLINE)
        for option in (_CAP_ACK, _STRICT_CHECK):
            with contextlib.suppress(OSError):  # older kernels: longer answers, and a listing to be sieved
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        self.port: int = self._socket.getsockname()[0]  # which the kernel's announcements of our changes carry
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def next_sequence(self) -> int:
        """For the next message to be built."""
        self._sequence = (self._sequence + 1) & 0x7FFFFFFF
        return self._sequence

    def change(self, numbered: Sequence[tuple[int, bytes]]) -> dict[int, int]:
        """Send (sequence, message) all; sequence -> errno of those that the kernel refused."""
        refused: dict[int, int] = {}
        for start in range(0, len(numbered), _AT_ONCE):
            part = numbered[start : start + _AT_ONCE]
            last, message = part[-1]
            self._socket.send(b"".join([*(text for _, text in part[:-1]), acknowledged(message)]))
            self._collect(last, refused)
        return refused

    def _collect(self, last: int, refused: dict[int, int]) -> None:
        """Read answers until that to the last message, which comes after all others."""
        while True:
            data = self._socket.recv(_RECEIVE)
            for kind, _, sequence, start, end in messages(data):
                if kind != ERROR:
                    continue
                number = error_number(data, start, end)
                if number:
                    refused[sequence] = number
                if sequence == last:
                    return

    def answers(self, message: bytes) -> list[tuple[int, bytes]]:
        """(type, message) of all that the kernel answers to a request that it acknowledges, or to a listing.

        OSError when it refuses.
        """
        sequence = HEADER.unpack_from(message)[3]
        self._socket.send(message)
        found: list[tuple[int, bytes]] = []
        while True:
            data = self._socket.recv(_RECEIVE)
            for kind, _, about, start, end in messages(data):
                if about != sequence:
                    continue  # of an earlier request that was given up
                if kind in (DONE, ERROR):
                    number = error_number(data, start, end)
                    if number:
                        raise OSError(number, os.strerror(number))
                    return found
                found.append((kind, data[start:end]))

    def routes(self, version: int, protocol: int) -> list[Found]:
        """All routes of the main table with this protocol number, as they were at one moment."""
        return [route for route in self._listed(version, protocol) if route.protocol == protocol]

    def default_routes(self, version: int) -> list[Found]:
        """Those of the main table that lead to everything."""
        return self._listed(version, 0, is_default)

    def _listed(self, version: int, protocol: int, wanted: Wanted | None = None) -> list[Found]:
        for _ in range(_LISTINGS):
            found, interrupted = self._list(listing(self.next_sequence(), version, protocol), wanted)
            if not interrupted:
                return [route for route in found if route.table == MAIN_TABLE]
        raise OSError(errno.EAGAIN, "the kernel's routes change faster than they can be listed")

    def _list(self, request: bytes, wanted: Wanted | None) -> tuple[list[Found], bool]:
        sequence = HEADER.unpack_from(request)[3]
        self._socket.send(request)
        found: list[Found] = []
        interrupted = False
        while True:
            data = self._socket.recv(_RECEIVE)
            for kind, flags, about, start, end in messages(data):
                if about != sequence:
                    continue  # of an earlier listing that was given up
                interrupted |= bool(flags & INTERRUPTED)
                if kind in (DONE, ERROR):
                    _check(error_number(data, start, end))
                    return found, interrupted
                if kind == NEW_ROUTE and (wanted is None or wanted(data, start, end)):
                    route = decode(data, start, end)
                    if route is not None:
                        found.append(route)


def _check(number: int) -> None:
    """A kernel without an address family has no routes of it, which is no error."""
    if number not in (0, errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.ENOENT):
        raise OSError(number, os.strerror(number))
