"""Policy enforced by two daemons on real pods: handshakes, live changes, what is said about it, restarts."""

from __future__ import annotations

import json
import os
import selectors
import socket
import threading
from contextlib import ExitStack, contextmanager, suppress

import pytest

from engine.errors import ConfigError
from engine.pod.namespace import run_inside
from engine.views import Drops, Explanation, Flows, PolicyDocuments, Rules
from tests.engine.namespaces import path_of, wait_for
from tests.engine.nodes import Talk, started, towpath, two_nodes

pytestmark = [pytest.mark.root, pytest.mark.needs("ip", "ping")]

PODS = """
namespaces: {default: {labels: {team: red}}}
pods:
- {ns: default, name: a0, labels: {app: client}, ips: ["10.1.0.5", "fd00:1::5"], node: a}
- {ns: default, name: a1, labels: {app: stranger}, ips: ["10.1.0.6", "fd00:1::6"], node: a}
- {ns: default, name: b0, labels: {app: web}, ips: ["10.2.0.5", "fd00:2::5"], node: b, ports: [{name: http, port: 8080}]}
"""
ALLOW = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress]
  ingress:
  - from: [{podSelector: {matchLabels: {app: client}}}]
    ports: [{port: http}, {port: 9000, endPort: 9005}, {port: 5353, protocol: UDP}]
"""
STAGED = """
---
apiVersion: projectcalico.org/v3
kind: StagedGlobalNetworkPolicy
metadata: {name: dry}
spec: {selector: app == 'web', order: 1, ingress: [{action: Deny}]}
"""


class Cluster:
    """Two nodes that read policies from one folder; a has two pods, b one."""

    def __init__(self, nodes, folder):
        self.a, self.b = nodes
        self.policies = folder / "policies"
        self.policies.mkdir()
        self.log = folder / "flows.log"
        for node in nodes:
            node.extra = (
                f'[policy]\nfiles = ["{self.policies}"]\n'
                f'[flows]\nlog = "{self.log}.{node.name}"\nlog_events = ["new", "denied", "closed", "logged"]'
            )
            node.write(pods=2 if node is self.a else 1)
        self.say("pods", PODS)

    def start(self):
        started((self.a, self.b))
        return self

    def say(self, name, text):
        """As an editor saves: a whole file in the place of another."""
        aside = self.policies / f".{name}.new"
        aside.write_text(text)
        aside.replace(self.policies / f"{name}.yaml")

    def explain(self, node, source, destination, service):
        return node.ask("policy_explain", Explanation, source=source, destination=destination, service=service)

    def lines(self, node):
        path = self.log.with_name(f"{self.log.name}.{node.name}")
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def connects(self, pod, port, version=4, timeout=3.0):
        """Whether a pod of a shakes hands with b0, and its words come back."""
        address = self.b.address(0, version)
        try:
            near = self.a.inside_pod(pod, lambda: socket.create_connection((address, port), timeout=timeout))
        except OSError:
            return False
        with near:
            near.sendall(b"hello")
            return near.recv(5) == b"hello"

    def refused(self, pod, port, version=4):
        """Whether it shakes no hands; silence after that is another thing."""
        try:
            return not self.connects(pod, port, version, timeout=0.25)
        except TimeoutError:
            return False


@contextmanager
def echo(node, ports, version=4):
    """TCP servers in the first pod that send back what they get."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with ExitStack() as stack:
        listening = [
            stack.enter_context(
                node.inside_pod(0, lambda port=port: socket.create_server(("", port), family=family, backlog=50))
            )
            for port in ports
        ]
        stack.enter_context(served(listening))
        yield


@contextmanager
def served(listening):
    """One thread for all: a client that policy has silenced must not keep the others waiting."""
    ended, end = socket.socketpair()
    with end, ended, selectors.DefaultSelector() as selector:
        for each in (ended, *listening):
            selector.register(each, selectors.EVENT_READ)
        thread = threading.Thread(target=serve, args=(selector, ended, set(listening)))
        thread.start()
        try:
            yield
        finally:
            end.close()
            thread.join()


