"""As many datagrams as go: how many arrive, of which size, at one receiver?

Owns: the senders (sendmmsg) and the counting receiver (recvmmsg, with UDP_GRO on request).
Never: counts what was only sent, and paces nothing: what does not arrive was too much.
Invariant: sent and received are counted between the same two moments, the
end of the warm-up and the deadline, each by its own side.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import socket
import struct
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

from engine.lab.host import Host
from engine.lab.traffic.errors import TrafficError, family_of

_BATCH = 64  # messages a call
_MSG_WAITFORONE = 0x10000
_SOL_UDP, _UDP_GRO = 17, 104
_SO_RCVBUFFORCE, _SO_SNDBUFFORCE = 33, 32
_BUFFER = 8 << 20
_STALL = struct.pack("@ll", 0, 200_000)
_CONTROL = 64  # bytes of control messages a datagram
_CMSG = struct.Struct("@nii")  # length, level, type; an int follows
_PASSING = {errno.EAGAIN, errno.EINTR, errno.ENOBUFS, errno.ECONNREFUSED}

_libc = ctypes.CDLL(None, use_errno=True)


class _Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class _Message(ctypes.Structure):
    """struct msghdr"""

    _fields_ = [
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("iovec", ctypes.POINTER(_Iovec)),
        ("n_iovec", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


class _Header(ctypes.Structure):
    """struct mmsghdr"""

    _fields_ = [("message", _Message), ("count", ctypes.c_uint32)]


@dataclass(frozen=True, slots=True)
class Flood:
    """Datagrams, and the seconds in which they were sent and received."""

    sent: int
    received: int
    seconds: float

    @property
    def rate(self) -> float:
        """Datagrams delivered a second."""
        return self.received / self.seconds

    @property
    def lost(self) -> float:
        """The share of the sent that did not arrive, 0 to 1."""
        return max(0.0, 1 - self.received / self.sent) if self.sent else 0.0


def flood(
    source: Host,
    target: Host,
    addresses: Sequence[str],
    *,
    sizes: Sequence[int] = (64,),
    seconds: float = 2.0,
    warm_up: float = 0.3,
    senders: int = 1,
    merged: bool = False,
) -> Flood:
    """Send datagrams of `sizes` payload bytes in turn to `addresses` of `target` in turn, as fast as they go.

    `merged` lets the receiver take super-packets (UDP_GRO); it needs datagrams of one size.
    """
    if merged and len(set(sizes)) > 1:
        raise ValueError("a receiver of super-packets counts datagrams of one size")
    family = family_of(addresses[0])
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(_sink(target, family, merged=merged))
        port = sink.getsockname()[1]
        socks = [stack.enter_context(source.socket(family, socket.SOCK_DGRAM)) for _ in range(senders)]
        began = time.perf_counter()
        span = began + warm_up, began + warm_up + seconds
        counts: list[int] = [0] * (senders + 1)
        threads = [threading.Thread(target=_receive, args=(sink, span, sizes[0] if merged else 0, counts))]
        for number, sock in enumerate(socks, 1):
            _enlarge(sock, _SO_SNDBUFFORCE, socket.SO_SNDBUF)
            batch = _outgoing(family, [(address, port) for address in addresses], sizes)
            threads.append(threading.Thread(target=_send, args=(sock, batch, span, counts, number)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if not counts[0]:
        raise TrafficError(f"udp {addresses[0]}: none of {sum(counts[1:])} datagrams arrived in {seconds:g} s")
    return Flood(sum(counts[1:]), counts[0], seconds)


def _sink(target: Host, family: socket.AddressFamily, *, merged: bool) -> socket.socket:
    """A socket that takes whatever comes to a free port, and gives up when nothing does."""
    sink = target.socket(family, socket.SOCK_DGRAM)
    sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _STALL)
    _enlarge(sink, _SO_RCVBUFFORCE, socket.SO_RCVBUF)
    if merged:
        sink.setsockopt(_SOL_UDP, _UDP_GRO, 1)
    sink.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", 0))
    return sink


def _enlarge(sock: socket.socket, forced: int, asked: int) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, forced, _BUFFER)
    except PermissionError:  # root of a user namespace only
        sock.setsockopt(socket.SOL_SOCKET, asked, _BUFFER)


# -- batches -------------------------------------------------------------------
class _Batch:
    """The memory of one sendmmsg or recvmmsg call."""

    def __init__(self, count: int, *, size: int, control: int = 0) -> None:
        self.count = count
        self.headers = (_Header * count)()
        self.control = ctypes.create_string_buffer(max(1, control * count))
        self._iovecs = (_Iovec * count)()
        self._payload = ctypes.create_string_buffer(size * count)
        self._names: list[ctypes.Array[ctypes.c_char]] = []
        for index in range(count):
            self._iovecs[index] = _Iovec(ctypes.addressof(self._payload) + index * size, size)
            self.headers[index].message.iovec = ctypes.pointer(self._iovecs[index])
            self.headers[index].message.n_iovec = 1

    def address(self, index: int, name: bytes, size: int) -> None:
        self._names.append(ctypes.create_string_buffer(name, len(name)))
        self.headers[index].message.name = ctypes.addressof(self._names[-1])
        self.headers[index].message.name_length = len(name)
        self._iovecs[index].length = size


def _outgoing(family: int, destinations: Sequence[tuple[str, int]], sizes: Sequence[int]) -> _Batch:
    """Every combination meets within one batch when there are no more than it holds."""
    count = max(_BATCH, len(destinations))
    batch = _Batch(count, size=max(sizes))
    pairs: Iterable[tuple[tuple[str, int], int]] = zip(cycle(destinations), cycle(sizes), strict=False)
    for index, ((address, port), size) in enumerate(islice(pairs, count)):
        batch.address(index, _sockaddr(family, address, port), size)
    return batch


def _sockaddr(family: int, address: str, port: int) -> bytes:
    number = socket.inet_pton(family, address)
    if family == socket.AF_INET6:
        return struct.pack("=H", family) + struct.pack("!HI", port, 0) + number + struct.pack("=I", 0)
    return struct.pack("=H", family) + struct.pack("!H", port) + number + bytes(8)


# -- the two sides -------------------------------------------------------------
def _send(sock: socket.socket, batch: _Batch, span: tuple[float, float], counts: list[int], number: int) -> None:
    start, end = span
    descriptor, headers, count = sock.fileno(), batch.headers, batch.count
    now = time.perf_counter()
    while now < end:
        done = _libc.sendmmsg(descriptor, headers, count, 0)
        now = time.perf_counter()
        if done < 0 and ctypes.get_errno() not in _PASSING:
            return
        if done > 0 and start <= now < end:
            counts[number] += done


def _receive(sock: socket.socket, span: tuple[float, float], merged_size: int, counts: list[int]) -> None:
    start, end = span
    batch = _Batch(_BATCH, size=1 << 16 if merged_size else 1 << 11, control=_CONTROL)
    descriptor, headers = sock.fileno(), batch.headers
    controls = [ctypes.addressof(batch.control) + index * _CONTROL for index in range(_BATCH)]
    now = time.perf_counter()
    while now < end:
        if merged_size:
            for header, control in zip(headers, controls, strict=True):
                header.message.control, header.message.control_length = control, _CONTROL
        done = _libc.recvmmsg(descriptor, headers, _BATCH, _MSG_WAITFORONE, None)
        now = time.perf_counter()
        if done < 0 and ctypes.get_errno() not in _PASSING:
            return
        if done > 0 and start <= now < end:
            counts[0] += _datagrams(headers, done) if merged_size else done


def _datagrams(headers: ctypes.Array[_Header], count: int) -> int:
    """How many datagrams the first `count` receives stand for."""
    total = 0
    for header in headers[:count]:
        size = 0
        if header.message.control_length >= _CMSG.size + 4:
            raw = ctypes.string_at(header.message.control, _CMSG.size + 4)
            _, level, kind = _CMSG.unpack_from(raw)
            if (level, kind) == (_SOL_UDP, _UDP_GRO):
                size = int.from_bytes(raw[_CMSG.size :], "little")
        total += -(-header.count // size) if size else 1
    return total
