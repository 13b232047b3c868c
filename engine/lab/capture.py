"""Recording the frames of a device, to memory and on request to a pcap file.

Owns: one AF_PACKET socket and the thread that reads it.
Never: needs tcpdump, and never filters: what the device saw is what you get.
Invariant: after `stop` (or the end of the `with`), `frames` holds everything
that passed the device before it; `lost` says how many frames the kernel could not keep.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from engine.lab.namespace import Namespace
from engine.lab.waiting import wait_until

_ETH_P_ALL = 3
_SOL_PACKET, _PACKET_STATISTICS, _PACKET_AUXDATA = 263, 6, 8
_AUXDATA = struct.Struct("=IIIHHHH")  # status, length, captured, mac, net, vlan, vlan ethertype
_STATUS_CHECKSUM_PENDING = 1 << 3
_LONGEST = 1 << 18


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as the device saw it. A super-packet is one frame."""

    time_ns: int
    outgoing: bool
    checksum_pending: bool  # the transport checksum is left to a later device
    data: bytes


class Capture:
    def __init__(self, namespace: Namespace, device: str, path: Path | None = None) -> None:
        self.frames: list[Frame] = []
        self.lost = 0
        self._socket = namespace.call(_listen, device)
        self._file = _start_pcap(path) if path is not None else None
        self._wake, self._waker = socket.socketpair()
        self._thread = threading.Thread(target=self._read, name=f"capture-{device}", daemon=True)
        self._thread.start()

    def wait_for(self, count: int = 1, *, seconds: float = 5.0) -> list[Frame]:
        """Wait until `count` frames were seen; all of them."""
        wait_until(lambda: len(self.frames) >= count, f"{count} captured frames", seconds=seconds)
        return self.frames

    def stop(self) -> list[Frame]:
        """End the recording; every frame of it. Idempotent."""
        if self._thread.is_alive():
            self._waker.send(b"x")
            self._thread.join()
            self.lost = struct.unpack("=II", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))[1]
            for end in (self._socket, self._wake, self._waker):
                end.close()
            if self._file is not None:
                self._file.close()
        return self.frames

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _read(self) -> None:
        buffer = bytearray(_LONGEST)
        while True:
            ready, _, _ = select.select([self._socket, self._wake], [], [])
            if self._socket not in ready:
                return  # asked to stop, and the queue is empty
            length, ancillary, _, address = self._socket.recvmsg_into([buffer], 128)
            self._keep(bytes(memoryview(buffer)[:length]), ancillary, address[2])

    def _keep(self, data: bytes, ancillary: list[tuple[int, int, bytes]], packet_type: int) -> None:
        pending = any(
            level == _SOL_PACKET
            and kind == _PACKET_AUXDATA
            and _AUXDATA.unpack_from(value)[0] & _STATUS_CHECKSUM_PENDING
            for level, kind, value in ancillary
        )
        frame = Frame(time.time_ns(), packet_type == socket.PACKET_OUTGOING, bool(pending), data)
        self.frames.append(frame)
        if self._file is not None:
            write_record(self._file, frame)


def save(path: Path, frames: list[Frame]) -> Path:
    """Write frames as a pcap file (Ethernet, nanoseconds)."""
    with _start_pcap(path) as sink:
        for frame in frames:
            write_record(sink, frame)
    return path


def write_record(sink: BinaryIO, frame: Frame) -> None:
    seconds, nanoseconds = divmod(frame.time_ns, 1_000_000_000)
    sink.write(struct.pack("<IIII", seconds, nanoseconds, len(frame.data), len(frame.data)) + frame.data)


def _start_pcap(path: Path) -> BinaryIO:
    sink = path.open("wb")
    sink.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, _LONGEST, 1))
    return sink


def _listen(device: str) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 20)
    sock.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
    sock.bind((device, _ETH_P_ALL))
    return sock
