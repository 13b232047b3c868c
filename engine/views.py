"""What a running node says about itself: the values behind the control API and the commands.

Owns: their shape.
Never: holds anything alive.
Invariant: a field is only ever added, with a default, so that a command and a
daemon of neighbouring versions understand each other.
"""

from __future__ import annotations

import msgspec


class Version(msgspec.Struct):
    version: str
    protocol: int
    pid: int
    python: str
    build: str = ""


class Problem(msgspec.Struct):
    """Something that is not as desired, and when it is tried again (seconds from now; 0: at the next reload)."""

    what: str
    attempts: int = 0
    retry_in: float = 0.0


class Health(msgspec.Struct):
    """`live`: the control loop turns. `ready`: the desired state has been applied once."""

    live: bool
    ready: bool
    problems: list[Problem] = []


class Status(msgspec.Struct):
    node: str
    version: str
    pid: int
    uptime: float  # seconds
    mode: str
    encapsulation: str
    config: str  # the file, or ""
    ready: bool
    workers: int
    pods: int
    peers: int
    routes: int
    received: int  # packets, since start
    sent: int
    dropped: int
    applied: int  # states applied since start
    problems: list[Problem] = []
    ports: list[PortStatus] = []
    policies: int = 0
    policy_generation: int = 0  # programs put in force since the start
    placement: list[WorkerStatus] = []  # of the workers, in their order


class WorkerStatus(msgspec.Struct):
    cpu: int  # where it ran last
    allowed: str  # the CPUs it may use, "0-3,8"


class PortStatus(msgspec.Struct):
    name: str
    kind: str  # pod, host, tunnel
    number: int
    granted: str = ""  # what the kernel gave: offloads, segmentation
    shortcut: str = ""  # of a tunnel: how TCP super-packets leave it, and why


class Hop(msgspec.Struct):
    kind: str  # tunnel, pod, host, reject
    target: str
    peer: str = ""
    remote: str = ""
    mtu: int = 0


class Route(msgspec.Struct):
    prefix: str
    via: list[Hop]
    state: str = "active"  # or "unreachable": every next hop lacks its port


class Routes(msgspec.Struct):
    routes: list[Route]
    total: int


class RouteGet(msgspec.Struct):
    address: str
    route: Route | None


class Peer(msgspec.Struct):
    name: str
    addresses: list[str]
    prefixes: list[str]
    mtu: int = 0
    sent_packets: int = 0
    sent_bytes: int = 0


class Peers(msgspec.Struct):
    peers: list[Peer]


class Pod(msgspec.Struct):
    name: str
    namespace: str
    interface: str
    addresses: list[str]
    mtu: int
    state: str  # attached, or why not
    received_packets: int = 0
    sent_packets: int = 0
    dropped_packets: int = 0


class Pods(msgspec.Struct):
    pods: list[Pod]


class PortCount(msgspec.Struct):
    name: str
    received_packets: int
    received_bytes: int
    sent_packets: int
    sent_bytes: int
    dropped_packets: int


class Counters(msgspec.Struct):
    """received + created = sent + sum(drops) when nothing is under way; packets as on the wire."""

    received: int
    created: int
    sent: int
    dropped: int
    ports: list[PortCount]
    events: dict[str, int]


class Drop(msgspec.Struct):
    reason: str
    packets: int
    severity: str = ""
    meaning: str = ""


class Drops(msgspec.Struct):
    drops: list[Drop]


class Reload(msgspec.Struct):
    changed: int  # operations done
    problems: list[Problem] = []


class Takeover(msgspec.Struct):
    """What a successor is told before the connection becomes its own: the format of the messages that follow."""

    format: int
    version: str
    pid: int


class Upgrade(msgspec.Struct):
    """The process that was started to take over."""

    pid: int


class Cni(msgspec.Struct):
    """Where runtimes find the daemon, and what they have asked for."""

    socket: str
    spool: str
    attachments: int = 0


class IpamPool(msgspec.Struct):
    prefix: str
    block_length: int
    blocks: int  # claimed by this node
    size: str  # addresses
    used: int
    kept: int  # for pods that will come back
    has_free: bool


class IpamAddress(msgspec.Struct):
    address: str
    handle: str  # network/container/interface
    since: float  # seconds since 1970
    pod: str = ""
    sticky: str = ""


class Ipam(msgspec.Struct):
    pools: list[IpamPool]
    addresses: list[IpamAddress]
    total: int = 0


class IpamLeak(msgspec.Struct):
    """Kinds: leaked (no pod), missing (not taken), twice, outside (in no pool), gone (no namespace)."""

    kind: str
    address: str
    handle: str
    remedy: str


class IpamCheck(msgspec.Struct):
    leaks: list[IpamLeak]


class IpamReleased(msgspec.Struct):
    address: str
    handle: str  # who had it; empty: nobody


# -- policy --------------------------------------------------------------------
class Decision(msgspec.Struct):
    """What one side says to a connection, and what of it decided."""

    direction: str  # egress, ingress
    allowed: bool
    why: str  # rule, end-of-tier, refused, profile, default, own-node, failsafe, service, self, outside
    tier: str = ""
    policy: str = ""
    rule: int = -1  # its place in the list of its direction
    name: str = ""  # the rule's own, or why the policy is refused
    here: bool = True  # false: another node judges it; this is what it would say if it knew what we know


class Explanation(msgspec.Struct):
    source: str
    destination: str
    source_address: str
    destination_address: str
    protocol: str  # tcp/80
    allowed: bool
    egress: Decision
    ingress: Decision
    flow: bool = False  # such a connection is known now
    staged_allowed: bool | None = None  # None: no staged policies, or they change nothing
    staged_egress: Decision | None = None
    staged_ingress: Decision | None = None


class Rule(msgspec.Struct):
    """A rule in force, or the end of a tier, with what it did since the start."""

    tier: str
    policy: str
    direction: str
    rule: int
    action: str  # allow, deny, pass, log
    why: str = "rule"
    name: str = ""
    pods: int = -1  # how many endpoints it is asked for on this node; -1: not counted
    flows: int = 0  # opened, or kept out
    packets: int = 0
    bytes: int = 0


class Rules(msgspec.Struct):
    rules: list[Rule]
    total: int


class Flow(msgspec.Struct):
    """One direction-less flow: source is who opened it."""

    source: str
    destination: str
    protocol: str
    source_port: int
    destination_port: int
    state: str
    verdict: str  # allowed, denied
    source_name: str = ""
    destination_name: str = ""
    egress: str = ""  # what let it out, in words
    ingress: str = ""
    packets: int = 0  # from the opener
    bytes: int = 0
    reply_packets: int = 0
    reply_bytes: int = 0
    age: float = 0.0  # seconds
    idle: float = 0.0
    expires: float = 0.0
    generation: int = 0


class Flows(msgspec.Struct):
    """`cursor`: where the next page begins; None: this was the last."""

    flows: list[Flow]
    cursor: int | None = None
    live: int = 0
    capacity: int = 0


class PolicyDocument(msgspec.Struct):
    kind: str
    namespace: str
    name: str
    version: str = ""


class PolicyDocuments(msgspec.Struct):
    documents: list[PolicyDocument]
