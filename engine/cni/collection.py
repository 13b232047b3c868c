"""What is removed without being asked for now: deletions in the spool, containers that are gone, what failed before.

Owns: when each is tried, how many at once, and the threads for plugins that are asked meanwhile.
Never: stands in the way of a runtime's call, but for one of the same interface, and of a successor.
Invariant: nothing is given up: what fails is written down, and tried again by this daemon or by the next.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from engine.cni import spool
from engine.cni.answer import CniError
from engine.cni.aside import Aside
from engine.cni.call import Call
from engine.cni.configuration import OURS, read_for_removal
from engine.cni.delegate import Plugins
from engine.cni.lanes import Lane, Lanes, lane_of
from engine.cni.owed import Owed
from engine.cni.removal import Removal
from engine.cni.task import Outcome, Tasks
from engine.loop import Timer
from engine.node import Node
from engine.pod.residents import Attachment, Key

log = logging.getLogger(__name__)

GRACE = 60.0  # seconds for a runtime to delete a container whose namespace is gone, before we do
PLUGINS_AT_ONCE = 2
FIRST_PAUSE, LONGEST_PAUSE = 10.0, 600.0  # seconds until a plugin that failed is asked again; doubled each time
PATIENCE = 3.0  # seconds for plugins to end while somebody waits for us to rest

Attempt = Coroutine[Outcome[Any], None, Exception | None]


@dataclass(frozen=True, slots=True)
class _Errand:
    """`attempt` makes one try, whose result is what went wrong."""

    lane: Lane
    what: str
    asks_plugin: bool
    attempt: Callable[[], Attempt]


@dataclass(frozen=True, slots=True)
class _Failure:
    said: str
    pause: float
    until: float


class Collection:
    """`tasks`, `lanes`, `deletions` and `owed` are shared with the calls of runtimes; `plugins` are not."""

    def __init__(
        self,
        node: Node,
        spool_folder: Path,
        tasks: Tasks,
        lanes: Lanes,
        deletions: Aside,
        plugins: Plugins,
        owed: Owed,
    ) -> None:
        self._node = node
        self._spool = spool_folder
        self._tasks = tasks
        self._lanes = lanes
        self._programs = Aside(node.loop, "collect", PLUGINS_AT_ONCE)
        self._plugins = plugins
        self._removal = Removal(node, tasks, deletions, self._programs, self._plugins, owed)
        self._failures: dict[Lane, _Failure] = {}
        self._queue: deque[_Errand] = deque()
        self._asking = 0
        self._resting = False
        self._hurry = Timer(0.0, 0, None)

    def look(self) -> None:
        """Begin what is due: all that is ours at once, and as many plugins as are asked at once."""
        if self._resting:
            return
        errands = [*self._remembered(), *self._unasked()]
        due = {errand.lane for errand in errands}
        self._failures = {lane: failure for lane, failure in self._failures.items() if lane in due}
        self._queue = deque(errand for errand in errands if errand.asks_plugin)
        for errand in errands:
            if not errand.asks_plugin and errand.lane not in self._lanes:  # otherwise somebody is about it
                self._tasks.begin(self._run(errand))
        self._begin_queued()

    def rest(self) -> None:
        """Begin nothing more. A plugin that takes its time is ended: whoever comes after us asks it again."""
        self._resting = True
        self._hurry.cancel()
        self._hurry = self._node.loop.after(PATIENCE, self._plugins.close)

    def resume(self) -> None:
        self._resting = False
        self._hurry.cancel()
        self._plugins.open()

    def close(self) -> None:
        self._resting = True
        self._plugins.close()
        self._programs.close()

    # -- what is due ------------------------------------------------------------------
    def _remembered(self) -> Iterator[_Errand]:
        try:
            waiting = spool.pending(self._spool)
        except OSError as error:
            log.warning("cannot look for deletions that wait, and look again: %s", error)
            return
        for path in waiting:
            attempt = partial(spool.carry_out, path, self._removal.delete_remembered)
            lane, asks_plugin = ("", path.name), False
            try:
                call = spool.read(path)
            except (OSError, spool.RefusedError):  # which the attempt finds, too
                pass
            else:
                if call is None:
                    continue
                lane, asks_plugin = lane_of(call), self._asks_plugin(call)
            yield _Errand(lane, f"deletion {path.name}", asks_plugin, attempt)

    def _asks_plugin(self, call: Call) -> bool:
        attachment = self._node.residents.of_interface(call.container, call.interface)
        try:
            named = read_for_removal(call.input).ipam
        except CniError:  # it is put aside
            return False
        return named != OURS or (attachment is not None and attachment.ipam != "")

    def _unasked(self) -> Iterator[_Errand]:
        residents = self._node.residents
        for attachment in residents.gone_before(self._node.loop.clock() - GRACE):
            if not residents.is_leaving(attachment.key):
                yield self._removal_of(attachment, residents.is_gone)
        for attachment in residents.leaving:  # an earlier removal failed, perhaps an earlier daemon's
            yield self._removal_of(attachment, residents.is_leaving)

    def _removal_of(self, attachment: Attachment, is_due: Callable[[Key], bool]) -> _Errand:
        what = f"removing what is left of pod {attachment.pod}"
        attempt = partial(self._forget_unless_changed, attachment, is_due)
        return _Errand(lane_of(attachment), what, attachment.ipam != "", attempt)

    # -- trying it --------------------------------------------------------------------
    def _begin_queued(self) -> None:
        while self._queue and self._asking < PLUGINS_AT_ONCE and not self._resting:
            errand = self._queue.popleft()
            if errand.lane not in self._lanes and not self._pauses(errand.lane):
                self._asking += 1
                self._tasks.begin(self._run_queued(errand))

    def _pauses(self, lane: Lane) -> bool:
        failure = self._failures.get(lane)
        return failure is not None and self._node.loop.clock() < failure.until

    async def _run_queued(self, errand: _Errand) -> None:
        try:
            await self._run(errand)
        finally:
            self._asking -= 1
            self._node.loop.call_soon(self._begin_queued)

    async def _run(self, errand: _Errand) -> None:
        async with self._lanes.passage(errand.lane):
            problem = await errand.attempt()
        if problem is None:
            self._failures.pop(errand.lane, None)
        elif not self._resting:  # otherwise it was ended, perhaps
            self._note(errand, problem)

    def _note(self, errand: _Errand, problem: Exception) -> None:
        """What is tried again says so once, until it fails in another way."""
        before = self._failures.get(errand.lane)
        if before is None or before.said != str(problem):
            log.warning("%s fails, and is tried again: %s", errand.what, problem)
        pause = FIRST_PAUSE if before is None else min(2 * before.pause, LONGEST_PAUSE)
        self._failures[errand.lane] = _Failure(str(problem), pause, self._node.loop.clock() + pause)

    async def _forget_unless_changed(self, attachment: Attachment, is_due: Callable[[Key], bool]) -> Exception | None:
        """If it is still the one that was meant."""
        if self._node.residents.get(attachment.key) != attachment or not is_due(attachment.key):
            return None
        if lane_of(attachment) not in self._failures:
            log.warning("removing what is left of pod %s", attachment.pod)
        try:
            await self._removal.forget(attachment)
        except Exception as error:  # noqa: BLE001 - whatever it was, the next try may have more luck
            return error
        return None
