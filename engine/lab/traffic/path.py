"""What a path looks like: the routers on it, and the largest packet that gets through.

Owns: UDP probes and the ICMP errors they draw; no raw socket.
Never: believes an announced MTU: the size returned was carried and echoed.
Invariant: a search ends, whatever the network answers.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from dataclasses import dataclass

from engine.lab.host import Host
from engine.lab.traffic.echo import PORT
from engine.lab.traffic.errors import (
    PMTUDISC_DO,
    TrafficError,
    family_of,
    known_mtu,
    report_errors,
    set_discovery,
    set_hops,
    take_error,
)

_TRACE_PORT = 33434
_ATTEMPTS = 12


@dataclass(frozen=True, slots=True)
class Hop:
    """Who answered a probe of this distance; None when nobody did."""

    distance: int
    address: str | None
    time_ms: float | None
    arrived: bool  # the answer came from the target itself


def traceroute(source: Host, address: str, *, most: int = 8, seconds: float = 1.0) -> list[Hop]:
    """The routers between `source` and `address`, the target last."""
    hops = []
    for distance in range(1, most + 1):
        hops.append(_probe(source, address, distance, seconds))
        if hops[-1].arrived:
            break
    return hops


def _probe(source: Host, address: str, distance: int, seconds: float) -> Hop:
    with source.socket(family_of(address), socket.SOCK_DGRAM) as sock:
        report_errors(sock)
        set_hops(sock, distance)
        began = time.perf_counter()
        sock.sendto(b"towpath", (address, _TRACE_PORT + distance))
        poller = select.poll()
        poller.register(sock, select.POLLERR)
        if not poller.poll(seconds * 1e3):
            return Hop(distance, None, None, arrived=False)
        said = take_error(sock)
        elapsed = (time.perf_counter() - began) * 1e3
        if said is None:
            return Hop(distance, None, None, arrived=False)
        return Hop(distance, said.offender, elapsed, arrived=said.errno == errno.ECONNREFUSED)


def path_mtu(source: Host, address: str, *, port: int = PORT, seconds: float = 0.5) -> int:
    """The largest IP packet from `source` to the responder at `address`, and back, in bytes."""
    family = family_of(address)
    headers = 48 if family == socket.AF_INET6 else 28
    with source.socket(family, socket.SOCK_DGRAM) as sock:
        report_errors(sock)
        set_discovery(sock, PMTUDISC_DO)
        sock.connect((address, port))
        for _ in range(_ATTEMPTS):
            size = min(known_mtu(sock), 65535)
            if _carried(sock, os.urandom(size - headers), seconds):
                return size
            if known_mtu(sock) >= size:
                raise TrafficError(f"path to {address}: {size} bytes vanish and nobody says so")
    raise TrafficError(f"path to {address}: the announced MTU never settled")


def _carried(sock: socket.socket, message: bytes, seconds: float) -> bool:
    sock.settimeout(seconds)
    try:
        sock.send(message)
        return sock.recv(1 << 16) == message
    except TimeoutError:
        return False
    except OSError as error:
        if error.errno != errno.EMSGSIZE:
            raise TrafficError(f"path: {error}") from error
        while take_error(sock) is not None:
            pass
        return False
