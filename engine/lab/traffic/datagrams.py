"""A numbered stream of datagrams: what arrives, in which order, how often, and unharmed?

Owns: one sending and one receiving socket for one measurement.
Never: has more than a few datagrams under way, so that a full queue is not taken for a lossy network.
Invariant: received + lost == sent; a duplicate is counted apart.
"""

from __future__ import annotations

import itertools
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from engine.lab.host import Host
from engine.lab.traffic.errors import family_of

_HEADER = struct.Struct("!III")  # run, number, checksum of the rest
_PATIENCE = 0.1  # seconds


@dataclass(frozen=True, slots=True)
class Delivery:
    sent: int
    received: int
    duplicated: int
    reordered: int
    corrupted: int

    @property
    def lost(self) -> int:
        return self.sent - self.received

    @property
    def ok(self) -> bool:
        return (
            self.sent > 0 and self.received == self.sent and not (self.duplicated or self.reordered or self.corrupted)
        )


def delivery(
    source: Host, target: Host, address: str, *, count: int = 1000, size: int = 64, under_way: int = 64
) -> Delivery:
    """Send `count` datagrams of `size` >= 12 payload bytes to `address` on `target`, `under_way` at a time.

    What has not arrived after a moment is given up, so that loss slows the stream but does not end it.
    """
    with (
        target.socket(family_of(address), socket.SOCK_DGRAM) as sink,
        source.socket(family_of(address), socket.SOCK_DGRAM) as sock,
    ):
        sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        sink.bind((address, 0))
        sink.settimeout(0.5)
        run = time.time_ns() & 0xFFFFFFFF
        arrived: list[int] = []
        receiver = threading.Thread(target=_receive, args=(sink, run, count, arrived), daemon=True)
        receiver.start()
        sock.connect(sink.getsockname())
        _send(sock, run, _paced(count, under_way, arrived), size)
        receiver.join()
    return _judge(count, arrived)


def _send(sock: socket.socket, run: int, numbers: Iterator[int], size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[: size - _HEADER.size]
    checksum = zlib.crc32(body)
    for number in numbers:
        sock.send(_HEADER.pack(run, number, checksum) + body)


def _paced(count: int, under_way: int, arrived: list[int]) -> Iterator[int]:
    """0 .. count-1, each when fewer than `under_way` are missing or nothing has arrived for a moment."""
    given_up = 0
    for number in range(count):
        deadline = time.monotonic() + _PATIENCE
        while number - len(arrived) - given_up >= under_way:
            if time.monotonic() > deadline:
                given_up = number - len(arrived)
            time.sleep(1e-4)
        yield number


def _receive(sink: socket.socket, run: int, count: int, arrived: list[int]) -> None:
    """Numbers in order of arrival, -1 for a damaged datagram; ends half a second after the last."""
    while len(arrived) < count:
        try:
            data = sink.recv(1 << 16)
        except TimeoutError:
            return
        theirs, number, checksum = _HEADER.unpack_from(data)
        if theirs == run:
            arrived.append(number if zlib.crc32(data[_HEADER.size :]) == checksum else -1)


def _judge(sent: int, arrived: list[int]) -> Delivery:
    good = [number for number in arrived if number >= 0]
    different = set(good)
    reordered = sum(1 for before, after in itertools.pairwise(good) if after < before)
    return Delivery(sent, len(different), len(good) - len(different), reordered, len(arrived) - len(good))
