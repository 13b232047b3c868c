"""Who is in which set: endpoints and prefixes of a snapshot, indexed for the compiler.

Owns: the numbering of endpoints, the label indexes, and the members of a set
and of a policy's subject.
Never: knows rows or classes.
Invariant: agrees with `sets.holds_endpoint` for every endpoint and part.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from engine.desired.policy.classes import Span, block_spans
from engine.desired.policy.index import LabelIndex, bits_of
from engine.desired.policy.model import (
    Block,
    CalicoPolicy,
    ClusterPolicy,
    Endpoint,
    KubernetesPolicy,
    NodePeer,
    Policy,
    Snapshot,
)
from engine.desired.policy.order import (
    ACCOUNT_PREFIX,
    NAMESPACE_LABEL,
    endpoint_labels,
    namespace_labels,
    namespace_scope,
    set_labels,
)
from engine.desired.policy.selector import Selector, equals, every, prefixed
from engine.desired.policy.sets import Known, Listed, Named, Part, Parts, PodsIn, holds_endpoint


class Population:
    """One snapshot's endpoints (those with a network of their own), by number."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.endpoints = [snapshot.endpoints[key] for key in sorted(snapshot.endpoints)]
        self.endpoints = [endpoint for endpoint in self.endpoints if not endpoint.host_network]
        self.number = {endpoint.key: number for number, endpoint in enumerate(self.endpoints)}
        self._namespace_bits: dict[Selector, int] = {}

    def with_endpoint(self, endpoint: Endpoint, snapshot: Snapshot) -> Population:
        """The same population with one endpoint replaced; indexes are built anew when asked for."""
        other = object.__new__(Population)
        other.snapshot, other.number, other._namespace_bits = snapshot, self.number, {}
        other.endpoints = self.endpoints.copy()
        if endpoint.key in self.number:
            other.endpoints[self.number[endpoint.key]] = endpoint
        return other

    @cached_property
    def _own(self) -> LabelIndex:
        return LabelIndex([endpoint.labels for endpoint in self.endpoints])

    @cached_property
    def _derived(self) -> LabelIndex:
        return LabelIndex([endpoint_labels(self.snapshot, endpoint) for endpoint in self.endpoints])

    @cached_property
    def _sets(self) -> LabelIndex:
        return LabelIndex([set_labels(self.snapshot, network_set) for network_set in self.snapshot.sets])

    @cached_property
    def _in_namespace(self) -> dict[str, int]:
        listed: dict[str, list[int]] = {}
        for number, endpoint in enumerate(self.endpoints):
            listed.setdefault(endpoint.namespace, []).append(number)
        return {name: bits_of(numbers, len(self.endpoints)) for name, numbers in listed.items()}

    @cached_property
    def _named(self) -> dict[tuple[str, int, int], int]:
        listed: dict[tuple[str, int, int], list[int]] = {}
        for number, endpoint in enumerate(self.endpoints):
            for port in endpoint.ports:
                listed.setdefault((port.name, port.protocol, port.port), []).append(number)
        return {key: bits_of(numbers, len(self.endpoints)) for key, numbers in listed.items()}

    # -- members of sets -----------------------------------------------------
    def endpoint_bits(self, parts: Parts) -> int:
        """The endpoints that some part of a set means, addresses aside."""
        found = 0
        for part in parts:
            match part:
                case PodsIn():
                    found |= self._pods(part.pods, part.namespaces, part.namespace)
                case Known(selector):
                    found |= self._derived.select(selector)
                case Named(name, protocol, port):
                    found |= self._named.get((name, protocol, port), 0)
        return found

    def _pods(self, pods: Selector, namespaces: Selector | None, namespace: str) -> int:
        inside = self._in_namespace.get(namespace, 0) if namespaces is None else self._namespaces(namespaces)
        return inside & self._own.select(pods)

    def _namespaces(self, selector: Selector) -> int:
        """All pods of the namespaces that a selector over their labels chooses."""
        found = self._namespace_bits.get(selector)
        if found is None:
            found = 0
            for name, bits in self._in_namespace.items():
                if name and selector.matches(namespace_labels(self.snapshot, name)):
                    found |= bits
            self._namespace_bits[selector] = found
        return found

    def spans(self, part: Part) -> dict[int, list[Span]]:
        """The addresses that a part names without an endpoint, by family."""
        match part:
            case Block():
                return {part.net.version: block_spans(part)}
            case Listed(addresses):
                return _by_family((a.version, (int(a), int(a))) for a in addresses)
            case NodePeer(nodes):
                chosen = [node for node in self.snapshot.nodes.values() if nodes.matches(node.labels)]
                return _by_family((a.version, (int(a), int(a))) for node in chosen for a in node.addresses)
        return {}

    def network_sets(self, part: Part) -> int:
        """The network sets that a part selects, as a bitmap."""
        return self._sets.select(part.selector) if isinstance(part, Known) else 0

    # -- subjects ------------------------------------------------------------
    def subject(self, policy: Policy) -> int:
        match policy:
            case KubernetesPolicy():
                return self._pods(policy.subject, None, policy.namespace)
            case ClusterPolicy():
                return self._pods(policy.subject.pods, policy.subject.namespaces, "")
        return self._derived.select(calico_subject(policy)) & (
            self._in_namespace.get("", 0) if policy.hosts_only else -1
        )


def _by_family(found: Iterable[tuple[int, Span]]) -> dict[int, list[Span]]:
    spans: dict[int, list[Span]] = {}
    for version, span in found:
        spans.setdefault(version, []).append(span)
    return spans


def calico_subject(policy: CalicoPolicy) -> Selector:
    """Whom a Calico policy applies to, as one selector over derived labels."""
    parts = [policy.selector]
    if policy.account_selector is not None:
        parts.append(prefixed(policy.account_selector, ACCOUNT_PREFIX))
    if policy.namespace:
        parts.insert(0, equals(NAMESPACE_LABEL, policy.namespace))
    if policy.namespace_selector is not None:
        parts.insert(0, namespace_scope(policy.namespace_selector))
    return every(*parts)


def is_subject(policy: Policy, endpoint: Endpoint, snapshot: Snapshot) -> bool:
    """`Population.subject` for one endpoint."""
    match policy:
        case KubernetesPolicy():
            return endpoint.namespace == policy.namespace and policy.subject.matches(endpoint.labels)
        case ClusterPolicy():
            return holds_endpoint(PodsIn(policy.subject.pods, policy.subject.namespaces), endpoint, snapshot)
    if policy.hosts_only and not endpoint.is_host:
        return False
    return calico_subject(policy).matches(endpoint_labels(snapshot, endpoint))
