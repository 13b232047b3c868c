"""Corner rules of the three languages, as small clusters with expected verdicts, judged both ways.

Each case: documents, then lines `source destination service verdict [why]`,
where verdict is "allow", or the directions that deny.
"""

from __future__ import annotations

import pytest

from engine.desired.policy import golden
from engine.desired.policy.compiler import Compiler
from engine.desired.policy.model import Action, Connection, Stance
from engine.desired.policy.reader import Reading, assemble
from engine.policy import Policies, parse_service

CLUSTER = """
namespaces: {x: {labels: {team: red}}, y: {labels: {team: blue}}}
nodes: {n1: {labels: {zone: a}, addresses: [192.0.2.1, "2001:db8::1"]}, n2: {addresses: [192.0.2.2]}}
pods:
- {ns: x, name: a, labels: {app: web}, ips: [10.0.0.1, "fd00::1"], ports: [{name: http, port: 80}], node: n1, account: sa}
- {ns: x, name: b, labels: {app: db}, ips: [10.0.0.2, "fd00::2"], ports: [{name: http, port: 8080}], node: n2}
- {ns: y, name: c, labels: {app: web}, ips: [10.0.0.3, "fd00::3"], ports: [{name: http, proto: UDP, port: 80}], node: n2, account: sb}
- {ns: y, name: h, labels: {app: web}, ip: 192.0.2.2, node: n2, hostNetwork: true}
"""


def kubernetes(spec, name="p", namespace="x"):
    return f"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}"


def cluster(spec, name="c"):
    return f"apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {{name: {name}}}\nspec: {spec}"


def calico(spec, name="g", kind="GlobalNetworkPolicy", namespace="", labels="{}"):
    place = f", namespace: {namespace}" if namespace else ""
    return f"apiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{name: {name}{place}, labels: {labels}}}\nspec: {spec}"


SETS = calico('{nets: [203.0.113.0/24, "2001:db8:1::/48"]}', "s", "GlobalNetworkSet", labels="{net: partner}")
OPEN_LAST = calico(
    "{order: 9000, selector: all(), types: [Ingress, Egress], ingress: [{action: Allow}], egress: [{action: Allow}]}",
    "zz",
)

