"""Reads and sets the addresses, routes and limits of one TUN device.

Owns: what a device of ours looks like from the kernel's side.
Never: enters a namespace (the caller's thread is in the right one), opens a
queue, or touches a device that is not marked as ours.
Invariant: `configure` changes only what differs; on a device that is right it
sends reads and nothing else.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Any, Protocol

from engine.apply.refusal import refusal
from engine.errors import KernelError
from engine.model import Interface, Prefix

ALIAS_PREFIX = "towpath:"
ROUTE_PROTOCOL = 116  # marks the kernel routes that are ours; unused by iproute2's registry
QUEUE_LENGTH = 2000  # packets; TUN drops without back-pressure when its ring is full
GSO_MAX_SIZE = 60_000  # bytes: one read then fits one UDP_SEGMENT send, headers included

_SCOPE_LINK = 253
_NO_DUPLICATE_DETECTION = 0x02
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_UNSPECIFIED = {4: "0.0.0.0", 6: "::"}
_SYSCTLS_6 = {"accept_ra": "0", "autoconf": "0", "addr_gen_mode": "1", "router_solicitations": "0"}


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
    routes: frozenset[Prefix]  # through it, in the main table
    our_routes: frozenset[Prefix]  # those that carry our mark

    @property
    def is_ours(self) -> bool:
        """Marked by us, or a bare TUN: what a start leaves that was killed before it could mark it."""
        if self.kind != "tun":
            return False
        return self.alias.startswith(ALIAS_PREFIX) or not (self.alias or self.up or self.addresses)


class Netlink(Protocol):
    """What we use of pyroute2's IPRoute, which has no types of its own."""

    def link_lookup(self, **attributes: object) -> Sequence[int]: ...
    def get_links(self, *indices: int) -> Iterable[Any]: ...
    def get_addr(self, **attributes: object) -> Iterable[Any]: ...
    def get_routes(self, **attributes: object) -> Iterable[Any]: ...
    def link(self, command: str, **attributes: object) -> object: ...
    def addr(self, command: str, **attributes: object) -> object: ...
    def route(self, command: str, **attributes: object) -> object: ...


@contextmanager
def netlink() -> Iterator[Netlink]:
    """A netlink socket in the calling thread's namespace."""
    from pyroute2.iproute.linux import IPRoute

    opened: Any = IPRoute  # untyped
    with opened(groups=0, strict_check=True, ext_ack=True) as route:
        yield route


def read(ip: Netlink, name: str, *, routes: bool = True) -> DeviceState | None:
    """The device called `name`, or None. Without `routes` those through it are not listed: there may be very many."""
    indices = ip.link_lookup(ifname=name)
    if not indices:
        return None
    link = next(iter(ip.get_links(indices[0])))
    info = link.get_attr("IFLA_LINKINFO")
    through = dict(_routes(ip, indices[0])) if routes else {}
    return DeviceState(
        index=indices[0],
        kind=str(info.get_attr("IFLA_INFO_KIND")) if info else "",
        alias=link.get_attr("IFLA_IFALIAS") or "",
        mtu=link.get_attr("IFLA_MTU"),
        up=bool(link["flags"] & 1),
        queue_length=link.get_attr("IFLA_TXQLEN"),
        gso_max_size=link.get_attr("IFLA_GSO_MAX_SIZE") or 0,
        addresses=frozenset(_addresses(ip, indices[0])),
        routes=frozenset(through),
        our_routes=frozenset(prefix for prefix, protocol in through.items() if protocol == ROUTE_PROTOCOL),
    )


def named_by_alias(ip: Netlink, alias: str) -> list[str]:
    """The names of all TUN devices that carry this mark."""
    marked = [link for link in ip.get_links() if link.get_attr("IFLA_IFALIAS") == alias]
    return [name for name in (link.get_attr("IFLA_IFNAME") for link in marked) if _is_tun(ip, name)]


def delete(ip: Netlink, name: str) -> None:
    """Remove the device; one that is gone already is no error."""
    for index in ip.link_lookup(ifname=name):
        try:
            ip.link("del", index=index)
        except Exception as error:
            if getattr(error, "code", 0) != errno.ENODEV:
                raise refusal(error, where=f"device {name}", doing="cannot remove it") from error


