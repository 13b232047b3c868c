"""TCP bulk transfer between two hosts, measured where it arrives.

Owns: one sender and one receiver thread a stream, for one measurement.
Never: counts what was only sent.
Invariant: the figure covers the time from the end of the warm-up to the last
receive before the deadline, and the bytes received within it.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from dataclasses import dataclass

from engine.lab.host import Host
from engine.lab.traffic.errors import TrafficError, family_of

_BLOCK = 1 << 20  # few calls, so that the streams of one process hardly wait for each other
_STALL = struct.pack("@ll", 0, 500_000)  # SO_RCVTIMEO: unlike a Python timeout it costs no poll a call


@dataclass(frozen=True, slots=True)
class Throughput:
    received: int  # bytes
    seconds: float
    streams: int

    @property
    def gigabits(self) -> float:
        """Gb/s of TCP payload."""
        return self.received * 8 / self.seconds / 1e9


def throughput(
    source: Host, target: Host, address: str, *, seconds: float = 2.0, warm_up: float = 0.3, streams: int = 1
) -> Throughput:
    """Send from `source` to `address`, which is on `target`, as fast as TCP lets."""
    family = family_of(address)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(target.socket(family, socket.SOCK_STREAM))
        listener.bind((address, 0))
        listener.listen(streams)
        listener.settimeout(5.0)
        pairs = [_connect(stack, source, family, listener) for _ in range(streams)]
        stop = threading.Event()
        senders = [threading.Thread(target=_send, args=(left, stop), daemon=True) for left, _ in pairs]
        counts: list[tuple[int, float]] = []
        receivers = [
            threading.Thread(target=lambda s=right: counts.append(_receive(s, warm_up, seconds)), daemon=True)
            for _, right in pairs
        ]
        for thread in (*receivers, *senders):
            thread.start()
        for thread in receivers:
            thread.join()
        stop.set()
        for left, _ in pairs:
            with contextlib.suppress(OSError):
                left.shutdown(socket.SHUT_RDWR)
        for thread in senders:
            thread.join()
    if not counts or not all(received for received, _ in counts):
        raise TrafficError(f"tcp {address}: a stream moved nothing for {seconds:g} s")
    return Throughput(sum(received for received, _ in counts), max(span for _, span in counts), streams)


def _connect(
    stack: contextlib.ExitStack, source: Host, family: int, listener: socket.socket
) -> tuple[socket.socket, socket.socket]:
    left = stack.enter_context(source.socket(family, socket.SOCK_STREAM))
    left.settimeout(5.0)
    try:
        left.connect(listener.getsockname())
        left.settimeout(None)
        right, _ = listener.accept()
    except OSError as error:
        raise TrafficError(f"tcp {listener.getsockname()[0]}: {error}") from error
    right.settimeout(None)
    right.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _STALL)
    return left, stack.enter_context(right)


def _send(sock: socket.socket, stop: threading.Event) -> None:
    block = bytes(_BLOCK)
    with contextlib.suppress(OSError):
        while not stop.is_set():
            sock.send(block)


def _receive(sock: socket.socket, warm_up: float, seconds: float) -> tuple[int, float]:
    """Bytes and seconds after the warm-up. A stalled stream ends with what it had."""
    buffer = bytearray(_BLOCK)
    began = last = time.perf_counter()
    start, end = began + warm_up, began + warm_up + seconds
    received = 0
    while last < end:
        try:
            count = sock.recv_into(buffer)
        except BlockingIOError:
            last = time.perf_counter()
            continue
        except OSError:
            break
        if not count:
            break
        last = time.perf_counter()
        if last >= start:
            received += count
    return received, max(last - start, 1e-9)
