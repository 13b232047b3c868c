"""The frozen values that the control plane speaks in: facts, and the desired state made of them.

Owns: the vocabulary (Node, Pod, Peer, ... Desired) and nothing else.
Never: does I/O, reads a clock, or knows a file format.
Invariant: every value is immutable and compares by content, so that the same
desired state applied twice is recognised as the same.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from itertools import chain
from typing import Literal, TypeVar

Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface
Prefix = IPv4Network | IPv6Network

Mode = Literal["overlay", "routed"]
EncapsulationName = Literal["vxlan", "udp", "ipip", "none"]
Offload = Literal["auto", "udp", "tap"]  # who cuts super-packets for the network between the nodes
When = Literal["always", "cross-subnet"]
Profile = Literal["towpath", "flannel", "calico"]

Protocol = Literal["tcp", "udp", "sctp"]

SPECIAL_NEXT_HOPS = ("host", "blackhole", "unreachable", "prohibited")  # of a StaticRoute; no peer has such a name


# -- facts -------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Node:
    """Our own node: its underlay addresses (with prefix lengths), pod prefixes and gateways."""

    name: str
    underlay: tuple[Interface, ...]
    prefixes: tuple[Prefix, ...]
    gateway4: IPv4Address | None = None
    gateway6: IPv6Address | None = None


@dataclass(frozen=True, slots=True)
class NamedPort:
    """A port that policies may call by name."""

    name: str
    protocol: int  # 6, 17, 132
    port: int


@dataclass(frozen=True, slots=True)
class Failsafe:
    """A port of the host itself that no policy can close, optionally for some addresses only."""

    protocol: int
    port: int
    net: Prefix | None = None

    def __str__(self) -> str:
        name = {6: "tcp", 17: "udp", 132: "sctp"}.get(self.protocol, str(self.protocol))
        return f"{name}/{self.port}" + (f"@{self.net}" if self.net is not None else "")


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom policy takes a pod for. Empty names: those in the pod's name, `namespace/name` or `name` alone."""

    namespace: str = ""  # of Kubernetes, not of the network
    name: str = ""
    labels: tuple[tuple[str, str], ...] = ()  # sorted
    service_account: str = "default"
    ports: tuple[NamedPort, ...] = ()


