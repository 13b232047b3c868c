"""The frozen values of policy: who exists, what the documents say, what is asked and answered.

Owns: the vocabulary shared by readers, evaluator, compiler and explanation.
Never: decides anything; labels and order, on which all of them must agree,
are derived in `order` and in the methods of `Snapshot`.
Invariant: a value that exists is valid by itself. Whatever a reader could not
accept is either absent, or present as a policy with a `refusal`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, Literal

from engine.desired.policy.selector import EVERYTHING, Selector
from engine.model import Address, Failsafe, NamedPort, Prefix

Direction = Literal["ingress", "egress"]
DIRECTIONS: Final[tuple[Direction, Direction]] = ("ingress", "egress")

TCP: Final = 6
UDP: Final = 17
ICMP: Final = 1
ICMP6: Final = 58
SCTP: Final = 132
UDPLITE: Final = 136
PORT_PROTOCOLS: Final = (TCP, UDP, SCTP, UDPLITE)
ICMP_PROTOCOLS: Final = (ICMP, ICMP6)
PROTOCOL_NAMES: Final[Mapping[str, int]] = {
    "TCP": TCP, "UDP": UDP, "ICMP": ICMP, "ICMPv6": ICMP6, "SCTP": SCTP, "UDPLite": UDPLITE,
}  # fmt: skip
PROTOCOL_NUMBERS: Final[Mapping[int, str]] = {number: name for name, number in PROTOCOL_NAMES.items()}


class Action(IntEnum):
    """What a matching rule does. The numbers are those of the compiled rows."""

    ALLOW = 1
    DENY = 2
    PASS = 3  # leave this tier
    LOG = 4  # record, and go on to the next rule


# -- who exists --------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Namespace:
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    name: str
    namespace: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClusterNode:
    """A node as policy sees it: labels to select it by, addresses that mean it."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    addresses: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A pod, or a host endpoint (no namespace). `profiles` None: those of a Kubernetes pod."""

    name: str
    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    addresses: tuple[Address, ...] = ()
    ports: tuple[NamedPort, ...] = ()
    node: str = ""
    service_account: str = ""
    host_network: bool = False
    profiles: tuple[str, ...] | None = None

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    @property
    def is_host(self) -> bool:
        return not self.namespace


@dataclass(frozen=True, slots=True)
class NetworkSet:
    """Labelled prefixes (`Nets`, where there are many); without a namespace it is a GlobalNetworkSet."""

    name: str
    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    nets: Sequence[Prefix] = ()


@dataclass(frozen=True, slots=True)
class ServicePort:
    address: Address
    protocol: int
    port: int


@dataclass(frozen=True, slots=True)
class Service:
    """The addresses and ports that stand behind a Service."""

    name: str
    namespace: str
    backends: tuple[ServicePort, ...] = ()