def configure(ip: Netlink, wanted: DeviceSettings, *, where: str) -> bool:
    """Make the existing device as `wanted`; whether anything had to be changed."""
    state = read(ip, wanted.name, routes=wanted.routes is not None)
    if state is None:
        raise KernelError(f"device {wanted.name} is gone", where=where, remedy="it is made again at the next try")
    try:
        changed = _configure_link(ip, state, wanted)
        changed |= _configure_addresses(ip, state, wanted)
        changed |= _configure_routes(ip, state, wanted)
    except Exception as error:
        if isinstance(error, KernelError):
            raise
        raise refusal(error, where=where, doing=f"cannot configure device {wanted.name}") from error
    return changed


def matches(state: DeviceState, wanted: DeviceSettings) -> bool:
    """Whether the device is as it should be, as far as one read tells."""
    return (
        state.alias == wanted.alias
        and state.mtu == wanted.mtu
        and state.up
        and state.addresses == frozenset(wanted.addresses)
        and state.routes >= frozenset(wanted.routes or ())
        and (wanted.routes is None or state.our_routes <= frozenset(wanted.routes))
    )


def bring_loopback_up(ip: Netlink) -> None:
    """A pod reaches its own addresses through lo, which a new namespace has down."""
    for link in ip.get_links(1):
        if not link["flags"] & 1:
            ip.link("set", index=1, state="up")


def _is_tun(ip: Netlink, name: str) -> bool:
    state = read(ip, name, routes=False)
    return state is not None and state.kind == "tun"


def _configure_link(ip: Netlink, state: DeviceState, wanted: DeviceSettings) -> bool:
    changes: dict[str, Any] = {}
    if state.alias != wanted.alias:
        changes["ifalias"] = wanted.alias
    if state.mtu != wanted.mtu:
        changes["mtu"] = wanted.mtu
    if state.queue_length != QUEUE_LENGTH:
        changes["txqlen"] = QUEUE_LENGTH
    if state.gso_max_size != GSO_MAX_SIZE:
        changes["gso_max_size"] = GSO_MAX_SIZE
    if changes:
        ip.link("set", index=state.index, **changes)
    if not state.up:
        _write_sysctls(wanted)  # before up: the kernel would make a link-local address and solicit routers
        ip.link("set", index=state.index, state="up")
    return bool(changes) or not state.up


def _configure_addresses(ip: Netlink, state: DeviceState, wanted: DeviceSettings) -> bool:
    missing = [address for address in wanted.addresses if address not in state.addresses]
    stale = state.addresses - frozenset(wanted.addresses)
    for address in missing:
        flags = {"flags": _NO_DUPLICATE_DETECTION} if address.version == 6 else {}
        ip.addr("add", index=state.index, address=str(address.ip), prefixlen=address.network.prefixlen, **flags)
    for address in stale:
        ip.addr("del", index=state.index, address=str(address.ip), prefixlen=address.network.prefixlen)
    return bool(missing or stale)


def _configure_routes(ip: Netlink, state: DeviceState, wanted: DeviceSettings) -> bool:
    """Set what is missing and remove what is ours and stale. Routes of others through the device stay."""
    if wanted.routes is None:
        return False
    # An address that was removed may have taken a route with it: read again.
    present = dict(_routes(ip, state.index))
    missing = [prefix for prefix in wanted.routes if prefix not in present]
    for prefix in missing:
        ip.route("replace", **_route(prefix, state.index))
    stale = [p for p, protocol in present.items() if protocol == ROUTE_PROTOCOL and p not in wanted.routes]
    for prefix in stale:
        ip.route("del", **_route(prefix, state.index))
    return bool(missing or stale)


def _route(prefix: Prefix, index: int) -> dict[str, Any]:
    scope = {"scope": _SCOPE_LINK} if prefix.version == 4 else {}
    destination = str(prefix) if prefix.prefixlen else "default"
    return {"dst": destination, "family": _FAMILIES[prefix.version], "oif": index, "proto": ROUTE_PROTOCOL, **scope}


def _addresses(ip: Netlink, index: int) -> Iterator[Interface]:
    for message in ip.get_addr(index=index):
        address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        interface = ip_interface(f"{address}/{message['prefixlen']}")
        if not (interface.version == 6 and interface.ip.is_link_local):
            yield interface


def _routes(ip: Netlink, index: int) -> Iterator[tuple[Prefix, int]]:
    """The routes of the main table through the device, and who made each."""
    for version, family in _FAMILIES.items():
        for message in ip.get_routes(family=family, oif=index, table=254):
            if message.get_attr("RTA_OIF") == index:
                destination = message.get_attr("RTA_DST") or _UNSPECIFIED[version]
                yield ip_network(f"{destination}/{message['dst_len']}"), message["proto"]


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
