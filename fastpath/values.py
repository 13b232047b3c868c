"""The frozen values with which Python describes tunnels and adjacencies to the plane.

Owns: their shape and the checks that need no other value.
Never: holds a file descriptor or touches compiled memory.
Invariant: a value that exists is valid by itself; whether its port, peer or
members exist is checked by `Plane` when it is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal

Address = IPv4Address | IPv6Address
Prefix = IPv4Network | IPv6Network
Encapsulation = Literal["vxlan", "udp", "ipip", "plain"]


@dataclass(frozen=True, slots=True)
class Tunnel:
    """What a tunnel port accepts and sends: one kind, one port, one VNI, one local address.

    `mac` is our own VTEP address (6 bytes, vxlan only). `reserved` says what
    becomes of VXLAN headers with reserved bits: dropped as Linux does, ignored
    as RFC 7348 says, or accepted when they are group-policy bits.
    `source_ports` "hashed" spreads flows over several UDP source ports;
    "fixed" sends from `port` itself, as flannel's udp backend expects.
    """

    encapsulation: Encapsulation
    local: Address
    port: int = 0
    vni: int = 0
    mac: bytes = b"\0" * 6
    strict_mac: bool = True
    reserved: Literal["drop", "ignore", "gbp"] = "drop"
    source_ports: Literal["hashed", "fixed"] = "hashed"
    copy_dscp: bool = True


@dataclass(frozen=True, slots=True)
class Deliver:
    """Write the packet to a local port (a pod, or the host) as it is.

    `transit` marks the way through the host to somewhere else (the default
    route, or a peer reached bare); without it the destination is of this node.
    Packets from a tunnel never take a transit adjacency.
    """

    port: int
    mtu: int
    transit: bool = False


@dataclass(frozen=True, slots=True)
class Encapsulate:
    """Send the packet to `remote` through tunnel port `port`; `mtu` is that of the inner packet.

    `peer` is the number under which guard knows the node behind `remote`;
    `mac` its VTEP address (vxlan only).
    """

    port: int
    peer: int
    remote: Address
    mtu: int
    remote_port: int = 0
    mac: bytes = b"\0" * 6


@dataclass(frozen=True, slots=True)
class Reject:
    """Drop the packet and tell its sender why: nothing, host unreachable, or prohibited."""

    answer: Literal["blackhole", "unreachable", "prohibited"] = "unreachable"


@dataclass(frozen=True, slots=True)
class Spread:
    """Equal-cost next hops: one of 1..16 adjacency numbers, chosen by flow hash."""

    members: tuple[int, ...]


Adjacency = Deliver | Encapsulate | Reject | Spread
