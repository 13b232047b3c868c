"""What takes its time is done in a thread, and what follows from it in the loop.

Owns: the threads, and how many works the loop has not seen the end of.
Never: runs anything of the node in a thread: works get what they need by value.
Invariant: of each work exactly one continuation is called, in the loop.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from engine.loop import Loop

T = TypeVar("T")
_THREADS = 16  # programs, and devices being deleted, at once


class Aside:
    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._under_way = 0
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="towpath-cni")

    def __bool__(self) -> bool:
        return self._under_way > 0

    def close(self) -> None:
        """Begin nothing more. What is under way ends by itself, and nobody hears of it."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def run(self, work: Callable[[], T], then: Callable[[T], None], failed: Callable[[Exception], None]) -> None:
        """`work()` in a thread, then `then` or `failed` in the loop."""

        def end(follow: Callable[[], None]) -> None:
            self._under_way -= 1
            follow()

        def attempt() -> None:
            try:
                result = work()
            except Exception as error:  # noqa: BLE001 - it goes to whoever waits
                problem = error
                self._loop.call_soon(lambda: end(lambda: failed(problem)))
            else:
                self._loop.call_soon(lambda: end(lambda: then(result)))

        self._under_way += 1
        self._threads.submit(attempt)
