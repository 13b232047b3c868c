"""One poll loop for files, timers and calls from other threads.

Owns: the selector, the timers, and the pipe that wakes it.
Never: knows what the callbacks do; an exception of one is logged and the loop
goes on.
Invariant: every callback runs in the thread that runs the loop.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

log = logging.getLogger(__name__)

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE

T = TypeVar("T")


@dataclass(order=True, slots=True)
class Timer:
    """A call at `due` (seconds, monotonic). `cancel` makes it not happen."""

    due: float
    order: int
    callback: Callable[[], None] | None = field(compare=False)

    def cancel(self) -> None:
        self.callback = None


class Loop:
    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._selector = selectors.DefaultSelector()
        self._timers: list[Timer] = []
        self._order = itertools.count()
        self._calls: deque[Callable[[], None]] = deque()
        self._stopping = False
        self._thread: int | None = None
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._selector.register(self._wake_read, READ, self._drain)

    # -- what to wait for ----------------------------------------------------
    def watch(self, file: int, events: int, callback: Callable[[int], None]) -> None:
        """Call `callback(ready events)` whenever `file` is ready; again for the same file: change the events."""
        try:
            self._selector.modify(file, events, callback)
        except KeyError:
            self._selector.register(file, events, callback)

    def forget(self, file: int) -> None:
        try:
            self._selector.unregister(file)
        except KeyError:
            pass

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(self.clock() + seconds, next(self._order), callback)
        heapq.heappush(self._timers, timer)
        return timer

    def every(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call now and then; the pause runs from the end of one call to the start of the next."""

        def again() -> None:
            try:
                callback()
            finally:
                self.after(seconds, again)

        self.after(seconds, again)

    # -- from other threads and signal handlers --------------------------------
    def call_soon(self, callback: Callable[[], None]) -> None:
        self._calls.append(callback)
        self.wake()

    def call(self, function: Callable[[], T], timeout: float = 30.0) -> T:
        """The result of `function()` run by the loop's thread; run at once when no other thread runs the loop."""
        if self._thread in (None, threading.get_ident()):
            return function()
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
                future.set_exception(error)

        self.call_soon(run)
        return future.result(timeout)

    def wake(self) -> None:
        try:
            os.write(self._wake_write, b"\0")
        except (BlockingIOError, OSError):
            pass  # full: it is awake already; closed: nobody is there to wake

    # -- running -------------------------------------------------------------
    def run(self) -> None:
        """Serve until `stop` is called; not at all when it was called before."""
        self._thread = threading.get_ident()
        try:
            while not self._stopping:
                self.turn(self._pause())
        finally:
            self._thread = None

    @property
    def stopping(self) -> bool:
        return self._stopping

    def stop(self) -> None:
        self._stopping = True
        self.wake()

    def turn(self, timeout: float | None = 0.0) -> None:
        """Wait at most `timeout` seconds and run what is due."""
        for key, events in self._selector.select(timeout):
            self._run(lambda key=key, events=events: key.data(events))  # type: ignore[misc]
        while self._calls:
            self._run(self._calls.popleft())
        now = self.clock()
        while self._timers and self._timers[0].due <= now and not self._stopping:
            callback = heapq.heappop(self._timers).callback
            if callback is not None:
                self._run(callback)

    def turn_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Turn, also after `stop` (then without timers), until that is so; False when it was not in time."""
        deadline = self.clock() + seconds
        while not condition():
            left = deadline - self.clock()
            if left <= 0:
                return False
            self.turn(left)
        return True

    def close(self) -> None:
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _pause(self) -> float | None:
        if self._calls:
            return 0.0
        while self._timers and self._timers[0].callback is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0].due - self.clock()) if self._timers else None

    def _drain(self, events: int) -> None:
        try:
            while len(os.read(self._wake_read, 4096)) == 4096:
                pass
        except BlockingIOError:
            pass

    def _run(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception:
            log.exception("a callback failed")
