"""Documents and the facts of one node: whose word counts for what."""

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

from engine.desired.policy.local import Locality, names_of
from engine.desired.policy.reader import read
from engine.model import Facts, Identity, NamedPort, Node, Peer, Pod

NODE = Node("n", (ip_interface("192.0.2.1/24"),), (ip_network("10.0.0.0/24"),))
WEB = Pod("shop/web", "/run/netns/web", (ip_address("10.0.0.5"),))
FACTS = Facts(NODE, pods=(WEB,), peers=(Peer("m", (ip_address("192.0.2.2"),), ()),))
OWN = (ip_address("192.0.2.1"),)


def test_names_of_a_pod():
    assert names_of(WEB) == ("shop", "web")
    assert names_of(replace(WEB, name="web")) == ("default", "web")
    assert names_of(replace(WEB, name="cni-1234", identity=Identity("shop", "db"))) == ("shop", "db")


def test_a_pod_without_a_document():
    identity = Identity(labels=(("app", "web"),), ports=(NamedPort("http", 6, 80),), service_account="sa")
    found = Locality().snapshot(read(), replace(FACTS, pods=(replace(WEB, identity=identity),)), OWN)
    web = found.endpoints["shop/web"]
    assert (web.labels, web.service_account, web.node) == ({"app": "web"}, "sa", "n")
    assert web.ports == identity.ports
    assert web.addresses == WEB.addresses


def test_documents_add_to_a_pod_and_take_nothing_away():
    documents = read(
        "pods: [{ns: shop, name: web, labels: {app: old, role: front}, ip: 10.9.9.9, node: elsewhere, account: sa,"
        " ports: [{name: http, port: 81}]}, {ns: shop, name: far, ip: 10.0.1.1}]"
    )
    identity = Identity(labels=(("app", "web"),), ports=(NamedPort("http", 6, 80),))
    found = Locality().snapshot(documents, replace(FACTS, pods=(replace(WEB, identity=identity),)), OWN)
    web = found.endpoints["shop/web"]
    assert web.labels == {"app": "web", "role": "front"}
    assert web.addresses == WEB.addresses, "nobody but the node knows where its pod is"
    assert (web.node, web.service_account) == ("n", "sa")
    assert {port.port for port in web.ports} == {80, 81}
    assert found.endpoints["shop/far"] is documents.endpoints["shop/far"]


def test_addresses_that_mean_a_node():
    documents = read("nodes: {n: {labels: {zone: a}, addresses: [203.0.113.1]}}")
    found = Locality().snapshot(documents, FACTS, OWN)
    assert found.nodes["n"].labels == {"zone": "a"}
    assert set(map(str, found.nodes["n"].addresses)) >= {"203.0.113.1", "192.0.2.1", "10.0.0.1"}
    assert found.nodes["m"].addresses == (ip_address("192.0.2.2"),)


def test_what_did_not_change_stays_the_same_object():
    locality, documents = Locality(), read("pods: [{ns: shop, name: far, ip: 10.0.1.1}]")
    before = locality.snapshot(documents, FACTS, OWN)
    after = locality.snapshot(documents, replace(FACTS, pods=(WEB, replace(WEB, name="db"))), OWN)
    assert after.endpoints["shop/web"] is before.endpoints["shop/web"]
    assert after.policies is before.policies


def test_a_host_endpoint_without_addresses_has_those_of_its_node():
    documents = read(
        "{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: h},"
        ' spec: {node: n, interfaceName: "*"}}'
    )
    found = Locality().snapshot(documents, FACTS, OWN)
    assert found.endpoints["h"].addresses == found.nodes["n"].addresses
    assert OWN[0] in found.endpoints["h"].addresses
