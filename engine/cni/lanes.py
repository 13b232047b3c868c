"""Calls for one interface of one container, one after the other; all others are independent.

Owns: who waits for whom.
Never: knows what a call does.
Invariant: the next one of a lane begins when the one before has said that it is done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from engine.loop import Loop

Lane = tuple[str, str]  # container, interface
Done = Callable[[], None]


class Lanes:
    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._waiting: dict[Lane, deque[Callable[[], None]]] = {}

    def __bool__(self) -> bool:
        """Somebody is on the way."""
        return bool(self._waiting)

    def enter(self, lane: Lane, start: Callable[[Done], None]) -> None:
        """Call `start` when the lane is free; it calls what it is given once nothing of it is under way."""

        def done() -> None:
            queue = self._waiting[lane]
            if queue:
                self._loop.call_soon(queue.popleft())
            else:
                del self._waiting[lane]

        if lane in self._waiting:
            self._waiting[lane].append(lambda: start(done))
        else:
            self._waiting[lane] = deque()
            start(done)
