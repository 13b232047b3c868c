"""Who is in which set: endpoints and prefixes of a snapshot, indexed for the compiler.

Owns: the numbering of endpoints, the label indexes, and the members of a set
and of a policy's subject.
Never: knows rows or classes.
Invariant: agrees with `sets.holds_endpoint` for every endpoint and part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from engine.desired.policy.classes import Span, block_spans
from engine.desired.policy.index import LabelIndex, bits_of, numbers_of
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
from engine.desired.policy.sets import Known, Listed, Named, Part, PodsIn, holds_endpoint


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
        other = self.with_snapshot(snapshot)
        other.endpoints = self.endpoints.copy()
        if endpoint.key in self.number:
            other.endpoints[self.number[endpoint.key]] = endpoint
        return other

    def with_snapshot(self, snapshot: Snapshot) -> Population:
        """The same endpoints in another snapshot: what differs has no number."""
        other = object.__new__(Population)
        other.snapshot, other.endpoints, other.number, other._namespace_bits = snapshot, self.endpoints, self.number, {}
        return other

    def with_arrival(self, endpoint: Endpoint, snapshot: Snapshot) -> Population:
        """One endpoint more, with the next number."""
        other = self.with_snapshot(snapshot)
        other.endpoints = [*self.endpoints, endpoint]
        other.number = {**self.number, endpoint.key: len(self.endpoints)}
        return other

    def with_departure(self, key: str, snapshot: Snapshot) -> Population:
        """One less. Its number stays in `endpoints`, and stands for nobody."""
        other = self.with_snapshot(snapshot)
        other.number = {k: number for k, number in self.number.items() if k != key}
        return other

    @cached_property
    def shares_addresses(self) -> bool:
        """Whether two endpoints claim one address."""
        claimed = [address for endpoint in self.endpoints for address in endpoint.addresses]
        return len(set(claimed)) < len(claimed)

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
    def _named(self) -> dict[tuple[str, int, int], list[int]]:
        listed: dict[tuple[str, int, int], list[int]] = {}
        for number, endpoint in enumerate(self.endpoints):
            for port in endpoint.ports:
                owners = listed.setdefault((port.name, port.protocol, port.port), [])
                if owners[-1:] != [number]:
                    owners.append(number)
        return listed

    # -- members of sets -----------------------------------------------------
    def members(self, part: Part) -> Sequence[int]:
        """The endpoints that a part of a set means, ascending, addresses aside."""
        match part:
            case Known(selector):
                return self._derived.numbers(selector)
            case PodsIn():
                pods: list[int] = numbers_of(self._pods(part.pods, part.namespaces, part.namespace)).tolist()
                return pods
            case Named(name, protocol, port):
                return self._named.get((name, protocol, port), ())
        return ()

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

    def spans(self, part: Part) -> Sequence[Span]:
        """The addresses that a part names without an endpoint."""
        match part:
            case Span():
                return (part,)
            case Block():
                return block_spans(part)
            case Listed(addresses):
                return [Span(a.version, int(a), int(a)) for a in addresses]
            case NodePeer(nodes):
                chosen = [node for node in self.snapshot.nodes.values() if nodes.matches(node.labels)]
                return [Span(a.version, int(a), int(a)) for node in chosen for a in node.addresses]
        return ()

    def network_sets(self, part: Part) -> Sequence[int]:
        """The network sets that a part selects, ascending."""
        return self._sets.numbers(part.selector) if isinstance(part, Known) else ()

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


def is_subject(
    policy: Policy, subject: Selector, endpoint: Endpoint, labels: Mapping[str, str], snapshot: Snapshot
) -> bool:
    """`Population.subject` for one endpoint. `subject`: the `calico_subject` of a Calico policy; `labels`: derived."""
    match policy:
        case KubernetesPolicy():
            return endpoint.namespace == policy.namespace and policy.subject.matches(endpoint.labels)
        case ClusterPolicy():
            return holds_endpoint(PodsIn(policy.subject.pods, policy.subject.namespaces), endpoint, snapshot)
    return (endpoint.is_host or not policy.hosts_only) and subject.matches(labels)
