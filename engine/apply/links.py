"""Reads and sets the addresses, routes and limits of one TUN device.

Owns: what a device of ours looks like from the kernel's side.
Never: enters a namespace (the caller's thread is in the right one), opens a
queue, or touches a device that is not marked as ours.
Invariant: `configure` changes only what differs; on a device that is right it
sends reads and nothing else.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from engine.apply import device_message, route_message
from engine.apply.refusal import refusal
from engine.apply.route_socket import RouteSocket
from engine.errors import KernelError
from engine.model import Interface, Prefix

ALIAS_PREFIX = "towpath:"
ROUTE_PROTOCOL = 116  # marks the kernel routes that are ours; unused by iproute2's registry
QUEUE_LENGTH = 2000  # packets; TUN drops without back-pressure when its ring is full
GSO_MAX_SIZE = 60_000  # bytes: one read then fits one UDP_SEGMENT send, headers included

_LOOPBACK = 1  # the index of lo in every namespace
_SYSCTLS_6 = {"accept_ra": "0", "autoconf": "0", "addr_gen_mode": "1", "router_solicitations": "0"}

Change = Callable[[int], bytes]  # sequence number -> message


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """How a device should be. `routes`: what leaves through it, in a pod's namespace; None: it is the host's."""

    name: str
    alias: str
    mtu: int
    addresses: tuple[Interface, ...]
    routes: tuple[Prefix, ...] | None


@dataclass(frozen=True, slots=True)
class DeviceState:
    """How a device is."""

    index: int
    kind: str  # "tun" for ours
    alias: str
    mtu: int
    up: bool
    queue_length: int
    gso_max_size: int
    addresses: frozenset[Interface]
    routes: frozenset[Prefix]  # ours, in the main table

    @property
    def is_ours(self) -> bool:
        """Marked by us, or a bare TUN: what a start leaves that was killed before it could mark it."""
        if self.kind != "tun":
            return False
        return self.alias.startswith(ALIAS_PREFIX) or not (self.alias or self.up or self.addresses)


@contextmanager
def netlink() -> Iterator[RouteSocket]:
    """A netlink socket in the calling thread's namespace."""
    with closing(RouteSocket()) as opened:
        yield opened


def read(ip: RouteSocket, name: str, *, routes: bool = True) -> DeviceState | None:
    """The device called `name`, or None. Without `routes` those are not looked for: the host's port may have many."""
    link = _link(ip, device_message.link_named(ip.next_sequence(), name))
    if link is None:
        return None
    return DeviceState(
        index=link.index,
        kind=link.kind,
        alias=link.alias,
        mtu=link.mtu,
        up=link.up,
        queue_length=link.queue_length,
        gso_max_size=link.gso_max_size,
        addresses=frozenset(_own_addresses(ip, link.index)),
        routes=frozenset(_routes(ip, link.index)) if routes else frozenset(),
    )


def is_marked(ip: RouteSocket, name: str, alias: str) -> bool:
    """Whether there is a TUN device of this name that carries this mark: the least one can ask."""
    link = _link(ip, device_message.link_named(ip.next_sequence(), name))
    return link is not None and (link.kind, link.alias) == ("tun", alias)


def named_by_alias(ip: RouteSocket, alias: str) -> list[str]:
    """The names of all TUN devices that carry this mark."""
    return [link.name for link in links(ip) if link.kind == "tun" and link.alias == alias]


def links(ip: RouteSocket) -> list[device_message.Link]:
    """All devices of the namespace."""
    answers = ip.answers(device_message.all_links(ip.next_sequence()))
    found = (device_message.link(data, 0, len(data)) for kind, data in answers if kind == device_message.NEW_LINK)
    return [link for link in found if link is not None]


def delete(ip: RouteSocket, name: str) -> None:
    """Remove the device; one that is gone already is no error."""
    link = _link(ip, device_message.link_named(ip.next_sequence(), name))
    if link is not None:
        try:
            ip.answers(device_message.link_removal(ip.next_sequence(), link.index))
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise refusal(error, where=f"device {name}", doing="cannot remove it") from error


def configure(ip: RouteSocket, wanted: DeviceSettings, *, where: str) -> bool:
    """Make the existing device as `wanted`; whether anything had to be changed."""
    has_routes = wanted.routes is not None
    state = read(ip, wanted.name, routes=has_routes)
    if state is None:
        raise KernelError(f"device {wanted.name} is gone", where=where, remedy="it is made again at the next try")
    try:
        if not state.up:
            _write_sysctls(wanted)  # before up: the kernel would make a link-local address and solicit routers
        changed = _change(ip, [*_link_changes(state, wanted), *_address_changes(state, wanted)])
        if changed and has_routes:  # an address that was removed may have taken a route with it
            state = replace(state, routes=frozenset(_routes(ip, state.index)))
        changed |= _change(ip, _route_changes(state, wanted))
    except OSError as error:
        raise refusal(error, where=where, doing=f"cannot configure device {wanted.name}") from error
    return changed