CASES = {
    "nobody is isolated without policies": ([], ["y/c x/a tcp/80 allow", "203.0.113.7 x/a tcp/1 allow", "x/a 203.0.113.7 47 allow"]),
    "isolation never cuts a pod from itself": (
        [kubernetes("{policyTypes: [Ingress, Egress]}")],
        ["x/a x/a tcp/80 allow", "10.0.0.1 fd00::1 tcp/80 skip", "x/a x/b tcp/80 egress,ingress", "x/b x/b icmp allow"],
    ),
    "a node always reaches its own pods, and no others": (
        [kubernetes("{policyTypes: [Ingress, Egress]}")],
        ["192.0.2.1 x/a tcp/80 allow", "192.0.2.2 x/a tcp/80 ingress", "192.0.2.2 x/b tcp/80 allow", "2001:db8::1 x/a tcp/80 allow"],
    ),
    "Kubernetes policies never close the way to the own node": (
        [kubernetes("{policyTypes: [Egress]}")],
        ["x/a 192.0.2.1 tcp/10250 allow", "x/a 192.0.2.2 tcp/10250 egress"],
    ),
    "a host-networked pod is its node's address": (
        [kubernetes("{ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}]}]}")],
        ["y/c x/a tcp/80 allow", "y/h x/a tcp/80 ingress", "y/h x/b tcp/80 allow"],
    ),
    "an ipBlock admits a host-networked pod": (
        [kubernetes("{ingress: [{from: [{ipBlock: {cidr: 192.0.2.2/32}}]}]}")],
        ["y/h x/a tcp/80 allow", "y/c x/a tcp/80 ingress"],
    ),
    "host-networked pods are no subjects": ([kubernetes("{policyTypes: [Ingress, Egress]}", namespace="y")], ["x/a y/h tcp/80 allow", "y/h x/a tcp/80 allow", "x/a y/c tcp/80 ingress"]),
    "a named port is each destination's own": (
        [kubernetes("{ingress: [{ports: [{port: http}]}]}")],
        ["y/c x/a tcp/80 allow", "y/c x/a tcp/8080 ingress", "y/c x/b tcp/8080 allow", "y/c x/b tcp/80 ingress"],
    ),
    "a named port agrees in protocol too": (
        [kubernetes("{policyTypes: [Egress], egress: [{ports: [{port: http}]}]}")],
        ["x/a x/b tcp/8080 allow", "x/a y/c tcp/80 egress", "x/a y/c udp/80 egress", "x/a 203.0.113.1 tcp/80 egress"],
    ),
    "a rule without ports admits every protocol, one with ports no other": (
        [kubernetes("{podSelector: {matchLabels: {app: web}}, ingress: [{}]}"), kubernetes("{podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{}]}]}", "q")],
        ["y/c x/a icmp allow", "y/c x/a 47 allow", "y/c x/b icmp ingress", "y/c x/b tcp/0 allow", "y/c x/b udp/1 ingress"],
    ),
    "endPort is inclusive": (
        [kubernetes("{ingress: [{ports: [{port: 80, endPort: 90}]}]}")],
        ["y/c x/a tcp/79 ingress", "y/c x/a tcp/80 allow", "y/c x/a tcp/90 allow", "y/c x/a tcp/91 ingress"],
    ),
    "except narrows its own item only": (
        [kubernetes("{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.3/32]}}]}, {ports: [{port: 81}], from: [{ipBlock: {cidr: 10.0.0.3/32}}]}]}")],
        ["x/b x/a tcp/80 allow", "y/c x/a tcp/80 ingress", "y/c x/a tcp/81 allow", "fd00::3 x/a tcp/80 ingress"],
    ),
    "selectors choose known pods only": ([kubernetes("{ingress: [{from: [{namespaceSelector: {}}]}]}")], ["y/c x/a tcp/80 allow", "10.9.9.9 x/a tcp/80 ingress"]),
    "NotIn matches where the key is absent": (
        [kubernetes("{ingress: [{from: [{namespaceSelector: {}, podSelector: {matchExpressions: [{key: none, operator: NotIn, values: [v]}]}}]}]}")],
        ["y/c x/a tcp/80 allow", "203.0.113.1 x/a tcp/80 ingress"],
    ),
    "Admin, then NetworkPolicy, then Baseline": (
        [
            cluster("{tier: Admin, priority: 5, subject: {namespaces: {}}, ingress: [{action: Pass, from: [{namespaces: {matchLabels: {team: blue}}}]}, {action: Deny, from: [{namespaces: {}}]}]}"),
            cluster("{tier: Baseline, priority: 5, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}", "base"),
            kubernetes("{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{namespaceSelector: {}}]}]}"),
        ],
        ["y/c x/a tcp/80 allow rule", "y/c x/b tcp/80 ingress rule", "x/b x/a tcp/80 ingress rule", "203.0.113.1 x/b tcp/80 allow default", "203.0.113.1 x/a tcp/80 ingress end-of-tier"],
    ),
    "equal priorities are judged by name": (
        [
            cluster("{tier: Admin, priority: 5, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}", "b"),
            cluster("{tier: Admin, priority: 5, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{namespaces: {}}]}]}", "a"),
        ],
        ["y/c x/a tcp/80 allow"],
    ),
    "egress Accept does not excuse ingress": (
        [cluster("{tier: Admin, priority: 5, subject: {namespaces: {}}, egress: [{action: Accept, to: [{namespaces: {}}]}]}"), kubernetes("{}")],
        ["y/c x/a tcp/80 ingress"],
    ),
    "unknown peers fail closed": (
        [cluster("{tier: Admin, priority: 5, subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: db}}}}, egress: [{action: Accept, to: [{galaxies: {}}]}, {action: Accept, to: [{networks: [10.0.0.1/32]}]}, {action: Pass, to: [{galaxies: {}}]}, {action: Accept, to: [{networks: [0.0.0.0/0]}]}]}")],
        ["x/b x/a tcp/80 allow", "x/b y/c tcp/80 egress rule"],
    ),
    "networks include pods and ICMP": (
        [cluster("{tier: Admin, priority: 5, subject: {namespaces: {}}, egress: [{action: Deny, to: [{networks: [10.0.0.0/8]}]}]}")],
        ["x/a x/b icmp egress", "x/a x/b tcp/80 egress", "fd00::1 x/b icmpv6 skip", "fd00::1 fd00::2 tcp/80 allow"],
    ),
    "nodes are chosen by label": (
        [cluster("{tier: Admin, priority: 5, subject: {namespaces: {}}, egress: [{action: Deny, to: [{nodes: {matchLabels: {zone: a}}}]}]}")],
        ["x/a 192.0.2.1 tcp/80 egress", "x/a 192.0.2.2 tcp/80 allow"],
    ),
    "a destination port name of any protocol": (
        [cluster("{tier: Admin, priority: 5, subject: {namespaces: {}}, egress: [{action: Deny, to: [{namespaces: {}}], protocols: [{destinationNamedPort: http}]}]}")],
        ["x/a x/b tcp/8080 egress", "x/a y/c udp/80 egress", "x/a y/c tcp/80 allow", "y/c x/a tcp/80 egress"],
    ),
    "a Calico tier denies at its end": ([calico("{selector: \"app == 'web'\", types: [Ingress]}")], ["x/b x/a tcp/80 ingress end-of-tier", "x/a x/b tcp/80 allow default"]),
    "a tier that passes at its end": (
        [calico("{order: 1, defaultAction: Pass}", "t", "Tier"), calico("{tier: t, selector: all(), types: [Ingress], ingress: [{action: Deny, source: {nets: [10.0.0.3/32]}}]}", "t.g")],
        ["y/c x/a tcp/80 ingress", "x/b x/a tcp/80 allow default"],
    ),
    "Pass leaves the tier at once": (
        [
            calico("{order: 1, selector: all(), types: [Ingress], ingress: [{action: Pass, source: {nets: [10.0.0.3/32]}}]}", "first"),
            calico("{order: 2, selector: all(), types: [Ingress], ingress: [{action: Deny}]}", "second"),
        ],
        ["y/c x/a tcp/80 allow default", "x/b x/a tcp/80 ingress rule"],
    ),
    "Log goes on to the next rule": ([calico("{selector: all(), ingress: [{action: Log}, {action: Allow}]}")], ["x/b x/a tcp/80 allow rule"]),
    "Calico before 1000 comes before Kubernetes": (
        [calico("{order: 999, selector: all(), types: [Ingress], ingress: [{action: Deny, source: {nets: [10.0.0.3/32]}}]}"), kubernetes("{ingress: [{}]}")],
        ["y/c x/a tcp/80 ingress rule", "x/b x/a tcp/80 allow rule", "x/a y/c tcp/80 ingress end-of-tier"],
    ),
    "staged policies decide nothing": ([calico("{selector: all(), types: [Ingress]}", kind="StagedGlobalNetworkPolicy")], ["x/b x/a tcp/80 allow default"]),
    "notSelector is every address but those": (
        [OPEN_LAST, calico("{order: 1, selector: all(), types: [Ingress], ingress: [{action: Deny, source: {notSelector: \"app == 'web'\"}}]}")],
        ["y/c x/a tcp/80 allow", "x/b x/a tcp/80 ingress", "203.0.113.1 x/a tcp/80 ingress"],
    ),
    "a negated selector is known endpoints only": (
        [OPEN_LAST, calico("{order: 1, selector: all(), types: [Ingress], ingress: [{action: Deny, source: {selector: \"!(app == 'web')\"}}]}")],
        ["y/c x/a tcp/80 allow", "x/b x/a tcp/80 ingress", "198.51.100.1 x/a tcp/80 allow"],
    ),
    "all() is not every packet": ([calico("{selector: all(), types: [Ingress], ingress: [{action: Allow, source: {selector: all()}}]}")], ["y/c x/a tcp/80 allow", "203.0.113.1 x/a tcp/80 ingress"]),
    "network sets are known": (
        [SETS, calico("{selector: all(), types: [Ingress], ingress: [{action: Allow, source: {selector: \"net == 'partner'\"}}]}")],
        ["203.0.113.1 x/a tcp/80 allow", "204.0.113.1 x/a tcp/80 ingress", "2001:db8:1::9 x/a tcp/80 allow"],
    ),
    "a namespaced policy sees its own namespace": (
        [calico("{types: [Ingress], ingress: [{action: Allow, source: {selector: all()}}]}", kind="NetworkPolicy", namespace="x")],
        ["x/b x/a tcp/80 allow", "y/c x/a tcp/80 ingress", "x/a y/c tcp/80 allow default"],
    ),
    "namespaceSelector widens it": (
        [calico("{types: [Ingress], ingress: [{action: Allow, source: {namespaceSelector: \"team == 'blue'\"}}]}", kind="NetworkPolicy", namespace="x")],
        ["y/c x/a tcp/80 allow", "x/b x/a tcp/80 ingress"],
    ),
    "namespaces by name, and global()": (
        [SETS, calico("{selector: all(), types: [Ingress], ingress: [{action: Allow, source: {namespaceSelector: \"projectcalico.org/name == 'y'\"}}, {action: Allow, source: {namespaceSelector: global()}}]}")],
        ["y/c x/a tcp/80 allow", "x/b x/a tcp/80 ingress", "203.0.113.1 x/a tcp/80 allow", "204.0.113.1 x/a tcp/80 ingress"],
    ),
    "namespaceSelector all() is no global thing": (
        [SETS, calico("{selector: all(), types: [Ingress], ingress: [{action: Allow, source: {namespaceSelector: all()}}]}")],
        ["y/c x/a tcp/80 allow", "203.0.113.1 x/a tcp/80 ingress"],
    ),
    "a pod cannot claim a namespace by a label": (
        ["pods: [{ns: y, name: evil, labels: {projectcalico.org/namespace: x, pcns.team: red}, ip: 10.0.0.9}]", calico("{types: [Ingress], ingress: [{action: Allow, source: {selector: all()}}, {action: Allow, source: {namespaceSelector: \"team == 'red'\"}}]}", kind="NetworkPolicy", namespace="x")],
        ["y/evil x/a tcp/80 ingress", "x/b x/a tcp/80 allow"],
    ),
    "service accounts": (
        ["apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: sb, namespace: y, labels: {trust: high}}", calico("{selector: all(), types: [Ingress], ingress: [{action: Allow, source: {serviceAccounts: {names: [sa]}}}, {action: Allow, source: {serviceAccounts: {selector: \"trust == 'high'\"}}}]}")],
        ["x/a x/b tcp/80 allow", "y/c x/b tcp/80 allow", "x/b x/a tcp/80 ingress"],
    ),
    "a family without an entry has no rule": (
        [calico("{selector: all(), types: [Ingress], ingress: [{action: Allow, source: {notNets: [10.0.0.3/32]}}]}")],
        ["x/b x/a tcp/80 allow", "y/c x/a tcp/80 ingress", "fd00::2 fd00::1 tcp/80 ingress"],
    ),
    "notNets of everything matches nothing": ([calico("{selector: all(), types: [Ingress], ingress: [{action: Allow, source: {notNets: [0.0.0.0/0]}}]}")], ["x/b x/a tcp/80 ingress"]),
    "ipVersion": ([calico("{selector: all(), types: [Ingress], ingress: [{action: Allow, ipVersion: 6}]}")], ["x/b x/a tcp/80 ingress", "fd00::2 fd00::1 tcp/80 allow"]),
    "protocols and their negation": (
        [calico("{selector: all(), types: [Ingress], ingress: [{action: Allow, notProtocol: TCP}]}")],
        ["x/b x/a tcp/80 ingress", "x/b x/a udp/80 allow", "x/b x/a icmp allow", "x/b x/a 0 allow", "x/b x/a 255 allow"],
    ),
    "ICMP type and code": (
        [calico("{selector: all(), types: [Ingress], ingress: [{action: Allow, protocol: ICMP, icmp: {type: 8}, notICMP: {type: 8, code: 1}}]}")],
        ["x/b x/a icmp/8/0 allow", "x/b x/a icmp/8/1 ingress", "x/b x/a icmp/0/0 ingress", "x/b x/a tcp/2048 ingress"],
    ),
    "ports: numbers, ranges and names together": (
        [calico("{selector: all(), types: [Ingress], ingress: [{action: Allow, protocol: TCP, destination: {ports: [http, '90:92', 99]}}]}")],
        ["y/c x/a tcp/80 allow", "y/c x/b tcp/80 ingress", "y/c x/b tcp/8080 allow", "y/c x/a tcp/91 allow", "y/c x/a tcp/99 allow", "y/c x/a udp/91 ingress"],
    ),
    "notPorts: neither number nor name": (
        [calico("{selector: all(), types: [Ingress], ingress: [{action: Allow, protocol: TCP, destination: {notPorts: [http, '90:92']}}]}")],
        ["y/c x/a tcp/80 ingress", "y/c x/b tcp/80 allow", "y/c x/b tcp/8080 ingress", "y/c x/a tcp/8080 allow", "y/c x/a tcp/91 ingress"],
    ),
    "a Service's endpoints with their ports": (
        [
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s1, namespace: x, labels: {kubernetes.io/service-name: s}}\nendpoints: [{addresses: [10.0.0.2]}]\nports: [{port: 8080}]",
            calico("{types: [Egress], egress: [{action: Allow, destination: {services: {name: s}}}]}", kind="NetworkPolicy", namespace="x"),
        ],
        ["x/a x/b tcp/8080 allow", "x/a x/b tcp/80 egress", "x/a y/c tcp/8080 egress"],
    ),
    "http is refused and denies": (
        [calico("{selector: \"app == 'web'\", types: [Ingress], ingress: [{action: Allow}, {action: Allow, http: {methods: [GET]}}]}")],
        ["x/b x/a tcp/80 ingress refused", "x/a x/b tcp/80 allow", "x/a x/b tcp/80 allow"],
    ),
    "a policy with a mistake denies what it claims": (
        [kubernetes("{policyTypes: [Ingress], podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 0}]}]}")],
        ["y/c x/a tcp/80 ingress refused", "x/a y/c tcp/80 allow", "y/c x/b tcp/80 allow"],
    ),
    "host endpoints: failsafes, then policy, then nothing": (
        [
            calico("{node: n1, expectedIPs: [192.0.2.1]}", "h1", "HostEndpoint", labels="{host: one}"),
            calico("{selector: has(host), types: [Ingress], ingress: [{action: Allow, protocol: TCP, destination: {ports: [9100]}}]}"),
        ],
        ["y/c 192.0.2.1 tcp/22 allow failsafe", "y/c 192.0.2.1 tcp/9100 allow rule", "y/c 192.0.2.1 tcp/80 ingress end-of-tier", "192.0.2.1 y/c tcp/80 egress default", "192.0.2.1 203.0.113.9 udp/53 allow", "192.0.2.1 x/a tcp/80 egress"],
    ),
    "a host endpoint's profile": (
        [calico("{node: n1, expectedIPs: [192.0.2.1], profiles: [pr]}", "h1", "HostEndpoint"), calico("{egress: [{action: Deny, protocol: UDP}, {action: Allow}]}", "pr", "Profile")],
        ["192.0.2.1 y/c tcp/80 allow profile", "192.0.2.1 y/c udp/80 egress profile", "y/c 192.0.2.1 tcp/80 ingress default"],
    ),
    "untracked policy never applies to pods and closes hosts": (
        [
            calico("{node: n1, expectedIPs: [192.0.2.1], profiles: [pr]}", "h1", "HostEndpoint"), calico("{ingress: [{action: Allow}]}", "pr", "Profile"),
            calico("{selector: all(), types: [Ingress], doNotTrack: true, applyOnForward: true, ingress: [{action: Allow}]}"),
        ],
        ["y/c x/a tcp/80 allow default", "y/c 192.0.2.1 tcp/80 ingress refused"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_case(name):
    documents, lines = CASES[name]
    reading = Reading().text("\n---\n".join([CLUSTER, *documents]))
    snapshot = assemble(reading)
    program = Compiler().compile(snapshot)
    policies = Policies(snapshot)
    seen = 0
    for line in lines:
        source, destination, service, expected, *why = line.split()
        if expected == "skip":
            continue
        protocol, port = parse_service(service)
        a, b = policies._pair(source, destination)
        connection = Connection(a, b, protocol, port, 49_152 if protocol in (6, 17, 132) else 0)
        verdict = golden.judge(snapshot, connection)
        assert program.judge(connection) == verdict, line
        denied = ",".join(d.direction for d in (verdict.egress, verdict.ingress) if not d.allowed)
        assert (denied or "allow") == expected, f"{line}: {verdict}"
        if why:
            deciding = next((d for d in (verdict.egress, verdict.ingress) if not d.allowed), verdict.ingress)
            if ("profile" in why and deciding.allowed) or ("failsafe" in why and verdict.ingress.why != "failsafe"):
                deciding = verdict.egress
            assert deciding.why == why[0], f"{line}: {verdict}"
        seen += 1
    assert seen


def test_default_deny_stance():
    snapshot = assemble(Reading().text(CLUSTER), Stance(default=Action.DENY))
    policies = Policies(snapshot)
    assert not policies.may("y/c", "x/a")
    assert policies.may("x/a", "x/a")
    found = policies.explain("192.0.2.1", "x/a")
    assert (found.verdict.egress.why, found.verdict.ingress.why) == ("outside", "own-node")


def test_staged_verdict_is_reported():
    policies = Policies.read(CLUSTER, calico("{selector: all(), types: [Ingress]}", kind="StagedGlobalNetworkPolicy"))
    found = policies.explain("x/b", "x/a")
    assert found.allowed
    assert not found.staged.allowed
    assert "staged: denied" in str(found)


def test_staged_delete_removes_its_namesake():
    policies = Policies.read(
        CLUSTER, calico("{selector: all(), types: [Ingress]}"),
        calico("{selector: all(), stagedAction: Delete}", kind="StagedGlobalNetworkPolicy"),
    )  # fmt: skip
    found = policies.explain("x/b", "x/a")
    assert not found.allowed
    assert found.staged.allowed
