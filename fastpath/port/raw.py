"""Raw tunnel ports: IP in IP, protocol 4 for inner IPv4 and 41 for inner IPv6.

Owns: the two raw sockets of the ipip encapsulation on one local address.
Never: sends or receives; the loop does (raw.pxd).
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from fastpath.port.port import Port
from fastpath.port.sockets import adopt_sockets, disown, open_socket
from fastpath.values import Tunnel

IPPROTO_IPIP, IPPROTO_IPV6 = 4, 41
TRAIN = 128  # packets of one sendmmsg; each is a datagram of its own


class RawPort(Port):
    kind = "raw"

    def __init__(self, tunnel: Tunnel, sockets: tuple[socket.socket, socket.socket]) -> None:
        descriptors = tuple(each.fileno() for each in sockets)
        super().__init__(f"ipip/{tunnel.local}", "tunnel", inputs=descriptors, senders=descriptors, tunnel=tunnel)
        self._sockets = sockets
        self.segments_max = TRAIN

    @classmethod
    def open(cls, tunnel: Tunnel) -> RawPort:
        """OSError as the kernel says it: EPERM without CAP_NET_RAW, EADDRNOTAVAIL for a foreign address."""
        opened: list[socket.socket] = []
        try:
            for protocol in (IPPROTO_IPIP, IPPROTO_IPV6):
                each = open_socket(tunnel.local, socket.SOCK_RAW, protocol)
                opened.append(each)
                each.bind((str(tunnel.local), 0))
            return cls(tunnel, (opened[0], opened[1]))
        except BaseException:
            for each in opened:
                each.close()
            raise

    @classmethod
    def adopt(cls, tunnel: Tunnel, descriptors: Sequence[int]) -> RawPort:
        """Go on with the two sockets that another process opened, protocol 4 first.

        ValueError when they are not those of `tunnel`. They are the caller's until this returns.
        """
        sockets = adopt_sockets(descriptors, tunnel.local, socket.SOCK_RAW)
        if tuple(each.proto for each in sockets) != (IPPROTO_IPIP, IPPROTO_IPV6):
            disown(*sockets)
            raise ValueError(f"the sockets inherited for {tunnel.local} are not those of IP in IP")
        return cls(tunnel, (sockets[0], sockets[1]))

    def close(self) -> None:
        for each in self._sockets:
            each.close()
