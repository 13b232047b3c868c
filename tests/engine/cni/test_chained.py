"""The reference plugins behind ours in a list, as a runtime chains them: what works with a TUN, and what cannot."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from engine.pod.namespace import run_inside
from tests.engine.cni.runtime import PLUGINS, Runtime, runtime_of
from tests.engine.namespaces import ip, path_of
from tests.engine.nodes import started, two_nodes

pytestmark = [pytest.mark.root, pytest.mark.needs("ip", "host-local")]

VERSION = "1.0.0"  # the newest that Debian's plugins speak


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    with two_nodes(tmp_path_factory.mktemp("chained"), pods=1) as made:
        for node in made:
            node.write(pods=0)
        yield started(made)


@pytest.fixture
def added(nodes):
    """Our own result for a container of node a."""
    runtime = runtime_of(nodes[0], version=VERSION)
    name = nodes[0].pod_namespaces[0]
    answer = runtime.add("c1", name)
    assert answer.status == 0
    yield answer.json
    assert runtime.delete("c1", name).status == 0


def chained(node, plugin, verb, result, **keys):
    """What the plugin says as the next of the list, started where the host is."""
    text = json.dumps({"cniVersion": VERSION, "name": "pods", "type": plugin, "prevResult": result, **keys}).encode()
    runtime = Runtime(None, None, inside=node.host, shim=Path(PLUGINS) / plugin)
    return runtime.call(verb, "c1", node.pod_namespaces[0], "eth0", text=text)


def inside(name, function):
    return run_inside(path_of(name), function, where="test")


def test_tuning_sets_what_a_tun_has(nodes, added):
    sysctl = {"net.ipv4.conf.eth0.arp_notify": "1", "net.core.somaxconn": "517"}
    said = chained(nodes[0], "tuning", "ADD", added, sysctl=sysctl)
    assert said.status == 0, said.output
    assert said.json["ips"] == added["ips"]
    name = nodes[0].pod_namespaces[0]
    assert inside(name, Path("/proc/sys/net/core/somaxconn").read_text) == "517\n"
    assert runtime_of(nodes[0], version=VERSION).check("c1", name, said.json).status == 0
    assert chained(nodes[0], "tuning", "DEL", added, sysctl=sysctl).status == 0


@pytest.mark.needs("iptables")
def test_portmap_leads_a_port_of_the_host_into_the_pod(nodes, added):
    a, b = nodes
    inside(a.host, lambda: Path("/proc/sys/net/ipv4/ip_forward").write_text("1"))
    mappings = {"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}}
    said = chained(a, "portmap", "ADD", added, **mappings)
    if said.status and "iptables" in said.output:
        pytest.skip(f"the kernel lacks what portmap needs: {said.output}")
    assert said.status == 0, said.output
    with inside(a.pod_namespaces[0], lambda: socket.create_server(("0.0.0.0", 80))) as listening:
        client = inside(b.host, lambda: socket.create_connection(("192.0.2.1", 8080), timeout=10))
        listening.settimeout(10)
        server, peer = listening.accept()
        with client, server:
            assert peer[0] == "192.0.2.2", "the pod sees who asks"
            server.sendall(b"hello")
            assert client.recv(5) == b"hello"
    assert chained(a, "portmap", "DEL", added, **mappings).status == 0


def test_bandwidth_says_that_there_is_no_veth(nodes, added):
    """Our own, by the capability, is for that."""
    rates = {"ingressRate": 1000000, "ingressBurst": 1000000, "egressRate": 1000000, "egressBurst": 1000000}
    said = chained(nodes[0], "bandwidth", "ADD", added, **rates)
    assert said.status == 1
    assert "veth" in said.json["msg"] or "peer" in said.json["msg"] or "interface" in said.json["msg"], said.output
    assert "eth0" in ip("link", namespace=nodes[0].pod_namespaces[0])
