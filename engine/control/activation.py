"""Listening sockets that a service manager opened for us and hands over (the sd_listen_fds protocol).

Owns: these sockets, until each is claimed for what it listens on.
Never: binds one, or removes the file of one: both are the manager's.
Invariant: the environment says nothing of them any more, so that no child takes them for its own.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from pathlib import Path

from engine.errors import KernelError

FIRST = 3  # the number of the first descriptor
_LIMIT = 64  # descriptors; the node listens in three places
_VARIABLES = ("LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES")


class PassedSockets:
    """Known by their address and kind; the names that the manager gives them are for messages alone."""

    def __init__(self, sockets: list[tuple[str, socket.socket]]) -> None:
        self._unclaimed = sockets

    def __bool__(self) -> bool:
        return bool(self._unclaimed)

    def has(self, kind: socket.SocketKind, address: object) -> bool:
        return self._find(kind, address) is not None

    def claim(self, kind: socket.SocketKind, address: object) -> socket.socket | None:
        """The socket that listens there; whoever gets it closes it."""
        found = self._find(kind, address)
        if found is None:
            return None
        self._unclaimed.remove(found)
        return found[1]

    def _find(self, kind: socket.SocketKind, address: object) -> tuple[str, socket.socket] | None:
        if isinstance(address, str) and not Path(address).is_socket():
            return None  # somebody removed the file: nobody could come by it any more
        return next((entry for entry in self._unclaimed if listens_on(entry[1], kind, address)), None)

    def refuse_the_rest(self) -> KernelError | None:
        """Close what nobody claimed. The error that says what: its clients wait for nobody."""
        if not self._unclaimed:
            return None
        places = ", ".join(f"{name} at {listening.getsockname()}" for name, listening in self._unclaimed)
        self.close()
        what = f"sockets of the service manager are not used: {places}"
        return KernelError(what, remedy="let its units and the configuration name the same addresses")

    def close(self) -> None:
        for _, listening in self._unclaimed:
            listening.close()
        self._unclaimed = []


def passed_sockets(environment: MutableMapping[str, str]) -> PassedSockets:
    """Those that are meant for this process. KernelError when one is no listening socket."""
    process, _, count, names = (environment.pop(name, "") for name in _VARIABLES)
    if process != str(os.getpid()) or not count.isdecimal():
        return PassedSockets([])
    descriptors = range(FIRST, FIRST + min(int(count), _LIMIT))
    named = [*names.split(":"), *[""] * len(descriptors)]
    return PassedSockets([(name or "unknown", _socket(fd)) for fd, name in zip(descriptors, named, strict=False)])


def listens_on(listening: socket.socket, kind: socket.SocketKind, address: object) -> bool:
    """Whether it is a socket of this kind at `address`: a path, or host and port."""
    found = listening.getsockname()
    if isinstance(found, tuple):
        found = found[:2]
    return listening.type == kind and found == address


def _socket(descriptor: int) -> socket.socket:
    try:
        os.set_inheritable(descriptor, False)
        found = socket.socket(fileno=descriptor)
        if not found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise OSError("it does not listen")
    except OSError as error:
        what = f"the service manager passed descriptor {descriptor}, which cannot be used: {error.strerror or error}"
        raise KernelError(what, remedy="write Accept=no in its socket unit") from error
    found.setblocking(False)
    return found
