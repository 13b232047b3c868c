"""UDP tunnel ports: sockets that receive, one a worker, and several source ports to send from.

Owns: the sockets of the vxlan and udp encapsulations on one local address.
Never: sends or receives; the loop does (udp.pxd).
Invariant: what one source port of a peer sends always arrives at the same receiving
socket, in order; the kernel chooses by a hash of both addresses and ports (SO_REUSEPORT).
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from fastpath.port.port import Port
from fastpath.port.sockets import adopt_sockets, disown, open_socket, receive_again, receive_nothing, segments_of_kernel
from fastpath.values import Tunnel

SOL_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104
SOURCES = 8  # source ports that flows are spread over, for ECMP and receive queues on the way


class UdpPort(Port):
    """`segments_max` is what one send may carry (1: no UDP_SEGMENT); `gro` whether receives may be merged."""

    kind = "udp"

    def __init__(
        self, tunnel: Tunnel, receiving: tuple[socket.socket, ...], sending: tuple[socket.socket, ...]
    ) -> None:
        name = f"{tunnel.encapsulation}/{tunnel.local}:{tunnel.port}"
        super().__init__(
            name,
            "tunnel",
            inputs=tuple(each.fileno() for each in receiving),
            senders=tuple(each.fileno() for each in sending),
            tunnel=tunnel,
        )
        self._sockets = (*receiving, *sending)
        self.segments_max = segments_allowed(sending[0])
        self.source_ports = tuple(each.getsockname()[1] for each in sending)
        merged = [merge_receives(each) for each in receiving]
        self.gro = all(merged)

    @classmethod
    def open(cls, tunnel: Tunnel, *, sources: int = SOURCES, receivers: int = 1) -> UdpPort:
        """Bind the tunnel's local address and port, `receivers` times, and `sources` ports to send from.

        OSError as the kernel says it: EADDRINUSE when a device or process owns
        the port, EADDRNOTAVAIL when the address is not of this host. ValueError when nothing would receive.
        """
        if receivers < 1:
            raise ValueError(f"a tunnel has at least one socket that receives, not {receivers}")
        opened: list[socket.socket] = []
        try:
            for _ in range(receivers):
                opened.append(open_socket(tunnel.local, socket.SOCK_DGRAM))
                if receivers > 1:
                    # Each bind deals the flows anew: none may have datagrams in two sockets.
                    receive_nothing(opened[-1])
                bind_beside(opened[:-1], opened[-1], (str(tunnel.local), tunnel.port))
            receiving = tuple(opened)
            if receivers > 1:
                for each in receiving:
                    receive_again(each)
            if tunnel.source_ports == "fixed":
                return cls(tunnel, receiving, receiving[:1])
            for _ in range(sources):
                opened.append(open_socket(tunnel.local, socket.SOCK_DGRAM))
                receive_nothing(opened[-1])
                opened[-1].bind((str(tunnel.local), 0))
            return cls(tunnel, receiving, tuple(opened[receivers:]))
        except BaseException:
            for each in opened:
                each.close()
            raise

    @classmethod
    def adopt(cls, tunnel: Tunnel, descriptors: Sequence[int]) -> UdpPort:
        """Go on with the sockets of a tunnel that another process opened: those on the tunnel's port receive.

        As many as there are, whatever number of workers serves them: another number would lead
        flows to other sockets while datagrams wait in theirs.
        ValueError when they are not those of `tunnel`. They are the caller's until this returns.
        """
        adopted = adopt_sockets(descriptors, tunnel.local, socket.SOCK_DGRAM)
        try:
            receiving = tuple(each for each in adopted if each.getsockname()[1] == tunnel.port)
            sending = tuple(each for each in adopted if each not in receiving)
            if not receiving:
                raise ValueError(f"no socket inherited for {tunnel.local}:{tunnel.port} has that port")
            if (tunnel.source_ports == "fixed") is (len(sending) > 0):
                raise ValueError(f"{len(sending)} senders do not make the tunnel {tunnel.local}:{tunnel.port}")
            return cls(tunnel, receiving, sending or receiving[:1])
        except BaseException:
            disown(*adopted)
            raise

    def close(self) -> None:
        for each in self._sockets:
            each.close()


def bind_beside(others: Sequence[socket.socket], another: socket.socket, address: tuple[str, int]) -> None:
    """Bind `another` to the address that `others` of ours hold.

    The first asks for the port alone, so that nobody else's socket is joined, and nobody's who
    asks alone can be bound beside it later. From the second on the kernel shares the port out
    among all that ask for SO_REUSEPORT: ours, and what another program of the same user binds so.
    """
    if others:
        others[0].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        another.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    another.bind(address)


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
