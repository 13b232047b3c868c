"""A node's plane and all that is set up around it: tunnels, pods, the host port, kernel routes.

Owns: the plane, the drivers, and the reconciler over them.
Never: decides what should be, and knows no configuration, signal or client.
Invariant: `close` leaves what pods need (their devices) and nothing else of
ours in the kernel; `abandon` leaves what was there before.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING

from engine.apply.bell import EVERYTHING, Heard
from engine.apply.delta import POLICY, Kind
from engine.apply.host_rules import HostRulesDriver, stands
from engine.apply.inheritance import Heirloom, Inheritance
from engine.apply.kernel_routes import KernelRouteDriver
from engine.apply.plane import Forwarding, Openers, adopt_tunnel, kernel_openers, make_plane
from engine.apply.plane_routes import RouteDriver
from engine.apply.policy import PolicyDriver
from engine.apply.reconcile import Outcome, Reconciler, tried
from engine.apply.service_ranges import without
from engine.apply.shortcut import Shortcuts
from engine.apply.single_values import gateway_driver, peers_driver
from engine.apply.table_record import TableRecord
from engine.apply.tunnels import TunnelDriver
from engine.config.schema import FlowsSection
from engine.errors import KernelError
from engine.model import Address, Desired, HostRules, TunnelPort
from engine.pod.attach import PodDriver
from engine.pod.departure import Departure
from engine.pod.host import HostDriver
from engine.pod.record import Record
from engine.pod.watch import PodWatch

if TYPE_CHECKING:
    from engine.apply.plane import Plane, Port

log = logging.getLogger(__name__)

PLANE_KINDS = (Kind.POLICY, Kind.GATEWAY, Kind.PEERS, Kind.ROUTE)  # in our own memory alone
FORWARDING_KINDS = (Kind.TUNNEL, Kind.HOST, *PLANE_KINDS)  # without which no packet that came before can come again


class Datapath:
    """`state` is the directory of the records of devices and tables; it must exist."""

    def __init__(
        self,
        state: Path,
        *,
        workers: int = 1,
        flows: FlowsSection | None = None,
        busy_poll: int = 0,
        openers: Openers | None = None,
        plane: Plane | None = None,
    ) -> None:
        openers = openers or kernel_openers(workers)
        self.plane = plane if plane is not None else make_plane(workers, flows, busy_poll)
        self.forwarding = Forwarding(self.plane)
        self.tunnels = TunnelDriver(self.forwarding, openers.tunnel)
        self.shortcuts = Shortcuts(self.forwarding, openers.tap)
        self.pods = PodDriver(self.forwarding, openers.tun, Record(state / "devices.json"))
        self.host = HostDriver(self.forwarding, openers.tun)
        self.kernel_routes = KernelRouteDriver(self.host.device_name)
        self.rules = HostRulesDriver(self._let_pods_come_back, TableRecord(state / "tables.json"))
        self.policy = PolicyDriver(self.forwarding, self._keep_out)
        self.reconciler = Reconciler(
            [
                self.tunnels,
                self.pods,
                self.host,
                self.policy,
                gateway_driver(self.forwarding),
                peers_driver(self.forwarding),
                RouteDriver(self.forwarding),
                self.kernel_routes,
                self.rules,
            ]
        )
        self.watch = PodWatch()
        self.worker_threads: list[int] = []  # native numbers, in the order of the workers
        self._closed = False

    def start(self, cpus: tuple[int, ...] = ()) -> None:
        """Begin to forward; worker i on `cpus[i]` where given."""
        others = set(threading.enumerate())
        self.plane.start()
        started = [thread for thread in threading.enumerate() if thread not in others]
        workers = sorted(started, key=lambda thread: (len(thread.name), thread.name))  # worker-9 before worker-10
        self.worker_threads = [worker.native_id or 0 for worker in workers]
        for worker, cpu in zip(workers, cpus, strict=False):
            try:
                os.sched_setaffinity(worker.native_id or 0, {cpu})
            except OSError as error:
                log.warning("cannot put %s on CPU %d: %s", worker.name, cpu, error.strerror)

    def prepare(self, desired: Desired) -> Outcome:
        """Be able to `start`: what an earlier run left is taken up as it is, and what may wait does, for `apply`.

        The host's table may wait where one stands, or none is wanted: without any, pods would speak to the outside by
        their own address.
        """
        policy = self.reconciler.prepare(desired, (Kind.POLICY,))
        self.pods.take_up(sorted(desired.pods, key=lambda device: device.pod.name))
        standing = desired.rules if desired.rules is not None and _seen(desired.rules) else None
        may_wait = desired.rules is None or standing is not None
        kinds = FORWARDING_KINDS if may_wait else (*FORWARDING_KINDS, Kind.HOST_RULES)
        outcome = policy + self.reconciler.prepare(desired, kinds)
        if standing is not None and not outcome.failed:
            self.rules.adopt(standing.device)
        return outcome

    def apply(self, desired: Desired, cleared: Callable[[], None] = lambda: None) -> Outcome:
        """Lead to `desired` as far as possible. What comes of it is not logged: a start may be given up.

        `cleared` is called when whoever goes is out of the plane, and before anybody comes in.
        """
        outcome = self.apply_without_waiting(desired, cleared)
        self.see_off()
        return outcome

    def apply_without_waiting(self, desired: Desired, cleared: Callable[[], None] = lambda: None) -> Outcome:
        """As `apply`, but for the devices of pods that go: they stand until somebody sees to `pods.leaving`."""
        self.pods.pass_on(desired.pods)
        if desired.policy is not None:
            self.pods.clear_the_way(desired.pods)
        cleared()
        outcome = self._followed(partial(self.reconciler.apply, desired))
        self.shortcuts.settle(desired.tunnels)
        return outcome

    def see_off(self) -> None:
        """Delete the devices of the pods that left the plane."""
        departure = self.pods.leaving()
        departure.delete()
        self.forget(departure)

    def forget(self, departure: Departure) -> None:
        """These devices are deleted. What was refused counts among what failed, and is tried again."""
        if self.pods.forget(departure):
            logged(self._followed(self.reconciler.repair))

    def estate(self) -> list[Heirloom]:
        """Every open port, for a successor. What is not in it the successor finds in the kernel."""
        pods = self.pods
        return [
            Heirloom(
                owner,
                port.descriptors,
                getattr(port, "granted", 0),
                pods.namespace_of(owner[1]) if owner[0] == "pod" else None,
            )
            for owner, port in self.forwarding.attached.items()
        ]

    def adopt(self, desired: Desired, inheritance: Inheritance) -> None:
        """Be able to forward by `desired` with the ports of a predecessor, without a change to the kernel.

        The predecessor still forwards. What it did not leave is missing until
        `apply`; TowpathError when the tables cannot be made.
        """
        for tunnel in sorted(desired.tunnels, key=lambda tunnel: tunnel.key):
            port = inheritance.claim(("tunnel", tunnel.key), partial(_adopt_tunnel, tunnel))
            if port is not None:
                self.tunnels.adopt(tunnel, port)
        for device in sorted(desired.pods, key=lambda device: device.pod.name):
            self.pods.adopt(device, inheritance)
        if desired.host is not None:
            self.host.adopt(desired.host, inheritance)
        outcome = self.reconciler.prepare(desired, PLANE_KINDS)
        if outcome.failed:
            raise outcome.failed[0].error
        if desired.rules is not None:
            self.rules.adopt(desired.rules.device)

    @property
    def policy_is_due(self) -> bool:
        """Whether the policy that is wanted is not in force, and is to be tried again now."""
        return self.reconciler.is_due(self.policy.kind, POLICY)

    def repair(self) -> Outcome:
        """Try again what failed and set right what an audit or an event found wrong."""
        outcome = logged(self._followed(self.reconciler.repair))
        self.see_off()
        self.rules.tell()
        return outcome

    def _followed(self, work: Callable[[], Outcome]) -> Outcome:
        kept_out = self.forwarding.unjudged is not None
        outcome = work()
        if kept_out and self.forwarding.unjudged is None:  # nobody need wait any more
            self.reconciler.end_pauses()
            outcome = self._repaired(outcome)
        if self.policy.can_open_more:
            self.reconciler.end_pause(self.policy.kind, POLICY)
            outcome = self._repaired(outcome)
        self.watch.follow(self.pods.attachments)
        return outcome

    def _repaired(self, before: Outcome) -> Outcome:
        """What came of a pass and of the one after it. What failed before counts while it was not tried again."""
        after = self.reconciler.repair()
        standing = {id(failure) for failure in self.reconciler.failures}
        left = [failure for failure in before.failed if id(failure) in standing]
        return Outcome(before.done, left, before.postponed) + after

    def _keep_out(self) -> None:
        """A policy is wanted and none is in force: nothing may pass that it might deny. Devices stand."""
        lost = [tried(partial(self.pods.lost, name), f"pod {name}") for name in list(self.pods.attachments)]
        for error in (*lost, tried(self.host.lost, "the host's port")):
            if error is not None:
                raise error

    def audit(self) -> Outcome:
        """Look at everything on the kernel's side, then repair."""
        self.audit_pods(list(self.pods.attachments))
        return self.audit_host(EVERYTHING)

    def audit_pods(self, names: Iterable[str]) -> set[str]:
        """Look at the devices of these pods, then repair; those that could not be looked at."""
        unseen = {name for name in names if not self.pods.audit(name)}
        self.repair()
        return unseen

    def doubtful_pods(self) -> list[str]:
        """Pods whose namespace is gone or another one, which nothing announces, and a few of those not heard."""
        gone = {name for name, attachment in self.pods.attachments.items() if attachment.is_elsewhere}
        return [*gone, *self.watch.next_unheard()]

    def audit_host(self, heard: Heard) -> Outcome:
        """Look at what the host's announcements may concern, its port and our routes, then repair."""
        if heard.devices:
            self.host.audit()
        if heard.devices or heard.routes:
            self.shortcuts.refresh(announced=heard != EVERYTHING)
        if self.kernel_routes.audit(heard):
            self.reconciler.unsettle(Kind.KERNEL_ROUTE)
        if heard.rules and self.rules.audit():
            self.reconciler.unsettle(Kind.HOST_RULES)
        return self.repair()

    def take_events(self, path_mtu_changed: Callable[[Address], None]) -> bool:
        """Act on what the workers noticed; whether something has to be repaired."""
        lost = False
        for event, number in self.plane.take_events():
            if event == "port-error":
                lost |= self._port_lost(number)
            elif event == "shortcut":
                self.shortcuts.mend()
            elif event == "path-mtu":
                for slot in self.forwarding.slots.values():
                    if slot.number == number and slot.vias[0].remote is not None:
                        path_mtu_changed(slot.vias[0].remote)
        return lost

    def pause(self) -> dict[str, bytes]:
        """End forwarding and keep everything: packets wait in the kernel's queues. What is known of connections."""
        self.plane.stop()
        known = {"flows": self.plane.export_flows(), "detours": self.plane.export_detours()}
        if self.forwarding.open_ranges:
            known["open_ranges"] = " ".join(map(str, self.forwarding.open_ranges)).encode()
        return known

    def go_on(
        self, known: Mapping[str, bytes], cpus: tuple[int, ...] = (), sort_out: Callable[[], None] = lambda: None
    ) -> None:
        """Begin to forward where a `pause` ended it, here or in a predecessor. `sort_out` forgets what is known of others."""
        for name, take in (("flows", self.plane.import_flows), ("detours", self.plane.import_detours)):
            try:
                if name in known:
                    take(known[name])
            except ValueError as error:
                log.warning("what was known of connections (%s) is lost: %s", name, error)
        ranges = [ip_network(text) for text in known.get("open_ranges", b"").decode().split()]
        for gone in without(ranges, self.forwarding.open_ranges):
            self.plane.forget_flows(gone)  # which nobody judged, and nobody keeps from leading to a peer now
        sort_out()
        self.start(cpus)

    def leave(self) -> None:
        """Let go of everything and remove nothing: a successor has it, or the predecessor keeps it."""
        if not self._closed:
            self._closed = True
            self.plane.stop()
            self.kernel_routes.close()
            self.rules.close()
            self.watch.close()
            self.shortcuts.close()
            self.tunnels.release()
            self.host.release()
            self.pods.release()

    def close(self) -> None:
        """The clean stop: forwarding ends, kernel routes, sockets and the host port go, pods keep their devices."""
        self._end(undo=False)

    def abandon(self) -> None:
        """Give up a start: what it made goes, devices of pods too; what an earlier run left stands as it was found."""
        self._end(undo=True)

    def _end(self, *, undo: bool) -> None:
        if self._closed:
            return
        self._closed = True
        self.plane.stop()
        if undo:
            self._undo()
        kinds = [Kind.TUNNEL] if undo else [Kind.HOST_RULES, Kind.KERNEL_ROUTE, Kind.TUNNEL, Kind.HOST]
        for failure in self.reconciler.withdraw(kinds).failed:
            log.warning("left behind: %s", failure)
        self.kernel_routes.close()
        self.rules.close()
        self.watch.close()
        self.shortcuts.close()
        self.pods.release(undo=undo)

    def _undo(self) -> None:
        """What this run made on the host's side, in the reverse order."""
        for driver in (self.rules, self.kernel_routes, self.host):
            error = tried(driver.undo, driver.kind.words)
            if error is not None:
                log.warning("left behind: %s", error)

    def _let_pods_come_back(self, allowed: bool) -> None:  # noqa: FBT001 - the driver's callback
        """Whether what the host sends may carry a pod's address, because nobody else can have sent it."""
        self.forwarding.set_detour(allowed=allowed)

    def _port_lost(self, number: int) -> bool:
        owner = self.forwarding.owner_of(number)
        if owner is None:
            return False
        kind, name = owner
        log.warning("the port of %s %s failed", kind, name)
        if kind == "pod":
            self.pods.lost(name)
        elif kind == "host":
            self.host.lost()
        else:
            self.tunnels.lost(name)
        return True


def _seen(rules: HostRules) -> bool:
    """Whether their table stands; not when nobody can tell: it is written again, and what is wrong is said by that."""
    try:
        return stands(rules.device)
    except KernelError:
        return False


def _adopt_tunnel(wanted: TunnelPort, left: Heirloom) -> Port:
    return adopt_tunnel(wanted, left.descriptors)


def logged(outcome: Outcome) -> Outcome:
    if log.isEnabledFor(logging.DEBUG):
        for operation in outcome.done:
            log.debug("%s", operation)
    for failure in outcome.failed:
        log.log(logging.WARNING if failure.attempts == 1 else logging.INFO, "%s", failure)
    if outcome.done:
        log.info("applied %d changes, %d failed", len(outcome.done), len(outcome.failed))
    return outcome
