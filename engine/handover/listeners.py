"""The listening sockets that were there before this daemon: a service manager's, and its predecessor's.

Owns: which of them serves, and whose its file is.
Never: binds a socket, or removes a file.
Invariant: of two at one address the manager's serves, for it outlives every daemon.
"""

from __future__ import annotations

import socket

from engine.control.activation import PassedSockets
from engine.handover.taker import Takeover


class Listeners:
    def __init__(self, passed: PassedSockets, takeover: Takeover | None) -> None:
        self._passed = passed
        self._takeover = takeover
        self.lent: set[str] = set()  # by name, those whose files are the manager's

    def take(self, name: str, kind: socket.SocketKind, address: object) -> socket.socket | None:
        """The socket called `name` that listens at `address`; None: there is none, and it is to be made."""
        passed = self._passed.claim(kind, address)
        left = None if self._takeover is None else self._takeover.listener(name, kind, address)
        if passed is not None or (left is not None and self._takeover is not None and name in self._takeover.lent):
            self.lent.add(name)
        if passed is None:
            return left
        if left is not None:
            left.close()
        return passed
