"""What takes its time is done in a thread, and what follows from it in the loop.

Owns: the threads for one sort of work, so that what hangs holds up nothing of another sort.
Never: knows what a work does. A work may touch nothing that the loop also touches, but for what says that any thread may.
Invariant: whoever waits for a work goes on in the loop, with its result or with what it raised.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from engine.cni.task import Outcome
from engine.loop import Loop

T = TypeVar("T")
_THREADS = 16  # works of one sort at once, unless its owner wants fewer


class Aside:
    def __init__(self, loop: Loop, sort: str, threads: int = _THREADS) -> None:
        self._loop = loop
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=f"towpath-{sort}")

    def close(self) -> None:
        """Begin nothing more. What is under way ends by itself, and nobody hears of it."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work()` in a thread."""
        outcome: Outcome[T] = Outcome()
        self._threads.submit(self._attempt, work, outcome)
        return await outcome

    def _attempt(self, work: Callable[[], T], outcome: Outcome[T]) -> None:
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - it is raised where the result is waited for
            self._loop.call_soon(partial(outcome.fail, error))
        else:
            self._loop.call_soon(partial(outcome.settle, result))
