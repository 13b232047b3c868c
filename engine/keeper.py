"""A configuration kept in force on this host, from its start to its stop or to a successor.

Owns: the way from a Config and the pods attached to the datapath, the order of
start and stop, and the journals.
Never: reads a file, or is asked by another thread (`node` is).
Invariant: what is in force follows from the configuration, the attachments and
what was last seen of the underlay, and from nothing that was in force before.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from engine.apply import underlay
from engine.apply.delta import Kind
from engine.apply.plane import Openers
from engine.apply.reconcile import Outcome, tried
from engine.complaints import Complaints, unreachable
from engine.config import Config
from engine.datapath import Datapath, logged
from engine.desired import Recomputation
from engine.desired.addressing import local_addresses
from engine.errors import TowpathError
from engine.handover.giver import Estate
from engine.lockfile import LockFile
from engine.loop import Loop
from engine.model import Address, Desired, Facts, Underlay, Unenforceable
from engine.pod.addresses import Addresses, open_addresses
from engine.pod.departure import Departure
from engine.pod.residents import Attachment, Key, Residents, open_residents
from engine.policing import Policing
from engine.vigil import Vigil

if TYPE_CHECKING:
    from engine.apply.plane import Plane
    from engine.handover.taker import Takeover

log = logging.getLogger(__name__)

T = TypeVar("T")

_WHOSE_FLOWS = "pods"  # of what is known of connections


@dataclass(frozen=True, slots=True)
class Detachment:
    """Attachments on their way out. Between its two halves the devices stand, and nobody forwards for them."""

    attachments: list[Attachment]
    departure: Departure | None

    def delete(self) -> None:
        """The devices, in any thread."""
        if self.departure is not None:
            self.departure.delete()


class Keeper:
    """See `engine.node.Node`, whose arguments these are."""

    def __init__(
        self, loop: Loop, config: Config, *, keep_going: bool, openers: Openers | None, plane: Plane | None
    ) -> None:
        self.config = config
        self.desired = Desired()
        self.ready = False
        self.applied = 0  # states put in force
        self.started = 0.0
        self.complaints = Complaints()
        self._loop = loop
        self._keep_going = keep_going
        self._openers = openers
        self._plane = plane
        self._lock: LockFile | None = None
        self._residents: Residents | None = None
        self._addresses: Addresses | None = None
        self._datapath: Datapath | None = None
        self._policing: Policing | None = None
        self._vigil: Vigil | None = None
        self._underlay = Underlay()
        self._read: tuple[Config, Facts] | None = None
        self._recompute = Recomputation()

    # -- parts of a node that runs -----------------------------------------------
    @property
    def residents(self) -> Residents:
        return _of_a_running_node(self._residents)

    @property
    def addresses(self) -> Addresses:
        return _of_a_running_node(self._addresses)

    @property
    def datapath(self) -> Datapath:
        return _of_a_running_node(self._datapath)

    @property
    def policing(self) -> Policing:
        return _of_a_running_node(self._policing)

    @property
    def vigil(self) -> Vigil:
        return _of_a_running_node(self._vigil)

    @property
    def runs(self) -> bool:
        return self._datapath is not None

    # -- life --------------------------------------------------------------------
    def claim(self) -> None:
        """Hold the state directory, until the end. KernelError when another daemon does. Idempotent."""
        if self._lock is None:
            self._lock = LockFile(Path(self.config.state.directory))

    def start(self) -> None:
        """Put the configuration in force and begin to forward. TowpathError: nothing was changed."""
        directory = Path(self.config.state.directory)
        claimed = self._lock is not None
        self.claim()
        try:
            self._open(directory)
            self.addresses.settle(self.residents)
            self._begin(self._desire(self.config))
        except BaseException:
            self._end(Datapath.abandon, None if claimed else LockFile.release)
            raise
        self._attend()

    def _begin(self, desired: Desired) -> None:
        """Pods that were there before wait for nothing that they do not need."""
        self._insist_on(self.datapath.prepare(desired))
        self.datapath.start(self.config.workers.cpus)
        self._put_in_force(self.config, desired)

    def take_over(self, takeover: Takeover) -> None:
        """As `start`, in the place of the daemon at the other end, which forwards until this one can.

        TowpathError: nothing was changed, and the other goes on. After that the
        configuration is put in force as by `reload`.
        """
        directory = Path(self.config.state.directory)
        try:
            self._lock = takeover.lock(directory)
            self._open(directory)
            self.datapath.adopt(self._desire(self.config), takeover.inheritance)
            known = takeover.ready()
            self.datapath.go_on(known, self.config.workers.cpus, partial(self._sort_out_flows, known))
            takeover.begin()
        except BaseException as error:
            self.leave()
            takeover.give_up(error)
            raise
        takeover.finish()
        self._lock.claim()
        self._attend()
        self.addresses.settle(self.residents)
        self._enforce(self.config)

    def _sort_out_flows(self, known: Mapping[str, bytes]) -> None:
        """Before anything is forwarded: those of whoever is not here would pass for who has the address by this file."""
        if _WHOSE_FLOWS in known:
            self.policing.inherit(known[_WHOSE_FLOWS])
            self.policing.forget_departed(self.facts(self.config))

    def _open(self, directory: Path) -> None:
        """Journals, plane and drivers; nothing is changed by that."""
        self._residents, self._addresses = open_residents(directory), open_addresses(directory, self.config)
        self._residents.look(self._loop.clock())
        self._datapath = Datapath(
            directory,
            workers=self.config.workers_count,
            flows=self.config.flows,
            busy_poll=self.config.workers.busy_poll,
            openers=self._openers,
            plane=self._plane,
        )
        self._policing = Policing(self._loop, directory, self._datapath.plane, self.settle_pods)
        self._vigil = Vigil(
            self._loop,
            self._datapath,
            underlay=self._look_at_underlay,
            forwarding=self._look_at_forwarding,
            residents=self._look_at_residents,
            policy=self._compile_again,
        )

    def _attend(self) -> None:
        """From now on see to what the workers, the kernel and the clock have to say."""
        self.started = time.monotonic()
        self.ready = True
        self.vigil.begin()
        self.policing.start()

    def estate(self) -> Estate:
        """What a successor needs of this node."""
        datapath = self.datapath
        assert self._lock is not None
        cpus = self.config.workers.cpus
        whose = {_WHOSE_FLOWS: self.policing.whose_flows()}  # now, while packets are forwarded
        return Estate(
            datapath.estate(),
            {"lock": self._lock.fileno()},
            lambda: datapath.pause() | whose,
            lambda: datapath.go_on({}, cpus),
        )

    def leave(self) -> None:
        """Let go of everything and remove nothing: another process forwards."""
        self._end(Datapath.leave, LockFile.share)

    def stop(self) -> None:
        """End forwarding; pods keep their devices, everything else of ours goes. Idempotent."""
        self._end(Datapath.close, LockFile.release)

    def halt(self) -> None:
        """As `stop`, but go on holding the state directory, until that."""
        self._end(Datapath.close, None)

    def _end(self, leave_datapath: Callable[[Datapath], None], leave_lock: Callable[[LockFile], None] | None) -> None:
        self.ready = False
        if self._policing is not None:
            self._policing.stop()
        if self._vigil is not None:
            self._vigil.end()
        if self._datapath is not None:
            leave_datapath(self._datapath)
        if self._residents is not None:
            self._residents.close()
        if self._addresses is not None:
            self._addresses.close()
        self._policing = self._vigil = self._datapath = self._residents = self._addresses = None
        if self._lock is not None and leave_lock is not None:
            leave_lock(self._lock)
            self._lock = None

    # -- pods that a runtime attaches ----------------------------------------------
    def attach(self, attachments: Sequence[Attachment]) -> list[int | TowpathError]:
        """All in one pass: what a pass costs beside its pods is paid once."""
        try:
            for attachment in attachments:
                if self.residents.get(attachment.key) != attachment:
                    self.residents.put(attachment)
            self.settle_pods()
            found = [self._attached(attachment) for attachment in attachments]
        except BaseException:
            self._undo(attachments)
            raise
        self._undo([a for a, mtu in zip(attachments, found, strict=True) if isinstance(mtu, TowpathError)])
        return found

    def _attached(self, attachment: Attachment) -> int | TowpathError:
        error = self.datapath.reconciler.failure_of(Kind.POD, attachment.pod)
        device = self.datapath.pods.attachments.get(attachment.pod)
        if error is None and device is None:
            error = TowpathError("is not attached", where=f"pod {attachment.pod}", remedy="see the daemon's log")
        return error or (device.device.mtu if device else 0)

    def _undo(self, attachments: Sequence[Attachment]) -> None:
        """Of what was half made nothing stays. Where that fails too, what is left is `residents.leaving`."""
        try:
            self.detach(attachment.key for attachment in attachments)
        except Exception as error:  # noqa: BLE001 - why they could not be attached is what is to be told
            log.warning("what is left of pods that could not be attached is removed later: %s", error)

    def detach(self, keys: Iterable[Key]) -> list[Attachment]:
        """TowpathError when a device could not be removed: its attachment stays, and no packet comes to it."""
        detachment = self.begin_to_detach(keys)
        detachment.delete()
        for error in self.end_detaching(detachment).values():
            raise error
        return detachment.attachments

    def begin_to_detach(self, keys: Iterable[Key]) -> Detachment:
        """The first half of `detach`: no packet comes any more."""
        found = [attachment for attachment in map(self.residents.get, keys) if attachment is not None]
        if not found:
            return Detachment([], None)
        self.residents.let_go(attachment.key for attachment in found)
        for attachment in found:  # one that was refused before
            self.datapath.reconciler.end_pause(Kind.POD, attachment.pod)
        self._settle_pods_without_waiting()
        pods = [self.residents.pod(attachment.key) for attachment in found]
        return Detachment(found, self.datapath.pods.leaving(pods))

    def end_detaching(self, detachment: Detachment) -> dict[Key, TowpathError]:
        """The last half: the devices are gone, and so are addresses and attachments, but for those that were refused.

        Those whose addresses a plugin has to take back are left to whoever tells it, and so is what was complained of.
        """
        departure = detachment.departure
        if departure is None:
            return {}
        self.datapath.forget(departure)
        self.vigil.arm_retry()
        refused: dict[Key, TowpathError] = {}
        for attachment in detachment.attachments:
            error = self._why_it_stands(attachment.pod, departure)
            if error is None and not attachment.ipam:
                error = tried(partial(self._forget, attachment), f"pod {attachment.pod}")
            if error is not None:
                refused[attachment.key] = error
            if error is not None or not attachment.ipam:
                self.complaints.say(f"pod {attachment.pod}", error)
        return refused

    def write_off(self, wanted: str | Address) -> Attachment | None:
        """Whoever is leaving by this pod's name or with this address, forgotten though its plugin took nothing back.

        TowpathError when its device still stands. One that nobody complained of may be an addition that has just begun.
        """
        for attachment in self.residents.leaving:
            about = f"pod {attachment.pod}"
            if not attachment.ipam or wanted not in (attachment.pod, *attachment.ip_addresses()):
                continue
            if attachment.addresses or self.complaints.has(about):
                self.detach([attachment.key])
                self.residents.discard(attachment.key)
                self.complaints.say(about, None)
                return attachment
        return None

    def _forget(self, attachment: Attachment) -> None:
        """Its addresses first: what cannot be written down then is tried again with the attachment."""
        self.addresses.release(attachment.handle, attachment.ip_addresses())
        self.residents.discard(attachment.key)

    def _why_it_stands(self, pod: str, departure: Departure) -> TowpathError | None:
        if pod in departure.deleted:
            return None
        error = departure.refused.get(pod) or self.datapath.reconciler.failure_of(Kind.POD, pod)
        return error or TowpathError("its device is still there", where=f"pod {pod}", remedy="it is tried again")

    # -- from facts to the kernel ----------------------------------------------------
    def reload(self, config: Config) -> Outcome:
        """Put another configuration in force, and try again at once what failed."""
        self.complaints.say_what_needs_a_restart(self.config, config)
        self.datapath.reconciler.end_pauses()
        return self._enforce(config)

    def settle_pods(self) -> None:
        """As `reload`, when only the pods, or the policies about them, are others."""
        self._settle_pods_without_waiting()
        self.datapath.see_off()
        self.vigil.arm_retry()

    def _settle_pods_without_waiting(self) -> None:
        facts = self.facts(self.config)
        desired = self._computed(facts, self._underlay)
        logged(self.datapath.apply_without_waiting(desired, partial(self.policing.forget_departed, facts)))
        self.desired = desired
        self.vigil.arm_retry()

    def facts(self, config: Config) -> Facts:
        """What the file says, and the pods that runtimes attached."""
        if self._read is None or self._read[0] is not config:
            self._read = config, config.facts()  # once: there may be many thousand peers and routes in it
        facts = self._read[1]
        residents = self._residents.pods() if self._residents is not None else ()
        return replace(facts, pods=(*facts.pods, *residents)) if residents else facts

    def _enforce(self, config: Config) -> Outcome:
        return self._put_in_force(config, self._desire(config))

    def _put_in_force(self, config: Config, desired: Desired) -> Outcome:
        outcome = self.datapath.apply(desired, partial(self.policing.forget_departed, self.facts(config)))
        self._insist_on(outcome)
        logged(outcome)
        self.datapath.rules.tell()
        self.config, self.desired = config, desired
        self._look_at_forwarding()
        self.applied += 1
        self.vigil.arm_retry()
        return outcome

    def _insist_on(self, outcome: Outcome) -> None:
        if outcome.failed and self._must_be_whole:
            raise outcome.failed[0].error

    @property
    def _must_be_whole(self) -> bool:
        """A start does without nothing, unless it was told to."""
        return not (self.ready or self._keep_going)

    def _desire(self, config: Config) -> Desired:
        """What should be, by this configuration and by what is seen of the underlay now."""
        self.addresses.configure(config)
        facts = self.facts(config)
        self._underlay = underlay.look(facts, config.node.interface)
        missing = unreachable(facts, self._underlay)
        self.complaints.say("underlay", missing)
        if missing is not None and self._must_be_whole:
            raise missing
        self.policing.configure(config)
        return self._computed(facts, self._underlay)

    def _computed(self, facts: Facts, seen: Underlay) -> Desired:
        own = [interface.ip for interface in local_addresses(facts.node, seen)]
        return replace(self._recompute(facts, seen), policy=self.policing.enforced(facts, own))

    def _compile_again(self) -> None:
        """What kept a policy from being compiled may be over, a lack of memory for one."""
        if isinstance(self.desired.policy, Unenforceable):
            self.settle_pods()

    def _look_at_underlay(self) -> None:
        """Take up a new path MTU or address; the difference to the state in force is all that is touched."""
        try:
            if underlay.look(self.facts(self.config), self.config.node.interface) != self._underlay:
                self._enforce(self.config)
        except TowpathError as error:
            self.complaints.say("underlay", error)

    def _look_at_forwarding(self) -> None:
        self.complaints.say_what_is_not_forwarded(self.desired)
        self.complaints.say_what_shortcut_is_missing(self.datapath.shortcuts.complaint())

    def _look_at_residents(self) -> None:
        if self.residents.look(self._loop.clock()):
            self.settle_pods()


def _of_a_running_node(part: T | None) -> T:
    if part is None:
        raise TowpathError("the node does not run", remedy="start it first")
    return part
