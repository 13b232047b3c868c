"""Attaches pods: a TUN device in the pod's namespace whose queue the engine holds.

Owns: the pods' devices, from making or adopting them to removing them.
Never: touches a device that is not marked as ours, and never leaves one behind
that it made and could not finish.
Invariant: devices outlive the daemon; `release` closes queues, only `remove`
deletes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Container, Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import ip_interface
from typing import cast

from engine.apply.delta import Kind
from engine.apply.inheritance import Heirloom, Inheritance
from engine.apply.links import (
    ALIAS_PREFIX,
    DeviceSettings,
    DeviceState,
    bring_loopback_up,
    configure,
    delete,
    is_marked,
    matches,
    named_by_alias,
    netlink,
    read,
)
from engine.apply.plane import Forwarding, LocalPort, OpenTun, adopt_tun
from engine.apply.reconcile import tried
from engine.apply.refusal import refusal
from engine.desired.compute import DEFAULT_ROUTES
from engine.errors import KernelError, TowpathError
from engine.model import Pod, PodDevice, Prefix
from engine.pod.departure import Departure, Leaver
from engine.pod.namespace import Identity, identity, run_inside
from engine.pod.queue import let_go
from engine.pod.record import Entry, Record
from engine.pod.succession import place_of, successions

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Attachment:
    """A pod's device in use. `made`: it did not exist before this run. `compared`: it is known to be as `device` says."""

    device: PodDevice
    port: LocalPort
    namespace: Identity | None
    made: bool
    compared: bool = True

    @property
    def is_elsewhere(self) -> bool:
        """The namespace is not what it was when the device was made in it."""
        return identity(self.device.pod.namespace) != self.namespace


