"""Work in several steps, each written as one coroutine: while it waits, everybody else goes on.

Owns: the way from one wait to the next, and how many coroutines are under way.
Never: waits by itself; threads, timers and sockets settle what is waited for.
Invariant: what a coroutine raises ends there, so whoever settles an outcome need not fear who waits for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar, cast

log = logging.getLogger(__name__)

T = TypeVar("T")


class Outcome(Generic[T]):
    """What one coroutine waits for. Settled once, in the loop, with a value or an exception."""

    def __init__(self) -> None:
        self._settled = False
        self._value: T | None = None
        self._error: Exception | None = None
        self._follow: Callable[[], None] | None = None

    def settle(self, value: T) -> None:
        self._value = value
        self._end()

    def fail(self, error: Exception) -> None:
        self._error = error
        self._end()

    def follow(self, follow: Callable[[], None]) -> None:
        """Call this once it is settled, which it is not yet."""
        self._follow = follow

    def __await__(self) -> Generator[Outcome[T], None, T]:
        if not self._settled:
            yield self
        if self._error is not None:
            raise self._error
        return cast(T, self._value)

    def _end(self) -> None:
        assert not self._settled
        self._settled = True
        if self._follow is not None:
            self._follow()


Work = Coroutine[Outcome[Any], None, None]


class Tasks:
    def __init__(self) -> None:
        self._under_way = 0

    def __len__(self) -> int:
        return self._under_way

    def begin(self, work: Work) -> Outcome[None]:
        """Run `work` until it waits, and on from there. Settled when it has ended, however that was."""
        self._under_way += 1
        ended: Outcome[None] = Outcome()
        self._go_on(work, ended)
        return ended

    def _go_on(self, work: Work, ended: Outcome[None]) -> None:
        try:
            awaited = work.send(None)
        except StopIteration:
            pass
        except Exception:
            log.exception("a task failed")
        else:
            awaited.follow(lambda: self._go_on(work, ended))
            return
        self._under_way -= 1
        ended.settle(None)
