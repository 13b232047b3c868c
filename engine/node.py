"""A running node: a configuration kept in force on this host.

Owns: the way from a Config to the datapath, what is seen of the underlay, and
the views of it all. It runs inside the daemon, or inside any program.
Never: reads a file, handles a signal, or listens on a socket.
Invariant: everything happens in the thread that runs `loop`; the public
methods may be called from any thread.
"""

from __future__ import annotations

import logging
import os
import platform
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Self

from engine import views
from engine.apply import underlay
from engine.apply.bell import EVERYTHING, Bell, Heard
from engine.apply.delta import Kind
from engine.apply.links import DeviceState
from engine.apply.plane import Openers
from engine.apply.reconcile import Outcome
from engine.config import Config
from engine.datapath import Datapath, logged
from engine.desired import Recomputation
from engine.desired.addressing import local_addresses
from engine.errors import ConfigError, KernelError, TowpathError
from engine.handover.giver import Estate
from engine.lockfile import LockFile
from engine.loop import READ, Loop, Timer
from engine.model import Address, Desired, Facts, Underlay
from engine.observe import state
from engine.pod import accounts
from engine.pod.addresses import Addresses, open_addresses
from engine.pod.residents import Attachment, Key, Residents, open_residents
from engine.policing import Policing
from engine.version import version

if TYPE_CHECKING:
    from engine.apply.plane import Plane
    from engine.handover.taker import Takeover

log = logging.getLogger(__name__)

CHECK_PAUSE = 10.0  # seconds between two looks at what nobody announces: whether namespaces still stand
AUDIT_PAUSE = 300.0  # seconds between two looks at all of the host's side, whatever was announced
AUDIT_SHARE = 20_000  # an audit that takes long is made so much less often
LOOK_PAUSE = 1.0  # seconds between two looks that the kernel's announcements cause
LOOK_SHARE = 20  # as AUDIT_SHARE, for these
SETTLE_PAUSE = 0.05  # seconds for announcements that belong together


