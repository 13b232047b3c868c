"""Numbered datagrams at a steady rate from a process of its own: what is lost, and for how long nothing came.

Owns: that process, its two sockets, and the board on which it shows how far it is.
Never: takes what could not be sent for sent, or a sender that came late for a network that was slow.
Invariant: after the block `hertz` is what was really sent, and sent = received + lost.
"""

from __future__ import annotations

import json
import mmap
import os
import socket
import subprocess
import sys
from types import TracebackType
from typing import Self

from engine.lab.host import Host
from engine.lab.traffic import metronome
from engine.lab.traffic.errors import family_of
from engine.lab.waiting import wait_until

_BUFFER = 8 << 20  # bytes
_SOON = 0.05  # seconds


class Beat:
    """Datagrams from `source` to `address` on `target` while the block runs. Moments are of the monotonic clock."""

    def __init__(self, source: Host, target: Host, address: str, *, hertz: float = 1000.0) -> None:
        self._sink = target.socket(family_of(address), socket.SOCK_DGRAM)
        self._sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._sink.bind((address, 0))
        self._source = source.socket(family_of(address), socket.SOCK_DGRAM)
        self._source.connect(self._sink.getsockname())
        self._wanted = hertz
        memory = os.memfd_create("beat")
        os.truncate(memory, metronome.BOARD.size)
        self._board = mmap.mmap(memory, metronome.BOARD.size)
        self._memory = memory
        self._process: subprocess.Popen[bytes] | None = None
        self.lost = 0
        self.hertz = 0.0  # as it was sent
        self.longest_pause = 0.0  # seconds between two sends: what the sender itself was late
        self.gaps: list[tuple[float, float]] = []  # when nothing arrived for some ms: from, to

    def __enter__(self) -> Self:
        descriptors = (self._source.fileno(), self._sink.fileno(), self._memory)
        argv = [sys.executable, "-S", "-E", metronome.__file__, *map(str, descriptors), str(self._wanted)]
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=descriptors, start_new_session=True
        )
        try:
            wait_until(lambda: self.received > 0, "the first datagram to arrive")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        output, _ = self._process.communicate(timeout=10)
        for part in (self._source, self._sink, self._board):
            part.close()
        os.close(self._memory)
        report = json.loads(output)
        self._final = report["sent"], report["sent"] - report["lost"]
        self.lost, self.longest_pause = report["lost"], report["longest_pause"]
        self.hertz = report["sent"] / max(report["seconds"], 1e-9)
        self.gaps = [(begin, end) for begin, end in report["gaps"]]

    @property
    def sent(self) -> int:
        return self._shown()[0]

    @property
    def received(self) -> int:
        return self._shown()[1]

    @property
    def last(self) -> float:
        """When the last one arrived."""
        return self._shown()[2] / 1e9

    @property
    def longest_gap(self) -> float:
        return max((end - begin for begin, end in self.gaps), default=0.0)

    def wait_for_one_sent_after(self, moment: float, *, seconds: float = 10.0) -> None:
        """Until a datagram has arrived that was sent after `moment`."""
        wait_until(lambda: self._shown()[3] / 1e9 > moment, "datagrams to flow again", seconds=seconds)

    def silence_after(self, moment: float) -> float:
        """Seconds until something arrived again, when nothing did at `moment` or soon after. Known after the block."""
        for begin, end in self.gaps:
            if end > moment:
                return end - moment if begin < moment + _SOON else 0.0
        return 0.0

    def _shown(self) -> tuple[int, int, int, int]:
        if self._board.closed:
            return (*self._final, 0, 0)
        shown: tuple[int, int, int, int] = metronome.BOARD.unpack_from(self._board, 0)
        return shown
