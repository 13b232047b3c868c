"""What staged policies would do: the snapshot in which they are enforced.

Owns: the meaning of the four staged actions.
Never: touches the snapshot that is enforced.
Invariant: a snapshot without staged policies comes back as it is.
"""

from __future__ import annotations

from dataclasses import replace

from engine.desired.policy.model import KubernetesPolicy, Policy, Snapshot

_ENFORCED_KIND = {
    "StagedNetworkPolicy": "NetworkPolicy",
    "StagedGlobalNetworkPolicy": "GlobalNetworkPolicy",
    "StagedKubernetesNetworkPolicy": "NetworkPolicy",
}


def with_staged(snapshot: Snapshot) -> Snapshot:
    """Set replaces or adds its namesake, Delete removes it; Learn and Ignore change nothing."""
    staged = [policy for policy in snapshot.policies if policy.staged]
    if not staged:
        return snapshot
    policies: dict[tuple[object, ...], Policy] = {_identity(p): p for p in snapshot.policies if not p.staged}
    for policy in staged:
        enforced = replace(policy, staged="", kind=_ENFORCED_KIND.get(policy.kind, policy.kind))
        if policy.staged == "Set":
            policies[_identity(enforced)] = enforced
        elif policy.staged == "Delete":
            policies.pop(_identity(enforced), None)
    return replace(snapshot, policies=tuple(policies.values()))


def _identity(policy: Policy) -> tuple[object, ...]:
    return (isinstance(policy, KubernetesPolicy), policy.kind, policy.namespace, policy.name)
