"""What every judge of policy must agree on: the order of tiers and policies, and derived labels.

Owns: the sort keys, the tier a policy belongs to, the labels that namespaces,
service accounts and profiles lend to what lives in them.
Never: matches a selector or looks at a connection.
Invariant: the order is total, so that equal priorities still give one answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Final

from engine.desired.policy.model import (
    BUILT_IN_TIERS,
    KUBERNETES_ORDER,
    CalicoRule,
    ClusterPolicy,
    Direction,
    Endpoint,
    KubernetesPolicy,
    NetworkSet,
    PeerRule,
    Policy,
    Profile,
    Snapshot,
    Tier,
)
from engine.desired.policy.selector import All, Global, Has, Not, Selector, prefixed, rewrite

NAMESPACE_LABEL: Final = "projectcalico.org/namespace"
ACCOUNT_LABEL: Final = "projectcalico.org/serviceaccount"
ORCHESTRATOR_LABEL: Final = "projectcalico.org/orchestrator"
NAME_LABEL: Final = "projectcalico.org/name"
KUBERNETES_NAME_LABEL: Final = "kubernetes.io/metadata.name"
NAMESPACE_PREFIX: Final = "pcns."
ACCOUNT_PREFIX: Final = "pcsa."


# -- order -------------------------------------------------------------------
def tier_of(policy: Policy) -> str:
    match policy:
        case KubernetesPolicy():
            return "default"
        case ClusterPolicy():
            return "kube-admin" if policy.tier == "Admin" else "kube-baseline"
    return policy.tier


def policy_order(policy: Policy) -> float:
    match policy:
        case KubernetesPolicy():
            return KUBERNETES_ORDER
        case ClusterPolicy():
            return float(policy.priority)
    return inf if policy.order is None else policy.order


def policy_key(policy: Policy) -> tuple[float, str, str, str]:
    return (policy_order(policy), policy.name, policy.namespace, policy.kind)


def tiers(snapshot: Snapshot) -> list[Tier]:
    """All tiers in their order. One that is named but not declared comes last and denies."""
    known = {tier.name: tier for tier in BUILT_IN_TIERS} | dict(snapshot.tiers)
    for policy in snapshot.policies:
        known.setdefault(tier_of(policy), Tier(tier_of(policy)))
    return sorted(known.values(), key=lambda tier: (inf if tier.order is None else tier.order, tier.name))


def rules_of(policy: Policy, direction: Direction) -> tuple[PeerRule | CalicoRule, ...]:
    return policy.ingress if direction == "ingress" else policy.egress


def title(policy: Policy) -> str:
    """How a decision names a policy: kind, namespace, name."""
    return f"{policy.kind} {policy.namespace}/{policy.name}" if policy.namespace else f"{policy.kind} {policy.name}"


# -- derived labels ----------------------------------------------------------
def namespace_labels(snapshot: Snapshot, name: str) -> dict[str, str]:
    """A namespace's labels with the one that it always carries; an undeclared one has only that."""
    declared = snapshot.namespaces.get(name)
    return {**(declared.labels if declared else {}), KUBERNETES_NAME_LABEL: name}


def _lent_by_namespace(snapshot: Snapshot, name: str) -> dict[str, str]:
    labels = {NAMESPACE_PREFIX + key: value for key, value in namespace_labels(snapshot, name).items()}
    return labels | {NAMESPACE_PREFIX + NAME_LABEL: name, NAMESPACE_LABEL: name}


def _lent_by_account(snapshot: Snapshot, namespace: str, name: str) -> dict[str, str]:
    declared = snapshot.accounts.get((namespace, name))
    labels = {ACCOUNT_PREFIX + key: value for key, value in (declared.labels if declared else {}).items()}
    return labels | {ACCOUNT_PREFIX + NAME_LABEL: name, ACCOUNT_LABEL: name}


def endpoint_labels(snapshot: Snapshot, endpoint: Endpoint) -> dict[str, str]:
    """What a Calico selector sees of an endpoint.

    A profile's labels lie under its own; those of namespace and account lie
    over them, so that a pod cannot claim another namespace by a label.
    """
    labels: dict[str, str] = {}
    for name in endpoint.profiles or ():
        labels.update(snapshot.profiles.get(name, Profile(name)).labels)
    labels.update(endpoint.labels)
    if not endpoint.is_host:
        labels.update(_lent_by_namespace(snapshot, endpoint.namespace))
        labels[ORCHESTRATOR_LABEL] = "k8s"
        if endpoint.service_account:
            labels.update(_lent_by_account(snapshot, endpoint.namespace, endpoint.service_account))
    return labels


def set_labels(snapshot: Snapshot, network_set: NetworkSet) -> Mapping[str, str]:
    if not network_set.namespace:
        return network_set.labels
    return dict(network_set.labels) | _lent_by_namespace(snapshot, network_set.namespace)


def namespace_scope(selector: Selector) -> Selector:
    """A namespace selector as a selector over lent labels; `global()` is what has no namespace."""

    def leaf(part: Selector) -> Selector:
        match part:
            case All():
                return Has(NAMESPACE_LABEL)
            case Global():
                return Not(Has(NAMESPACE_LABEL))
        return prefixed(part, NAMESPACE_PREFIX)

    return rewrite(selector, leaf)
