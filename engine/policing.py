"""Policy in a running node: when documents are read again, when it is compiled, what is logged.

Owns: the watch on policy files, the timers, and the flow log.
Never: decides what is enforced (`enforcement` does), answers questions (`inquiry` does) or writes to the plane.
Invariant: everything happens in the loop's thread; a mistake in a document or in our own compiler leaves
the last program in force and is said; what that program does not know is kept out meanwhile. Where nobody ever wrote a policy, nothing that reads or compiles one is
loaded before somebody asks: that is a good part of what a start takes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from engine import views
from engine.config import Config
from engine.errors import TowpathError
from engine.loop import READ, Loop, Timer
from engine.model import Address, Facts, Pod, Unenforceable
from engine.observe.flowlog import FlowLog
from engine.pod.holders import holders, pack, unpack

if TYPE_CHECKING:
    from engine.apply.plane import Plane
    from engine.desired.policy.enforced import Enforced
    from engine.enforcement import Applied, Enforcement
    from engine.inquiry import Inquiry

log = logging.getLogger(__name__)

APPLIED = "policies"  # the folder of the state directory that holds what clients applied
SETTLE_PAUSE = 0.05  # seconds for changes of files that belong together
LOG_PAUSE = 0.2  # seconds between two looks at what the workers saw of flows


class Policing:
    """`changed` is called when what is enforced may be another; it asks for `enforced` then."""

    def __init__(self, loop: Loop, directory: Path, plane: Plane, changed: Callable[[], None]) -> None:
        self._loop = loop
        self._folder = directory / APPLIED
        self._plane = plane
        self._changed = changed
        self._loaded: Enforcement | None = None
        self._inquiry: Inquiry | None = None
        self._config: Config | None = None
        self._facts: tuple[Facts, tuple[Address, ...]] | None = None  # as they were last enforced
        self._watched = -1
        self._timer: Timer | None = None
        self._log_timer: Timer | None = None
        self._log: FlowLog | None = None
        self._running = False
        self._log_error = ""
        self._fault = ""  # of the compiler, when it was asked last
        self._pods: dict[int, Pod] = {}  # those of the facts in force, by the identity of the value

    # -- life ----------------------------------------------------------------
    def start(self) -> None:
        """Begin to watch and to log."""
        self._running = True
        self._watch()
        self._arm_log()

    def stop(self) -> None:
        if self._log is not None and self._running:
            self._write_events(self._log)
        self._running = False
        for timer in filter(None, (self._timer, self._log_timer)):
            timer.cancel()
        if self._watched >= 0:
            self._loop.forget(self._watched)
            self._watched = -1
        if self._loaded is not None:
            self._loaded.close()
        if self._log is not None:
            self._log.close()
            self._log = None

    def configure(self, config: Config) -> None:
        self._config = config
        if self._loaded is not None or self._has_policy(config):
            self._forget_watch()
            self._enforcement.configure(config)
            self._watch()
        path = None if config.flows.log is None else Path(config.flows.log)
        if self._log is not None:
            self._log.close()  # it opens again with its next line
            if self._log.path != path:
                self._log = None
        if path is not None and self._log is None:
            self._log = FlowLog(path)
        self._arm_log()

    def _has_policy(self, config: Config) -> bool:
        """Whether anything can have to be enforced."""
        try:
            applied = any(path.suffix == ".json" for path in self._folder.iterdir())
        except FileNotFoundError:
            applied = False
        except OSError:
            applied = True  # it is for the reader to say what is wrong
        return applied or bool(config.policy.files) or config.policy.default != "allow"

    @property
    def _enforcement(self) -> Enforcement:
        if self._loaded is None:
            from engine.enforcement import Enforcement

            self._loaded = Enforcement(self._folder)
            if self._config is not None:
                self._loaded.configure(self._config)
            if self._facts is not None:
                self._loaded.enforced(*self._facts)
        return self._loaded

    @property
    def inquiry(self) -> Inquiry:
        """For those who ask."""
        if self._inquiry is None:
            from engine.inquiry import Inquiry

            self._inquiry = Inquiry(self._enforcement, self._plane)
        return self._inquiry

    def _watch(self) -> None:
        watch = self._loaded.watch if self._loaded is not None else None
        if self._running and watch is not None:
            self._watched = watch.fileno()
            self._loop.watch(self._watched, READ, self._files_rang)

    def _forget_watch(self) -> None:
        if self._watched >= 0:
            self._loop.forget(self._watched)
            self._watched = -1

    # -- documents -------------------------------------------------------------
    def _files_rang(self, events: int) -> None:
        """Changes come in groups: wait for the others."""
        watch = self._enforcement.watch
        if watch is not None and watch.drain():
            self._look_soon()

    def _look_soon(self) -> None:
        if self._timer is None:
            self._timer = self._loop.after(SETTLE_PAUSE, self._look)

    def _look(self) -> None:
        self._timer = None
        if not self._running:
            return
        changed = self._enforcement.refresh()
        if self._enforcement.unsettled:
            self._look_soon()
        if changed:
            self._changed()

    # -- what is enforced --------------------------------------------------------
    def enforced(self, facts: Facts, own: Iterable[Address]) -> Enforced | Unenforceable | None:
        """What is to be put in force, None where everything passes."""
        self._facts = facts, tuple(own)
        if self._loaded is None:
            return None
        try:
            found = self._loaded.enforced(*self._facts)
        except Exception as error:  # noqa: BLE001 - whatever it is, the loop goes on
            return self._not_compiled(error)
        self._fault = ""
        self._loaded.rest_on(self._plane.rule_counters if self._loaded.counting.again else None)
        return found

    def _not_compiled(self, error: Exception) -> Unenforceable:
        """It is tried again and again, and where it went wrong is said once."""
        fault = repr(error)
        if fault != self._fault:
            log.error("policy could not be compiled", exc_info=error)
        self._fault = fault
        return Unenforceable(f"it could not be compiled, which is an internal error: {fault}")

    def forget_departed(self, facts: Facts) -> None:
        """Whom these facts do not have is out of the plane: its flows must not serve those who get its addresses."""
        before, self._pods = self._pods, {id(pod): pod for pod in facts.pods}
        gone = [pod for key, pod in before.items() if key not in self._pods]
        if gone:
            new = [pod for key, pod in self._pods.items() if key not in before]
            for address in {address for _, address in holders(gone) - holders(new)}:
                self._plane.forget_flows(address)

    def whose_flows(self) -> bytes:
        """The pods that the flows may be of, for `inherit` of a successor."""
        return pack(self._pods.values())

    def inherit(self, whose: bytes) -> None:
        """The flows are a predecessor's: whoever of these pods is not there any more has departed."""
        try:
            self._pods = {id(pod): pod for pod in unpack(whose)}
        except ValueError as error:
            log.warning("whose flows were taken over is not known: %s", error)

    def problems(self) -> list[views.Problem]:
        complaints = [] if self._loaded is None else self._loaded.complaints()
        told = [*complaints, *filter(None, (self._log_error,))]
        return [views.Problem(text) for text in told]

    # -- what clients apply ------------------------------------------------------
    def apply(self, text: str) -> views.PolicyDocuments:
        applied = self._enforcement.apply(text)
        self._changed()
        return _documents(applied)

    def delete(self, kind: str, name: str, namespace: str) -> views.PolicyDocuments:
        gone = self._enforcement.delete(kind, namespace, name)
        self._changed()
        return _documents([gone])

    def applied(self) -> views.PolicyDocuments:
        return _documents(self._enforcement.applied())

    @property
    def policies(self) -> int:
        return 0 if self._loaded is None else len(self._loaded.snapshot.policies)

    # -- the flow log ------------------------------------------------------------------
    def _arm_log(self) -> None:
        """Without a log nobody has to wake for it."""
        if self._running and self._log is not None and self._log_timer is None:
            self._log_timer = self._loop.after(LOG_PAUSE, self._write_log)

    def _write_log(self) -> None:
        self._log_timer = None
        if self._log is not None:
            self._write_events(self._log)
        self._arm_log()

    def _write_events(self, flow_log: FlowLog) -> None:
        events, suppressed = self._plane.take_flow_events()
        if not len(events) and not suppressed:
            return
        try:
            flow_log.write(self.inquiry.event_lines(events, int(suppressed)))
            self._log_error = ""
        except TowpathError as error:
            if not self._log_error:
                log.warning("%s", error)
            self._log_error = str(error)


def _documents(applied: Iterable[Applied]) -> views.PolicyDocuments:
    return views.PolicyDocuments([views.PolicyDocument(a.kind, a.namespace, a.name, a.version) for a in applied])
