"""What is seen of the network below: our addresses on it, and how large a packet each path carries.

Owns: nothing that lasts; the kernel is asked anew each time, and no packet is sent.
Never: chooses between addresses; it only puts those of the asked device first.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_interface
from pathlib import Path
from typing import Any, Protocol

from engine.apply.links import ALIAS_PREFIX
from engine.errors import ConfigError
from engine.model import Address, Facts, Interface, Underlay

_IP_MTU = 14
_IPV6_MTU = 24
_UNUSABLE = 0x08 | 0x20 | 0x40  # duplicate, deprecated, tentative
_MAIN_TABLE = 254
DEFAULT_MTU = 1500


class Netlink(Protocol):
    """What we use of pyroute2's IPRoute, which has no types of its own."""

    def link_lookup(self, **attributes: object) -> Sequence[int]: ...
    def get_links(self, *indices: int) -> Iterable[Any]: ...
    def get_addr(self, **attributes: object) -> Iterable[Any]: ...
    def get_routes(self, **attributes: object) -> Iterable[Any]: ...


@contextmanager
def netlink() -> Iterator[Netlink]:
    """A netlink socket in the calling thread's namespace."""
    from pyroute2.iproute.linux import IPRoute

    opened: Any = IPRoute  # untyped
    with opened(groups=0, strict_check=True, ext_ack=True) as route:
        yield route


def look(facts: Facts, interface: str | None) -> Underlay:
    """The underlay as it is now. With addresses given in the configuration, all of the host's; else those of
    `interface`, or of the devices of the default routes."""
    with netlink() as ip:
        links = {link["index"]: link for link in ip.get_links()}
        wanted = None if facts.node.underlay else _devices(ip, links, interface)
        addresses = tuple(_addresses(ip, links, wanted))
    mtus = [links[index].get_attr("IFLA_MTU") for index in wanted or ()]
    remotes = {address for peer in facts.peers for address in peer.underlay}
    return Underlay(addresses, _path_mtus(remotes), min(mtus, default=DEFAULT_MTU))


def path_mtu(remote: Address) -> int | None:
    """Bytes of the largest IP packet to `remote`, learned path MTU included; None when there is no route."""
    family = socket.AF_INET if remote.version == 4 else socket.AF_INET6
    level, option = (socket.IPPROTO_IP, _IP_MTU) if remote.version == 4 else (socket.IPPROTO_IPV6, _IPV6_MTU)
    try:
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
            probe.connect((str(remote), 9))
            return probe.getsockopt(level, option)
    except OSError:
        return None


def forwards(version: int) -> bool:
    """Whether the host's kernel routes packets of this IP version from one device to another."""
    name = "net/ipv4/ip_forward" if version == 4 else "net/ipv6/conf/all/forwarding"
    try:
        return (Path("/proc/sys") / name).read_text().strip() != "0"
    except OSError:
        return False


def _path_mtus(remotes: Iterable[Address]) -> dict[Address, int]:
    found = {remote: path_mtu(remote) for remote in remotes}
    return {remote: min(mtu, 65535) for remote, mtu in found.items() if mtu is not None}


def _devices(ip: Netlink, links: dict[int, Any], interface: str | None) -> list[int]:
    """The indices of the devices whose addresses are the underlay's, in order of preference."""
    if interface is None:
        return _default_route_devices(ip)
    indices = [index for index, link in links.items() if link.get_attr("IFLA_IFNAME") == interface]
    if not indices:
        raise ConfigError(f"there is no device {interface}", where="node.interface", remedy="name an existing device")
    return indices


def _default_route_devices(ip: Netlink) -> list[int]:
    found: list[tuple[int, int]] = []
    for family in (socket.AF_INET, socket.AF_INET6):
        for route in ip.get_routes(family=family, table=_MAIN_TABLE):
            hops = [hop["oif"] for hop in route.get_attr("RTA_MULTIPATH") or ()]
            device = route.get_attr("RTA_OIF") or (hops[0] if hops else 0)
            if route["dst_len"] == 0 and device:
                found.append((route.get_attr("RTA_PRIORITY") or 0, device))
    return list(dict.fromkeys(device for _, device in sorted(found)))


def _addresses(ip: Netlink, links: dict[int, Any], wanted: list[int] | None) -> list[Interface]:
    """Usable addresses of the wanted devices (None: of all that are not ours), in their order."""
    found: list[tuple[int, Interface]] = []
    for message in ip.get_addr():
        link = links.get(message["index"])
        text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        address = ip_interface(f"{text}/{message['prefixlen']}")
        flags = message.get_attr("IFA_FLAGS") or message["flags"]
        ours = link is not None and (link.get_attr("IFLA_IFALIAS") or "").startswith(ALIAS_PREFIX)
        if ours or flags & _UNUSABLE or address.ip.is_loopback or address.ip.is_link_local:
            continue
        if wanted is None:
            found.append((0, address))
        elif message["index"] in wanted:
            found.append((wanted.index(message["index"]), address))
    return [address for _, address in sorted(found, key=lambda entry: entry[0])]
