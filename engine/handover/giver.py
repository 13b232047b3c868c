"""The running daemon's side: it offers what it has, and stops when its successor can begin.

Owns: the conversation, and the moment at which forwarding stops or goes on.
Never: changes the kernel or the tables.
Invariants: one of the two forwards, and never both: before `Go` it is this
one; after it the successor, which says `Running` or is killed before this one
goes on. Nothing is stopped before the successor has said that it is ready.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from engine.apply.inheritance import Heirloom
from engine.handover.line import HandoverError, Line, RefusedError, close_all
from engine.handover.messages import Go, Hello, Offer, PortItem, Ready, Refusal, Running

log = logging.getLogger(__name__)

HELLO_SECONDS = 5.0
PREPARE_SECONDS = 60.0  # for the successor to build its tables; this one forwards meanwhile
_CREDENTIALS = struct.Struct("3i")  # of SO_PEERCRED: process, user, group
COMMIT_SECONDS = 5.0  # for it to start its workers; nobody forwards meanwhile


@dataclass(frozen=True, slots=True)
class Estate:
    """What is handed over, and how forwarding is stopped (what is known of connections comes back) and started again."""

    ports: Sequence[Heirloom]
    others: dict[str, int]
    pause: Callable[[], dict[str, bytes]]
    go_on: Callable[[], None]
    lent: set[str] = field(default_factory=set)  # those of `others` that are a service manager's


def hand_over(connection: socket.socket, estate: Estate, *, check: Callable[[], None]) -> int | None:
    """The process number of the successor that forwards now; None: it failed, and this daemon goes on.

    `check` is called while waiting, as a sign of life and to stop waiting (it raises then).
    """
    line = Line(connection, check=check)
    pid: int = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))[0]
    try:
        line.process = os.pidfd_open(pid)
        line.receive(Hello, seconds=HELLO_SECONDS)
        _offer(line, estate)
        line.receive(Ready, seconds=PREPARE_SECONDS)
        _commit(line, estate)
    except (HandoverError, OSError) as error:
        log.warning("the successor (process %d) did not take over: %s", pid, error)
        with suppress(HandoverError):
            line.send(Refusal(str(error)), seconds=0.1)
        return None
    finally:
        line.close()
    log.info("process %d forwards now", pid)
    return pid


def _offer(line: Line, estate: Estate) -> None:
    items = [
        PortItem(*heirloom.owner, len(heirloom.descriptors), heirloom.granted, heirloom.namespace)
        for heirloom in estate.ports
    ]
    descriptors = [descriptor for heirloom in estate.ports for descriptor in heirloom.descriptors]
    process = os.pidfd_open(os.getpid())
    try:
        others = {**estate.others, "process": process}
        line.send(Offer(items, list(others), sorted(estate.lent)), [*descriptors, *others.values()])
    finally:
        os.close(process)


def _commit(line: Line, estate: Estate) -> None:
    memory: list[int] = []
    try:
        known = estate.pause()
        stopped = time.monotonic_ns()
        memory += [_memory(content) for content in known.values()]
        line.send(Go(stopped, list(known)), memory)
        line.receive(Running, seconds=COMMIT_SECONDS)
    except BaseException as error:
        if not isinstance(error, RefusedError):
            line.end_it()  # it may forward already, or begin to at any moment
        estate.go_on()
        raise
    finally:
        close_all(memory)


def _memory(content: bytes) -> int:
    """A descriptor of memory that holds `content`, from its beginning."""
    memory = os.memfd_create("towpath", os.MFD_CLOEXEC)
    with open(memory, "wb", closefd=False) as stream:
        stream.write(content)
    os.lseek(memory, 0, os.SEEK_SET)
    return memory
