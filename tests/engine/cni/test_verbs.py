"""The plugin for real: a daemon, namespaces for containers, and the shim that a runtime starts."""

from __future__ import annotations

import signal

import pytest

from tests.engine.cni.runtime import runtime_of
from tests.engine.namespaces import device, ip, namespaces, wait_for
from tests.engine.nodes import started, two_nodes

pytestmark = [pytest.mark.root, pytest.mark.needs("ip", "ping")]


@pytest.fixture
def nodes(tmp_path):
    with two_nodes(tmp_path) as made:
        for node in made:
            node.write(pods=0)
        yield made


@pytest.fixture
def node(nodes):
    nodes[0].write(pods=0, peers=False)
    return nodes[0].start()


def test_a_container_is_added_and_deleted(node):
    runtime = runtime_of(node)
    added = runtime.add("c1", node.pod_namespaces[0])
    assert added.status == 0, added.output
    result = added.json
    assert result["cniVersion"] == "1.1.0"
    assert added.addresses() == ["10.1.0.2", "fd00:1::2"]
    (interface,) = result["interfaces"]
    found = device(node.pod_namespaces[0])
    assert interface == {
        "name": "eth0",
        "mac": "00:00:00:00:00:00",
        "mtu": found["mtu"],
        "sandbox": f"/run/netns/{node.pod_namespaces[0]}",
    }
    assert {a["local"] for a in found["addr_info"]} == {"10.1.0.2", "fd00:1::2"}
    assert [route["dst"] for route in result["routes"]] == ["0.0.0.0/0", "::/0"]
    assert runtime.check("c1", node.pod_namespaces[0], result).status == 0
    for _ in range(2):
        assert runtime.delete("c1", node.pod_namespaces[0]).status == 0
        assert device(node.pod_namespaces[0]) is None


def test_containers_of_two_nodes_reach_each_other(nodes):
    a, b = started(nodes)
    assert runtime_of(a).add("c1", a.pod_namespaces[0]).status == 0
    there = runtime_of(b).add("c1", b.pod_namespaces[0])
    for address in there.addresses():
        assert a.ping(0, address)


def test_the_size_follows_the_paths_and_a_lost_device_comes_back(node):
    runtime, name = runtime_of(node), node.pod_namespaces[0]
    result = runtime.add("c1", name).json
    before = device(name)["mtu"]
    node.network = f"[network]\nmtu = {before - 100}"
    node.write(pods=0, peers=False)
    wait_for(lambda: device(name)["mtu"] == before - 100)
    assert runtime.check("c1", name, result).status == 0
    ip("link", "del", "eth0", namespace=name)
    wait_for(lambda: runtime.check("c1", name, result).status == 0)
    assert {a["local"] for a in device(name)["addr_info"]} == {"10.1.0.2", "fd00:1::2"}
    assert runtime.delete("c1", name).status == 0


def test_what_was_attached_outlives_the_daemon(nodes):
    a, b = started(nodes)
    name = a.pod_namespaces[0]
    result = runtime_of(a).add("c1", name, arguments="K8S_POD_NAMESPACE=default;K8S_POD_NAME=web").json
    far = runtime_of(b).add("c1", b.pod_namespaces[0]).addresses()
    index = device(name)["ifindex"]
    a.stop(signal.SIGKILL)
    assert device(name)["ifindex"] == index
    a.start()
    assert a.pods()["default/web@c1"].state == "attached"
    assert device(name)["ifindex"] == index
    assert a.ping(0, far[0])
    assert runtime_of(a).check("c1", name, result).status == 0
    assert runtime_of(a).delete("c1", name).status == 0
    a.stop()
    a.start()
    assert a.pods() == {}
    assert device(name) is None


def test_a_successor_serves_what_its_predecessor_attached(nodes):
    a = nodes[0].start()
    runtime, name = runtime_of(a), a.pod_namespaces[0]
    result = runtime.add("c1", name).json
    index = device(name)["ifindex"]
    before = a.process
    a.start("--takeover", wait=False)
    assert before.wait(30) == 0
    wait_for(a.is_ready, 30)
    assert device(name)["ifindex"] == index
    assert runtime.check("c1", name, result).status == 0
    assert runtime.add("c1", name).code == 101
    assert runtime.add("c2", name, "eth1", name="other").status == 0
    for container, interface, network in (("c1", "eth0", "pods"), ("c2", "eth1", "other")):
        assert runtime.delete(container, name, interface, name=network).status == 0
    assert a.pods() == {}


def test_another_namespace_at_the_path_is_not_served(nodes):
    """As when a process number is given again: the daemon was away meanwhile."""
    a = nodes[0].start()
    with namespaces(1) as (name,):
        assert runtime_of(a).add("c1", name).status == 0
        a.stop(signal.SIGKILL)
        ip("netns", "del", name)
        ip("netns", "add", name)
        a.start()
        assert device(name) is None
        assert a.pods() == {}
        assert a.status().problems == []
        assert runtime_of(a).delete("c1", name).status == 0


def test_a_container_that_nobody_deletes_is_collected(home, monkeypatch):
    node, verbs = home.node, home.verbs
    with namespaces(2) as names:
        assert [home.add(name, name)["ips"] for name in names]
        ip("netns", "del", names[0])
        node._keeper.vigil.check()
        assert len(node.residents.pods()) == 1
        verbs.collect()
        assert len(node.residents.attachments) == 2, "its runtime has a minute to ask for it"
        monkeypatch.setattr("engine.cni.collection.GRACE", 0.0)
        verbs.collect()
        home.settle()
        assert [attachment.container for attachment in node.residents.attachments] == [names[1]]
        assert home.given() == [f"pods/{names[1]}/eth0"]
        assert node.problems() == []
        assert home.delete(names[1]) is None
        assert device(names[1]) is None
