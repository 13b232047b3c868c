"""The readers: every field accepted in its forms, every mistake refused with path and remedy."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from engine.desired.policy.document import Origin, PolicyError
from engine.desired.policy.model import (
    Action,
    Block,
    CalicoPolicy,
    CalicoPort,
    KubernetesPolicy,
    PodPeer,
    PortMatch,
    UnknownPeer,
)
from engine.desired.policy.reader import Reading, assemble, read

KUBERNETES = ("networking.k8s.io/v1", "NetworkPolicy", "x")
CLUSTER = ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", "")
NAMESPACED = ("projectcalico.org/v3", "NetworkPolicy", "x")
GLOBAL = ("projectcalico.org/v3", "GlobalNetworkPolicy", "")


def document(kind, spec, **metadata):
    version, name, namespace = kind
    return {
        "apiVersion": version,
        "kind": name,
        "metadata": {"name": "p", **({"namespace": namespace} if namespace else {}), **metadata},
        "spec": spec,
    }


def reading(kind, spec):
    return Reading().document(document(kind, spec), Origin("f.yaml"))


def one(kind, spec):
    found = reading(kind, spec).raise_first()
    return found.objects[0][1]


def cluster(**changes):
    return {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, **changes}


def deny_to(peer, **rule):
    return cluster(egress=[{"action": "Deny", "to": [peer], **rule}])


# -- Kubernetes --------------------------------------------------------------
@pytest.mark.parametrize(
    ("spec", "types"),
    [
        ({}, {"ingress"}),
        ({"podSelector": {}}, {"ingress"}),
        ({"podSelector": None, "ingress": []}, {"ingress"}),
        ({"egress": []}, {"ingress"}),
        ({"egress": [{}]}, {"ingress", "egress"}),
        ({"policyTypes": ["Egress"]}, {"egress"}),
        ({"policyTypes": ["Ingress", "Egress"]}, {"ingress", "egress"}),
        ({"policyTypes": []}, set()),
    ],
)
def test_kubernetes_types(spec, types):
    assert one(KUBERNETES, spec).types == types


@pytest.mark.parametrize(
    ("rule", "peers", "ports"),
    [
        ({}, None, None),
        ({"from": [], "ports": []}, None, None),
        ({"from": None}, None, None),
        ({"from": [{"podSelector": {}}]}, (PodPeer(),), None),
        ({"ports": [{}]}, None, (PortMatch(6),)),
        ({"ports": [{"protocol": "UDP"}]}, None, (PortMatch(17),)),
        ({"ports": [{"port": 80}]}, None, (PortMatch(6, 80, 80),)),
        ({"ports": [{"port": 80, "endPort": 90, "protocol": "SCTP"}]}, None, (PortMatch(132, 80, 90),)),
        ({"ports": [{"port": 80, "endPort": 80}]}, None, (PortMatch(6, 80, 80),)),
        ({"ports": [{"port": "web"}]}, None, (PortMatch(6, name="web"),)),
        ({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]}, (Block(ip_network("10.0.0.0/8"), (ip_network("10.1.0.0/16"),)),), None),
        ({"from": [{"ipBlock": {"cidr": "10.0.0.1/8"}}]}, (Block(ip_network("10.0.0.0/8")),), None),
    ],
)  # fmt: skip
def test_kubernetes_rule(rule, peers, ports):
    policy = one(KUBERNETES, {"ingress": [rule]})
    assert (policy.ingress[0].peers, policy.ingress[0].ports, policy.ingress[0].action) == (peers, ports, Action.ALLOW)


@pytest.mark.parametrize(
    ("spec", "path", "what"),
    [
        ({"ingres": []}, "spec.ingres", "did you mean ingress"),
        ({"podSelector": []}, "spec.podSelector", "no mapping"),
        ({"podSelector": {"matchLabels": {"a": 1}}}, "spec.podSelector.matchLabels[a]", "quote it"),
        ({"podSelector": {"matchLabels": {"a": None}}}, "spec.podSelector.matchLabels[a]", "quote it"),
        ({"podSelector": {"matchExpressions": [{"key": "a", "operator": "in", "values": ["x"]}]}}, "spec.podSelector.matchExpressions[0].operator", "one of In"),
        ({"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}, "spec.podSelector.matchExpressions[0]", "needs values"),
        ({"podSelector": {"matchExpressions": [{"key": "a", "operator": "NotIn", "values": []}]}}, "spec.podSelector.matchExpressions[0].values", "needs values"),
        ({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["x"]}]}}, "spec.podSelector.matchExpressions[0].values", "takes no values"),
        ({"podSelector": {"matchExpressions": [{"operator": "Exists"}]}}, "spec.podSelector.matchExpressions[0]", "key is missing"),
        ({"policyTypes": ["ingress"]}, "spec.policyTypes[0]", "one of Ingress, Egress"),
        ({"ingress": {}}, "spec.ingress", "no list"),
        ({"ingress": [{"to": []}]}, "spec.ingress[0].to", "unknown field"),
        ({"ingress": [{"from": [{}]}]}, "spec.ingress[0].from[0]", "without a peer"),
        ({"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}]}]}, "spec.ingress[0].from[0]", "beside a selector"),
        ({"ingress": [{"from": [{"ipBlock": {}}]}]}, "spec.ingress[0].from[0].ipBlock", "cidr is missing"),
        ({"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0"}}]}]}, "spec.ingress[0].from[0].ipBlock.cidr", "no prefix"),
        ({"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/33"}}]}]}, "spec.ingress[0].from[0].ipBlock.cidr", "no prefix"),
        ({"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}]}]}, "spec.ingress[0].from[0].ipBlock.except[0]", "not inside"),
        ({"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}}]}]}, "spec.ingress[0].from[0].ipBlock.except[0]", "not inside"),
        ({"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["::/0"]}}]}]}, "spec.ingress[0].from[0].ipBlock.except[0]", "not inside"),
        ({"ingress": [{"ports": [{"protocol": "ICMP"}]}]}, "spec.ingress[0].ports[0].protocol", "not allowed"),
        ({"ingress": [{"ports": [{"protocol": "tcp"}]}]}, "spec.ingress[0].ports[0].protocol", "not allowed"),
        ({"ingress": [{"ports": [{"port": 0}]}]}, "spec.ingress[0].ports[0].port", "out of range"),
        ({"ingress": [{"ports": [{"port": 65536}]}]}, "spec.ingress[0].ports[0].port", "out of range"),
        ({"ingress": [{"ports": [{"port": True}]}]}, "spec.ingress[0].ports[0].port", "no whole number"),
        ({"ingress": [{"ports": [{"port": "80"}]}]}, "spec.ingress[0].ports[0].port", "no port name"),
        ({"ingress": [{"ports": [{"endPort": 80}]}]}, "spec.ingress[0].ports[0].endPort", "without port"),
        ({"ingress": [{"ports": [{"port": 80, "endPort": 79}]}]}, "spec.ingress[0].ports[0].endPort", "below port"),
        ({"ingress": [{"ports": [{"port": "web", "endPort": 80}]}]}, "spec.ingress[0].ports[0].endPort", "named port"),
    ],
)  # fmt: skip
def test_kubernetes_mistakes(spec, path, what):
    found = reading(KUBERNETES, spec)
    (problem,) = found.problems
    assert problem.path == path
    assert what in str(problem)
    assert str(problem).startswith(f"f.yaml#1: {path}: ")
    ((_, policy),) = found.objects
    assert isinstance(policy, KubernetesPolicy), "it stays, and denies"
    assert policy.refusal is not None


# -- ClusterNetworkPolicy ----------------------------------------------------
@pytest.mark.parametrize(
    ("spec", "path", "what"),
    [
        (cluster(tier="admin"), "spec.tier", "one of Admin"),
        (cluster(tier="NetworkPolicy"), "spec.tier", "one of Admin"),
        (cluster(priority=1001), "spec.priority", "0 to 1000"),
        (cluster(priority=-1), "spec.priority", "0 to 1000"),
        (cluster(priority="1"), "spec.priority", "no whole number"),
        (cluster(subject={}), "spec.subject", "exactly one"),
        (cluster(subject={"namespaces": {}, "pods": {}}), "spec.subject", "exactly one"),
        (cluster(subject={"nodes": {}}), "spec.subject.nodes", "unknown field"),
        (cluster(egress=[{"action": "Allow", "to": [{"namespaces": {}}]}]), "spec.egress[0].action", "one of Accept"),
        (cluster(egress=[{"action": "Deny"}]), "spec.egress[0]", "to is missing"),
        (cluster(egress=[{"action": "Deny", "to": []}]), "spec.egress[0].to", "no peers"),
        (cluster(egress=[{"action": "Deny", "to": [{"namespaces": {}}], "name": "n" * 101}]), "spec.egress[0].name", "too long"),
        (cluster(egress=[{"action": "Deny", "to": [{"namespaces": {}}]}] * 26), "spec.egress", "at most 25"),
        (deny_to({"namespaces": {}, "pods": {}}), "spec.egress[0].to[0]", "several fields"),
        (deny_to({"networks": []}), "spec.egress[0].to[0].networks", "empty list"),
        (deny_to({"networks": ["10.0.0.0/8"] * 26}), "spec.egress[0].to[0].networks", "at most 25"),
        (deny_to({"domainNames": ["example.org"]}), "spec.egress[0].to[0].domainNames", "outside an Accept"),
        (deny_to({"networks": ["10.0.0.0/8"]}, protocols=[{"destinationNamedPort": "web"}]), "spec.egress[0].protocols", "without named ports"),
        (deny_to({"namespaces": {}}, protocols=[]), "spec.egress[0].protocols", "empty list"),
        (deny_to({"namespaces": {}}, protocols=[{"tcp": {}, "udp": {}}]), "spec.egress[0].protocols[0]", "several fields"),
        (deny_to({"namespaces": {}}, protocols=[{"tcp": {"destinationPort": {}}}]), "spec.egress[0].protocols[0].tcp.destinationPort", "exactly one"),
        (deny_to({"namespaces": {}}, protocols=[{"tcp": {"destinationPort": {"range": {"start": 2, "end": 2}}}}]), "spec.egress[0].protocols[0].tcp.destinationPort.range", "not below"),
    ],
)  # fmt: skip
def test_cluster_mistakes_make_it_absent(spec, path, what):
    found = reading(CLUSTER, spec)
    (problem,) = found.problems
    assert (problem.path, what in str(problem)) == (path, True), str(problem)
    assert not found.objects


@pytest.mark.parametrize("peer", [{}, {"galaxies": {}}, {"pods": None}, {"galaxies": {}, "pods": {}}])
def test_cluster_unknown_peer(peer):
    policy = one(CLUSTER, deny_to(peer))
    assert isinstance(policy.egress[0].peers[0], UnknownPeer)


def test_cluster_egress_peer_is_unknown_on_ingress():
    policy = one(CLUSTER, cluster(ingress=[{"action": "Deny", "from": [{"networks": ["10.0.0.0/8"]}]}]))
    assert policy.ingress[0].peers == (UnknownPeer("networks"),)


@pytest.mark.parametrize("entry", [{}, {"quic": {}}, {"tcp": None}, {"quic": {}, "tcp": {}}])
def test_cluster_unknown_protocol(entry):
    assert one(CLUSTER, deny_to({"namespaces": {}}, protocols=[entry])).egress[0].unknown


# -- Calico ------------------------------------------------------------------
@pytest.mark.parametrize(
    ("spec", "types"),
    [
        ({}, {"ingress"}),
        ({"types": []}, {"ingress"}),
        ({"ingress": [{"action": "Allow"}]}, {"ingress"}),
        ({"egress": [{"action": "Allow"}]}, {"egress"}),
        ({"ingress": [{"action": "Allow"}], "egress": [{"action": "Allow"}]}, {"ingress", "egress"}),
        ({"types": ["Egress"], "ingress": [{"action": "Allow"}]}, {"egress"}),
    ],
)
def test_calico_types(spec, types):
    assert one(NAMESPACED, spec).types == types


def rule(**fields):
    return {"ingress": [{"action": "Allow", **fields}]}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"protocol": "TCP"}, 6), ({"protocol": "UDPLite"}, 136), ({"protocol": "ICMPv6"}, 58), ({"protocol": 47}, 47), ({"protocol": "47"}, 47),
    ],
)  # fmt: skip
def test_calico_protocol(fields, expected):
    assert one(NAMESPACED, rule(**fields)).ingress[0].protocol == expected


def test_calico_ports():
    policy = one(NAMESPACED, rule(protocol="TCP", destination={"ports": [80, "90:100", "web", "443", 0]}))
    assert policy.ingress[0].destination.ports == (
        CalicoPort(80, 80), CalicoPort(90, 100), CalicoPort(name="web"), CalicoPort(443, 443), CalicoPort(0, 0),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "spec", "what"),
    [
        (NAMESPACED, {"doNotTrack": True}, "unknown field"),
        (NAMESPACED, {"namespaceSelector": "all()"}, "unknown field"),
        (NAMESPACED, {"selector": "a ="}, "no selector"),
        (NAMESPACED, {"order": "1"}, "no number"),
        (NAMESPACED, {"types": ["ingress"]}, "one of Ingress"),
        (NAMESPACED, {"performanceHints": ["Fast"]}, "one of Assume"),
        (NAMESPACED, {"ingress": [{}]}, "action is missing"),
        (NAMESPACED, {"ingress": [{"action": "Accept"}]}, "one of Allow"),
        (NAMESPACED, {"ingress": [{"action": "Allow"}] * 1025}, "at most 1024"),
        (NAMESPACED, rule(ipVersion=5), "no IP version"),
        (NAMESPACED, rule(protocol="tcp"), "one of TCP"),
        (NAMESPACED, rule(protocol=0), "out of range"),
        (NAMESPACED, rule(protocol=256), "out of range"),
        (NAMESPACED, rule(destination={"ports": [80]}), "without protocol"),
        (NAMESPACED, rule(notProtocol="TCP", destination={"ports": [80]}), "without protocol"),
        (NAMESPACED, rule(protocol="ICMP", destination={"ports": [80]}), "without protocol"),
        (NAMESPACED, rule(protocol="TCP", destination={"ports": ["100:90"]}), "no port range"),
        (NAMESPACED, rule(protocol="TCP", destination={"ports": ["1:"]}), "no port range"),
        (NAMESPACED, rule(protocol="TCP", destination={"ports": ["999999"]}), "no port range"),
        (NAMESPACED, rule(protocol="TCP", destination={"ports": list(range(1, 52))}), "at most 50"),
        (NAMESPACED, rule(destination={"nets": ["10.0.0.0/40"]}), "no prefix"),
        (NAMESPACED, rule(destination={"nets": ["10.0.0.0/8"] * 257}), "at most 256"),
        (NAMESPACED, rule(icmp={"type": 8}), "without protocol ICMP"),
        (NAMESPACED, rule(protocol="ICMP", icmp={"code": 0}), "code without type"),
        (NAMESPACED, rule(protocol="ICMP", icmp={"type": 255}), "out of range"),
        (NAMESPACED, rule(protocol="ICMP", notICMP={"type": 8, "code": 256}), "out of range"),
        (NAMESPACED, rule(destination={"services": {"name": "s"}, "nets": ["10.0.0.0/8"]}), "beside another"),
        (NAMESPACED, rule(protocol="TCP", destination={"services": {"name": "s"}}), "beside another"),
        (NAMESPACED, rule(source={"services": {"name": "s"}, "selector": "all()"}), "beside another"),
        (NAMESPACED, rule(http={"methods": ["GET"], "verbs": []}), "unknown field"),
        (NAMESPACED, {"egress": [{"action": "Allow", "http": {}}]}, "outside an Allow rule of ingress"),
        (GLOBAL, {"doNotTrack": True}, "without applyOnForward"),
        (GLOBAL, {"preDNAT": True, "applyOnForward": True, "types": ["Egress"]}, "ingress only"),
        (GLOBAL, {"preDNAT": True, "doNotTrack": True, "applyOnForward": True}, "beside doNotTrack"),
        (GLOBAL, {"doNotTrack": "yes"}, "neither true nor false"),
    ],
)  # fmt: skip
def test_calico_mistakes(kind, spec, what):
    found = reading(kind, spec)
    (problem,) = found.problems
    assert what in str(problem)
    ((_, policy),) = found.objects
    assert isinstance(policy, CalicoPolicy)
    assert policy.refusal is not None


def test_calico_global_with_unreadable_selector_is_absent():
    found = reading(GLOBAL, {"selector": "=", "ingress": []})
    assert found.problems
    assert not found.objects


@pytest.mark.parametrize(
    ("kind", "spec", "scope"),
    [
        (NAMESPACED, rule(http={"methods": ["GET"]}), "all"),
        (GLOBAL, {"applyOnForward": True}, "hosts"),
        (GLOBAL, {"applyOnForward": True, "doNotTrack": True}, "hosts"),
        (GLOBAL, {"applyOnForward": True, "preDNAT": True}, "hosts"),
    ],
)
def test_calico_refusals(kind, spec, scope):
    policy = one(kind, spec)
    assert policy.refusal is not None
    assert policy.refusal.scope == scope
    assert policy.hosts_only == bool(spec.get("doNotTrack") or spec.get("preDNAT"))


# -- all kinds ---------------------------------------------------------------
@pytest.mark.parametrize(
    ("value", "what"),
    [
        ([], "no mapping"),
        ("text", "no mapping"),
        ({"kind": "NetworkPolicy"}, "apiVersion is missing"),
        ({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}, "not supported"),
        ({"apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": "AdminNetworkPolicy"}, "ClusterNetworkPolicy"),
        ({"apiVersion": "crd.projectcalico.org/v1", "kind": "NetworkPolicy"}, "projectcalico.org/v3"),
        (document(KUBERNETES, {}, name=""), "no name"),
        (document(KUBERNETES, {}, name="../../etc"), "no name"),
        (document(KUBERNETES, {}, name="a\x1b[2J"), "no name"),
        (document(CLUSTER, cluster(), namespace="x"), "cluster-wide"),
        ({"pods": [{"ns": "x"}]}, "name is missing"),
        ({"pods": [{"ns": "x", "name": "a", "ip": "10.0.0.300"}]}, "no address"),
    ],
)
def test_documents(value, what):
    found = Reading().document(value)
    assert len(found.problems) == 1
    assert what in str(found.problems[0])
    assert "\x1b" not in str(found.problems[0])


def test_inventory():
    snapshot = read("""
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: x, labels: {team: a}}}
- {apiVersion: v1, kind: ServiceAccount, metadata: {name: s, namespace: x, labels: {role: r}}}
- {apiVersion: v1, kind: Node, metadata: {name: n}, status: {addresses: [{type: InternalIP, address: 192.0.2.1}, {type: Hostname, address: n}]}}
- apiVersion: v1
  kind: Pod
  metadata: {name: a, namespace: x, labels: {app: web}}
  spec: {nodeName: n, serviceAccountName: s, containers: [{name: c, ports: [{name: web, containerPort: 80}, {containerPort: 81}]}]}
  status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]}
