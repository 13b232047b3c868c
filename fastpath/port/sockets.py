"""Options that the udp and raw ports set on their sockets.

Owns: buffer sizes, don't-fragment, traffic-class reports, and the filter that
keeps sending sockets from receiving.
Never: binds or connects.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Sequence

from fastpath.values import Address

IP_MTU_DISCOVER, IPV6_MTU_DISCOVER = 10, 23
PMTUDISC_DO = 2  # set DF, and refuse what is larger than the path (EMSGSIZE)
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
IP_RECVTOS = 13
NOTHING = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # classic BPF: return 0 bytes
RECEIVE_NOTHING = struct.pack("HP", 1, ctypes.addressof(NOTHING))  # struct sock_fprog
BUFFER_BYTES = 8 << 20  # 7 MiB is where loss at full TCP speed ends


def segments_of_kernel() -> int:
    """Datagrams of one UDP super-packet, sent by UDP_SEGMENT or written to a TUN: 64 before Linux 6.9."""
    major, minor = (int("".join(filter(str.isdigit, part)) or 0) for part in os.uname().release.split(".")[:2])
    return 128 if (major, minor) >= (6, 9) else 64


def family_of(address: Address) -> socket.AddressFamily:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def open_socket(local: Address, kind: socket.SocketKind, protocol: int = 0) -> socket.socket:
    """A non-blocking socket of the local address's family, with large buffers and DF set."""
    opened = socket.socket(family_of(local), kind | socket.SOCK_NONBLOCK, protocol)
    try:
        grow(opened, socket.SO_SNDBUF, SO_SNDBUFFORCE)
        grow(opened, socket.SO_RCVBUF, SO_RCVBUFFORCE)
        if local.version == 4:
            opened.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_DO)
            opened.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 64)
            opened.setsockopt(socket.IPPROTO_IP, IP_RECVTOS, 1)
        else:
            opened.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_DO)
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 64)
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
            if kind == socket.SOCK_DGRAM:
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    except BaseException:
        opened.close()
        raise
    return opened


def adopt_sockets(descriptors: Sequence[int], local: Address, kind: socket.SocketKind) -> list[socket.socket]:
    """Sockets on `local` that another process made. ValueError, and nothing taken, when one is something else."""
    adopted: list[socket.socket] = []
    try:
        for descriptor in descriptors:
            adopted.append(socket.socket(fileno=descriptor))
            each = adopted[-1]
            if (each.family, each.type, each.getsockname()[0]) != (family_of(local), kind, str(local)):
                raise ValueError(f"descriptor {descriptor} is no {kind.name} socket on {local}")
    except OSError as error:
        disown(*adopted)
        raise ValueError(f"not a socket on {local}: {error.strerror}") from error
    except ValueError:
        disown(*adopted)
        raise
    return adopted


def disown(*adopted: socket.socket) -> None:
    """Leave the descriptors to whoever handed them in."""
    for each in adopted:
        each.detach()


def grow(opened: socket.socket, option: int, forced: int) -> None:
    """As large a buffer as allowed: past the system's limit with CAP_NET_ADMIN, else up to it."""
    try:
        opened.setsockopt(socket.SOL_SOCKET, forced, BUFFER_BYTES)
    except PermissionError:
        opened.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)


def receive_nothing(opened: socket.socket) -> None:
    """Drop every datagram that comes: nobody can fill the queue of a socket that only sends, or does not receive yet."""
    opened.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, RECEIVE_NOTHING)


def receive_again(opened: socket.socket) -> None:
    """Let in what comes from now on."""
    opened.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
