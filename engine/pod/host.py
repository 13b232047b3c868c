"""The host's own port: one TUN device in the daemon's namespace.

Owns: that device (towpath0 unless named otherwise), its addresses, its queue.
Never: sets routes (apply/kernel_routes) or host-wide settings.
Invariant: it outlives a crash and is adopted by its mark; a clean stop removes it.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import cast

from engine.apply.delta import Kind
from engine.apply.inheritance import Heirloom, Inheritance
from engine.apply.links import ALIAS_PREFIX, DeviceSettings, configure, delete, matches, named_by_alias, netlink, read
from engine.apply.plane import Forwarding, LocalPort, OpenTun, Owner, adopt_tun
from engine.apply.refusal import refusal
from engine.errors import KernelError
from engine.model import Address, HostDevice, HostPort
from engine.pod.queue import let_go

_ALIAS = f"{ALIAS_PREFIX}host"
_OWNER: Owner = ("host", "host")


class HostDriver:
    kind = Kind.HOST
    drifts = True

    def __init__(self, forwarding: Forwarding, open_tun: OpenTun) -> None:
        self._forwarding = forwarding
        self._open_tun = open_tun
        self._device: HostDevice | None = None
        self._port: LocalPort | None = None
        self._made = False  # the device did not exist before this run
        self._compared = True  # false: a predecessor left us the queue, and nobody has looked at the device yet

    def device_name(self) -> str:
        """The device in use, or the one it would be."""
        return self._device.name if self._device else HostPort().name

    def actual(self) -> Mapping[Hashable, object]:
        if self._device is not None:
            return {"host": self._device if self._compared else (self._device.name,)}
        with netlink() as ip:
            earlier = named_by_alias(ip, _ALIAS)
        # A device of an earlier run equals nothing desired, so it is adopted or removed.
        return {"host": tuple(earlier)} if earlier else {}

    def set(self, key: Hashable, value: object) -> None:
        wanted = cast(HostDevice, value)
        if self._device is not None and self._device.name != wanted.name:
            self.remove(key)
        self._refuse_whom_no_policy_knows(wanted)
        if self._port is None:
            self._open(wanted)
        else:
            with netlink() as ip:
                configure(ip, settings_of(wanted), where=_where(wanted))
            number = self._forwarding.ports[_OWNER]
            self._forwarding.plane.update_port(number, addresses=_addresses(wanted), mtu=wanted.mtu)
        self._device, self._compared = wanted, True

    def _refuse_whom_no_policy_knows(self, wanted: HostDevice) -> None:
        """While the policy that is wanted is not in force, no address comes in that the last one does not judge."""
        unjudged, known = self._forwarding.unjudged, self._device
        stays = self._port is not None and known is not None and set(_addresses(wanted)) <= set(_addresses(known))
        if unjudged is not None and not stays:
            what = f"is kept out, for policy {unjudged.what}"
            raise KernelError(what, where=_where(wanted), remedy=unjudged.remedy)

    def adopt(self, wanted: HostDevice, inheritance: Inheritance) -> None:
        """Go on with the queue that a predecessor left, if it is of the device that is wanted now."""

        def take(heirloom: Heirloom) -> LocalPort:
            addresses = _addresses(wanted)
            port = adopt_tun(
                heirloom.descriptors, role="host", addresses=addresses, mtu=wanted.mtu, granted=heirloom.granted
            )
            if port.name != wanted.name:
                raise ValueError(f"the device was called {port.name}")
            return port

        self._port = inheritance.claim(_OWNER, take)
        if self._port is not None:
            self._forwarding.attach(_OWNER, self._port)
            self._device, self._compared = wanted, False

    def release(self) -> None:
        """Let go of the queue and leave the device, to a successor that has both."""
        port = self._detach()
        if port is not None:
            port.close()

    def undo(self) -> None:
        """Remove the device if this run made it."""
        if self._made:
            self.remove(_OWNER[1])
        else:
            self.release()

    def remove(self, key: Hashable) -> None:
        if self._port is not None:
            self._forwarding.detach(_OWNER)
            self._port.delete()
            self._port = self._device = None
        with netlink() as ip:
            for name in named_by_alias(ip, _ALIAS):
                delete(ip, name)

    def lost(self) -> None:
        """The device went away under us: let go of its queue, so that the next pass makes it again."""
        if self._is_in_place():
            self.release()
        else:
            self._lose()

    def _is_in_place(self) -> bool:
        """The device stands under its name, as far as its queue tells."""
        return self._port is None or self._device is None or self._port.device_name() == self._device.name

    def _lose(self) -> None:
        port = self._detach()
        if port is not None:
            let_go(port)

    def _detach(self) -> LocalPort | None:
        if self._port is None:
            return None
        self._forwarding.detach(_OWNER)
        port, self._port, self._device = self._port, None, None
        return port

    def audit(self) -> None:
        """Set right what somebody changed; a device that is gone is made again by the next pass."""
        if self._device is None:
            return
        with netlink() as ip:
            state = read(ip, self._device.name, routes=False) if self._is_in_place() else None
            if state is not None and not matches(state, settings_of(self._device)):
                configure(ip, settings_of(self._device), where=_where(self._device))
        if state is None:
            self._lose()

    def _open(self, wanted: HostDevice) -> None:
        where = _where(wanted)
        with netlink() as ip:
            for name in named_by_alias(ip, _ALIAS):
                if name != wanted.name:
                    delete(ip, name)
            state = read(ip, wanted.name, routes=False)
            if state is not None and not state.is_ours:
                remedy = "remove it, or set another host.name"
                raise KernelError(f"device {wanted.name} exists and is not Towpath's", where=where, remedy=remedy)
            try:
                port = self._open_tun(wanted.name, role="host", addresses=_addresses(wanted), mtu=wanted.mtu)
            except OSError as error:
                raise refusal(error, where=where, doing="cannot make the device", tun=True) from error
            try:
                configure(ip, settings_of(wanted), where=where)
                self._forwarding.attach(_OWNER, port)
            except BaseException:
                if state is None:
                    port.delete()
                else:
                    port.close()
                raise
        self._port, self._made = port, self._made or state is None


def settings_of(device: HostDevice) -> DeviceSettings:
    return DeviceSettings(device.name, _ALIAS, device.mtu, device.addresses, routes=None)


def _where(device: HostDevice) -> str:
    return f"host port {device.name}"


def _addresses(device: HostDevice) -> tuple[Address, ...]:
    return tuple(address.ip for address in device.addresses)
