"""Addresses and ports: pods, gateways, what nobody has, the host's own."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_interface, ip_network

from engine.desired import desired_state
from engine.model import HostPort, Identity, Overlay, PodDevice, Via
from tests.engine.desired.facts import NODE, NODE4, SEEN, WEB, facts, only


def test_labels_of_a_pod_change_nothing_but_policy():
    labelled = replace(WEB, identity=Identity(labels=(("app", "web"),)))
    assert desired_state(facts(pods=(labelled,)), SEEN) == desired_state(facts(), SEEN)


def test_pods_gateways_and_unassigned_addresses():
    desired = desired_state(facts(), SEEN)
    assert (desired.gateway4, desired.gateway6) == (IPv4Address("10.244.1.1"), IPv6Address("fd00:1::1"))
    assert only(desired, "10.244.1.2/32") == Via("pod", "web", mtu=1430)
    assert only(desired, "fd00:1::2/128") == Via("pod", "web", mtu=1430)
    for prefix in ("10.244.1.1/32", "fd00:1::1/128"):
        assert only(desired, prefix) == Via("host", "host", mtu=1430)
    for prefix in ("0.0.0.0/0", "::/0"):
        assert only(desired, prefix) == Via("host", "host", mtu=1430, transit=True)
    for prefix in ("10.244.1.0/24", "fd00:1::/64"):
        assert only(desired, prefix) == Via("reject", "unreachable")
    assert desired.pods == {PodDevice(WEB, 1430)}
    assert desired.host.name == "towpath0"
    assert desired.host.mtu == 1430
    assert [str(address) for address in desired.host.addresses] == ["10.244.1.1/32", "fd00:1::1/128"]
    assert [str(prefix) for prefix in desired.host.routes] == [
        "10.244.1.0/24",
        "10.244.2.0/24",
        "10.244.3.0/24",
        "fd00:1::/64",
        "fd00:2::/64",
    ]


def test_gateways_as_given():
    node = replace(NODE, gateway4=IPv4Address("10.244.1.9"), gateway6=IPv6Address("fd00:1::9"))
    desired = desired_state(facts(node=node), SEEN)
    assert (desired.gateway4, desired.gateway6) == (node.gateway4, node.gateway6)
    assert only(desired, "10.244.1.9/32").kind == "host"
    assert ip_network("10.244.1.1/32") not in desired.routes


def test_a_family_we_do_not_have_has_no_default_route():
    desired = desired_state(facts(node=NODE4, pods=()), SEEN)
    assert desired.gateway6 is None
    assert ip_network("::/0") not in desired.routes


def test_without_host_port():
    desired = desired_state(facts(host=HostPort(enabled=False)), SEEN)
    assert desired.host is None
    assert ip_network("0.0.0.0/0") not in desired.routes
    assert ip_network("10.244.1.1/32") not in desired.routes


def test_host_port_has_its_name():
    assert desired_state(facts(host=HostPort(name="pods0")), SEEN).host.name == "pods0"


def test_flannel_peers_send_to_the_network_address():
    desired = desired_state(facts(overlay=Overlay(profile="flannel")), SEEN)
    assert ip_interface("10.244.1.0/32") in desired.host.addresses
    assert only(desired, "10.244.1.0/32").kind == "host"