@dataclass(frozen=True, slots=True)
class Recorded:
    """A device an earlier run wrote down: to be adopted or removed."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Inherited:
    """A device whose queue a predecessor left us; nobody has looked yet whether it is as it should be."""

    device: PodDevice


class PodDriver:
    kind = Kind.POD
    drifts = True

    def __init__(self, forwarding: Forwarding, open_tun: OpenTun, record: Record) -> None:
        self._forwarding = forwarding
        self._open_tun = open_tun
        self._record = record
        self.attachments: dict[str, Attachment] = {}
        self._leaving: dict[str, Leaver] = {}  # their devices are still to be deleted
        self._before: dict[str, Identity | None] = {}  # where pods were that may come again; None: nowhere any more

    def actual(self) -> Mapping[Hashable, object]:
        found: dict[Hashable, object] = {name: Recorded(entry) for name, entry in self._record.entries.items()}
        for name, attachment in self.attachments.items():
            found[name] = attachment.device if attachment.compared else Inherited(attachment.device)
        return found | dict.fromkeys(self._leaving)

    def adopt(self, wanted: PodDevice, inheritance: Inheritance) -> None:
        """Go on with the queue that a predecessor left for this pod, if it is of the device that is wanted now."""
        pod = wanted.pod
        seen = identity(pod.namespace)

        def take(heirloom: Heirloom) -> LocalPort:
            if seen is None or heirloom.namespace != seen:
                raise ValueError("the pod is in another namespace now")
            port = adopt_tun(
                heirloom.descriptors, role="pod", addresses=pod.addresses, mtu=wanted.mtu, granted=heirloom.granted
            )
            if port.name != pod.interface:
                raise ValueError(f"the pod's device was called {port.name}")
            return port

        port = inheritance.claim(("pod", pod.name), take)
        if port is None:
            self._before[pod.name] = None  # whoever was there when the flows began that were left with the ports
        else:
            self._forwarding.attach(("pod", pod.name), port, pod.bandwidth)
            self.attachments[pod.name] = Attachment(wanted, port, seen, made=False, compared=False)

    def take_up(self, devices: Iterable[PodDevice]) -> None:
        """Open the queues of devices that stand as an earlier run left them, and look at nothing else.

        Packets can flow then; whether each device is as it should be is a later pass's to
        see, and so is everything that goes wrong here.
        """
        for device in devices if self._forwarding.unjudged is None else ():
            pod, seen = device.pod, identity(device.pod.namespace)
            if seen is None or pod.name in self.attachments or not self._is_known(pod, seen):
                continue
            error = tried(partial(self._take_up, device, seen), f"pod {pod.name}")
            if error is not None:
                log.debug("%s", error)

    def _is_known(self, pod: Pod, seen: Identity) -> bool:
        """It is written down that the pod has its device in this namespace."""
        if pod.namespace_id is not None:
            return pod.namespace_id == seen
        entry = self._record.entries.get(pod.name)
        return entry is not None and (entry.namespace, entry.interface) == (pod.namespace, pod.interface)

    def _take_up(self, device: PodDevice, seen: Identity) -> None:
        pod = device.pod
        port = run_inside(pod.namespace, partial(self._reopen, device), where=f"pod {pod.name}")
        if port is not None:
            try:
                self._forwarding.attach(("pod", pod.name), port, pod.bandwidth)
            except BaseException:
                port.close()
                raise
            self.attachments[pod.name] = Attachment(device, port, seen, made=False, compared=False)

    def _reopen(self, device: PodDevice) -> LocalPort | None:
        """In the pod's namespace: the queue of the device that carries this pod's mark; None when there is none."""
        pod = device.pod
        with netlink() as ip:
            if not is_marked(ip, pod.interface, alias_of(pod)):
                return None
        return self._open_tun(pod.interface, role="pod", addresses=pod.addresses, mtu=device.mtu)

    def namespace_of(self, name: str) -> Identity | None:
        return self.attachments[name].namespace

    def set(self, key: Hashable, value: object) -> None:
        wanted = cast(PodDevice, value)
        pod = wanted.pod
        self._drop_if_elsewhere(wanted)
        self._refuse_whom_no_policy_knows(pod)
        attachment = self.attachments.get(pod.name)
        if attachment is not None:
            settings = settings_of(wanted)
            run_inside(pod.namespace, lambda: _configure_pod(settings), where=f"pod {pod.name}")
            self._forwarding.update(("pod", pod.name), pod.addresses, wanted.mtu, pod.bandwidth)
            attachment.device, attachment.compared = wanted, True
        else:
            self._attach(wanted)
        error = tried(partial(self._record.marked, pod.name), f"pod {pod.name}")
        if error is not None:  # of no harm: other marks are looked for, too
            log.debug("%s", error)

    def change(self, wanted: Mapping[Hashable, object | None]) -> Mapping[Hashable, TowpathError]:
        """Many pods. The devices of those that go leave the plane, and stand until somebody sees to `leaving`."""
        refused: dict[Hashable, TowpathError] = {}
        standing: list[str] = []

        def attempt(key: Hashable, work: Callable[[], object]) -> None:
            error = tried(work, str(key))
            if error is not None:
                refused[key] = error

        for key, value in wanted.items():
            if value is not None:
                attempt(key, partial(self.set, key, value))
            elif key in self.attachments:
                attempt(key, partial(self._take_out, key))
            elif key not in self._leaving:
                standing.append(cast(str, key))
        return {**refused, **self._remove_standing(standing)}

    def _remove_standing(self, names: Iterable[str]) -> Mapping[Hashable, TowpathError]:
        """What an earlier run or an earlier try left: those that could not be removed. All at once, as in `leaving`."""
        refused: dict[Hashable, TowpathError] = {}
        departure = Departure({})
        for name in names:
            error = tried(partial(self._forwarding.detach, ("pod", name)), f"pod {name}")  # it may have failed before
            self._before.pop(name, None)
            if error is not None:
                refused[name] = error
            elif name in self._record.entries:
                departure.leaving[name] = self._recorded(name)
        if departure.leaving:
            error = tried(departure.delete, "devices that stand")
            if error is not None:  # no thread, perhaps
                refused.update(dict.fromkeys(departure.leaving.keys() - departure.deleted, error))
        refused.update(departure.refused)
        error = tried(partial(self._record.discard, *departure.deleted), "record of devices")
        if error is not None:
            refused.update(dict.fromkeys(departure.deleted, error))
        return refused

    def _recorded(self, name: str) -> Leaver:
        entry = self._record.entries[name]
        return self._leaver(Pod(entry.pod, entry.namespace, (), entry.interface))

    def pass_on(self, devices: Iterable[PodDevice]) -> None:
        """A device whose pod leaves, and at whose place another pod is wanted, becomes that one's as it stands.

        In a circle of names one queue is closed, and taken up again by the next pass.
        """
        wanted = {device.pod.name: device.pod for device in devices}
        present = {name: had.device.pod for name, had in self.attachments.items()}
        heirs = self._free_names(successions(present, wanted))
        is_written = self._succeeds(partial(self._record.pass_on, heirs), "record of devices")
        while heirs:  # those first whose names are free, which frees other names
            name = next((name for name, heir in heirs.items() if heir not in self.attachments), next(iter(heirs)))
            heir = heirs.pop(name)
            if is_written and heir not in self.attachments:
                self._succeeds(partial(self._rename, name, heir), f"pod {name}")
            if name in self.attachments:
                self._succeeds(partial(self._close, name), f"pod {name}")

    def _free_names(self, heirs: dict[str, str]) -> dict[str, str]:
        """Those of `heirs` whose names are free by now, or will be: a device elsewhere that nobody inherits is removed.

        One place is written down for each name: a device that still stood at another would be found by nobody.
        """
        heirs = dict(heirs)
        while (
            name := next((name for name, heir in heirs.items() if heir not in heirs and self._has(heir)), None)
        ) is not None:
            if not self._succeeds(partial(self.remove, heirs[name]), f"pod {heirs[name]}"):
                del heirs[name]
                self._succeeds(partial(self._close, name), f"pod {name}")
        return heirs

    def _has(self, name: str) -> bool:
        """A device may stand that is known as this pod's."""
        return name in self.attachments or name in self._leaving or name in self._record.entries

    def _succeeds(self, work: Callable[[], object], where: str) -> bool:
        error = tried(work, where)
        if error is not None:
            log.warning("%s", error)
        return error is None

    def _rename(self, before: str, after: str) -> None:
        """No packet waits for that: in the plane nothing changes. Mark and addresses are the next pass's to set."""
        attachment = self.attachments[before]
        pod = replace(attachment.device.pod, name=after)
        self._forwarding.rename_pod(before, after)
        del self.attachments[before]
        self.attachments[after] = replace(attachment, device=replace(attachment.device, pod=pod), compared=False)

    def clear_the_way(self, devices: Iterable[PodDevice]) -> None:
        """Take out of the plane whom another policy will not know, or know as somebody else: pods that are not wanted
        any more, and those that lose an address or move. The latter come again once the policy is in force."""
        wanted = {device.pod.name: device.pod for device in devices}
        for name, attachment in list(self.attachments.items()):
            pod = wanted.get(name)
            if pod is None:
                self._succeeds(partial(self._take_out, name), f"pod {name}")
            elif not _stays(attachment.device.pod, pod):
                self._succeeds(partial(self._close, name), f"pod {name}")

    def _take_out(self, name: str) -> None:
        self._before.pop(name, None)
        left = self._detach(name)
        self._leaving[name] = self._leaver(left.device.pod, left.port)

    def _leaver(self, pod: Pod, port: LocalPort | None = None) -> Leaver:
        return Leaver(pod, port, self._record.marks_of(pod.name))

    def leaving(self, others: Collection[Pod] = ()) -> Departure:
        """The devices of the pods that were taken out of the plane since the last time, to be deleted.

        `others` are not in it either, but something of them may stand: of an earlier try, or an earlier run.
        """
        for pod in others:
            if pod.name not in self.attachments:
                self._before.pop(pod.name, None)
        leaving, self._leaving = self._leaving, {}
        return Departure({pod.name: self._leaver(pod) for pod in others if pod.name not in self.attachments} | leaving)

    def forget(self, departure: Departure) -> bool:
        """There is nothing to look for any more, but where a device was not deleted: whether there is one for a pass."""
        error = tried(lambda: self._record.discard(*departure.deleted), "record of devices")
        if error is not None:
            log.warning("%s", error)
        standing = {name: left for name, left in departure.leaving.items() if name not in departure.deleted}
        for name, left in standing.items():
            log.warning("the device of pod %s is still there: %s", name, departure.refused.get(name, "nobody tried"))
            if name not in departure.refused:
                left.close()
            self._leave_standing(left.pod)
        return any(left.pod.namespace_id is None for left in standing.values())

    def _leave_standing(self, pod: Pod) -> None:
        """What was not deleted is written down, as what an earlier run left is: the next passes remove it.

        A pod that a runtime attached is written down with its attachment, by which it is removed.
        """
        if pod.namespace_id is not None:
            return
        if tried(lambda: self._record.add(Entry(pod.name, pod.namespace, pod.interface)), f"pod {pod.name}"):
            self._leaving[pod.name] = self._leaver(pod)  # a full disk

    def remove(self, key: Hashable) -> None:
        name = cast(str, key)
        if name in self.attachments:
            self._take_out(name)
        else:
            self._forwarding.detach(("pod", name))  # which may have failed when it was tried before
            self._before.pop(name, None)
        left = self._leaving.pop(name, None)
        if left is not None:
            self._delete(left)
        elif name in self._record.entries:
            self._recorded(name).delete()
        self._record.discard(name)

    def _delete(self, left: Leaver) -> None:
        try:
            left.delete()
        except BaseException:
            self._leave_standing(left.pod)
            raise

    def release(self, *, undo: bool = False) -> None:
        """Close every queue and leave the devices to the next run; with `undo`, delete those made by this one."""
        for name, attachment in list(self.attachments.items()):
            if undo and attachment.made:
                self.remove(name)
            else:
                self._close(name)

    def lost(self, name: str) -> None:
        """The device went away under us: let go of its queue, so that the next pass makes it again."""
        attachment = self.attachments.get(name)
        if attachment is None:
            return
        if attachment.port.device_name() == attachment.device.pod.interface:  # down, or kept out
            self._close(name)
        else:
            self._lose(name)

    def look(self, name: str) -> DeviceState | None:
        """How the pod's device is; None: gone. KernelError when the pod is not attached."""
        attachment = self.attachments.get(name)
        if attachment is None:
            raise KernelError("is not attached", where=f"pod {name}", remedy="see towpath status")
        pod = attachment.device.pod
        if identity(pod.namespace) != attachment.namespace:
            return None
        return run_inside(pod.namespace, lambda: _read(pod.interface), where=f"pod {name}")

    def audit(self, name: str) -> bool:
        """Compare one pod's device with what it should be; what differs is repaired, now or by the next pass.

        False when it could not be looked at, so that somebody has to try again.
        """
        attachment = self.attachments.get(name)
        if attachment is None:
            return True
        pod = attachment.device.pod
        if attachment.is_elsewhere:
            log.warning("the namespace of pod %s is gone or another one", name)
            self._close(name)
            return True
        settings = settings_of(attachment.device)
        try:
            state = run_inside(pod.namespace, lambda: _read(pod.interface), where=f"pod {name}")
            if attachment.port.device_name() != pod.interface:
                state = None  # what stands under its name is another
            if state is not None and not matches(state, settings):
                log.warning("the device of pod %s was changed by somebody else; setting it right", name)
                run_inside(pod.namespace, lambda: _configure_pod(settings), where=f"pod {name}")
        except (TowpathError, OSError) as error:
            log.warning("cannot look at the device of pod %s: %s", name, error)
            return False
        if state is None:
            self._lose(name)
        return True

    def _attach(self, wanted: PodDevice) -> None:
        pod = wanted.pod
        settings = settings_of(wanted)
        where = f"pod {pod.name}"
        seen = identity(pod.namespace)
        if pod.namespace_id not in (None, seen):
            what = f"network namespace {pod.namespace} is gone" + (", and another took its place" if seen else "")
            raise KernelError(what, where=where, remedy="its runtime removes the pod, or made it anew")
        if pod.namespace_id is None:  # the others are written down with their attachment
            self._record.add(Entry(pod.name, pod.namespace, pod.interface))
        try:
            port, made = run_inside(pod.namespace, lambda: self._open(wanted, settings), where=where)
        except BaseException:
            if pod.namespace_id is None and pod.name not in self.attachments and _nothing_of_ours(wanted):
                self._record.discard(pod.name)
            raise
        attachment = Attachment(wanted, port, seen, made)
        try:
            self._forget_predecessor(pod, seen)
            self._forwarding.attach(("pod", pod.name), port, pod.bandwidth)
        except BaseException:
            self._undo(attachment)
            raise
        self.attachments[pod.name] = attachment
        self._before.pop(pod.name, None)

    def _forget_predecessor(self, pod: Pod, seen: Identity | None) -> None:
        """In another namespace it is another pod, whatever its name, path and addresses are: it inherits no flows."""
        if pod.name in self._before and (seen is None or self._before[pod.name] != seen):
            for address in pod.addresses:
                self._forwarding.plane.forget_flows(address)

    def _undo(self, attachment: Attachment) -> None:
        """What went wrong before is what is to be told."""
        name = attachment.device.pod.name
        if not attachment.made:
            attachment.port.close()
        elif tried(partial(self._delete, self._leaver(attachment.device.pod, attachment.port)), f"pod {name}") is None:
            tried(partial(self._record.discard, name), f"pod {name}")

    def _open(self, wanted: PodDevice, settings: DeviceSettings) -> tuple[LocalPort, bool]:
        """In the pod's namespace: take the device, or make it, and configure it."""
        pod = wanted.pod
        where = f"pod {pod.name}"
        _delete_renamed(settings, self._record.interfaces_of_others(pod.name, pod.namespace))
        state = _read(pod.interface)
        if state is not None and not state.is_ours:
            raise KernelError(
                f"device {pod.interface} exists in {pod.namespace} and is not Towpath's",
                where=where,
                remedy="remove it, or give the pod another interface name",
            )
        try:
            port = self._open_tun(pod.interface, role="pod", addresses=pod.addresses, mtu=wanted.mtu)
        except OSError as error:
            raise refusal(error, where=where, doing=f"cannot make device {pod.interface}", tun=True) from error
        try:
            _configure_pod(settings)
        except BaseException:
            self._undo(Attachment(wanted, port, None, made=state is None))
            raise
        return port, state is None

    def _drop_if_elsewhere(self, wanted: PodDevice) -> None:
        """A pod that moved to another namespace or device name loses its old device first."""
        name = wanted.pod.name
        attachment = self.attachments.get(name)
        if attachment is not None:
            device = attachment.device.pod
            if (device.namespace, device.interface) != (wanted.pod.namespace, wanted.pod.interface):
                self.remove(name)
            elif identity(wanted.pod.namespace) != attachment.namespace:
                self._close(name)
            elif attachment.port.device_name() != device.interface:
                self._lose(name)
            return
        entry = self._record.entries.get(name)
        if entry and (entry.namespace, entry.interface) != (wanted.pod.namespace, wanted.pod.interface):
            self.remove(name)

    def _refuse_whom_no_policy_knows(self, pod: Pod) -> None:
        """While the policy that is wanted is not in force, only those stay in whom the last one judges."""
        attachment, unjudged = self.attachments.get(pod.name), self._forwarding.unjudged
        known = () if attachment is None else attachment.device.pod.addresses
        if unjudged is not None and not set(pod.addresses) <= set(known):
            what = f"is kept out, for policy {unjudged.what}"
            raise KernelError(what, where=f"pod {pod.name}", remedy=unjudged.remedy)

    def _close(self, name: str) -> None:
        self._interrupt(name).port.close()

    def _lose(self, name: str) -> None:
        let_go(self._interrupt(name).port)

    def _interrupt(self, name: str) -> Attachment:
        """Detached, but to come again."""
        attachment = self._detach(name)
        # The number of a namespace that is gone may be given again.
        self._before[name] = None if attachment.is_elsewhere else attachment.namespace
        return attachment

    def _detach(self, name: str) -> Attachment:
        self._forwarding.detach(("pod", name))
        return self.attachments.pop(name)


