"""What is seen of the network below: our addresses on it, and how large a packet each path carries.

Owns: nothing that lasts; the kernel is asked anew each time, and no packet is sent.
Never: chooses between addresses; it only puts those of the asked device first.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

from engine.apply.device_message import Link
from engine.apply.links import ALIAS_PREFIX, addresses, links, netlink
from engine.apply.route_socket import RouteSocket
from engine.desired.addressing import local_addresses
from engine.desired.overlay import outer_pair
from engine.errors import ConfigError
from engine.model import Address, Facts, Interface, Underlay

_IP_MTU = 14
_IPV6_MTU = 24
_UNUSABLE = 0x08 | 0x20 | 0x40  # duplicate, deprecated, tentative
DEFAULT_MTU = 1500


def look(facts: Facts, interface: str | None) -> Underlay:
    """The underlay as it is now. With addresses given in the configuration, all of the host's; else those of
    `interface`, or of the devices of the default routes."""
    with netlink() as ip:
        devices = {link.index: link for link in links(ip)}
        wanted = None if facts.node.underlay else _devices(ip, devices, interface)
        found = tuple(_addresses(ip, devices, wanted))
    mtus = [devices[index].mtu for index in wanted or () if index in devices]
    paths = _paths(facts, local_addresses(facts.node, Underlay(found)))
    return Underlay(found, _path_mtus(paths), min(mtus, default=DEFAULT_MTU))


def path_mtu(local: Address, remote: Address, port: int = 9) -> int | None:
    """Bytes of the largest IP packet between the two, learned path MTU and IPsec included; None when there is no
    route. A host may route by source, so another local address may have another path."""
    family = socket.AF_INET if remote.version == 4 else socket.AF_INET6
    level, option = (socket.IPPROTO_IP, _IP_MTU) if remote.version == 4 else (socket.IPPROTO_IPV6, _IPV6_MTU)
    try:
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
            probe.bind((str(local), 0))
            probe.connect((str(remote), port))
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


def _paths(facts: Facts, local: tuple[Interface, ...]) -> dict[Address, Address]:
    """The address of ours from which each address of a peer is reached."""
    pairs = (outer_pair(local, peer, version) for peer in facts.peers for version in (4, 6))
    return {remote: end.ip for end, remote in filter(None, pairs)}


def _path_mtus(paths: Mapping[Address, Address]) -> dict[Address, int]:
    found = {remote: path_mtu(local, remote) for remote, local in paths.items()}
    return {remote: min(mtu, 65535) for remote, mtu in found.items() if mtu is not None}


def _devices(ip: RouteSocket, devices: dict[int, Link], interface: str | None) -> list[int]:
    """The indices of the devices whose addresses are the underlay's, in order of preference."""
    if interface is None:
        return _default_route_devices(ip)
    indices = [index for index, link in devices.items() if link.name == interface]
    if not indices:
        raise ConfigError(f"there is no device {interface}", where="node.interface", remedy="name an existing device")
    return indices


def _default_route_devices(ip: RouteSocket) -> list[int]:
    routes = [route for version in (4, 6) for route in ip.default_routes(version)]
    found = [(route.metric, hop.device) for route in routes for hop in route.hops[:1] if hop.device]
    return list(dict.fromkeys(device for _, device in sorted(found)))


def _addresses(ip: RouteSocket, devices: dict[int, Link], wanted: list[int] | None) -> list[Interface]:
    """Usable addresses of the wanted devices (None: of all that are not ours), in their order."""
    found: list[tuple[int, Interface]] = []
    for given in addresses(ip):
        link, address = devices.get(given.device), given.interface
        ours = link is not None and link.alias.startswith(ALIAS_PREFIX)
        if ours or given.flags & _UNUSABLE or address.ip.is_loopback or address.ip.is_link_local:
            continue
        if wanted is None:
            found.append((0, address))
        elif given.device in wanted:
            found.append((wanted.index(given.device), address))
    return [address for _, address in sorted(found, key=lambda entry: entry[0])]
