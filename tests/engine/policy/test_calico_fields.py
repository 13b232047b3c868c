"""Every field of a Calico rule, written, empty, missing, negated and against another: which connections it matches.

Each row is one rule of an ingress policy on x/web and what it lets in, as
sources times kinds of traffic. Both judges answer for all of them.
"""

from __future__ import annotations

from ipaddress import ip_address
from itertools import product

import pytest

from engine.desired.policy import golden
from engine.desired.policy.compiler import Compiler
from engine.desired.policy.model import Connection
from engine.desired.policy.reader import Reading, assemble

INVENTORY = """
namespaces: {x: {labels: {team: red}}, y: {labels: {team: blue}}}
pods:
- {ns: x, name: web, labels: {app: web}, ips: [10.0.0.1, "fd00::1"], account: front,
   ports: [{name: http, port: 8080}, {name: dns, proto: UDP, port: 53}]}
- {ns: x, name: db, labels: {app: db, tier: back}, ips: [10.0.0.2, "fd00::2"], account: store}
- {ns: y, name: api, labels: {app: api}, ip: 10.0.1.3, account: robot}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: robot, namespace: y, labels: {role: bot}}}
---
{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: partners, labels: {kind: partner}},
 spec: {nets: [203.0.113.0/24]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: s, namespace: x, labels: {kubernetes.io/service-name: svc}},
 ports: [{port: 8080}], endpoints: [{addresses: [10.0.0.1]}]}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: c, namespace: x, labels: {kubernetes.io/service-name: clients}},
 ports: [{port: 1}], endpoints: [{addresses: [10.0.0.2]}]}
"""
SOURCES = {
    "db": "10.0.0.2", "api": "10.0.1.3", "partner": "203.0.113.7", "stranger": "198.51.100.1", "db6": "fd00::2",
    "stranger6": "2001:db8::9",
}  # fmt: skip
KINDS = {  # protocol and destination port (ICMP: type and code) over IPv4, and over IPv6
    "http": ((6, 8080), (6, 8080)),
    "81": ((6, 81), (6, 81)),
    "dns": ((17, 53), (17, 53)),
    "ping": ((1, 8 << 8), (58, 128 << 8)),
    "unreachable": ((1, 3 << 8 | 1), (58, 1 << 8 | 1)),
    "gre": ((47, 0), (47, 0)),
}
ALL, FOUR, SIX, NONE = " ".join(SOURCES), "db api partner stranger", "db6 stranger6", ""
ANY, TCP = " ".join(KINDS), "http 81"

