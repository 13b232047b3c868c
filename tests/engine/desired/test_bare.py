"""Peers without an encapsulation: in one subnet, everywhere, and where it cannot be."""

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

from engine.desired import desired_state
from engine.model import HostPort, KernelRoute, Overlay, Underlay, Via
from tests.engine.desired.facts import FAR, NEAR, NODE, NODE4, SEEN, facts, only


def test_cross_subnet():
    desired = desired_state(facts(overlay=Overlay(when="cross-subnet")), SEEN)
    assert only(desired, "10.244.2.0/24") == Via(
        "host", "host", "near", ip_address("192.0.2.2"), mtu=1450, transit=True
    )
    assert only(desired, "10.244.3.0/24").kind == "tunnel"
    assert desired.kernel_routes == {
        KernelRoute(ip_network("10.244.2.0/24"), (ip_address("192.0.2.2"),)),
        KernelRoute(ip_network("fd00:2::/64"), (ip_address("2001:db8::2"),)),
    }
    assert [str(prefix) for prefix in desired.host.routes] == ["10.244.1.0/24", "10.244.3.0/24", "fd00:1::/64"]
    assert desired.host.mtu == 1450
    assert ip_address("192.0.2.2") in desired.peers  # it may see us in another subnet


def test_subnet_length_is_taken_from_the_host_when_it_was_not_given():
    node = replace(NODE4, underlay=(ip_interface("192.0.2.1"),))
    overlay = Overlay(when="cross-subnet")
    blind = desired_state(facts(node=node, overlay=overlay), SEEN)
    assert only(blind, "10.244.2.0/24").kind == "tunnel"
    seen = Underlay(addresses=(ip_interface("192.0.2.1/24"), ip_interface("203.0.113.1/24")))
    desired = desired_state(facts(node=node, overlay=overlay), seen)
    assert only(desired, "10.244.2.0/24").kind == "host"
    assert len(desired.tunnels) == 1


def test_underlay_is_found_on_the_host_when_it_was_not_given():
    seen = Underlay(
        addresses=(ip_interface("2001:db8::1/64"), ip_interface("192.0.2.1/24"), ip_interface("192.0.2.9/24"))
    )
    desired = desired_state(facts(node=replace(NODE, underlay=())), seen)
    assert {str(tunnel.local) for tunnel in desired.tunnels} == {"192.0.2.1", "2001:db8::1"}
    nothing = desired_state(facts(node=replace(NODE, underlay=())), SEEN)
    assert nothing.tunnels == frozenset()
    assert only(nothing, "10.244.2.0/24") == Via("reject", "unreachable")


def test_other_family_in_the_same_subnet_still_needs_a_tunnel():
    peer = replace(NEAR, underlay=NEAR.underlay[:1])
    desired = desired_state(facts(peers=(peer,), overlay=Overlay(when="cross-subnet")), SEEN)
    assert only(desired, "10.244.2.0/24").kind == "host"
    assert only(desired, "fd00:2::/64").kind == "tunnel"
    assert only(desired, "fd00:2::/64").remote == ip_address("192.0.2.2")


def test_bare_everywhere():
    desired = desired_state(facts(overlay=Overlay(mode="routed", encapsulation="none")), SEEN)
    assert desired.tunnels == frozenset()
    assert desired.peers == {}
    assert {str(one.prefix) for one in desired.kernel_routes} == {"10.244.2.0/24", "fd00:2::/64"}
    assert only(desired, "10.244.3.0/24").kind == "host"  # its router is the underlay's business
    assert [str(prefix) for prefix in desired.host.routes] == ["10.244.1.0/24", "fd00:1::/64"]


def test_bare_over_the_wrong_family_or_without_host_port_is_unreachable():
    peer = replace(NEAR, underlay=NEAR.underlay[:1])
    bare = Overlay(encapsulation="none")
    assert only(desired_state(facts(peers=(peer,), overlay=bare), SEEN), "fd00:2::/64").kind == "reject"
    without = desired_state(facts(overlay=bare, host=HostPort(enabled=False)), SEEN)
    assert only(without, "10.244.2.0/24").kind == "reject"
    assert without.kernel_routes == frozenset()


def test_peer_without_encapsulation_among_others():
    desired = desired_state(facts(peers=(replace(NEAR, encapsulation="none"), FAR)), SEEN)
    assert only(desired, "10.244.2.0/24").kind == "host"
    assert set(desired.peers) == {ip_address("198.51.100.3")}
