"""The only writer of the host kernel's routes.

Owns: the routes marked with our protocol number in the main table: pod
prefixes into the host port, and, without encapsulation, peers' prefixes.
Never: changes or removes a route of another protocol.
Invariant: what the kernel holds under our number is what is desired, or is
being removed; a route of somebody else in our place is an error, not a victim.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any, cast

from engine.apply.delta import Kind
from engine.apply.links import ROUTE_PROTOCOL, Netlink, netlink
from engine.apply.refusal import refusal
from engine.errors import KernelError
from engine.model import Address, Prefix

_MAIN_TABLE = 254
_SCOPE_LINK = 253
_SCOPE_ANY = 255  # RT_SCOPE_NOWHERE: a removal then matches every scope
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_DEFAULTS = {4: "0.0.0.0/0", 6: "::/0"}


@dataclass(slots=True)
class KernelRouteDriver:
    """Next hops are addresses; none at all means into the host port, whose name `device` says."""

    device: Callable[[], str]
    kind: Kind = Kind.KERNEL_ROUTE
    drifts: bool = True
    _known: dict[Hashable, object] | None = None

    def actual(self) -> Mapping[Hashable, object]:
        if self._known is None:
            with netlink() as ip:
                self._known = _read(ip, self.device())
        return self._known

    def set(self, key: Hashable, value: object) -> None:
        prefix, via = cast(Prefix, key), cast("tuple[Address, ...]", value)
        known = self.actual()
        with netlink() as ip:
            verb = "replace" if prefix in known else "add"
            self._change(ip, verb, prefix, self._next_hops(ip, prefix, via))
        cast("dict[Hashable, object]", known)[prefix] = via

    def remove(self, key: Hashable) -> None:
        prefix = cast(Prefix, key)
        with netlink() as ip:
            try:
                self._change(ip, "del", prefix, {"scope": _SCOPE_ANY} if prefix.version == 4 else {})
            except KernelError as error:
                if not _is_gone(error):
                    raise
        cast("dict[Hashable, object]", self.actual()).pop(prefix, None)

    def audit(self) -> None:
        """Believe nothing: the next `actual` reads the kernel again."""
        self._known = None

    def _next_hops(self, ip: Netlink, prefix: Prefix, via: tuple[Address, ...]) -> dict[str, Any]:
        if len(via) > 1:
            return {"multipath": [{"gateway": str(address)} for address in via]}
        if via:
            return {"gateway": str(via[0])}
        name = self.device()
        indices = ip.link_lookup(ifname=name)
        if not indices:
            raise KernelError(f"device {name} is missing", where=f"kernel route {prefix}")
        scope = {"scope": _SCOPE_LINK} if prefix.version == 4 else {}
        return {"oif": indices[0], **scope}

    def _change(self, ip: Netlink, verb: str, prefix: Prefix, details: dict[str, Any]) -> None:
        try:
            ip.route(
                verb,
                family=_FAMILIES[prefix.version],
                dst=str(prefix),
                proto=ROUTE_PROTOCOL,
                table=_MAIN_TABLE,
                **details,
            )
        except Exception as error:
            raise refusal(error, where=f"kernel route {prefix}", doing=f"cannot {verb} it") from error


def _read(ip: Netlink, device: str) -> dict[Hashable, object]:
    """Our routes in the kernel; one whose next hops we cannot name gets a value nobody desires."""
    indices = ip.link_lookup(ifname=device)
    found: dict[Hashable, object] = {}
    for version, family in _FAMILIES.items():
        for message in ip.get_routes(family=family, proto=ROUTE_PROTOCOL, table=_MAIN_TABLE):
            if message["proto"] != ROUTE_PROTOCOL or message.get_attr("RTA_TABLE") != _MAIN_TABLE:
                continue
            destination = message.get_attr("RTA_DST")
            text = f"{destination}/{message['dst_len']}" if destination else _DEFAULTS[version]
            found[ip_network(text)] = _next_hops_of(message, indices[0] if indices else 0)
    return found


def _next_hops_of(message: Any, host_index: int) -> object:
    gateway = message.get_attr("RTA_GATEWAY")
    if gateway:
        return (ip_address(gateway),)
    hops = message.get_attr("RTA_MULTIPATH")
    if hops:
        gateways = [hop.get_attr("RTA_GATEWAY") for hop in hops]
        return tuple(ip_address(address) for address in sorted(gateways)) if all(gateways) else None
    return () if message.get_attr("RTA_OIF") == host_index else None


def _is_gone(error: KernelError) -> bool:
    return getattr(error.__cause__, "code", None) in (errno.ESRCH, errno.ENODEV)
