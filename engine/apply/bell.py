"""Rings when something changed in the host's network: links, addresses, routes.

Owns: a netlink socket subscribed to the kernel's announcements.
Never: reads what is announced; whoever is woken looks for himself, so a
message that was lost or misread cannot lead astray.
"""

from __future__ import annotations

import socket

_LINK, _IPV4_ADDRESS, _IPV4_ROUTE, _IPV6_ADDRESS, _IPV6_ROUTE = 0x1, 0x10, 0x40, 0x100, 0x400
_AT_ONCE = 1000  # announcements; the rest rings again


class Bell:
    """Of the namespace of the calling thread."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        self._socket.bind((0, _LINK | _IPV4_ADDRESS | _IPV4_ROUTE | _IPV6_ADDRESS | _IPV6_ROUTE))

    def fileno(self) -> int:
        return self._socket.fileno()

    def silence(self) -> None:
        """Forget what was announced so far."""
        for _ in range(_AT_ONCE):
            try:
                self._socket.recv(65536)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: more was announced than the socket holds, which is as good
                continue

    def close(self) -> None:
        self._socket.close()
