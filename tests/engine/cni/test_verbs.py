"""The plugin for real: a daemon, namespaces for containers, and the shim that a runtime starts."""

from __future__ import annotations

import pytest

from tests.engine.cni.runtime import runtime_of
from tests.engine.namespaces import device
from tests.engine.nodes import two_nodes

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
    a, b = (node.start() for node in nodes)
    assert runtime_of(a).add("c1", a.pod_namespaces[0]).status == 0
    there = runtime_of(b).add("c1", b.pod_namespaces[0])
    for address in there.addresses():
        assert a.ping(0, address)