@dataclass(frozen=True, slots=True)
class PortMapping:
    """A port of the host that leads to one of a pod; on every address of the host when none is given."""

    host_port: int
    pod_port: int
    protocol: Protocol = "tcp"
    host_address: Address | None = None


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """How fast a pod may receive (ingress) and send (egress).

    Rates are bits per second of IP packets, 0: unlimited; bursts are bytes, 0: derived from the rate.
    """

    ingress: int = 0
    egress: int = 0
    ingress_burst: int = 0
    egress_burst: int = 0


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod on this node: a namespace (absolute path) and the addresses of its device."""

    name: str
    namespace: str
    addresses: tuple[Address, ...]
    interface: str = "eth0"
    identity: Identity = Identity()
    ports: tuple[PortMapping, ...] = ()
    bandwidth: Bandwidth = Bandwidth()
    routes: tuple[Prefix, ...] | None = None  # what leaves through the device; None: everything
    namespace_id: tuple[int, int] | None = None  # device and inode of the only right namespace; None: any at the path

    def __hash__(self) -> int:
        """Of what tells one from another; equal ones have it equal. All of it would take long, for every pod again."""
        return hash((self.name, self.namespace))


@dataclass(frozen=True, slots=True)
class Peer:
    """Another node: underlay addresses, the prefixes behind it, its VTEP address if published."""

    name: str
    underlay: tuple[Address, ...]
    prefixes: tuple[Prefix, ...]
    mac: bytes | None = None
    mac6: bytes | None = None
    encapsulation: EncapsulationName | None = None  # None: the node's own setting


@dataclass(frozen=True, slots=True)
class StaticRoute:
    """A prefix reached through one or several peers (equal cost), or through the host."""

    prefix: Prefix
    via: tuple[str, ...]  # peer names, or one of SPECIAL_NEXT_HOPS alone


@dataclass(frozen=True, slots=True)
class Overlay:
    """How packets travel: the encapsulation and the numbers that go with it."""

    mode: Mode = "overlay"
    encapsulation: EncapsulationName = "vxlan"
    when: When = "always"
    profile: Profile = "towpath"
    port: int = 0  # 0: the profile's
    vni: int = 0  # 0: the profile's
    mtu: int = 0  # 0: derived from the route to each peer
    copy_dscp: bool = True
    offload: Offload = "auto"
    mac: bytes | None = None
    mac6: bytes | None = None


@dataclass(frozen=True, slots=True)
class HostPort:
    """The host's own port: whether there is one, and the name of its device."""

    enabled: bool = True
    name: str = "towpath0"
    masquerade: bool = True  # what pods send out of the cluster leaves by an address of the host


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the sources say. The order of pods, peers and routes means nothing;
    that of a node's or peer's addresses and prefixes is a preference.
    """

    node: Node
    overlay: Overlay = Overlay()
    pods: tuple[Pod, ...] = ()
    peers: tuple[Peer, ...] = ()
    routes: tuple[StaticRoute, ...] = ()
    host: HostPort = HostPort()


@dataclass(frozen=True, slots=True)
class Underlay:
    """What the applier sees of the network below: our addresses on it, and how much each path carries."""

    addresses: tuple[Interface, ...] = ()  # with the prefix length of their subnet
    path_mtu: Mapping[Address, int] = field(default_factory=dict)  # remote address -> bytes of the outer packet
    mtu: int = 1500  # where the path is not known


# -- desired state -----------------------------------------------------------
Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Layered(Mapping[Key, Value]):
    """A large mapping that seldom changes and a small one that often does, which have no key in common.

    Two of these that share the large one differ in the small ones alone; one
    that was made from the other by `changed` differs in those keys alone.
    `beside` saves looking at the rest. Nobody changes any of it after this.
    """

    __slots__ = ("base", "differs_in", "origin", "token", "top")

    def __init__(self, base: Mapping[Key, Value], top: Mapping[Key, Value]) -> None:
        self.base = base
        self.top = top
        self.token = object()  # stands for this one in those that are made from it, which must not keep it alive
        self.origin: object = None  # the token of the one that this was made from
        self.differs_in: frozenset[Key] = frozenset()  # from that one

    def changed(self, changes: Mapping[Key, Value | None]) -> Layered[Key, Value]:
        """The same with other items in the small mapping; None: without that key."""
        top = dict(self.top)  # which takes over the hashes of keys, that make up most of what they cost
        for key, value in changes.items():
            if value is None:
                top.pop(key, None)
            else:
                top[key] = value
        made = Layered(self.base, top)
        made.origin, made.differs_in = self.token, frozenset(changes)
        return made

    def __getitem__(self, key: Key) -> Value:
        return self.top[key] if key in self.top else self.base[key]

    def __contains__(self, key: object) -> bool:
        return key in self.top or key in self.base

    def __iter__(self) -> Iterator[Key]:
        return chain(self.top, self.base)

    def __len__(self) -> int:
        return len(self.top) + len(self.base)

    def beside(self, other: object) -> Iterable[tuple[Key, Value]]:
        """The items in which this can differ from `other`."""
        if isinstance(other, Layered):
            if self.origin is other.token:
                return [(key, self.top[key]) for key in self.differs_in if key in self.top]
            if other.origin is self.token:
                return [(key, self.top[key]) for key in other.differs_in if key in self.top]
            if other.base is self.base:
                return self.top.items()
        return chain(self.top.items(), self.base.items())


@dataclass(frozen=True, slots=True)
class TunnelPort:
    """A socket that carries encapsulated packets on one local address."""

    key: str  # "vxlan/192.0.2.1:4789"
    encapsulation: Literal["vxlan", "udp", "ipip"]
    local: Address
    port: int
    vni: int = 0
    mac: bytes = b"\0" * 6
    source_ports: Literal["hashed", "fixed"] = "hashed"
    copy_dscp: bool = True
    offload: Offload = "auto"  # vxlan only


@dataclass(frozen=True, slots=True)
class Via:
    """A next hop: by a tunnel port to a peer, into a pod, into the host, or nowhere.

    `target` is the TunnelPort key, the pod name, "host", or the Reject answer.
    """

    kind: Literal["tunnel", "pod", "host", "reject"]
    target: str
    peer: str = ""
    remote: Address | None = None
    remote_port: int = 0
    mac: bytes = b"\0" * 6
    mtu: int = 0  # bytes of the inner packet
    transit: bool = False  # through the host to somewhere else: not for packets that come from a tunnel


@dataclass(frozen=True, slots=True)
class PodDevice:
    pod: Pod
    mtu: int

    def __hash__(self) -> int:
        """Of what tells one from another; equal ones have it equal. All of a pod would take long, and often."""
        return hash((self.pod.name, self.pod.namespace, self.mtu))


@dataclass(frozen=True, slots=True)
class HostDevice:
    """`towpath0`: the host's own port, its addresses, and what the kernel routes into it."""

    addresses: tuple[Interface, ...]
    mtu: int
    routes: tuple[Prefix, ...]
    name: str = "towpath0"


@dataclass(frozen=True, slots=True)
class PortForward:
    """A port of the host, on one address or on all of the pod's family, and where it leads."""

    protocol: Protocol
    host_port: int
    host_address: Address | None
    pod_address: Address
    pod_port: int


@dataclass(frozen=True, slots=True)
class HostRules:
    """What the host's kernel does to packets that pass the host port `device`."""

    device: str
    pods: tuple[Prefix, ...]  # of this node
    cluster: tuple[Prefix, ...]  # of all nodes: never masqueraded towards
    forwards: tuple[PortForward, ...] = ()
    masquerade: bool = True


@dataclass(frozen=True, slots=True)
class KernelRoute:
    """A route of the host's kernel, marked with our protocol number (bare routed mode)."""

    prefix: Prefix
    via: tuple[Address, ...]  # several: equal cost


@dataclass(frozen=True, slots=True)
class Unenforceable:
    """There is a policy, but no program of it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Desired:
    """Everything that should be, computed purely from the facts."""

    tunnels: frozenset[TunnelPort] = frozenset()
    pods: frozenset[PodDevice] = frozenset()
    host: HostDevice | None = None
    rules: HostRules | None = None
    routes: Mapping[Prefix, tuple[Via, ...]] = field(default_factory=dict)  # several: equal cost
    peers: Mapping[Address, str] = field(default_factory=dict)  # outer source -> peer name
    kernel_routes: frozenset[KernelRoute] = frozenset()
    gateway4: IPv4Address | None = None
    gateway6: IPv6Address | None = None
    policy: object | None = None  # Enforced (of engine.desired.policy.enforced) or Unenforceable
