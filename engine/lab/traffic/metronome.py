"""The program behind `Beat`: `python -S metronome.py SEND RECEIVE BOARD HERTZ`, three descriptors and a rate.

Owns: a process of its own, so that nothing the test does at the same time delays a datagram.
Never: sends late without saying so, and never skips: what is overdue is sent at once.
Invariant: number n is due n/HERTZ seconds after the start; the board always shows how far it has come.
"""

import json
import mmap
import select
import socket
import struct
import sys
import time

BOARD = struct.Struct("=QQQQ")  # sent, received, when the last one arrived, and when that had been sent (ns, monotonic)
DATAGRAM = struct.Struct("!QQ")  # number, when it was sent (ns, monotonic)
LATE = 5_000_000  # ns; a longer silence of what arrives is told as a gap
PATIENCE = 0.5  # seconds for the last ones on their way


class Metronome:
    def __init__(self, source: socket.socket, sink: socket.socket, board: mmap.mmap, hertz: float) -> None:
        self.source, self.sink, self.board = source, sink, board
        self.period = 1e9 / hertz
        self.began = time.monotonic_ns()
        self.sent = self.refused = 0
        self.sent_at = self.arrived_at = self.began
        self.longest_pause = 0  # between two sends
        self.seen: set[int] = set()
        self.gaps: list[tuple[int, int]] = []  # from the arrival before to the one after
        self.board_sent_at = 0

    def run(self, until: int) -> None:
        """Until the descriptor `until` says something, or its other end is gone."""
        poll = select.poll()
        poll.register(self.sink, select.POLLIN)
        poll.register(until, select.POLLIN)
        while True:
            now = time.monotonic_ns()
            while self.began + self.sent * self.period <= now:
                self.send(now)
            wait = (self.began + self.sent * self.period - time.monotonic_ns()) / 1e6
            ready = {descriptor for descriptor, _ in poll.poll(max(0.0, wait))}
            if self.sink.fileno() in ready:
                self.receive()
            if until in ready:
                return

    def send(self, now: int) -> None:
        self.longest_pause, self.sent_at = max(self.longest_pause, now - self.sent_at), now
        try:
            self.source.send(DATAGRAM.pack(self.sent, now))
        except OSError:  # the path says no: that one is lost
            self.refused += 1
        self.sent += 1
        self.show()

    def receive(self) -> None:
        """Everything that is there."""
        while True:
            try:
                number, self.board_sent_at = DATAGRAM.unpack(self.sink.recv(100))
            except (BlockingIOError, ConnectionError):
                return
            now = time.monotonic_ns()
            if now - self.arrived_at > LATE:
                self.gaps.append((self.arrived_at, now))
            self.arrived_at = now
            self.seen.add(number)
            self.show()

    def finish(self) -> None:
        """Wait a while for what is missing."""
        deadline = time.monotonic() + PATIENCE
        while len(self.seen) < self.sent and time.monotonic() < deadline:
            select.select([self.sink], [], [], 0.01)
            self.receive()

    def show(self) -> None:
        BOARD.pack_into(self.board, 0, self.sent, len(self.seen), self.arrived_at, self.board_sent_at)

    def report(self) -> dict[str, object]:
        return {
            "sent": self.sent,
            "lost": self.sent - len(self.seen),
            "seconds": (self.sent_at - self.began) / 1e9,
            "longest_pause": self.longest_pause / 1e9,
            "gaps": [(begin / 1e9, end / 1e9) for begin, end in self.gaps],
        }


def main() -> None:
    send, receive, board = map(int, sys.argv[1:4])
    source, sink = socket.socket(fileno=send), socket.socket(fileno=receive)
    source.setblocking(False)
    sink.setblocking(False)
    metronome = Metronome(source, sink, mmap.mmap(board, BOARD.size), float(sys.argv[4]))
    metronome.run(sys.stdin.fileno())
    metronome.finish()
    json.dump(metronome.report(), sys.stdout)


if __name__ == "__main__":
    main()
