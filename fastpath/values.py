"""The frozen values with which Python describes tunnels, adjacencies and flow tracking to the plane.

Owns: their shape and the checks that need no other value.
Never: holds a file descriptor or touches compiled memory.
Invariant: a value that exists is valid by itself; whether its port, peer or
members exist is checked by `Plane` when it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from types import MappingProxyType
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
class Shortcut:
    """A way past the sockets: whole frames between two Ethernet addresses, written to the descriptor `tap`.

    Where what is behind it `cuts` tunnelled super-packets, TCP goes there, whole; otherwise everything does, cut.
    An outer IP packet of more than `mtu` bytes goes through a socket, which reports it.
    Whoever withdraws one waits for `Plane.reclaimer.synchronize` before the descriptor is closed.
    """

    tap: int
    destination: bytes
    source: bytes
    cuts: bool = True
    mtu: int = 65535


@dataclass(frozen=True, slots=True)
class Encapsulate:
    """Send the packet to `remote` through tunnel port `port`; `mtu` is that of the inner packet.

    `peer` is the number under which guard knows the node behind `remote`;
    `mac` its VTEP address (vxlan only). Packets take the `shortcut`, where there is one.
    """

    port: int
    peer: int
    remote: Address
    mtu: int
    remote_port: int = 0
    mac: bytes = b"\0" * 6
    shortcut: Shortcut | None = None


@dataclass(frozen=True, slots=True)
class Reject:
    """Drop the packet and tell its sender why: nothing, host unreachable, or prohibited."""

    answer: Literal["blackhole", "unreachable", "prohibited"] = "unreachable"


@dataclass(frozen=True, slots=True)
class Spread:
    """Equal-cost next hops: one of 1..16 adjacency numbers, chosen by flow hash."""

    members: tuple[int, ...]


Adjacency = Deliver | Encapsulate | Reject | Spread


# -- flows and policy --------------------------------------------------------
# States in the order of `flow_state` in table/flow.pxd, by the names Linux gives their timeouts, with its defaults.
FLOW_TIMEOUTS: Mapping[str, float] = MappingProxyType(
    {
        "tcp_syn_sent": 120,
        "tcp_syn_recv": 60,
        "tcp_established": 432_000,
        "tcp_fin_wait": 120,
        "tcp_close_wait": 60,
        "tcp_last_ack": 30,
        "tcp_time_wait": 120,
        "tcp_close": 10,
        "udp": 30,
        "udp_stream": 120,
        "icmp": 30,
        "sctp_cookie_wait": 3,
        "sctp_cookie_echoed": 3,
        "sctp_established": 210,
        "sctp_shutdown": 3,
        "sctp_closed": 10,
        "generic": 600,
        "tcp_unacknowledged": 300,
    }
)
FLOW_STATES: tuple[str, ...] = tuple(FLOW_TIMEOUTS)
FLOW_EVENTS: Mapping[str, int] = MappingProxyType({"new": 1, "denied": 2, "closed": 4, "logged": 8})
TIMEOUT_MAX = 30 * 86_400

# What Plane.judge answers instead of a row.
ROW_OUTSIDE = 0xFFFFFFFF  # the address is no endpoint that is judged here
ROW_SELF = 0xFFFFFFFE  # an endpoint and itself
ROW_OWN_NODE = 0xFFFFFFFD  # an endpoint and its own node
ROW_NONE = 0xFFFFFFFC  # no row decided: denied
RULE_NONE = 0xFFFFFFFF  # in flows and events: no rule decided
NO_GROUP = 0xFFFFFFFF  # entries of a PolicyImage: known, but judged elsewhere


@dataclass(frozen=True, slots=True)
class FlowSettings:
    """How flows are tracked.

    `capacity`: flows of each family, rounded up to a power of two times eight; memory is fixed (about 120 bytes a
    flow of IPv4, 150 of IPv6) and only touched when used. `quota`: flows one address may have opened, a quarter
    of the capacity when None. `timeouts`: seconds, by FLOW_TIMEOUTS' names; what is not named keeps its default.
    `pickup`: a TCP or SCTP connection may become known in its middle, as when tracking begins. `on_policy_change`:
    established flows are kept until they close, or judged once more by the new policy. `track`: only while a
    policy selects somebody, or always. `events`: which kinds Plane.take_flow_events tells, at most
    `events_per_second` of them a worker.
    """

    capacity: int = 262_144
    quota: int | None = None
    timeouts: Mapping[str, float] = field(default_factory=dict)
    pickup: bool = True
    on_policy_change: Literal["keep", "revalidate"] = "keep"
    track: Literal["policy", "always"] = "policy"
    events: frozenset[str] = frozenset()
    events_per_second: int = 1000

    def __post_init__(self) -> None:
        if unknown := set(self.timeouts) - set(FLOW_TIMEOUTS):
            raise ValueError(f"no timeout is called {min(unknown)!r}: choose from {', '.join(FLOW_TIMEOUTS)}")
        if wrong := [name for name, value in self.timeouts.items() if not 0 < value <= TIMEOUT_MAX]:
            raise ValueError(f"timeout {wrong[0]} must be more than 0 and at most {TIMEOUT_MAX} s")
        if strange := self.events - set(FLOW_EVENTS):
            raise ValueError(f"no flow event is called {min(strange)!r}: choose from {', '.join(FLOW_EVENTS)}")
        if self.quota is not None and self.quota < 1:
            raise ValueError(f"quota must be at least 1, not {self.quota}")
        object.__setattr__(self, "timeouts", MappingProxyType({**FLOW_TIMEOUTS, **self.timeouts}))


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """How fast a pod may receive (ingress) and send (egress): bits per second, 0: unlimited; bursts in bytes, 0: derived."""

    ingress: int = 0
    egress: int = 0
    ingress_burst: int = 0
    egress_burst: int = 0
