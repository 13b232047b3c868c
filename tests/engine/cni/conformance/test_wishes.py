"""What a runtime may wish for a pod: several networks, routes, addresses, ports, names."""

from __future__ import annotations

import re

import pytest

from tests.engine.cni.runtime import finished
from tests.engine.namespaces import device, ip, routes

pytestmark = [pytest.mark.root, pytest.mark.needs("ip")]


def test_two_networks_and_their_default_routes(runtime, sandbox):
    first = runtime.add("c1", sandbox, "eth0")
    second = runtime.add("c1", sandbox, "net1", name="other", ipam={"routes": [{"dst": "198.18.0.0/15"}]})
    assert [route["dst"] for route in second.json["routes"]] == ["198.18.0.0/15", "fd00:1::/64"]
    assert runtime.add("c1", sandbox, "net2", name="third", defaultRoute=True).code == 7
    assert runtime.check("c1", sandbox, first.json).status == 0
    assert runtime.check("c1", sandbox, second.json, "net1", name="other").status == 0
    table = ip("route", "show", namespace=sandbox)
    assert "default dev eth0" in table
    assert "198.18.0.0/15 dev net1" in table
    assert runtime.delete("c1", sandbox, "net1", name="other").status == 0
    assert "net1" not in ip("link", namespace=sandbox)
    assert runtime.check("c1", sandbox, first.json).status == 0


def test_two_networks_without_default_routes(runtime, sandbox, node):
    """The first interface keeps its routes, and nobody takes turns in setting them right."""
    runtime.extra = {"defaultRoute": False}
    first = runtime.add("turns", sandbox, "eth0")
    second = runtime.add("turns", sandbox, "net1", name="other", ipam={"routes": [{"dst": "198.18.0.0/15"}]})
    third = runtime.add("turns", sandbox, "net2", name="third")
    assert [route["dst"] for route in first.json["routes"]] == ["10.1.0.0/24", "fd00:1::/64"]
    assert [route["dst"] for route in second.json["routes"]] == ["198.18.0.0/15"]
    assert third.json["routes"] == []
    again = runtime.add("turns", sandbox, "net3", name="fourth", ipam={"routes": [{"dst": "198.18.0.0/15"}]})
    assert (again.code, again.json["msg"]) == (7, "the container has a route to 198.18.0.0/15 already")
    for interface, network, added in (("eth0", "pods", first), ("net1", "other", second), ("net2", "third", third)):
        assert runtime.check("turns", sandbox, added.json, interface, name=network).status == 0
    assert {("10.1.0.0/24", "eth0"), ("fd00:1::/64", "eth0")} <= set(routes(sandbox, "proto", "116"))
    assert not re.search(r"@turns\S* was changed", node.log.read_text())


def test_networks_that_come_at_once_share_no_route(runtime, sandbox):
    runtime.extra = {"defaultRoute": False}
    running = [runtime.start("ADD", "c1", sandbox, f"net{number}", name=f"n{number}") for number in range(3)]
    made = [route["dst"] for process in running for route in finished(process).json["routes"]]
    assert sorted(made) == ["10.1.0.0/24", "fd00:1::/64"]


def test_a_route_of_somebody_elses_interface_stays_with_it(runtime, sandbox):
    ip("link", "add", "else0", "type", "veth", "peer", "name", "else1", namespace=sandbox)
    try:
        ip("addr", "add", "10.1.0.200/24", "dev", "else0", namespace=sandbox)
        ip("link", "set", "else0", "up", namespace=sandbox)
        added = runtime.add("c1", sandbox, defaultRoute=False)
        assert [route["dst"] for route in added.json["routes"]] == ["fd00:1::/64"]
        assert ("10.1.0.0/24", "else0") in routes(sandbox)
    finally:
        ip("link", "del", "else0", namespace=sandbox)


def test_no_default_route_and_one_family(runtime, sandbox):
    said = runtime.add("c1", sandbox, defaultRoute=False, ipam={"families": [6]})
    assert said.addresses()[0].startswith("fd00:1::")
    assert len(said.addresses()) == 1
    assert [route["dst"] for route in said.json["routes"]] == ["fd00:1::/64"]
    assert "default" not in ip("-6", "route", "show", namespace=sandbox)