def serve(selector, ended, listening):
    """Answer each connection once, until the other end of `ended` is closed."""
    with ExitStack() as connections:
        while True:
            for key, _ in selector.select():
                if key.fileobj is ended:
                    return
                if key.fileobj in listening:
                    connection = connections.enter_context(key.fileobj.accept()[0])
                    connection.setblocking(False)
                    selector.register(connection, selectors.EVENT_READ)
                else:
                    selector.unregister(key.fileobj)
                    answer(key.fileobj)


def answer(connection):
    with connection, suppress(OSError):  # it was reset
        connection.sendall(connection.recv(100))


@pytest.fixture
def cluster(tmp_path):
    with two_nodes(tmp_path) as nodes:
        yield Cluster(nodes, tmp_path)


def decides(cluster, pod, port, *, allowed):
    """What packets do, what explain says of it on the node that judges, in both families."""
    for version in (4, 6):
        if allowed:
            assert cluster.connects(pod, port, version), (pod, port, version)
        else:
            assert cluster.refused(pod, port, version), (pod, port, version)
        source, destination = cluster.a.address(pod, version), cluster.b.address(0, version)
        assert cluster.explain(cluster.b, source, destination, f"tcp/{port}").allowed is allowed


def test_what_packets_do_is_what_is_said_of_them(cluster):
    cluster.say("web", ALLOW + STAGED)
    cluster.start()
    ports = (8080, 8081, 9000, 9005, 9006)
    with echo(cluster.b, ports), echo(cluster.b, ports, 6):
        for port, allowed in zip(ports, (True, False, True, True, False), strict=True):
            decides(cluster, 0, port, allowed=allowed)
            decides(cluster, 1, port, allowed=False)
    found = cluster.explain(cluster.b, "default/a0", "b0", "tcp/9003")
    assert (found.ingress.policy, found.ingress.rule, found.ingress.here) == ("NetworkPolicy default/web", 0, True)
    assert not found.egress.here, "a judges its pods"
    assert (found.staged_allowed, found.staged_ingress.policy) == (False, "GlobalNetworkPolicy dry")
    rules = {(r.policy, r.rule, r.why): r for r in cluster.b.ask("policy_rules", Rules, counted=True).rules}
    assert rules["NetworkPolicy default/web", 0, "rule"].flows >= 6
    assert rules["", -1, "end-of-tier"].packets >= 14
    told_about_log(cluster)
    told_about_flows(cluster)
    commands(cluster)
    drops = {drop.reason: drop.packets for drop in cluster.b.ask("drops", Drops).drops}
    assert drops["policy_deny"] >= 14


def told_about_log(cluster):
    wait_for(lambda: {"new", "denied"} <= {line["event"] for line in cluster.lines(cluster.b)})
    new = next(line for line in cluster.lines(cluster.b) if line["event"] == "new" and line["destination_port"] == 8080)
    assert (new["source_name"], new["destination_name"], new["protocol"]) == ("default/a0", "default/b0", "tcp")
    assert new["ingress"]["policy"] == "NetworkPolicy default/web"
    assert new["staged"]["allowed"] is False
    denied = next(line for line in cluster.lines(cluster.b) if line["event"] == "denied")
    assert denied["ingress"]["why"] == "end-of-tier"
    os.rename(f"{cluster.log}.b", f"{cluster.log}.b.1")
    cluster.refused(1, 1)
    wait_for(lambda: cluster.lines(cluster.b))


def told_about_flows(cluster):
    found = cluster.b.ask("flows", Flows, within=["default/a0"], port=8080).flows
    assert found, "closed connections stay for a while"
    assert {(f.source_name, f.destination_name, f.verdict) for f in found} == {("default/a0", "default/b0", "allowed")}
    assert found[0].ingress == "NetworkPolicy default/web rule 0"
    assert all(flow.packets and flow.reply_packets for flow in found)
    assert cluster.b.ask("flows", Flows, within=["10.9.0.0/16"]).flows == []
    first = cluster.b.ask("flows", Flows, limit=1)
    assert first.cursor is not None
    with pytest.raises(ConfigError, match="no endpoint"):
        cluster.b.ask("flows", Flows, within=["nobody"])


