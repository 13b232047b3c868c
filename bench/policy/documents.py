"""The production workload as the files its user would write: Calico documents, one JSON list a kind.

Owns: the words of the documents.
Never: generates rules (`workload` does).
Invariant: a node that reads them judges its pod's egress by all 19,992 rules; a last policy lets pass what none
of them matched, or nothing could be measured through it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.policy.workload import production
from engine.desired.policy.model import Action, CalicoPolicy, CalicoRule, NetworkSet
from engine.desired.policy.selector import In

API = "projectcalico.org/v3"
WORDS = {Action.ALLOW: "Allow", Action.DENY: "Deny", Action.PASS: "Pass"}


def write(folder: Path) -> int:
    """Put the workload into `folder`; how many rules judge a packet."""
    snapshot = production()
    folder.mkdir(parents=True, exist_ok=True)
    policies = [policy for policy in snapshot.policies if isinstance(policy, CalicoPolicy)]
    _put(folder / "sets.json", map(_network_set, snapshot.sets))
    _put(folder / "policies.json", [*map(_policy, policies), _last(len(policies))])
    return sum(len(policy.egress) for policy in policies)


def _put(path: Path, items: Iterable[Mapping[str, Any]]) -> None:
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(items)}))


def _network_set(network_set: NetworkSet) -> dict[str, Any]:
    return {
        "apiVersion": API,
        "kind": "GlobalNetworkSet",
        "metadata": {"name": network_set.name, "labels": dict(network_set.labels)},
        "spec": {"nets": [str(net) for net in network_set.nets]},
    }


def _policy(policy: CalicoPolicy) -> dict[str, Any]:
    return _document(policy.name, policy.order or 0.0, [_rule(rule) for rule in policy.egress])


def _last(order: float) -> dict[str, Any]:
    return _document("last", order, [{"action": "Allow"}])


def _document(name: str, order: float, egress: list[dict[str, Any]]) -> dict[str, Any]:
    spec = {"order": order, "selector": "all()", "types": ["Egress"], "egress": egress}
    return {"apiVersion": API, "kind": "GlobalNetworkPolicy", "metadata": {"name": name}, "spec": spec}


def _rule(rule: CalicoRule) -> dict[str, Any]:
    destination: dict[str, Any] = {"ports": [port.low for port in rule.destination.ports]}
    selector = rule.destination.selector
    if isinstance(selector, In):
        (value,) = selector.values
        destination["selector"] = f"{selector.label} == '{value}'"
    return {"action": WORDS[rule.action], "protocol": "TCP", "destination": destination}