@pytest.mark.parametrize(
    "options",
    [
        {"runtimeConfig": {"ips": ["10.1.0.77/24", "fd00:1::77"]}},
        {"args": {"cni": {"ips": ["10.1.0.77", "fd00:1::77/64"]}}, "arguments": "IP=10.1.0.78"},
        {"arguments": "IgnoreUnknown=1;IP=10.1.0.77/24,fd00:1::77"},
    ],
)
def test_wanted_addresses(runtime, node, options):
    a, b = node.pod_namespaces[:2]
    assert runtime.add("c1", a, **options).addresses() == ["10.1.0.77", "fd00:1::77"]
    assert runtime.add("c2", b, **options).code == 103
    assert device(b) is None
    for text in ("10.1.0.1", "10.9.9.9", "10.1.0.255"):
        assert runtime.add("c2", b, runtimeConfig={"ips": [text]}).code == 103


def test_sticky_addresses_come_back(runtime, node):
    a, b = node.pod_namespaces[:2]
    names = {"arguments": "K8S_POD_NAMESPACE=default;K8S_POD_NAME=db-0", "ipam": {"sticky": True}}
    first = runtime.add("c1", a, **names).addresses()
    assert runtime.delete("c1", a, **names).status == 0
    assert runtime.add("other", b).addresses() != first
    assert runtime.add("c2", a, **names).addresses() == first
    assert "default/db-0@c2" in node.pods()
    assert runtime.delete("c2", a, **names).status == 0
    assert runtime.delete("other", b).status == 0


def test_ports_of_the_host_have_one_owner(runtime, node):
    a, b = node.pod_namespaces[:2]

    def mapping(port, **keys):
        return {"runtimeConfig": {"portMappings": [{"hostPort": port, "containerPort": 80, "protocol": "TCP", **keys}]}}

    assert runtime.add("c1", a, **mapping(8080)).status == 0
    refused = runtime.add("c2", b, **mapping(8080))
    assert refused.code == 106
    assert "8080" in refused.json["msg"]
    assert runtime.add("c2", b, **mapping(8080, hostIP="192.0.2.1")).code == 106, "every address includes this one"
    assert runtime.add("c2", b, **mapping(8080, protocol="udp")).status == 0
    assert runtime.delete("c1", a).status == 0
    assert runtime.delete("c2", b).status == 0
    twice = {"runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": n} for n in (80, 81)]}}
    assert runtime.add("c2", b, **twice).code == 106


def test_addresses_of_the_host_as_other_plugins_take_them(runtime, sandbox):
    """0.0.0.0 and :: are every address, both of them in one wish too; ::1 is told apart from those that work."""

    def on(*addresses):
        return {"runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 80, "hostIP": a} for a in addresses]}}

    for addresses in (("0.0.0.0",), ("::",), ("0.0.0.0", "::"), ("127.0.0.1", "192.0.2.1"), ("239.1.1.1",), ("",)):
        assert runtime.add("c1", sandbox, **on(*addresses)).status == 0, addresses
        assert runtime.delete("c1", sandbox).status == 0
    refused = runtime.add("c1", sandbox, **on("127.0.0.1", "::1"))
    assert (refused.status, refused.code) == (1, 7)
    assert 'hostIP "::1" cannot lead to a pod: the kernel lets no packet of ::1 leave by a device' in refused.json["msg"]
    assert "127.0.0.1" in refused.json["details"]
    assert runtime.delete("c1", sandbox, **on("::1")).status == 0, "a deletion does not mind"


def test_dns_is_passed_on(runtime, sandbox):
    wishes = {"dns": {"nameservers": ["10.1.0.10"], "domain": "x"}, "runtimeConfig": {"dns": {"searches": ["a.b"]}}}
    said = runtime.add("c1", sandbox, **wishes)
    assert said.json["dns"] == {"nameservers": ["10.1.0.10"], "domain": "x", "search": ["a.b"]}