- {apiVersion: v1, kind: Pod, metadata: {name: done, namespace: x}, status: {phase: Succeeded, podIP: 10.0.0.1}}
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: svc-1, namespace: x, labels: {kubernetes.io/service-name: svc}}
  endpoints: [{addresses: [10.0.0.1]}]
  ports: [{port: 80}]
- {apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: h}, spec: {node: n, interfaceName: "*"}}
- {apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: default}, spec: {defaultAction: Pass}}
""")
    pod = snapshot.endpoints["x/a"]
    assert [str(address) for address in pod.addresses] == ["10.0.0.1", "fd00::1"]
    assert [(port.name, port.port) for port in pod.ports] == [("web", 80)]
    assert snapshot.endpoints["x/done"].addresses == ()
    assert [str(address) for address in snapshot.endpoints["h"].addresses] == ["192.0.2.1"]
    assert len(snapshot.services["x", "svc"].backends) == 1
    assert (snapshot.tiers["default"].order, snapshot.tiers["default"].default_action) == (1_000_000.0, Action.PASS)


def test_the_later_of_two_wins_and_is_reported():
    found = Reading().document(document(KUBERNETES, {})).document(document(KUBERNETES, {"policyTypes": ["Egress"]}))
    assert assemble(found).policies[0].types == {"egress"}
    assert "the same object" in str(found.problems[0])


def test_read_raises_the_first_mistake():
    with pytest.raises(PolicyError):
        read("apiVersion: v1\nkind: Nonsense\n")
