"""Findings: what is said of surprising policies, and silence about good ones."""

from __future__ import annotations

import pytest

from engine.desired.policy.check import check
from engine.desired.policy.reader import Reading, assemble
from tests.engine.policy.test_semantics import CLUSTER, calico, cluster, kubernetes


def findings(*documents, pods=True):
    reading = Reading().text("\n---\n".join([*([CLUSTER] if pods else []), *documents]))
    return [(f.level, f.code, f.where) for f in check(assemble(reading), reading.problems)]


ALL = "{tier: Admin, priority: %d, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}"
SUBJECT = "tier: Admin, priority: 1, subject: {namespaces: {}}"


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        ([kubernetes("{ingress: [{from: [{podSelector: {}}]}]}")], []),
        ([cluster(ALL % 1), kubernetes("{}")], []),
        ([kubernetes("{podSelector: {matchLabels: {app: none}}}")], [("warning", "selects-nothing", "NetworkPolicy x/p")]),
        ([kubernetes("{ingres: []}")], [("error", "invalid", "document 2: spec.ingres"), ("warning", "refused", "NetworkPolicy x/p")]),
        ([kubernetes("{ingress: [{}, {ports: [{port: 80}]}]}")], [("warning", "never-reached", "NetworkPolicy x/p ingress[1]")]),
        ([kubernetes("{ingress: [{ports: [{port: 80, endPort: 90}]}, {ports: [{port: 85}]}, {ports: [{port: 91}]}]}")], [("warning", "never-reached", "NetworkPolicy x/p ingress[1]")]),
        ([kubernetes("{ingress: [{ports: [{port: 80}]}, {ports: [{port: 80}, {port: 81}]}]}")], []),
        ([kubernetes("{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}]}, {from: [{podSelector: {}}]}]}")], []),
        ([kubernetes("{ingress: [{from: [{podSelector: {matchLabels: {app: none}}}]}]}")], [("warning", "matches-nothing", "NetworkPolicy x/p ingress[0]")]),
        ([kubernetes("{ingress: [{ports: [{port: nobody}]}]}")], [("warning", "no-such-name", "NetworkPolicy x/p ingress[0]"), ("warning", "matches-nothing", "NetworkPolicy x/p ingress[0]")]),
        ([cluster(ALL % 1, "a"), cluster(ALL % 1, "b")], [("warning", "equal-priority", "ClusterNetworkPolicy b")]),
        ([cluster(ALL % 1, "a"), cluster(ALL % 2, "b")], []),
        ([cluster(f"{{{SUBJECT}, egress: [{{action: Deny, to: [{{galaxies: {{}}}}]}}]}}")], [("warning", "unsupported", "ClusterNetworkPolicy c egress[0]")]),
        ([cluster(f"{{{SUBJECT}, egress: [{{action: Accept, to: [{{domainNames: [example.org]}}]}}]}}")], [("warning", "unsupported", "ClusterNetworkPolicy c egress[0]")]),
        ([calico("{selector: all(), tier: lost, ingress: [{action: Allow}]}")], [("warning", "no-tier", "GlobalNetworkPolicy g")]),
        ([calico("{selector: all(), applyOnForward: true}")], [("warning", "refused", "GlobalNetworkPolicy g")]),
        ([calico("{selector: all(), ingress: [{action: Deny}]}"), kubernetes("{}", "z")], []),
        ([calico("{order: 1, selector: all(), ingress: [{action: Deny}]}"), kubernetes("{}", "z")], [("warning", "never-reached", "NetworkPolicy x/z ingress")]),
        ([calico("{order: 1, selector: all(), ingress: [{action: Pass}]}"), kubernetes("{}", "z"), cluster(ALL.replace("Admin", "Baseline") % 1)], [("warning", "never-reached", "NetworkPolicy x/z ingress")]),
        ([calico("{order: 1, selector: all(), ingress: [{action: Log}, {action: Allow}]}")], []),
        ([calico("{interfaceName: eth0, node: lost, profiles: [none]}", "h", "HostEndpoint")], [("warning", "no-address", "HostEndpoint h"), ("warning", "no-profile", "h")]),
        ([calico("{types: [Egress], egress: [{action: Allow, destination: {services: {name: s}}}]}", kind="NetworkPolicy", namespace="x")], [("warning", "no-such-name", "NetworkPolicy x/g egress[0]"), ("warning", "matches-nothing", "NetworkPolicy x/g egress[0]")]),
        (["pods: [{ns: y, name: twin, ip: 10.0.0.1}]"], [("warning", "shared-address", "y/twin")]),
    ],
)  # fmt: skip
def test_findings(documents, expected):
    assert findings(*documents) == expected


@pytest.mark.parametrize(
    "spec",
    [
        "{podSelector: {matchLabels: {app: none}}}",
        "{ingress: [{from: [{podSelector: {matchLabels: {app: none}}}], ports: [{port: 5432}]}]}",
        "{ingress: [{ports: [{port: nobody}]}]}",
    ],
)
def test_without_pods_nobody_is_missed(spec):
    assert findings(kubernetes(spec), pods=False) == []
