"""Random clusters, policies of all three languages and connections, composed to collide.

Owns: the vocabulary of the random documents, small enough that selectors,
ports and prefixes hit each other often.
Never: judges anything.
Invariant: equal seeds give equal snapshots.
"""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import ip_address, ip_network

from engine.desired.policy.model import (
    ICMP,
    ICMP6,
    SCTP,
    TCP,
    UDP,
    Action,
    Block,
    CalicoPolicy,
    CalicoPort,
    CalicoRule,
    ClusterNode,
    ClusterPolicy,
    Connection,
    Endpoint,
    Entity,
    Failsafe,
    IcmpMatch,
    KubernetesPolicy,
    NamedPort,
    Namespace,
    NetworkSet,
    NodePeer,
    Peer,
    PeerRule,
    PodPeer,
    Policy,
    PortMatch,
    Profile,
    Refusal,
    Service,
    ServiceAccount,
    ServicePort,
    Snapshot,
    Stance,
    Tier,
    UnknownPeer,
)
from engine.desired.policy.selector import All, And, Global, Has, In, Not, Or, Selector, Text, equals
from engine.model import Address, Prefix

NAMESPACES = ("x", "y", "z")
KEYS = ("app", "role", "env")
VALUES = ("a", "b", "ab")
PORTS = (79, 80, 81, 443, 8080)
NAMES = ("web", "alt", "dns")
PROTOCOLS = (TCP, UDP, SCTP)
NETS = (
    "10.0.0.0/8", "10.0.0.0/29", "10.0.0.4/30", "10.0.0.3/32", "10.0.1.0/24", "0.0.0.0/0", "192.0.2.0/24", "203.0.113.7/32",
    "fd00::/8", "fd00::/125", "fd00::3/128", "::/0", "2001:db8::/32",
)  # fmt: skip
STRANGERS = (
    "203.0.113.7",
    "198.51.100.1",
    "10.0.0.99",
    "255.255.255.255",
    "0.0.0.0",
    "2001:db8::9",
    "::",
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
)


