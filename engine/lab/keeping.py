"""Leaving a lab up after the command that made it: the work is done by a process that can stay.

Owns: the fork, the passing on of signals while the command runs, and the exit status.
Never: keeps a lab whose making failed.
Invariant: the one process that made the lab owns it to its end; ending that
process, in whatever way, takes the lab down.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from engine.lab import owner

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ended(BaseException):
    """A signal asked the process to end; raised in the main thread so that every `with` is left."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


@contextmanager
def signals_raise() -> Iterator[None]:
    """Turn SIGTERM, SIGHUP and SIGINT into `Ended` inside the block. Main thread only."""

    def end(number: int, _: FrameType | None) -> None:
        for each in _FORWARDED:
            signal.signal(each, signal.SIG_IGN)  # cleaning up is not to be interrupted by impatience
        raise Ended(number)

    before = {number: signal.signal(number, end) for number in _FORWARDED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_apart(work: Callable[[Callable[[int], None]], int]) -> int:
    """Run `work(leave)` in a process that may outlive this one; its exit code.

    `work` may call `leave(code)`: from then on this process is free and returns
    `code`, while the other goes on without a terminal until it is told to end.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiving)
        _work_apart(work, sending)
    os.close(sending)
    return _watch(child, receiving)


def _work_apart(work: Callable[[Callable[[int], None]], int], sending: int) -> None:
    code = 1
    try:
        os.setsid()

        def leave(code: int) -> None:
            nothing = os.open(os.devnull, os.O_RDWR)
            sys.stdout.flush()
            sys.stderr.flush()
            for standard in range(3):
                os.dup2(nothing, standard)
            os.close(nothing)
            os.write(sending, bytes([code]))
            os.close(sending)

        code = work(leave)
    finally:
        owner.remove_all()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _watch(child: int, receiving: int) -> int:
    def pass_on(number: int, _: FrameType | None) -> None:
        os.kill(child, number)

    before = {number: signal.signal(number, pass_on) for number in _FORWARDED}
    try:
        said = os.read(receiving, 1)
        if said:
            return said[0]
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(receiving)