# what is tried -> the rule, sources, kinds
NAMESPACED = {
    "nothing": ({}, ALL, ANY),
    "empty sides": ({"source": {}, "destination": {}}, ALL, ANY),
    "annotations": ({"metadata": {"annotations": {"a": "b"}}}, ALL, ANY),
    # -- ipVersion
    "IPv4": ({"ipVersion": 4}, FOUR, ANY),
    "IPv6": ({"ipVersion": 6}, SIX, ANY),
    "IPv6 and only IPv4 nets": ({"ipVersion": 6, "source": {"nets": ["10.0.0.0/8"]}}, NONE, ANY),
    # -- protocol
    "protocol by name": ({"protocol": "TCP"}, ALL, TCP),
    "another protocol": ({"protocol": "UDP"}, ALL, "dns"),
    "protocol by number": ({"protocol": 47}, ALL, "gre"),
    "protocol by number as text": ({"protocol": "47"}, ALL, "gre"),
    "protocol nobody uses": ({"protocol": "UDPLite"}, ALL, NONE),
    "ICMP is of IPv4": ({"protocol": "ICMP"}, FOUR, "ping unreachable"),
    "ICMPv6 is of IPv6": ({"protocol": "ICMPv6"}, SIX, "ping unreachable"),
    "not a protocol": ({"notProtocol": "TCP"}, ALL, "dns ping unreachable gre"),
    "not a number": ({"notProtocol": 47}, ALL, "http 81 dns ping unreachable"),
    "protocol and not the same": ({"protocol": "TCP", "notProtocol": "TCP"}, NONE, ANY),
    "protocol and not another": ({"protocol": "UDP", "notProtocol": "TCP"}, ALL, "dns"),
    # -- icmp
    "ICMP type": ({"protocol": "ICMP", "icmp": {"type": 8}}, FOUR, "ping"),
    "ICMP type and code": ({"protocol": "ICMP", "icmp": {"type": 3, "code": 1}}, FOUR, "unreachable"),
    "ICMP another code": ({"protocol": "ICMP", "icmp": {"type": 8, "code": 1}}, NONE, ANY),
    "ICMPv6 type": ({"protocol": "ICMPv6", "icmp": {"type": 128, "code": 0}}, SIX, "ping"),
    "not an ICMP type": ({"protocol": "ICMP", "notICMP": {"type": 8}}, FOUR, "unreachable"),
    "not an ICMP code": ({"protocol": "ICMP", "notICMP": {"type": 3, "code": 0}}, FOUR, "ping unreachable"),
    "ICMP type without its only code": ({"protocol": "ICMP", "icmp": {"type": 3}, "notICMP": {"type": 3, "code": 1}}, NONE, ANY),
    "ICMP type and not itself": ({"protocol": "ICMP", "icmp": {"type": 8}, "notICMP": {"type": 8}}, NONE, ANY),
    # -- ports
    "port": ({"protocol": "TCP", "destination": {"ports": [8080]}}, ALL, "http"),
    "port as text": ({"protocol": "TCP", "destination": {"ports": ["81"]}}, ALL, "81"),
    "range of ports": ({"protocol": "TCP", "destination": {"ports": ["80:9000"]}}, ALL, TCP),
    "range of one port": ({"protocol": "TCP", "destination": {"ports": ["81:81"]}}, ALL, "81"),
    "several ports": ({"protocol": "TCP", "destination": {"ports": [1, 81, "8079:8081"]}}, ALL, TCP),
    "named port": ({"protocol": "TCP", "destination": {"ports": ["http"]}}, ALL, "http"),
    "named port of another protocol": ({"protocol": "TCP", "destination": {"ports": ["dns"]}}, NONE, ANY),
    "named port of UDP": ({"protocol": "UDP", "destination": {"ports": ["dns"]}}, ALL, "dns"),
    "named port that nobody has": ({"protocol": "TCP", "destination": {"ports": ["ftp"]}}, NONE, ANY),
    "a number or a name": ({"protocol": "TCP", "destination": {"ports": [81, "http"]}}, ALL, TCP),
    "no ports in the list": ({"protocol": "TCP", "destination": {"ports": []}}, ALL, TCP),
    "not a port": ({"protocol": "TCP", "destination": {"notPorts": [8080]}}, ALL, "81"),
    "not a named port": ({"protocol": "TCP", "destination": {"notPorts": ["http"]}}, ALL, "81"),
    "not a name that nobody has": ({"protocol": "TCP", "destination": {"notPorts": ["ftp"]}}, ALL, TCP),
    "neither number nor name": ({"protocol": "TCP", "destination": {"notPorts": [81, "http"]}}, NONE, ANY),
    "a port out of a range": ({"protocol": "TCP", "destination": {"ports": ["80:9000"], "notPorts": [81]}}, ALL, "http"),
    "a port and not the same": ({"protocol": "TCP", "destination": {"ports": [81], "notPorts": [81]}}, NONE, ANY),
    "source port": ({"protocol": "TCP", "source": {"ports": [49152]}}, ALL, TCP),
    "another source port": ({"protocol": "TCP", "source": {"ports": [1]}}, NONE, ANY),
    "not the source port": ({"protocol": "TCP", "source": {"notPorts": [49152]}}, NONE, ANY),
    "not another source port": ({"protocol": "TCP", "source": {"notPorts": ["1:100"]}}, ALL, TCP),
    # -- nets
    "nets of one family": ({"source": {"nets": ["10.0.0.0/8"]}}, "db api", ANY),
    "nets of both families": ({"source": {"nets": ["10.0.0.0/8", "fd00::/8"]}}, "db api db6", ANY),
    "a lone address": ({"source": {"nets": ["10.0.0.2"]}}, "db", ANY),
    "nets with host bits": ({"source": {"nets": ["10.0.0.77/24"]}}, "db", ANY),
    "no nets in the list": ({"source": {"nets": []}}, ALL, ANY),
    "everything of a family": ({"source": {"nets": ["0.0.0.0/0"]}}, FOUR, ANY),
    "not nets": ({"source": {"notNets": ["10.0.0.0/8"]}}, "partner stranger", ANY),
    "not nets of both families": ({"source": {"notNets": ["10.0.0.0/8", "fd00::/8"]}}, "partner stranger stranger6", ANY),
    "not everything": ({"source": {"notNets": ["0.0.0.0/0", "::/0"]}}, NONE, ANY),
    "nets and not a part": ({"source": {"nets": ["10.0.0.0/8"], "notNets": ["10.0.1.0/24"]}}, "db", ANY),
    "nets and not the same": ({"source": {"nets": ["10.0.0.0/8"], "notNets": ["10.0.0.0/8"]}}, NONE, ANY),
    "nets of one family, not nets of the other": ({"source": {"nets": ["10.0.0.0/8"], "notNets": ["fd00::/8"]}}, NONE, ANY),
    "nets of the destination": ({"destination": {"nets": ["10.0.0.1/32"]}}, FOUR, ANY),
    "not the destination": ({"destination": {"notNets": ["10.0.0.1/32", "2001::/16"]}}, SIX, ANY),
    # -- selectors, in a policy of namespace x
    "all() is who is known here": ({"source": {"selector": "all()"}}, "db db6", ANY),
    "an empty selector is none": ({"source": {"selector": ""}}, ALL, ANY),
    "blanks are an empty selector": ({"source": {"selector": " \t"}}, ALL, ANY),
    "a label": ({"source": {"selector": "app == 'db'"}}, "db db6", ANY),
    "a label of another namespace": ({"source": {"selector": "app == 'api'"}}, NONE, ANY),
    "a label that nobody has": ({"source": {"selector": "has(colour)"}}, NONE, ANY),
    "without a label": ({"source": {"selector": "!has(colour)"}}, "db db6", ANY),
    "not equal": ({"source": {"selector": "app != 'web'"}}, "db db6", ANY),
    "in a set": ({"source": {"selector": "app in {'db', 'api'}"}}, "db db6", ANY),
    "in no set": ({"source": {"selector": "app in {}"}}, NONE, ANY),
    "not in a set": ({"source": {"selector": "app not in {'db'}"}}, NONE, ANY),
    "contains": ({"source": {"selector": "app contains 'd'"}}, "db db6", ANY),
    "starts with": ({"source": {"selector": "tier starts with 'ba'"}}, "db db6", ANY),
    "ends with": ({"source": {"selector": "tier ends with 'ba'"}}, NONE, ANY),
    "a lent label": ({"source": {"selector": "pcns.team == 'red' && pcsa.projectcalico.org/name == 'store'"}}, "db db6", ANY),
    "selector and nets": ({"source": {"selector": "app == 'db'", "nets": ["10.0.0.0/8"]}}, "db", ANY),
    "selector and other nets": ({"source": {"selector": "app == 'db'", "nets": ["10.0.1.0/24"]}}, NONE, ANY),
    "selector and not its nets": ({"source": {"selector": "app == 'db'", "notNets": ["10.0.0.0/8", "2001::/16"]}}, "db6", ANY),
    "not a selector, here": ({"source": {"notSelector": "app == 'web'"}}, "db db6", ANY),
    "not the only one here": ({"source": {"notSelector": "app == 'db'"}}, NONE, ANY),
    "a selector and not the same": ({"source": {"selector": "app == 'db'", "notSelector": "app == 'db'"}}, NONE, ANY),
    "a selector and not another": ({"source": {"selector": "all()", "notSelector": "has(colour)"}}, "db db6", ANY),
    "selector of the destination": ({"destination": {"selector": "app == 'web'"}}, ALL, ANY),
    "another destination": ({"destination": {"selector": "app == 'db'"}}, NONE, ANY),
    "both sides": ({"source": {"selector": "has(tier)"}, "destination": {"selector": "!has(tier)"}}, "db db6", ANY),
    # -- namespaceSelector
    "all namespaces": ({"source": {"namespaceSelector": "all()"}}, "db db6 api", ANY),
    "no namespace": ({"source": {"namespaceSelector": "global()"}}, "partner", ANY),
    "a namespace by name": ({"source": {"namespaceSelector": "projectcalico.org/name == 'y'"}}, "api", ANY),
    "a namespace by label": ({"source": {"namespaceSelector": "team == 'blue'"}}, "api", ANY),
    "not a namespace": ({"source": {"namespaceSelector": "team != 'blue'"}}, "db db6 partner", ANY),
    "a namespace or none": ({"source": {"namespaceSelector": "global() || team == 'blue'"}}, "api partner", ANY),
    "namespace and selector": ({"source": {"namespaceSelector": "all()", "selector": "app == 'api'"}}, "api", ANY),
    "namespace and not a selector": ({"source": {"namespaceSelector": "all()", "notSelector": "app == 'api'"}}, "db db6", ANY),
    "an empty one is none": ({"source": {"namespaceSelector": "", "selector": "all()"}}, "db db6", ANY),
    # -- serviceAccounts
    "account by name": ({"source": {"serviceAccounts": {"names": ["store"]}}}, "db db6", ANY),
    "account of another namespace": ({"source": {"serviceAccounts": {"names": ["robot"]}}}, NONE, ANY),
    "account by name, anywhere": ({"source": {"serviceAccounts": {"names": ["robot", "x"]}, "namespaceSelector": "all()"}}, "api", ANY),
    "account by label, anywhere": ({"source": {"serviceAccounts": {"selector": "role == 'bot'"}, "namespaceSelector": "all()"}}, "api", ANY),
    "account by both": ({"source": {"serviceAccounts": {"names": ["store"], "selector": "role == 'bot'"}, "namespaceSelector": "all()"}}, NONE, ANY),
    "no account in the list": ({"source": {"serviceAccounts": {"names": []}}}, ALL, ANY),
    "account and selector": ({"source": {"serviceAccounts": {"names": ["store"]}, "selector": "app == 'web'"}}, NONE, ANY),
    # -- services
    "destination Service": ({"destination": {"services": {"name": "svc"}}}, FOUR, "http"),
    "destination Service by namespace": ({"destination": {"services": {"name": "svc", "namespace": "x"}}}, FOUR, "http"),
    "Service of another namespace": ({"destination": {"services": {"name": "svc", "namespace": "y"}}}, NONE, ANY),
    "Service that is not there": ({"destination": {"services": {"name": "none"}}}, NONE, ANY),
    "source Service": ({"source": {"services": {"name": "clients"}}}, "db", ANY),
    "source Service and ports": ({"protocol": "TCP", "source": {"services": {"name": "clients"}, "ports": [49152]}}, "db", TCP),
}  # fmt: skip
GLOBAL = {
    "nothing": ({}, ALL, ANY),
    "all() is who is known anywhere": ({"source": {"selector": "all()"}}, "db db6 api partner", ANY),
    "a label": ({"source": {"selector": "app == 'api'"}}, "api", ANY),
    "a label of a set": ({"source": {"selector": "kind == 'partner'"}}, "partner", ANY),
    "without a label": ({"source": {"selector": "!has(app)"}}, "partner", ANY),
    "not a selector is everybody else": ({"source": {"notSelector": "app == 'db'"}}, "api partner stranger stranger6", ANY),
    "not all() is who is unknown": ({"source": {"notSelector": "all()"}}, "stranger stranger6", ANY),
    "not a selector, in namespaces": ({"source": {"namespaceSelector": "all()", "notSelector": "app == 'db'"}}, "api", ANY),
    "no namespace": ({"source": {"namespaceSelector": "global()"}}, "partner", ANY),
    "account by name": ({"source": {"serviceAccounts": {"names": ["robot"]}}}, "api", ANY),
    "account by label": ({"source": {"serviceAccounts": {"selector": "role == 'bot'"}}}, "api", ANY),
    "Service needs its namespace": ({"destination": {"services": {"name": "svc"}}}, NONE, ANY),
    "Service": ({"destination": {"services": {"name": "svc", "namespace": "x"}}}, FOUR, "http"),
    "selector, net and port": ({"protocol": "TCP", "source": {"selector": "has(app)", "notNets": ["10.0.0.0/24"]}, "destination": {"ports": ["http"]}}, "api", "http"),
}  # fmt: skip


