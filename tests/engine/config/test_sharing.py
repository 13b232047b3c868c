"""Pods of the file in one namespace: one device has the default route of a family, another leads to the pods."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from engine.config import parse
from engine.pod.attach import routes_of
from tests.engine.namespaces import device, ip, wait_for
from tests.engine.nodes import two_nodes

NODE = """
[node]
name = "a"
prefixes = ["10.1.0.0/24", "fd00:1::/64"]
[[peers]]
name = "b"
underlay = ["192.0.2.2"]
prefixes = ["10.2.0.0/24"]
"""


def pod(name, namespace, interface, *addresses):
    return (
        f'[[pods]]\nname = "{name}"\nnamespace = "{namespace}"\ninterface = "{interface}"\n'
        f"addresses = [{', '.join(repr(address) for address in addresses)}]\n"
    )


def routes(*pods):
    """What leaves through each pod's device."""
    facts = parse(NODE + "".join(pods)).facts()
    return {pod.name: {str(prefix) for prefix in routes_of(pod)} for pod in facts.pods}


def test_the_first_has_the_default_route():
    assert routes(
        pod("one", "x", "eth0", "10.1.0.5", "fd00:1::5"),
        pod("two", "/run/netns/x", "eth1", "10.1.0.6", "fd00:1::6"),
        pod("alone", "y", "eth1", "10.1.0.7"),
    ) == {
        "one": {"0.0.0.0/0", "::/0"},
        "two": {"10.1.0.0/24", "10.2.0.0/24", "fd00:1::/64"},
        "alone": {"0.0.0.0/0"},
    }


def test_each_family_has_its_own():
    assert routes(
        pod("four", "x", "eth0", "10.1.0.5"),
        pod("both", "x", "eth1", "10.1.0.6", "fd00:1::6"),
        pod("six", "x", "eth2", "fd00:1::7"),
    ) == {
        "four": {"0.0.0.0/0"},
        "both": {"10.1.0.0/24", "10.2.0.0/24", "::/0"},
        "six": {"fd00:1::/64"},
    }


def test_a_third_one_leads_nowhere_that_another_leads():
    assert routes(
        pod("one", "x", "eth0", "10.1.0.5", "fd00:1::5"),
        pod("two", "x", "eth1", "10.1.0.6"),
        pod("three", "x", "eth2", "10.1.0.7", "fd00:1::7"),
        pod("four", "x", "eth3", "10.1.0.8", "fd00:1::8"),
    ) == {
        "one": {"0.0.0.0/0", "::/0"},
        "two": {"10.1.0.0/24", "10.2.0.0/24"},
        "three": {"fd00:1::/64"},
        "four": set(),
    }


def test_the_next_one_gets_it_when_the_first_goes():
    left = parse(NODE + pod("two", "x", "eth1", "10.1.0.6")).facts().pods[0]
    assert routes_of(left) == (ip_network("0.0.0.0/0"),)


@pytest.mark.root
@pytest.mark.needs("ip")
def test_three_devices_stand_and_none_is_set_right(tmp_path):
    with two_nodes(tmp_path, pods=1) as (node, _):
        namespace = node.pod_namespaces[0]
        others = (
            pod(f"other{number}", namespace, f"eth{number}", node.address(number), node.address(number, 6))
            for number in (3, 4)
        )
        node.extra = "".join(others)
        node.write(peers=False)
        node.start()
        table = ip("route", "show", namespace=namespace)
        assert "default dev eth3" in table
        assert "10.1.0.0/24 dev eth4" in table
        assert "dev eth0" not in table
        for name in ("eth3", "eth4", "eth0"):
            ip("link", "set", name, "mtu", "1300", namespace=namespace)
            wait_for(lambda name=name: device(namespace, name)["mtu"] != 1300)
        told = [line for line in node.log.read_text().splitlines() if "changed by somebody else" in line]
        assert len(told) == 3, told
