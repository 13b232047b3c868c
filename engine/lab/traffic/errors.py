"""What the network said about a packet: the ICMP errors in a socket's error queue.

Owns: switching the queue on and reading it, for both families.
Never: needs a raw socket.
Invariant: one call takes one error, or says that there is none.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

IP_MTU_DISCOVER, IP_RECVERR, IP_MTU = 10, 11, 14
IPV6_MTU_DISCOVER, IPV6_RECVERR, IPV6_MTU, IPV6_DONTFRAG = 23, 25, 24, 62
PMTUDISC_DO, PMTUDISC_PROBE = 2, 3
_EXTENDED = struct.Struct("=IBBBBII")  # errno, origin, type, code, pad, info, data
_ORIGIN_LOCAL = 1


class TrafficError(Exception):
    """A check of the network failed; the text says how."""


@dataclass(frozen=True, slots=True)
class NetworkError:
    """An ICMP error as its receiver sees it; `local` when this host's own kernel said it."""

    errno: int
    type: int
    code: int
    mtu: int
    offender: str | None
    local: bool


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def report_errors(sock: socket.socket) -> None:
    """Let ICMP errors about what `sock` sends be read by `take_error`."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)


def set_discovery(sock: socket.socket, mode: int) -> None:
    """Say how `sock` treats packets larger than the path (a PMTUDISC_ number)."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, mode)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, mode)


def set_hops(sock: socket.socket, hops: int) -> None:
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hops)
    else:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)


def known_mtu(sock: socket.socket) -> int:
    """The path MTU the kernel knows for the peer of a connected socket."""
    if sock.family == socket.AF_INET6:
        return sock.getsockopt(socket.IPPROTO_IPV6, IPV6_MTU)
    return sock.getsockopt(socket.IPPROTO_IP, IP_MTU)


def take_error(sock: socket.socket) -> NetworkError | None:
    """The oldest error in the queue, without waiting."""
    patience = sock.gettimeout()
    sock.settimeout(0)
    try:
        _, ancillary, _, _ = sock.recvmsg(0, 1024, socket.MSG_ERRQUEUE)
    except BlockingIOError:
        return None
    finally:
        sock.settimeout(patience)
    for level, kind, value in ancillary:
        if (level, kind) in ((socket.IPPROTO_IP, IP_RECVERR), (socket.IPPROTO_IPV6, IPV6_RECVERR)):
            return _decode(value, sock.family)
    return None


def _decode(value: bytes, family: int) -> NetworkError:
    number, origin, kind, code, _, info, _ = _EXTENDED.unpack_from(value)
    offender = None
    address = value[_EXTENDED.size :]
    if len(address) >= 2 and struct.unpack_from("=H", address)[0] == family:
        raw = address[8:24] if family == socket.AF_INET6 else address[4:8]
        offender = socket.inet_ntop(family, raw)
    return NetworkError(number, kind, code, info, offender, origin == _ORIGIN_LOCAL)
