"""Two pods a and b, of both families, and the few policies about b that tests of flows need."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address

from engine.desired.policy.model import (
    Action,
    Endpoint,
    KubernetesPolicy,
    Namespace,
    PeerRule,
    Policy,
    PortMatch,
    Snapshot,
)
from engine.desired.policy.selector import equals
from fastpath.reference import TCP
from fastpath.values import FlowSettings
from tests.fastpath.cluster import MemoryCluster

PODS = {"a": ("10.0.0.1", "fd00::1"), "b": ("10.0.0.2", "fd00::2")}


def about_b(name: str, ingress: tuple[PeerRule, ...]) -> KubernetesPolicy:
    return KubernetesPolicy(name, "x", equals("pod", "b"), frozenset({"ingress"}), ingress)


ISOLATED = about_b("isolated", ())
ALLOW_80 = about_b("allow-80", (PeerRule(Action.ALLOW, ports=(PortMatch(TCP, 80, 80),)),))


def for_protocol(policy: Policy, protocol: int) -> Policy:
    assert isinstance(policy, KubernetesPolicy)
    rules = tuple(
        PeerRule(rule.action, ports=tuple(PortMatch(protocol, port.low, port.high) for port in rule.ports or ()))
        for rule in policy.ingress
    )
    return about_b(policy.name, rules)


def snapshot_of(policies: Iterable[Policy]) -> Snapshot:
    endpoints = {
        f"x/{name}": Endpoint(name, "x", {"pod": name}, tuple(map(ip_address, addresses)))
        for name, addresses in PODS.items()
    }
    return Snapshot(namespaces={"x": Namespace("x")}, endpoints=endpoints, policies=tuple(policies))


def cluster_of(
    policies: Iterable[Policy], flows: FlowSettings | None = None, *, protocol: int = TCP
) -> MemoryCluster:
    return MemoryCluster(snapshot_of([for_protocol(policy, protocol) for policy in policies]), flows)
