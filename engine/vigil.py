"""What a running node attends to: its workers, the kernel's announcements, its pods' namespaces, and the clock.

Owns: when something is looked at again, and the timers and watches for that.
Never: knows a configuration, or decides what should be.
Invariants: announcements cause one look for many of them, and looks take a
bounded share of the time; whatever was or was not announced, everything is looked at now and then.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from engine.apply.bell import EVERYTHING, Bell, Heard
from engine.apply.delta import POLICY
from engine.apply.reconcile import tried
from engine.datapath import Datapath
from engine.errors import TowpathError
from engine.loop import READ, Loop, Timer
from engine.model import Address

log = logging.getLogger(__name__)

CHECK_PAUSE = 10.0  # seconds between two looks at what nobody announces: whether namespaces still stand
AUDIT_PAUSE = 300.0  # seconds between two looks at all of the host's side, whatever was announced
AUDIT_SHARE = 20_000  # an audit that takes long is made so much less often
LOOK_PAUSE = 1.0  # seconds between two looks that the kernel's announcements cause
LOOK_SHARE = 20  # as AUDIT_SHARE, for these
RETRY_PAUSE = 1.0  # seconds between two tries where the next is overdue, because the first did not come to it
SETTLE_PAUSE = 0.05  # seconds for announcements that belong together


class Vigil:
    """Over `datapath`, from `begin` to `end`.

    `underlay`, `forwarding` and `residents` look at the host's addresses and path
    MTUs, at whether its kernel forwards, and at the namespaces of attached pods,
    and see to what is different. `policy` is called before a policy is put in force again.
    """

    def __init__(
        self,
        loop: Loop,
        datapath: Datapath,
        *,
        underlay: Callable[[], None],
        forwarding: Callable[[], None],
        residents: Callable[[], None],
        policy: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._datapath = datapath
        self._look_at_underlay = underlay
        self._look_at_forwarding = forwarding
        self._look_at_residents = residents
        self._see_to_policy = policy
        self._bell: Bell | None = None
        self._heard = Heard()
        self._rung: set[str] = set()  # pods in whose namespaces something changed
        self._look_timer: Timer | None = None
        self._next_look = 0.0
        self._retry_timer: Timer | None = None
        self._next_retry = 0.0
        self._over = False

    def begin(self) -> None:
        datapath, loop = self._datapath, self._loop
        self._bell = Bell(datapath.kernel_routes.port)
        loop.watch(datapath.plane.fileno(), READ, self._workers_rang)
        loop.watch(self._bell.fileno(), READ, self._host_changed)
        loop.watch(datapath.watch.fileno(), READ, self._pods_changed)
        loop.watch(datapath.rules.bell.fileno(), READ, self._rules_changed)
        loop.watch(datapath.shortcuts.fileno(), READ, self._neighbours_changed)
        loop.every(CHECK_PAUSE, self.check)
        loop.after(AUDIT_PAUSE, self._audit)
        self.arm_retry()

    def end(self) -> None:
        self._over = True
        for timer in filter(None, (self._look_timer, self._retry_timer)):
            timer.cancel()
        datapath = self._datapath
        for watched in (datapath.plane, datapath.watch, datapath.rules.bell, datapath.shortcuts):
            self._loop.forget(watched.fileno())
        if self._bell is not None:
            self._loop.forget(self._bell.fileno())
            self._bell.close()
            self._bell = None

    # -- what failed -----------------------------------------------------------
    def arm_retry(self) -> None:
        """There is a timer exactly when something failed, and it ends when that is tried again."""
        if self._retry_timer is not None:
            self._retry_timer.cancel()
            self._retry_timer = None
        due = self._datapath.reconciler.retry_at
        if due is not None and not self._over:
            now = time.monotonic()
            pause = due - now if due > now else max(0.0, self._next_retry - now)
            self._retry_timer = self._loop.after(pause, self._retry)

    def _retry(self) -> None:
        """Whatever comes of it, there is a next time: nothing else calls for it."""
        try:
            error = tried(self._see_to_policy, POLICY) if self._datapath.policy_is_due else None
            if error is not None:
                log.warning("%s", error)
            self._datapath.repair()
        finally:
            self._next_retry = time.monotonic() + RETRY_PAUSE
            self.arm_retry()

    # -- what rings ------------------------------------------------------------
    def _workers_rang(self, events: int) -> None:
        """The workers noticed something: a device that went away, a path that carries less than thought."""
        smaller: list[Address] = []
        lost = self._datapath.take_events(smaller.append)
        if smaller:
            self._look_at_underlay()
        if lost:
            self._datapath.repair()
        self.arm_retry()

    def _host_changed(self, events: int) -> None:
        """The kernel announces changes (ours too): look soon, once for many of them."""
        assert self._bell is not None
        if heard := self._bell.listen():
            self._heard += heard
            self._look_soon()

    def _pods_changed(self, events: int) -> None:
        if rung := self._datapath.watch.rung():
            self._rung |= rung
            self._look_soon()

    def _rules_changed(self, events: int) -> None:
        if self._datapath.rules.bell.listen():
            self._heard += Heard(rules=True)
            self._look_soon()

    def _neighbours_changed(self, events: int) -> None:
        self._datapath.shortcuts.attend()

    def _look_soon(self) -> None:
        if self._look_timer is None:
            pause = max(SETTLE_PAUSE, self._next_look - self._loop.clock())
            self._look_timer = self._loop.after(pause, self._look)

    def _look(self) -> None:
        """See what is behind all that was announced since the last look."""
        if self._look_timer is not None:
            self._look_timer.cancel()
            self._look_timer = None
        began = self._loop.clock()
        heard, self._heard = self._heard, Heard()
        rung, self._rung = self._rung, set()
        self._rung |= self._datapath.audit_pods(rung) if rung else set()
        if heard:
            self._look_at_host(heard)
        self.arm_retry()
        now = self._loop.clock()
        self._next_look = now + max(LOOK_PAUSE, LOOK_SHARE * (now - began))
        if self._heard or self._rung:
            self._look_soon()

    def _look_at_host(self, heard: Heard) -> None:
        try:
            self._look_at_underlay()
            self._look_at_forwarding()
            self._datapath.audit_host(heard)
        except (TowpathError, OSError) as error:
            log.warning("cannot look at the host's network: %s", error)
            self._heard += heard  # for the next look

    # -- what does not ---------------------------------------------------------
    def check(self) -> None:
        """Look at what nobody announces."""
        if self._over:
            return
        self._look_at_residents()
        self._datapath.shortcuts.check()
        self._look_at_forwarding()
        if names := self._datapath.doubtful_pods():
            self._rung |= self._datapath.audit_pods(names)
            self.arm_retry()
            if self._rung:
                self._look_soon()

    def _audit(self) -> None:
        """Believe nothing for too long, whatever the kernel announced."""
        if self._over:
            return
        began = self._loop.clock()
        self._heard = EVERYTHING
        self._look()
        self._loop.after(max(AUDIT_PAUSE, AUDIT_SHARE * (self._loop.clock() - began)), self._audit)