class Generator:
    """One seed's worth of choices."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def some(self, make: object, most: int, least: int = 0) -> tuple:  # type: ignore[type-arg]
        return tuple(make() for _ in range(self.random.randint(least, most)))  # type: ignore[operator]

    # -- who exists ----------------------------------------------------------
    def snapshot(self) -> Snapshot:
        self.names = [f"p{i}" for i in range(9)]
        endpoints = {e.key: e for e in (*(self.pod(i) for i in range(9)), *self.some(self.host, 2))}
        return Snapshot(
            namespaces={n: Namespace(n, self.labels()) for n in NAMESPACES if self.chance(0.8)},
            accounts={(n, a): ServiceAccount(a, n, self.labels()) for n in NAMESPACES for a in ("sa1", "sa2")},
            endpoints=endpoints,
            nodes={
                f"n{i}": ClusterNode(f"n{i}", self.labels(), (ip_address(f"192.0.2.{i}"), ip_address(f"2001:db8::{i}")))
                for i in (1, 2)
            },
            sets=tuple(
                NetworkSet(f"s{i}", self.random.choice(("", "", *NAMESPACES)), self.labels(), self.nets(4))
                for i in range(4)
            ),
            services={(n, "svc"): Service("svc", n, self.some(self.backend, 3)) for n in NAMESPACES},
            profiles={
                "pr": Profile("pr", self.labels(), self.some(self.calico_rule, 2), self.some(self.calico_rule, 2))
            },
            tiers={
                "t": Tier("t", self.random.choice((None, 10.0, 2e6)), self.random.choice((Action.DENY, Action.PASS)))
            },
            policies=self.policies(),
            stance=self.stance(),
        )

    def stance(self) -> Stance:
        failsafe = (Failsafe(TCP, 80, self.random.choice((None, *map(ip_network, NETS[:3])))),)
        ranges = ("203.0.113.0/24", "2001:db8::/124", "10.0.0.0/24", "192.0.2.0/24")  # the last two have pods and nodes
        services = tuple(map(ip_network, self.random.sample(ranges, 3))) if self.chance(0.3) else ()
        return Stance(Action.DENY if self.chance(0.1) else Action.ALLOW, failsafe, failsafe, services)

    def labels(self) -> dict[str, str]:
        return {key: self.random.choice(VALUES) for key in KEYS if self.chance(0.6)}

    def pod(self, number: int) -> Endpoint:
        host_network = self.chance(0.08)
        addresses: tuple[Address, ...] = (ip_address(f"10.0.0.{number + 1}"), ip_address(f"fd00::{number + 1}"))
        return Endpoint(
            self.names[number], self.random.choice(NAMESPACES), self.labels(),
            (ip_address("192.0.2.1"),) if host_network else addresses, self.some(self.named_port, 3),
            self.random.choice(("n1", "n2", "")), self.random.choice(("sa1", "sa2", "")), host_network,
            ("pr",) if self.chance(0.15) else () if self.chance(0.03) else None,
        )  # fmt: skip

    def host(self) -> Endpoint:
        number = self.random.choice((1, 2))
        addresses = (ip_address(f"192.0.2.{number}"), ip_address(f"2001:db8::{number}"))
        return Endpoint(
            f"h{number}",
            "",
            self.labels(),
            addresses,
            self.some(self.named_port, 2),
            f"n{number}",
            "",
            False,
            ("pr",) if self.chance(0.5) else (),
        )

    def named_port(self) -> NamedPort:
        return NamedPort(self.random.choice(NAMES), self.random.choice(PROTOCOLS), self.random.choice(PORTS))

    def backend(self) -> ServicePort:
        return ServicePort(
            ip_address(f"10.0.0.{self.random.randint(1, 9)}"), self.random.choice(PROTOCOLS), self.random.choice(PORTS)
        )

    def nets(self, most: int, least: int = 0) -> tuple[Prefix, ...]:
        return self.some(lambda: ip_network(self.random.choice(NETS)), most, least)

    # -- selectors -----------------------------------------------------------
    def selector(self, depth: int = 2, keys: tuple[str, ...] = KEYS) -> Selector:
        key = self.random.choice(keys)
        kind = self.random.randrange(9 if depth else 6)
        match kind:
            case 0:
                return All()
            case 1:
                return Has(key)
            case 2 | 3:
                return equals(key, self.random.choice(VALUES))
            case 4:
                return In(key, frozenset(self.random.sample(VALUES, self.random.randint(0, 2))))
            case 5:
                return Text(
                    key, self.random.choice(("contains", "starts with", "ends with")), self.random.choice(("a", "b"))
                )
            case 6:
                return Not(self.selector(depth - 1, keys))
        parts = (self.selector(depth - 1, keys), self.selector(depth - 1, keys))
        return And(parts) if kind == 7 else Or(parts)

    def calico_selector(self) -> Selector:
        return self.selector(
            2, (*KEYS, "pcns.app", "pcsa.role", "projectcalico.org/namespace", "projectcalico.org/orchestrator")
        )

    def namespace_selector(self) -> Selector:
        return self.random.choice(
            (
                All(),
                Global(),
                Or((Global(), equals("app", "a"))),
                In("projectcalico.org/name", frozenset(("x", "y"))),
                self.selector(1),
            )
        )

    # -- policies ------------------------------------------------------------
    def policies(self) -> tuple[Policy, ...]:
        makers = (self.kubernetes, self.kubernetes, self.cluster, self.calico, self.calico)
        found = [self.random.choice(makers)(number) for number in range(self.random.randint(1, 9))]
        return tuple(
            replace(p, refusal=Refusal("test", self.random.choice(("all", "hosts")))) if self.chance(0.05) else p
            for p in found
        )

    def kubernetes(self, number: int) -> KubernetesPolicy:
        types = frozenset(self.random.choice((("ingress",), ("egress",), ("ingress", "egress"))))
        return KubernetesPolicy(
            f"k{number}", self.random.choice(NAMESPACES), self.selector(1), types,
            self.some(lambda: self.peer_rule(False, True), 2), self.some(lambda: self.peer_rule(False, False), 2),
            staged="Set" if self.chance(0.05) else "",
        )  # fmt: skip

    def cluster(self, number: int) -> ClusterPolicy:
        return ClusterPolicy(
            f"c{number}", self.random.choice(("Admin", "Baseline")), self.random.randint(0, 3),
            PodPeer(self.selector(1), self.selector(1)),
            self.some(lambda: self.peer_rule(True, True), 3), self.some(lambda: self.peer_rule(True, False), 3),
        )  # fmt: skip

    def peer_rule(self, cluster: bool, ingress: bool) -> PeerRule:
        action = self.random.choice((Action.ALLOW, Action.DENY, Action.PASS)) if cluster else Action.ALLOW
        peers = None if not cluster and self.chance(0.2) else self.some(lambda: self.peer(cluster, ingress), 3, 1)
        ports = None if self.chance(0.3) else self.some(lambda: self.port(cluster), 3, 1)
        return PeerRule(action, peers, ports, unknown="newer" if cluster and self.chance(0.03) else "")

    def peer(self, cluster: bool, ingress: bool) -> Peer:
        if cluster and self.chance(0.04):
            return UnknownPeer("newer")
        if cluster and not ingress and self.chance(0.2):
            return NodePeer(self.selector(1))
        if self.chance(0.3):
            net = ip_network(self.random.choice(NETS))
            return Block(
                net,
                ()
                if cluster
                else tuple(
                    n
                    for n in map(ip_network, self.random.sample(NETS, 3))
                    if n.version == net.version and n != net and n.subnet_of(net)
                ),
            )
        return PodPeer(self.selector(1), self.selector(1) if cluster or self.chance(0.5) else None)

    def port(self, cluster: bool) -> PortMatch:
        protocol = self.random.choice(PROTOCOLS)
        if self.chance(0.35):
            return PortMatch(None if cluster else protocol, name=self.random.choice(NAMES))
        low = self.random.choice(PORTS)
        return self.random.choice(
            (
                PortMatch(protocol),
                PortMatch(protocol, low, low),
                PortMatch(protocol, low, max(low, self.random.choice(PORTS))),
            )
        )

    # -- Calico --------------------------------------------------------------
    def calico(self, number: int) -> CalicoPolicy:
        namespace = self.random.choice(("", *NAMESPACES))
        return CalicoPolicy(
            f"g{number}", namespace, self.random.choice(("default", "t", "kube-admin", "undeclared")),
            self.random.choice((None, 1.0, 1000.0, 2000.5)), self.calico_selector(),
            None if namespace or self.chance(0.6) else self.namespace_selector(),
            None if self.chance(0.8) else self.selector(1),
            frozenset(self.random.choice((("ingress",), ("egress",), ("ingress", "egress")))),
            self.some(self.calico_rule, 3), self.some(self.calico_rule, 3),
            hosts_only=not namespace and self.chance(0.05), staged="Set" if self.chance(0.05) else "",
        )  # fmt: skip

    def calico_rule(self) -> CalicoRule:
        action = self.random.choice((Action.ALLOW, Action.ALLOW, Action.DENY, Action.PASS, Action.LOG))
        kind = self.random.randrange(5)
        protocol = None if kind < 2 else self.random.choice((TCP, TCP, UDP, SCTP, ICMP, ICMP6, 47))
        icmp = protocol in (ICMP, ICMP6)
        ported = protocol in PROTOCOLS
        if protocol is None and self.chance(0.1):
            return CalicoRule(action, destination=Entity(service=(self.random.choice(("", "x", "y")), "svc")))
        return CalicoRule(
            action, self.random.choice((None, None, None, 4, 6)), protocol,
            self.random.choice((TCP, UDP, 47)) if self.chance(0.1) else None,
            IcmpMatch(8, self.random.choice((None, 0))) if icmp and self.chance(0.5) else None,
            IcmpMatch(self.random.choice((8, 3)), self.random.choice((None, 0))) if icmp and self.chance(0.3) else None,
            self.entity(ported, True), self.entity(ported, False),
        )  # fmt: skip

    def entity(self, ported: bool, source: bool) -> Entity:
        if source and self.chance(0.04):
            return Entity(service=("y", "svc"))
        return Entity(
            nets=self.nets(2, 1) if self.chance(0.15) else (),
            not_nets=self.nets(2, 1) if self.chance(0.12) else (),
            selector=self.calico_selector() if self.chance(0.3) else None,
            not_selector=self.calico_selector() if self.chance(0.12) else None,
            namespace_selector=self.namespace_selector() if self.chance(0.15) else None,
            account_names=("sa1",) if self.chance(0.06) else (),
            account_selector=self.selector(1) if self.chance(0.06) else None,
            ports=self.some(self.calico_port, 2, 1) if ported and self.chance(0.15 if source else 0.4) else (),
            not_ports=self.some(self.calico_port, 2, 1) if ported and self.chance(0.1) else (),
        )

    def calico_port(self) -> CalicoPort:
        if self.chance(0.4):
            return CalicoPort(name=self.random.choice(NAMES))
        low = self.random.choice(PORTS)
        return CalicoPort(low, self.random.choice((low, low + 1, 65535)))

    # -- connections ---------------------------------------------------------
    def connection(self, snapshot: Snapshot) -> Connection:
        version = self.random.choice((4, 6))
        known = sorted({a for e in snapshot.endpoints.values() for a in e.addresses if a.version == version}, key=int)
        known += [a for a in map(ip_address, STRANGERS) if a.version == version]
        source = self.random.choice(known)
        destination = self.random.choice(known)
        if self.chance(0.7):
            source, destination = (self.random.choice(known[: -len(STRANGERS) // 2]) for _ in range(2))
        protocol = self.random.choice((TCP, TCP, UDP, SCTP, ICMP, ICMP6, 47, 0, 255))
        if protocol in PROTOCOLS:
            return Connection(
                source,
                destination,
                protocol,
                self.random.choice((*PORTS, 0, 65535)),
                self.random.choice((*PORTS, 40000)),
            )
        kind = self.random.choice((8 << 8, 8 << 8 | 1, 3 << 8, 255 << 8 | 255)) if protocol in (ICMP, ICMP6) else 0
        return Connection(source, destination, protocol, kind)

    def relabelled(self, snapshot: Snapshot) -> Snapshot:
        key = self.random.choice(sorted(snapshot.endpoints))
        endpoint = replace(snapshot.endpoints[key], labels=self.labels())
        return replace(snapshot, endpoints={**snapshot.endpoints, key: endpoint})

    def moved(self, snapshot: Snapshot) -> Snapshot:
        """One pod is another one now, or gone, or back."""
        number = self.random.randrange(len(self.names))
        endpoints = {key: e for key, e in snapshot.endpoints.items() if e.name != self.names[number]}
        if self.chance(0.7):
            alike = self.random.choice(sorted(snapshot.endpoints))
            pod = replace(self.pod(number), ports=snapshot.endpoints[alike].ports)
            endpoints[pod.key] = pod
        return replace(snapshot, endpoints=endpoints)
