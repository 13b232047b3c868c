"""UDP tunnel ports: one socket that receives, and several source ports to send from.

Owns: the sockets of the vxlan and udp encapsulations on one local address.
Never: sends or receives; the loop does (udp.pxd).
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from fastpath.port.port import Port
from fastpath.port.sockets import adopt_sockets, disown, open_socket, receive_nothing, segments_of_kernel
from fastpath.values import Tunnel

SOL_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104
SOURCES = 8  # source ports that flows are spread over, for ECMP and receive queues on the way


class UdpPort(Port):
    """`segments_max` is what one send may carry (1: no UDP_SEGMENT); `gro` whether receives may be merged."""

    kind = "udp"

    def __init__(self, tunnel: Tunnel, receiving: socket.socket, sending: tuple[socket.socket, ...]) -> None:
        name = f"{tunnel.encapsulation}/{tunnel.local}:{tunnel.port}"
        super().__init__(
            name,
            "tunnel",
            inputs=(receiving.fileno(),),
            senders=tuple(each.fileno() for each in sending),
            tunnel=tunnel,
        )
        self._sockets = (receiving, *sending)
        self.segments_max = segments_allowed(sending[0])
        self.source_ports = tuple(each.getsockname()[1] for each in sending)
        self.gro = merge_receives(receiving)

    @classmethod
    def open(cls, tunnel: Tunnel, *, sources: int = SOURCES) -> UdpPort:
        """Bind the tunnel's local address and port, and `sources` ports to send from.

        OSError as the kernel says it: EADDRINUSE when a device or process owns
        the port, EADDRNOTAVAIL when the address is not of this host.
        """
        opened: list[socket.socket] = []
        try:
            receiving = open_socket(tunnel.local, socket.SOCK_DGRAM)
            opened.append(receiving)
            receiving.bind((str(tunnel.local), tunnel.port))
            if tunnel.source_ports == "fixed":
                return cls(tunnel, receiving, (receiving,))
            for _ in range(sources):
                sending = open_socket(tunnel.local, socket.SOCK_DGRAM)
                opened.append(sending)
                receive_nothing(sending)
                sending.bind((str(tunnel.local), 0))
            return cls(tunnel, receiving, tuple(opened[1:]))
        except BaseException:
            for each in opened:
                each.close()
            raise

    @classmethod
    def adopt(cls, tunnel: Tunnel, descriptors: Sequence[int]) -> UdpPort:
        """Go on with the sockets of a tunnel that another process opened, the receiving one first.

        ValueError when they are not those of `tunnel`. They are the caller's until this returns.
        """
        if (tunnel.source_ports == "fixed") is not (len(descriptors) == 1):
            raise ValueError(f"{len(descriptors)} sockets do not make the tunnel {tunnel.local}:{tunnel.port}")
        receiving, *sending = adopt_sockets(descriptors, tunnel.local, socket.SOCK_DGRAM)
        if receiving.getsockname()[1] != tunnel.port:
            disown(receiving, *sending)
            raise ValueError(f"the socket inherited for {tunnel.local}:{tunnel.port} has another port")
        return cls(tunnel, receiving, tuple(sending) or (receiving,))

    def close(self) -> None:
        for each in self._sockets:
            each.close()


def segments_allowed(sending: socket.socket) -> int:
    """Datagrams of one UDP_SEGMENT send that this kernel takes; 1 when it knows no UDP_SEGMENT."""
    try:
        sending.setsockopt(SOL_UDP, UDP_SEGMENT, 0)
    except OSError:
        return 1
    return segments_of_kernel()


def merge_receives(receiving: socket.socket) -> bool:
    try:
        receiving.setsockopt(SOL_UDP, UDP_GRO, 1)
    except OSError:
        return False
    return True