class Node:
    """Runs `config` from `start` to `stop`, or as a context manager with a thread of its own.

    `start` raises the first thing that cannot be had and undoes the rest; with
    `keep_going` it serves what it can, and tries the rest again and again.
    """

    def __init__(
        self,
        config: Config,
        *,
        keep_going: bool = False,
        openers: Openers | None = None,
        plane: Plane | None = None,
    ) -> None:
        self.config = config
        self.loop = Loop()
        self.ready = False
        self.applied = 0  # states put in force
        self.complaints: dict[str, TowpathError] = {}  # by what they are about; shown until they are settled
        self._keep_going = keep_going
        self._openers = openers
        self._plane = plane
        self._datapath: Datapath | None = None
        self._policing: Policing | None = None
        self._lock: LockFile | None = None
        self._residents: Residents | None = None
        self._addresses: Addresses | None = None
        self._desired = Desired()
        self._underlay = Underlay()
        self._read: tuple[Config, Facts] | None = None
        self._thread: threading.Thread | None = None
        self._bell: Bell | None = None
        self._recompute = Recomputation()
        self._heard = Heard()
        self._rung: set[str] = set()  # pods in whose namespaces something changed
        self._look_timer: Timer | None = None
        self._next_look = 0.0
        self._retry_timer: Timer | None = None
        self._started = 0.0

    # -- life ----------------------------------------------------------------
    def start(self) -> None:
        """Put the configuration in force and begin to forward. TowpathError: nothing was changed."""
        directory = Path(self.config.state.directory)
        self._lock = LockFile(directory)
        try:
            self._open(directory)
            self.addresses.settle(self.residents)
            self._enforce(self.config)
        except BaseException:
            self._end(Datapath.abandon, LockFile.release)
            raise
        self._running.start(self.config.workers.cpus)
        self._attend_to_everything()

    def take_over(self, takeover: Takeover) -> None:
        """As `start`, in the place of the daemon at the other end, which forwards until this one can.

        TowpathError: nothing was changed, and the other goes on. After that the
        configuration is put in force as by `reload`.
        """
        directory = Path(self.config.state.directory)
        try:
            self._lock = takeover.lock(directory)
            self._open(directory)
            self._running.adopt(self._desire(self.config), takeover.inheritance)
            self._running.go_on(takeover.ready(), self.config.workers.cpus)
            takeover.begin()
        except BaseException as error:
            self.leave()
            takeover.give_up(error)
            raise
        takeover.finish()
        self._lock.claim()
        self._attend_to_everything()
        self.addresses.settle(self.residents)
        self._enforce(self.config)

    def _open(self, directory: Path) -> None:
        """Journals, plane and drivers; nothing is changed by that."""
        self._residents, self._addresses = open_residents(directory), open_addresses(directory, self.config)
        self._residents.look(self.loop.clock())
        self._datapath = Datapath(
            directory,
            workers=self.config.workers_count,
            flows=self.config.flows,
            busy_poll=self.config.workers.busy_poll,
            openers=self._openers,
            plane=self._plane,
        )
        self._policing = Policing(self.loop, directory, self._datapath.plane, self._settle_pods)

    def _attend_to_everything(self) -> None:
        """From now on see to what the workers, the kernel and the clock have to say."""
        running = self._running
        self._started = time.monotonic()
        self.ready = True
        self.loop.watch(running.plane.fileno(), READ, self._attend)
        self._bell = Bell(running.kernel_routes.port)
        self.loop.watch(self._bell.fileno(), READ, self._host_changed)
        self.loop.watch(running.watch.fileno(), READ, self._pods_changed)
        self.loop.watch(running.rules.bell.fileno(), READ, self._rules_changed)
        self.loop.every(CHECK_PAUSE, self._check)
        self.loop.after(AUDIT_PAUSE, self._audit)
        self.policing.start()
        self._arm_retry()

    def estate(self) -> Estate:
        """What a successor needs of this node."""
        running = self._running
        assert self._lock is not None
        cpus = self.config.workers.cpus
        return Estate(running.estate(), {"lock": self._lock.fileno()}, running.pause, lambda: running.go_on({}, cpus))

    def leave(self) -> None:
        """Let go of everything and remove nothing: another process forwards."""
        self._end(Datapath.leave, LockFile.share)

    def stop(self) -> None:
        """End forwarding; pods keep their devices, everything else of ours goes. Idempotent."""
        self._end(Datapath.close, LockFile.release)

    def _end(self, leave_datapath: Callable[[Datapath], None], leave_lock: Callable[[LockFile], None]) -> None:
        self.ready = False
        self._stop_policing()
        if self._bell is not None:
            self.loop.forget(self._bell.fileno())
            self._bell.close()
            self._bell = None
        if self._datapath is not None:
            self.loop.forget(self._datapath.plane.fileno())
            self.loop.forget(self._datapath.watch.fileno())
            self.loop.forget(self._datapath.rules.bell.fileno())
            leave_datapath(self._datapath)
            self._datapath = None
        self._close_journals()
        if self._lock is not None:
            leave_lock(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        self.start()
        self._thread = threading.Thread(target=self.loop.run, name="towpath-control", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.stop()
        if self._thread is not None:
            self._thread.join()
        self.stop()
        self.loop.close()

    def reload(self, config: Config) -> views.Reload:
        """Put another configuration in force: only what differs is touched."""

        def enforce() -> views.Reload:
            self._say_what_needs_a_restart(config)
            self._running.reconciler.end_pauses()
            outcome = self._enforce(config)
            return views.Reload(len(outcome.done), self.problems())

        return self.loop.call(enforce)

    def complain(self, about: str, error: TowpathError | None) -> None:
        """Show `error` among the problems until None settles it."""
        if error is None:
            self.complaints.pop(about, None)
        else:
            self.complaints[about] = error

    # -- pods that a runtime attaches -------------------------------------------
    @property
    def residents(self) -> Residents:
        if self._residents is None:
            raise TowpathError("the node does not run", remedy="start it first")
        return self._residents

    @property
    def addresses(self) -> Addresses:
        if self._addresses is None:
            raise TowpathError("the node does not run", remedy="start it first")
        return self._addresses

    def attach(self, *attachments: Attachment) -> list[int | TowpathError]:
        """Make the pods' devices now and keep them until `detach`: of each its MTU, or why nothing is left of it."""
        return self.loop.call(lambda: self._attach(attachments))

    def detach(self, keys: Iterable[Key]) -> list[Attachment]:
        """Remove the devices and forget the attachments; those that there were."""
        return self.loop.call(lambda: self._detach(list(keys)))

    def pod_device(self, name: str) -> DeviceState | None:
        """How the pod's device is; None: gone. KernelError when the pod is not attached."""
        return self.loop.call(lambda: self._running.pods.look(name))

    def _attach(self, attachments: Sequence[Attachment]) -> list[int | TowpathError]:
        """All in one pass: what a pass costs beside its pods is paid once."""
        try:
            for attachment in attachments:
                if self.residents.get(attachment.key) != attachment:
                    self.residents.put(attachment)
            self._settle_pods()
        except BaseException:
            self._detach([attachment.key for attachment in attachments])
            raise
        found = [self._attached(attachment) for attachment in attachments]
        failed = [a.key for a, mtu in zip(attachments, found, strict=True) if isinstance(mtu, TowpathError)]
        if failed:
            self._detach(failed)
        return found

    def _attached(self, attachment: Attachment) -> int | TowpathError:
        error = self._running.reconciler.failure_of(Kind.POD, attachment.pod)
        device = self._running.pods.attachments.get(attachment.pod)
        if error is None and device is None:
            error = TowpathError("is not attached", where=f"pod {attachment.pod}", remedy="see the daemon's log")
        return error or (device.device.mtu if device else 0)

    def _detach(self, keys: list[Key]) -> list[Attachment]:
        found = [attachment for attachment in map(self.residents.get, keys) if attachment is not None]
        if found:
            self.residents.let_go(attachment.key for attachment in found)
            self._settle_pods()
        for attachment in found:
            self.residents.discard(attachment.key)
        return found

    def _settle_pods(self) -> None:
        """As `_enforce`, when only the pods, or the policies about them, are others."""
        facts = self._facts(self.config)
        desired = self._computed(facts, self._underlay)
        logged(self._running.apply(desired))
        self._desired = desired
        self.policing.settled(facts)
        self._arm_retry()

    def _computed(self, facts: Facts, seen: Underlay) -> Desired:
        own = [interface.ip for interface in local_addresses(facts.node, seen)]
        return replace(self._recompute(facts, seen), policy=self.policing.enforced(facts, own))

    def _facts(self, config: Config) -> Facts:
        """What the file says, and the pods that runtimes attached."""
        if self._read is None or self._read[0] is not config:
            self._read = config, config.facts()  # once: there may be many thousand peers and routes in it
        facts = self._read[1]
        residents = self._residents.pods() if self._residents is not None else ()
        return replace(facts, pods=(*facts.pods, *residents)) if residents else facts

    def _close_journals(self) -> None:
        if self._residents is not None:
            self._residents.close()
        if self._addresses is not None:
            self._addresses.close()
        self._residents = self._addresses = None

    # -- views ---------------------------------------------------------------
    def version(self) -> views.Version:
        from engine.control.messages import PROTOCOL

        return views.Version(version(), PROTOCOL, os.getpid(), platform.python_version(), state.build())

    def health(self) -> views.Health:
        return self.loop.call(lambda: views.Health(live=True, ready=self.ready, problems=self.problems()))

    def status(self, config_file: str = "") -> views.Status:
        return self.loop.call(lambda: self._status(config_file))

    def routes(self, within: str = "", offset: int = 0, limit: int = 10_000) -> views.Routes:
        """Routes inside the prefix `within` (all when empty), sorted, from the `offset`-th on."""
        try:
            prefix = ip_network(within) if within else None
        except ValueError as error:
            raise ConfigError(str(error), where="within", remedy='write a prefix such as "10.0.0.0/8"') from None
        return self.loop.call(lambda: state.routes(self._running.forwarding, prefix, offset, limit))

    def route_get(self, address: str) -> views.RouteGet:
        """The route that a packet to `address` takes."""
        parsed = _address(address)
        return self.loop.call(lambda: state.route_get(self._running.forwarding, parsed))

    def peers(self) -> views.Peers:
        return self.loop.call(
            lambda: state.peers(self._running.forwarding, self._desired, self._running.plane.counters())
        )

    def pods(self) -> views.Pods:
        def look() -> views.Pods:
            running = self._running
            return state.pods(running.forwarding, self._desired, running.reconciler.failures, running.plane.counters())

        return self.loop.call(look)

    def counters(self) -> views.Counters:
        return self.loop.call(lambda: state.counts(self._running.forwarding, self._running.plane.counters()))

    def drops(self) -> views.Drops:
        return self.loop.call(lambda: state.drops(self._running.plane.counters()))

    def ipam(self) -> views.Ipam:
        return self.loop.call(lambda: accounts.show(self.addresses, self.residents))

    def ipam_check(self) -> views.IpamCheck:
        return self.loop.call(lambda: accounts.check(self.addresses, self.residents, self.config))

    def ipam_release(self, address: str) -> views.IpamReleased:
        parsed = _address(address)
        return self.loop.call(lambda: accounts.release(self.addresses, self.residents, parsed))

    # -- policy ------------------------------------------------------------------
    @property
    def policing(self) -> Policing:
        if self._policing is None:
            raise TowpathError("the node does not run", remedy="start it first")
        return self._policing

    def explain(self, source: str, destination: str, service: str = "", source_port: int = 49_152) -> views.Explanation:
        """Who decides on a connection, by the plane's own lookup. Both sides are `namespace/pod` or an address."""
        return self.loop.call(lambda: self.policing.explain(source, destination, service, source_port))

    def policy_rules(
        self, policy: str = "", offset: int = 0, limit: int = 10_000, *, counted: bool = False
    ) -> views.Rules:
        """The rules in force in the order of judgement, and what each did."""
        return self.loop.call(lambda: self.policing.rules(policy, offset, limit, counted=counted))

    def flows(
        self,
        within: Iterable[str] = (),
        protocol: str = "",
        port: int = -1,
        cursor: int = 0,
        limit: int = 1000,
        *,
        denied: bool = False,
    ) -> views.Flows:
        """A page of the live flows, those at `within` (pods, addresses, prefixes) when any are named."""
        return self.loop.call(lambda: self.policing.flows(within, protocol, port, cursor, limit, denied=denied))

    def apply_policy(self, text: str) -> views.PolicyDocuments:
        """Take documents (YAML or JSON), put them in force, and keep them over a restart."""
        return self.loop.call(lambda: self.policing.apply(text))

    def delete_policy(self, kind: str, name: str, namespace: str = "default") -> views.PolicyDocuments:
        return self.loop.call(lambda: self.policing.delete(kind, name, namespace))

    def applied_policies(self) -> views.PolicyDocuments:
        return self.loop.call(self.policing.applied)

    def problems(self) -> list[views.Problem]:
        complaints = [views.Problem(str(error)) for error in self.complaints.values()]
        if self._policing is not None:
            complaints += self._policing.problems()
        failures = self._running.reconciler.failures if self._datapath else []
        return [*complaints, *state.problems(failures, time.monotonic())]

    # -- from configuration to kernel ------------------------------------------
    @property
    def _running(self) -> Datapath:
        if self._datapath is None:
            raise TowpathError("the node does not run", remedy="start it first")
        return self._datapath

    def _enforce(self, config: Config) -> Outcome:
        desired = self._desire(config)
        outcome = self._running.apply(desired)
        if outcome.failed and not (self.ready or self._keep_going):
            raise outcome.failed[0].error
        logged(outcome)
        self._running.rules.tell()
        self.config, self._desired = config, desired
        self.policing.settled(self._facts(config))
        self._check_forwarding()
        self.applied += 1
        self._arm_retry()
        return outcome

    def _desire(self, config: Config) -> Desired:
        """What should be, by this configuration and by what is seen of the underlay now."""
        self.addresses.configure(config)
        facts = self._facts(config)
        self._underlay = underlay.look(facts, config.node.interface)
        self._check_underlay(facts, self._underlay)
        self.policing.configure(config)
        return self._computed(facts, self._underlay)

    def _check_underlay(self, facts: Facts, seen: Underlay) -> None:
        """A node that has peers needs an address to reach them from."""
        missing = facts.peers and not local_addresses(facts.node, seen)
        remedy = "set node.underlay, or node.interface"
        error = ConfigError("no underlay address was found on this host", where="node", remedy=remedy)
        self.complain("underlay", error if missing else None)
        if missing and not (self.ready or self._keep_going):
            raise error

    def _check_forwarding(self) -> None:
        """What travels bare, and what comes to a port of the host for a pod, the host's kernel must route."""
        forwards = self._desired.rules.forwards if self._desired.rules is not None else ()
        for family, setting in ((4, "net.ipv4.ip_forward"), (6, "net.ipv6.conf.all.forwarding")):
            needed = any(route.prefix.version == family for route in self._desired.kernel_routes)
            needed = needed or any(forward.pod_address.version == family for forward in forwards)
            error = KernelError(f"the kernel does not forward IPv{family}", where="host", remedy=f"set {setting}=1")
            self.complain(setting, error if needed and not underlay.forwards(family) else None)

    def _say_what_needs_a_restart(self, config: Config) -> None:
        changed = [
            section
            for section in ("workers", "control", "cni", "state", "health", "flows")
            if getattr(config, section) != getattr(self.config, section)
        ]
        error = None
        if changed:
            what = f"changes of [{'], ['.join(changed)}] are not in force"
            error = ConfigError(what, where="configuration", remedy="restart the daemon")
        self.complain("restart", error)

    # -- while it runs ---------------------------------------------------------
    def _stop_policing(self) -> None:
        if self._policing is not None:
            self._policing.stop()
            self._policing = None

    def _attend(self, events: int) -> None:
        """The workers noticed something: a device that went away, a path that carries less than thought."""
        smaller: list[Address] = []
        lost = self._running.take_events(smaller.append)
        if smaller:
            self._look_at_underlay()
        if lost:
            self._running.repair()
        self._arm_retry()

    def _arm_retry(self) -> None:
        """There is a timer exactly when something failed, and it ends when that is tried again."""
        due = self._running.reconciler.retry_at if self._datapath is not None else None
        if self._retry_timer is not None:
            self._retry_timer.cancel()
            self._retry_timer = None
        if due is not None:
            self._retry_timer = self.loop.after(max(0.0, due - time.monotonic()), self._retry)

    def _retry(self) -> None:
        self._retry_timer = None
        if self._datapath is not None:
            self._running.repair()
            self._arm_retry()

    def _check(self) -> None:
        """What nobody announces."""
        if self._residents is not None and self._residents.look(self.loop.clock()):
            self._settle_pods()
        self._check_forwarding()
        if self._datapath is not None and (names := self._datapath.doubtful_pods()):
            self._rung |= self._datapath.audit_pods(names)
            self._arm_retry()
            if self._rung:
                self._look_soon()

    def _audit(self) -> None:
        """Believe nothing for too long, whatever the kernel announced."""
        began = self.loop.clock()
        self._heard = EVERYTHING
        self._look()
        if self._datapath is not None:
            self.loop.after(max(AUDIT_PAUSE, AUDIT_SHARE * (self.loop.clock() - began)), self._audit)

    def _host_changed(self, events: int) -> None:
        """The kernel announces changes (ours too): look soon, once for many of them."""
        assert self._bell is not None
        if heard := self._bell.listen():
            self._heard += heard
            self._look_soon()

    def _pods_changed(self, events: int) -> None:
        if rung := self._running.watch.rung():
            self._rung |= rung
            self._look_soon()

    def _rules_changed(self, events: int) -> None:
        if self._running.rules.bell.listen():
            self._heard += Heard(rules=True)
            self._look_soon()

    def _look_soon(self) -> None:
        if self._look_timer is None:
            pause = max(SETTLE_PAUSE, self._next_look - self.loop.clock())
            self._look_timer = self.loop.after(pause, self._look)

    def _look(self) -> None:
        """See what is behind all that was announced since the last look."""
        if self._look_timer is not None:
            self._look_timer.cancel()
            self._look_timer = None
        if self._datapath is None:
            return
        began = self.loop.clock()
        heard, self._heard = self._heard, Heard()
        rung, self._rung = self._rung, set()
        self._rung |= self._running.audit_pods(rung) if rung else set()
        if heard:
            self._look_at_host(heard)
        self._arm_retry()
        now = self.loop.clock()
        self._next_look = now + max(LOOK_PAUSE, LOOK_SHARE * (now - began))
        if self._heard or self._rung:
            self._look_soon()

    def _look_at_host(self, heard: Heard) -> None:
        try:
            self._look_at_underlay()
            self._check_forwarding()
            self._running.audit_host(heard)
        except (TowpathError, OSError) as error:
            log.warning("cannot look at the host's network: %s", error)
            self._heard += heard  # for the next look

    def _look_at_underlay(self) -> None:
        """Take up a new path MTU or address; the difference to the state in force is all that is touched."""
        facts = self._facts(self.config)
        try:
            if underlay.look(facts, self.config.node.interface) != self._underlay:
                self._enforce(self.config)
        except TowpathError as error:
            self.complain("underlay", error)

    def _status(self, config_file: str) -> views.Status:
        running = self._running
        counters = running.plane.counters()
        facts = self._facts(self.config)
        return views.Status(
            node=facts.node.name,
            version=version(),
            pid=os.getpid(),
            uptime=round(time.monotonic() - self._started, 3),
            mode=facts.overlay.mode,
            encapsulation=facts.overlay.encapsulation,
            config=config_file,
            ready=self.ready,
            workers=self.config.workers_count,
            pods=len(self._desired.pods),
            peers=len(facts.peers),
            routes=len(running.forwarding.routes),
            policies=self.policing.policies,
            policy_generation=getattr(running.plane, "policy_generation", 0),
            received=counters.received,
            sent=counters.sent,
            dropped=sum(counters.drops.values()),
            applied=self.applied,
            problems=self.problems(),
            ports=state.ports(running.forwarding),
        )


def _address(text: str) -> Address:
    try:
        return ip_address(text)
    except ValueError:
        remedy = 'write an address such as "10.0.0.1" or "fd00::1"'
        raise ConfigError(f"{text[:80]!r} is no IP address", where="address", remedy=remedy) from None
