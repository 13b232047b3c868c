"""Sizes and addresses: gateways, who shares a subnet with us, how large a packet may be.

Owns: the overhead table and the rules for MTU and for "same subnet".
Never: does I/O, or chooses routes.
Invariant: one MTU for each (peer, encapsulation, outer family), whatever the
family of the packet inside, and never below what the node's families need.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_interface, ip_network

from engine.config.gateway import first_host4, first_host6
from engine.model import Address, EncapsulationName, Facts, Interface, Node, Overlay, Prefix, Underlay

# Bytes in front of the inner packet, by outer IP version. wire: IP 20/40, UDP 8, VXLAN 8, Ethernet 14.
OVERHEAD: dict[tuple[EncapsulationName, int], int] = {
    ("vxlan", 4): 20 + 8 + 8 + 14,
    ("vxlan", 6): 40 + 8 + 8 + 14,
    ("udp", 4): 20 + 8,
    ("udp", 6): 40 + 8,
    ("ipip", 4): 20,
    ("ipip", 6): 40,
    ("none", 4): 0,
    ("none", 6): 0,
}
MIN_MTU4 = 576  # RFC 791: what every host must be able to receive
MIN_MTU6 = 1280  # RFC 8200
MAX_MTU = 65535


def gateways(node: Node) -> tuple[IPv4Address | None, IPv6Address | None]:
    """What the pods see as their routers: as given, else the first host of the node's first prefix."""
    return node.gateway4 or first_host4(node.prefixes), node.gateway6 or first_host6(node.prefixes)


def host_addresses(node: Node, overlay: Overlay) -> tuple[Interface, ...]:
    """Addresses of the host port: the gateways and, for flannel peers, the networks' own addresses.

    Flannel nodes answer the host from, and send to, the network address of a prefix.
    """
    addresses: set[Address] = {gateway for gateway in gateways(node) if gateway is not None}
    if overlay.profile == "flannel":
        addresses |= {prefix.network_address for prefix in node.prefixes}
    return tuple(ip_interface(address) for address in sorted(addresses, key=address_order))


def address_order(address: Address) -> tuple[int, int]:
    return address.version, int(address)


def prefix_order(prefix: Prefix) -> tuple[int, int, int]:
    return prefix.version, int(prefix.network_address), prefix.prefixlen


def host_prefix(address: Address) -> Prefix:
    """The prefix that holds this address alone."""
    return ip_network(address)


# -- the underlay --------------------------------------------------------------
def local_addresses(node: Node, underlay: Underlay) -> tuple[Interface, ...]:
    """Our ends of the tunnels, preferred first: as given, else the first seen of each family.

    An address that was given without a prefix length takes the length that is seen on the host.
    """
    seen = {interface.ip: interface for interface in reversed(underlay.addresses)}
    if node.underlay:
        given = [seen.get(end.ip, end) if is_single(end) else end for end in node.underlay]
        return tuple({end.ip: end for end in reversed(given)}.values())[::-1]
    first = {interface.version: interface for interface in reversed(underlay.addresses)}
    return tuple(first[version] for version in sorted(first))


def is_single(interface: Interface) -> bool:
    """Its prefix length says nothing about a subnet."""
    return interface.network.prefixlen == interface.max_prefixlen


def shares_subnet(local: Iterable[Interface], remote: Address) -> bool:
    """The remote address is in a subnet of ours, so that no router is between us."""
    return any(remote in end.network for end in local if end.version == remote.version)


# -- sizes ---------------------------------------------------------------------
def smallest_mtu(facts: Facts) -> int:
    """What the families of this node need at least."""
    ipv6 = any(prefix.version == 6 for prefix in facts.node.prefixes)
    return MIN_MTU6 if ipv6 else MIN_MTU4


def inner_mtu(path_mtu: int, encapsulation: EncapsulationName, version: int, facts: Facts) -> int:
    """The largest inner packet for a path: what is left after the overhead, or less if so configured."""
    left = min(path_mtu - OVERHEAD[encapsulation, version], MAX_MTU)
    wanted = min(left, facts.overlay.mtu) if facts.overlay.mtu else left
    return max(wanted, smallest_mtu(facts))


def path_mtu(remote: Address, underlay: Underlay) -> int:
    return underlay.path_mtu.get(remote, underlay.mtu)
