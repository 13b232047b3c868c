"""Calls for one interface of one container, one after the other; all others are independent.

Owns: who waits for whom.
Never: knows what a call does.
Invariant: whoever leaves a lane, however that came about, lets the next one in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from engine.cni.call import Call
from engine.cni.task import Outcome
from engine.loop import Loop
from engine.pod.residents import Attachment

Lane = tuple[str, str]  # container, interface


def lane_of(one: Call | Attachment) -> Lane:
    return one.container, one.interface


class Lanes:
    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._waiting: dict[Lane, deque[Outcome[None]]] = {}  # a lane that somebody is in: those behind

    def __contains__(self, lane: Lane) -> bool:
        """Somebody is in it."""
        return lane in self._waiting

    @asynccontextmanager
    async def passage(self, lane: Lane) -> AsyncIterator[None]:
        """From when the lane is free, nobody else is in it."""
        if lane in self._waiting:
            turn: Outcome[None] = Outcome()
            self._waiting[lane].append(turn)
            await turn
        else:
            self._waiting[lane] = deque()
        try:
            yield
        finally:
            self._leave(lane)

    def _leave(self, lane: Lane) -> None:
        behind = self._waiting[lane]
        if behind:
            self._loop.call_soon(partial(behind.popleft().settle, None))
        else:
            del self._waiting[lane]