def matches(state: DeviceState, wanted: DeviceSettings) -> bool:
    """Whether the device is as it should be, as far as one read tells."""
    return (
        state.alias == wanted.alias
        and state.mtu == wanted.mtu
        and state.up
        and state.addresses == frozenset(wanted.addresses)
        and (wanted.routes is None or state.routes == frozenset(wanted.routes))
    )


def bring_loopback_up(ip: RouteSocket) -> None:
    """A pod reaches its own addresses through lo, which a new namespace has down."""
    link = _link(ip, device_message.link_numbered(ip.next_sequence(), _LOOPBACK))
    if link is not None and not link.up:
        _change(ip, [lambda sequence: device_message.link_setting(sequence, _LOOPBACK, up=True)])


def _change(ip: RouteSocket, changes: Iterable[Change]) -> bool:
    """Send all in one go, in their order; OSError with the first refusal."""
    numbered = [(sequence, change(sequence)) for change in changes for sequence in [ip.next_sequence()]]
    refused = ip.change(numbered) if numbered else {}
    for sequence, _ in numbered:
        if sequence in refused:
            raise OSError(refused[sequence], os.strerror(refused[sequence]))
    return bool(numbered)


def _link_changes(state: DeviceState, wanted: DeviceSettings) -> Iterator[Change]:
    changes: dict[str, Any] = {}
    if state.alias != wanted.alias:
        changes["alias"] = wanted.alias
    if state.mtu != wanted.mtu:
        changes["mtu"] = wanted.mtu
    if state.queue_length != QUEUE_LENGTH:
        changes["queue_length"] = QUEUE_LENGTH
    if state.gso_max_size != GSO_MAX_SIZE:
        changes["gso_max_size"] = GSO_MAX_SIZE
    if changes or not state.up:
        yield partial(device_message.link_setting, index=state.index, up=not state.up, **changes)


def _address_changes(state: DeviceState, wanted: DeviceSettings) -> Iterator[Change]:
    for address in wanted.addresses:
        if address not in state.addresses:
            yield partial(device_message.address_setting, index=state.index, address=address)
    for address in state.addresses - frozenset(wanted.addresses):
        yield partial(device_message.address_removal, index=state.index, address=address)


def _route_changes(state: DeviceState, wanted: DeviceSettings) -> Iterator[Change]:
    """Set what is missing and remove what is stale of our routes. Those of others through the device stay."""
    if wanted.routes is None:
        return
    hops = route_message.next_hops((), state.index)
    for prefix in wanted.routes:
        if prefix not in state.routes:
            yield partial(_route_setting, prefix=prefix, hops=hops)
    for prefix in state.routes - frozenset(wanted.routes):
        yield partial(route_message.removal, prefix=prefix, protocol=ROUTE_PROTOCOL)


def _route_setting(sequence: int, prefix: Prefix, hops: bytes) -> bytes:
    return route_message.setting("replace", sequence, prefix, ROUTE_PROTOCOL, hops, linked=True)


def _link(ip: RouteSocket, request: bytes) -> device_message.Link | None:
    try:
        answers = ip.answers(request)
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise
    found = (device_message.link(data, 0, len(data)) for kind, data in answers if kind == device_message.NEW_LINK)
    return next(found, None)


def addresses(ip: RouteSocket, index: int = 0) -> Iterator[device_message.DeviceAddress]:
    """Those of a device, or of all."""
    for kind, data in ip.answers(device_message.addresses_of(ip.next_sequence(), index)):
        found = device_message.address(data, 0, len(data)) if kind == device_message.NEW_ADDRESS else None
        if found is not None and index in (0, found.device):
            yield found


def _own_addresses(ip: RouteSocket, index: int) -> Iterator[Interface]:
    """Without the link-local ones, which the kernel gives."""
    for found in addresses(ip, index):
        if not (found.interface.version == 6 and found.interface.ip.is_link_local):
            yield found.interface


def _routes(ip: RouteSocket, index: int) -> Iterator[Prefix]:
    """Our routes through the device."""
    for version in (4, 6):
        for route in ip.routes(version, ROUTE_PROTOCOL):
            if [hop.device for hop in route.hops] == [index]:
                yield route.prefix


def _write_sysctls(wanted: DeviceSettings) -> None:
    """What netlink cannot say. /proc/sys/net shows the namespace of the thread that opens the file."""
    values = dict(_SYSCTLS_6)
    if any(address.version == 6 for address in wanted.addresses):
        values["disable_ipv6"] = "0"
    _write(Path("/proc/sys/net/ipv6/conf") / wanted.name, values)
    if wanted.routes is None:
        # The node's ICMP errors enter the host here, from the gateway's address, which is also the host's own:
        # without this the kernel takes them for forged.
        _write(Path("/proc/sys/net/ipv4/conf") / wanted.name, {"accept_local": "1"})


def _write(base: Path, values: Mapping[str, str]) -> None:
    """Write what differs; a kernel without the family or the setting has no such file."""
    for key, value in values.items():
        file = base / key
        if file.exists() and file.read_text().strip() != value:
            file.write_text(value)