def commands(cluster):
    ask = ["--socket", cluster.b.socket]
    denied = towpath("policy", "explain", "a1", "b0", "tcp/8080", *ask)
    assert denied.returncode == 1
    assert "ingress denied by end-of-tier: tier default" in denied.stdout
    assert "on its own node" in denied.stdout
    assert "NetworkPolicy default/web" in towpath("policy", "rules", "web", *ask).stdout
    assert "end-of-tier" in towpath("policy", "counters", *ask).stdout
    assert "default/a0" in towpath("flows", "a0", "--protocol", "tcp", *ask).stdout
    assert json.loads(towpath("flows", "-o", "json", *ask).stdout)["flows"]


def test_changes_are_in_force_at_once_and_leave_connections_alone(cluster):
    cluster.start()
    with echo(cluster.b, (8080,)), Talk(cluster.a, cluster.b) as talk:
        assert cluster.connects(1, 8080), "nobody restricts anything"
        assert talk.works()
        cluster.say("web", ALLOW)
        wait_for(lambda: cluster.refused(1, 8080))
        assert cluster.connects(0, 8080)
        cluster.say("pods", PODS.replace("app: stranger", "app: client"))
        wait_for(lambda: cluster.connects(1, 8080, timeout=0.4))
        cluster.say("pods", PODS.replace("{app: stranger}", "{}"))
        wait_for(lambda: cluster.refused(1, 8080))
        with cluster.b.file.open() as written, open(f"{cluster.b.file}.new", "w") as aside:
            aside.write(written.read() + 'labels = { app = "other" }\n')  # the last table is b0's
        os.replace(f"{cluster.b.file}.new", cluster.b.file)
        wait_for(lambda: cluster.connects(1, 8080, timeout=0.4)), "the policy selects it no longer"
        cluster.b.write(pods=1)
        wait_for(lambda: cluster.refused(1, 8080))
        (cluster.policies / "web.yaml").unlink()
        wait_for(lambda: cluster.connects(1, 8080, timeout=0.4))


def test_established_connections_live_through_swaps(cluster):
    cluster.say("web", ALLOW)
    cluster.start()
    other = ALLOW.replace("name: web", "name: other").replace("app: client", "app: nobody")
    with echo(cluster.b, (8080,)), cluster_talk(cluster, 9000) as talk:
        stop = threading.Event()
        swaps = []

        def swap():
            while not stop.wait(0.1):
                cluster.say("web", ALLOW + "---" + other.replace("9005", str(9005 + len(swaps) % 7)))
                swaps.append(None)

        thread = threading.Thread(target=swap)
        thread.start()
        try:
            for _ in range(20):
                assert talk.works(1_000_000)
                assert cluster.connects(0, 8080)
            wait_for(lambda: len(swaps) >= 30)
        finally:
            stop.set()
            thread.join()
        assert talk.works()
    for node in (cluster.a, cluster.b):
        assert not {"policy_deny", "flow_invalid"} & {drop.reason for drop in node.ask("drops", Drops).drops}


@contextmanager
def cluster_talk(cluster, port):
    """As `Talk`, to a port of our choice."""
    listening = cluster.b.inside_pod(0, lambda: socket.create_server(("", port)))
    with listening:
        address = cluster.b.address(0)
        near = cluster.a.inside_pod(0, lambda: socket.create_connection((address, port), timeout=20))
        far, _ = listening.accept()
    talk = object.__new__(Talk)
    talk.near, talk.far = near, far
    far.settimeout(20)
    with talk:
        yield talk


def test_mistakes_leave_the_last_good_text_in_force_and_are_told(cluster):
    cluster.say("web", ALLOW)
    cluster.start()
    b = cluster.b
    with echo(b, (8080,)):
        assert cluster.connects(0, 8080)
        cluster.say("web", "kind: [")
        problem = wait_for(lambda: next((p.what for p in b.status().problems if "web.yaml" in p.what), None))
        assert "line 2" in problem
        assert cluster.connects(0, 8080)
        assert cluster.refused(1, 8080)
        b.stop()
        b.start()
        assert cluster.refused(0, 8080), "what the file says was never known to this daemon: closed"
        assert any("could not be read yet" in problem.what for problem in b.status().problems)
        cluster.say("web", ALLOW.replace("podSelector: {matchLabels: {app: web}}", "podSelector: {x: 1}"))
        wait_for(lambda: any("denies all it selects" in problem.what for problem in b.status().problems))
        assert cluster.refused(0, 8080), "a policy that cannot be read denies"
        cluster.say("web", ALLOW)
        wait_for(lambda: not b.status().problems)
        assert cluster.connects(0, 8080)