def _stays(before: Pod, after: Pod) -> bool:
    """At its place, with all of its addresses."""
    return place_of(before) == place_of(after) and set(before.addresses) <= set(after.addresses)


def settings_of(device: PodDevice) -> DeviceSettings:
    """A pod's device: host addresses, and everything leaves through it."""
    return DeviceSettings(
        name=device.pod.interface,
        alias=alias_of(device.pod),
        mtu=device.mtu,
        addresses=tuple(ip_interface(address) for address in device.pod.addresses),
        routes=routes_of(device.pod),
    )


def alias_of(pod: Pod) -> str:
    """The mark of the pod's device."""
    return f"{ALIAS_PREFIX}{pod.name}"


def routes_of(pod: Pod) -> tuple[Prefix, ...]:
    """What leaves through the pod's device: everything in each family of its addresses, unless told otherwise."""
    versions = {address.version for address in pod.addresses}
    if pod.routes is None:
        return tuple(DEFAULT_ROUTES[version] for version in sorted(versions))
    return tuple(prefix for prefix in pod.routes if prefix.version in versions)


def _configure_pod(settings: DeviceSettings) -> None:
    with netlink() as ip:
        bring_loopback_up(ip)
        configure(ip, settings, where=f"pod {settings.alias.removeprefix(ALIAS_PREFIX)}")


def _read(name: str) -> DeviceState | None:
    with netlink() as ip:
        return read(ip, name)


def _delete_renamed(settings: DeviceSettings, others: Container[str]) -> None:
    """The pod's device under a name that somebody gave it would hold the addresses of the one to be made.

    One of the `others` in the namespace was this pod's until it was passed on, and is marked anew in a moment.
    """
    with netlink() as ip:
        for name in named_by_alias(ip, settings.alias):
            if name != settings.name and name not in others:
                delete(ip, name)


def _nothing_of_ours(wanted: PodDevice) -> bool:
    """Whether the failed attachment left no device that a later run would have to look for."""
    pod = wanted.pod
    try:
        state = run_inside(pod.namespace, lambda: _read(pod.interface), where=f"pod {pod.name}")
    except (TowpathError, OSError):
        return True
    return state is None or not state.is_ours