def connections():
    for (source, address), (kind, values) in product(SOURCES.items(), KINDS.items()):
        found = ip_address(address)
        (protocol, port), destination = values[found.version == 6], "10.0.0.1" if found.version == 4 else "fd00::1"
        ephemeral = 49_152 if protocol in (6, 17) else 0
        yield (source, kind), Connection(found, ip_address(destination), protocol, port, ephemeral)


def let_in(kind, metadata, rule):
    """What each judge lets into x/web."""
    reading = Reading().text(INVENTORY)
    spec = {"selector": "app == 'web'", "types": ["Ingress"], "ingress": [{"action": "Allow", **rule}]}
    reading.document({"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata, "spec": spec})
    snapshot = assemble(reading.raise_first())
    program = Compiler().compile(snapshot)
    slow = {name for name, c in connections() if golden.judge_direction(snapshot, c, "ingress").allowed}
    compiled = {name for name, c in connections() if program.judge_direction(c, "ingress").allowed}
    return slow, compiled


@pytest.mark.parametrize("tried", NAMESPACED)
def test_field_of_a_namespaced_rule(tried):
    rule, sources, kinds = NAMESPACED[tried]
    expected = set(product(sources.split(), kinds.split()))
    assert let_in("NetworkPolicy", {"name": "p", "namespace": "x"}, rule) == (expected, expected)


@pytest.mark.parametrize("tried", GLOBAL)
def test_field_of_a_global_rule(tried):
    rule, sources, kinds = GLOBAL[tried]
    expected = set(product(sources.split(), kinds.split()))
    assert let_in("GlobalNetworkPolicy", {"name": "p"}, rule) == (expected, expected)


def test_every_field_is_tried():
    from engine.desired.policy.calico import _ENTITY_FIELDS, _RULE_FIELDS

    rules = [rule for rule, _, _ in (*NAMESPACED.values(), *GLOBAL.values())]
    assert {key for rule in rules for key in rule} == {*_RULE_FIELDS} - {"action", "http"}
    sides = [rule.get(side, {}) for rule in rules for side in ("source", "destination")]
    assert {key for side in sides for key in side} == set(_ENTITY_FIELDS)