def test_stance_deny_closes_what_nobody_selects(cluster):
    for node in (cluster.a, cluster.b):
        node.extra = node.extra.replace("[flows]", 'default = "deny"\n[flows]')
        node.write(pods=2 if node is cluster.a else 1)
    everything = "policyTypes: [Egress], egress: [{}]"
    cluster.say(
        "out",
        f"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: out}}\nspec: {{podSelector: {{}}, {everything}}}",
    )
    cluster.start()
    with echo(cluster.b, (8080,)):
        assert cluster.refused(0, 8080)
        found = cluster.explain(cluster.b, "a0", "b0", "tcp/8080")
        assert (found.ingress.why, found.ingress.allowed) == ("default", False)
        cluster.say("web", ALLOW)
        wait_for(lambda: cluster.connects(0, 8080, timeout=0.4))
    ping = towpath("policy", "explain", "10.2.0.1", "b0", "icmp", "--socket", cluster.b.socket)
    assert "own-node" in ping.stdout, "the host always reaches its own pods"


HOST = """
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: b}
spec: {node: b, expectedIPs: [10.2.0.1]}
"""


def test_a_host_endpoint_is_closed_but_for_its_failsafe_ports(cluster):
    cluster.b.extra = cluster.b.extra.replace("[flows]", 'failsafe_in = ["tcp/22", "tcp/23@10.1.0.6/32"]\n[flows]')
    cluster.b.write(pods=1)
    cluster.say("host", HOST)
    cluster.start()

    def reaches(pod, port):
        try:
            cluster.a.inside_pod(pod, lambda: socket.create_connection(("10.2.0.1", port), timeout=0.4)).close()
        except OSError:
            return False
        return True

    def listen():
        return [socket.create_server(("", port)) for port in (22, 23, 24)]

    with ExitStack() as stack:
        for listening in run_inside(path_of(cluster.b.host), listen, where="test"):
            stack.enter_context(listening)
        assert {(pod, port): reaches(pod, port) for pod in (0, 1) for port in (22, 23, 24)} == {
            (0, 22): True, (0, 23): False, (0, 24): False, (1, 22): True, (1, 23): True, (1, 24): False,
        }  # fmt: skip
    why = cluster.explain(cluster.b, "a0", "10.2.0.1", "tcp/22").ingress
    assert (why.why, why.allowed, why.here) == ("failsafe", True, True)


def test_what_clients_apply_outlives_the_daemon(cluster):
    cluster.start()
    b = cluster.b
    with echo(b, (8080,)):
        applied = towpath("policy", "apply", "-", "--socket", b.socket, input=ALLOW)
        assert applied.stdout == "applied NetworkPolicy default/web\n", applied.stderr
        assert cluster.refused(1, 8080)
        assert [d.name for d in b.ask("policy_list", PolicyDocuments).documents] == ["web"]
        wrong = towpath("policy", "apply", "-", "--socket", b.socket, input=ALLOW.replace("Ingress", "Ingres"))
        assert wrong.returncode == 2
        assert "policyTypes[0]" in wrong.stderr
        b.stop()
        b.start()
        assert cluster.refused(1, 8080)
        assert cluster.connects(0, 8080)
        assert "web" in towpath("policy", "list", "--socket", b.socket).stdout
        assert towpath("policy", "delete", "networkpolicy", "web", "--socket", b.socket).returncode == 0
        assert cluster.connects(1, 8080)
        missing = towpath("policy", "delete", "NetworkPolicy", "web", "--socket", b.socket)
        assert missing.returncode == 2
        assert "no NetworkPolicy default/web was applied" in missing.stderr