# -- what the documents say --------------------------------------------------
@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a policy is not enforced as written: it denies instead, on all it selects or on hosts only."""

    reason: str
    scope: Literal["all", "hosts"] = "all"


@dataclass(frozen=True, slots=True)
class Block:
    """Addresses inside `net` and inside none of `excepted`."""

    net: Prefix
    excepted: tuple[Prefix, ...] = ()


@dataclass(frozen=True, slots=True)
class PodPeer:
    """Pods chosen by their labels, in the namespaces chosen by theirs.

    `namespaces` None: the namespace of the policy itself.
    """

    pods: Selector = EVERYTHING
    namespaces: Selector | None = None


@dataclass(frozen=True, slots=True)
class NodePeer:
    nodes: Selector = EVERYTHING


@dataclass(frozen=True, slots=True)
class UnknownPeer:
    """A peer of a newer API, or one we cannot honour (domain names)."""

    field_name: str


Peer = PodPeer | Block | NodePeer | UnknownPeer


@dataclass(frozen=True, slots=True)
class PortMatch:
    """One entry of a port list. `protocol` None (named ports only): any; `name` empty: low..high."""

    protocol: int | None
    low: int = 0
    high: int = 65535
    name: str = ""


@dataclass(frozen=True, slots=True)
class PeerRule:
    """A rule of the two Kubernetes languages. None: no restriction; `unknown`: an unreadable entry."""

    action: Action
    peers: tuple[Peer, ...] | None = None
    ports: tuple[PortMatch, ...] | None = None
    name: str = ""
    unknown: str = ""


@dataclass(frozen=True, slots=True)
class KubernetesPolicy:
    name: str
    namespace: str
    subject: Selector
    types: frozenset[Direction]
    ingress: tuple[PeerRule, ...] = ()
    egress: tuple[PeerRule, ...] = ()
    staged: str = ""  # the staged action, empty when enforced
    refusal: Refusal | None = None
    kind: str = "NetworkPolicy"


@dataclass(frozen=True, slots=True)
class ClusterPolicy:
    name: str
    tier: Literal["Admin", "Baseline"]
    priority: int
    subject: PodPeer
    ingress: tuple[PeerRule, ...] = ()
    egress: tuple[PeerRule, ...] = ()
    refusal: Refusal | None = None
    kind: str = "ClusterNetworkPolicy"
    namespace: str = ""
    staged: str = ""

    @property
    def types(self) -> frozenset[Direction]:
        return frozenset(d for d, rules in zip(DIRECTIONS, (self.ingress, self.egress), strict=True) if rules)


@dataclass(frozen=True, slots=True)
class CalicoPort:
    """A number, a range, or a name."""

    low: int = 0
    high: int = 0
    name: str = ""


@dataclass(frozen=True, slots=True)
class IcmpMatch:
    type: int | None = None
    code: int | None = None


@dataclass(frozen=True, slots=True)
class Entity:
    """One side of a Calico rule. Selectors None: not written; lists empty: no restriction."""

    nets: tuple[Prefix, ...] = ()
    not_nets: tuple[Prefix, ...] = ()
    selector: Selector | None = None
    not_selector: Selector | None = None
    namespace_selector: Selector | None = None
    account_names: tuple[str, ...] = ()
    account_selector: Selector | None = None
    ports: tuple[CalicoPort, ...] = ()
    not_ports: tuple[CalicoPort, ...] = ()
    service: tuple[str, str] | None = None  # namespace, name


@dataclass(frozen=True, slots=True)
class CalicoRule:
    action: Action
    ip_version: int | None = None
    protocol: int | None = None
    not_protocol: int | None = None
    icmp: IcmpMatch | None = None
    not_icmp: IcmpMatch | None = None
    source: Entity = Entity()
    destination: Entity = Entity()


@dataclass(frozen=True, slots=True)
class CalicoPolicy:
    """NetworkPolicy (with a namespace) or GlobalNetworkPolicy (without)."""

    name: str
    namespace: str
    tier: str = "default"
    order: float | None = None
    selector: Selector = EVERYTHING
    namespace_selector: Selector | None = None
    account_selector: Selector | None = None
    types: frozenset[Direction] = frozenset()
    ingress: tuple[CalicoRule, ...] = ()
    egress: tuple[CalicoRule, ...] = ()
    hosts_only: bool = False  # untracked and pre-DNAT policies never apply to pods
    staged: str = ""
    refusal: Refusal | None = None
    kind: str = "NetworkPolicy"


Policy = KubernetesPolicy | ClusterPolicy | CalicoPolicy


@dataclass(frozen=True, slots=True)
class Tier:
    name: str
    order: float | None = None
    default_action: Action = Action.DENY


@dataclass(frozen=True, slots=True)
class Profile:
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    ingress: tuple[CalicoRule, ...] = ()
    egress: tuple[CalicoRule, ...] = ()


BUILT_IN_TIERS: Final = (
    Tier("kube-admin", 1_000.0, Action.PASS),
    Tier("default", 1_000_000.0, Action.DENY),
    Tier("kube-baseline", 10_000_000.0, Action.PASS),
)
KUBERNETES_ORDER: Final = 1000.0


FAILSAFE_IN: Final = (
    *(Failsafe(TCP, port) for port in (22, 179, 2379, 2380, 5473, 6443, 6666, 6667)),
    Failsafe(UDP, 68),
)
FAILSAFE_OUT: Final = (
    *(Failsafe(TCP, port) for port in (179, 2379, 2380, 5473, 6443, 6666, 6667)),
    Failsafe(UDP, 53),
    Failsafe(UDP, 67),
)


@dataclass(frozen=True, slots=True)
class Stance:
    """What holds where no document speaks: pods no policy selects, and the host's own ports."""

    default: Action = Action.ALLOW
    failsafe_in: tuple[Failsafe, ...] = FAILSAFE_IN
    failsafe_out: tuple[Failsafe, ...] = FAILSAFE_OUT
    services: tuple[Prefix, ...] = ()  # of addresses that the host changes: judged when the packet comes back


DEFAULT_STANCE: Final = Stance()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything a decision can depend on, at one moment."""

    namespaces: Mapping[str, Namespace] = field(default_factory=dict)
    accounts: Mapping[tuple[str, str], ServiceAccount] = field(default_factory=dict)
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)
    nodes: Mapping[str, ClusterNode] = field(default_factory=dict)
    sets: tuple[NetworkSet, ...] = ()
    services: Mapping[tuple[str, str], Service] = field(default_factory=dict)
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    tiers: Mapping[str, Tier] = field(default_factory=dict)
    policies: tuple[Policy, ...] = ()
    stance: Stance = DEFAULT_STANCE


# -- what is asked and answered ----------------------------------------------
@dataclass(frozen=True, slots=True)
class Connection:
    """The packet that opens a flow. For ICMP the destination port is type * 256 + code."""

    source: Address
    destination: Address
    protocol: int = TCP
    destination_port: int = 0
    source_port: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """Who decided one direction, and how.

    `why`: rule, end-of-tier, refused, profile, default, own-node, failsafe, service,
    self, or outside (no endpoint of ours on that side).
    """

    allowed: bool
    direction: Direction
    why: str
    tier: str = ""
    policy: str = ""  # "NetworkPolicy default/web"
    rule: int = -1  # index in the list of its direction
    name: str = ""  # the rule's own name, or the refusal's reason

    def __str__(self) -> str:
        verdict = "allowed" if self.allowed else "denied"
        place = " ".join(filter(None, (
            f"tier {self.tier}" if self.tier else "", self.policy,
            f"rule {self.rule}" if self.rule >= 0 else "", f"({self.name})" if self.name else "",
        )))  # fmt: skip
        return f"{self.direction} {verdict} by {self.why}{': ' if place else ''}{place}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Both directions of one connection; it passes when both allow it."""

    egress: Decision
    ingress: Decision

    @property
    def allowed(self) -> bool:
        return self.egress.allowed and self.ingress.allowed
