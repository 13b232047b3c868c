"""Echo requests: is it there, how long does it take, does a packet of this size get through.

Owns: one unprivileged ICMP socket a call.
Never: counts an answer whose payload differs from what was asked.
Invariant: sent == received + lost, and every answer is matched to its request.
"""

from __future__ import annotations

import os
import select
import socket
import statistics
import struct
import time
from dataclasses import dataclass

from engine.lab.host import Host
from engine.lab.traffic.errors import (
    PMTUDISC_DO,
    NetworkError,
    family_of,
    report_errors,
    set_discovery,
    set_hops,
    take_error,
)

_HEADER = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence number


@dataclass(frozen=True, slots=True)
class Ping:
    """What became of a series of echo requests. Times in milliseconds."""

    sent: int
    times_ms: tuple[float, ...]
    errors: tuple[NetworkError, ...] = ()
    corrupted: int = 0

    @property
    def received(self) -> int:
        return len(self.times_ms)

    @property
    def lost(self) -> int:
        return self.sent - self.received

    @property
    def ok(self) -> bool:
        return self.sent > 0 and self.lost == 0 and not self.corrupted

    @property
    def median_ms(self) -> float:
        return statistics.median(self.times_ms) if self.times_ms else float("nan")


def ping(
    source: Host,
    address: str,
    *,
    count: int = 1,
    size: int = 56,
    seconds: float = 1.0,
    fragment: bool = True,
    hops: int = 64,
) -> Ping:
    """Send `count` echo requests of `size` payload bytes, each after the answer to the one before.

    `seconds` is the patience for one answer. Without `fragment` a packet larger
    than the path is reported in `errors` instead of being cut.
    """
    family = family_of(address)
    protocol, request = (socket.IPPROTO_ICMPV6, 128) if family == socket.AF_INET6 else (socket.IPPROTO_ICMP, 8)
    with source.socket(family, socket.SOCK_DGRAM, protocol) as sock:
        report_errors(sock)
        set_hops(sock, hops)
        if not fragment:
            set_discovery(sock, PMTUDISC_DO)
        times: list[float] = []
        errors: list[NetworkError] = []
        corrupted = 0
        for sequence in range(count):
            payload = os.urandom(size)
            began = time.perf_counter()
            answer = _ask(sock, address, _HEADER.pack(request, 0, 0, 0, sequence) + payload, began + seconds)
            if isinstance(answer, NetworkError):
                errors.append(answer)
            elif answer == payload:
                times.append((time.perf_counter() - began) * 1e3)
            elif answer is not None:
                corrupted += 1
        return Ping(count, tuple(times), tuple(errors), corrupted)


def _ask(sock: socket.socket, address: str, request: bytes, deadline: float) -> bytes | NetworkError | None:
    """The payload of the answer with the request's number, what went wrong, or None when time is up."""
    try:
        sock.sendto(request, (address, 0))
    except OSError as error:
        return take_error(sock) or NetworkError(error.errno or 0, 0, 0, 0, None, local=True)
    while (patience := deadline - time.perf_counter()) > 0:
        readable, _, failed = select.select([sock], [], [sock], patience)
        if not readable and not failed:
            return None
        said = take_error(sock)
        if said is not None:
            return said
        data = sock.recv(1 << 17)
        if data[6:8] == request[6:8]:
            return data[_HEADER.size :]
    return None
