"""Tunnels: over which addresses, by which numbers, with which MAC addresses."""

from dataclasses import replace
from ipaddress import ip_address, ip_interface

import pytest

from engine.desired import desired_state
from engine.desired.addressing import OVERHEAD
from engine.desired.overlay import vtep_mac
from engine.model import Overlay, Via
from tests.engine.desired.facts import FAR, NEAR, NODE, NODE4, SEEN, facts, only


def test_tunnels_on_every_local_address():
    desired = desired_state(facts(), SEEN)
    assert {tunnel.key for tunnel in desired.tunnels} == {"vxlan/192.0.2.1:4789", "vxlan/[2001:db8::1]:4789"}
    assert desired.peers == {
        ip_address("192.0.2.2"): "near",
        ip_address("2001:db8::2"): "near",
        ip_address("198.51.100.3"): "far",
    }


def test_each_family_travels_over_itself_where_both_ends_have_it():
    desired = desired_state(facts(), SEEN)
    assert only(desired, "10.244.2.0/24") == Via(
        "tunnel", "vxlan/192.0.2.1:4789", "near", ip_address("192.0.2.2"), 4789, vtep_mac("near", 4), 1450
    )
    assert only(desired, "fd00:2::/64") == Via(
        "tunnel", "vxlan/[2001:db8::1]:4789", "near", ip_address("2001:db8::2"), 4789, vtep_mac("near", 6), 1430
    )


@pytest.mark.parametrize("encapsulation", ["vxlan", "udp", "ipip"])
@pytest.mark.parametrize(("underlay", "version"), [("192.0.2.2", 4), ("2001:db8::2", 6)])
def test_both_families_travel_over_the_only_one_there_is(encapsulation, underlay, version):
    peer = replace(NEAR, underlay=(ip_address(underlay),))
    desired = desired_state(facts(peers=(peer,), overlay=Overlay(encapsulation=encapsulation)), SEEN)
    for prefix in peer.prefixes:
        via = only(desired, str(prefix))
        assert via.remote == peer.underlay[0]
        assert via.mtu == 1500 - OVERHEAD[encapsulation, version]
        assert via.target in {tunnel.key for tunnel in desired.tunnels}


def test_no_family_in_common_is_unreachable():
    desired = desired_state(facts(node=replace(NODE, underlay=NODE.underlay[1:])), SEEN)
    assert only(desired, "10.244.3.0/24") == Via("reject", "unreachable")
    assert only(desired, "10.244.2.0/24").kind == "tunnel"


def test_local_address_in_the_peers_subnet_is_preferred():
    node = replace(NODE4, underlay=(ip_interface("198.51.100.1/24"), ip_interface("192.0.2.1/24")))
    desired = desired_state(facts(node=node, pods=()), SEEN)
    assert only(desired, "10.244.2.0/24").target == "vxlan/192.0.2.1:4789"
    assert only(desired, "10.244.3.0/24").target == "vxlan/198.51.100.1:4789"
    assert len(desired.tunnels) == 2


def test_first_listed_address_of_a_peer_is_used_and_all_are_accepted():
    peer = replace(FAR, underlay=(ip_address("198.51.100.3"), ip_address("198.51.100.2")))
    desired = desired_state(facts(peers=(peer,)), SEEN)
    assert only(desired, "10.244.3.0/24").remote == ip_address("198.51.100.3")
    assert set(desired.peers) == set(peer.underlay)


@pytest.mark.parametrize(
    ("profile", "encapsulation", "port", "vni", "source_ports"),
    [
        ("towpath", "vxlan", 4789, 1, "hashed"),
        ("flannel", "vxlan", 8472, 1, "hashed"),
        ("calico", "vxlan", 4789, 4096, "hashed"),
        ("towpath", "udp", 8285, 0, "hashed"),
        ("flannel", "udp", 8285, 0, "fixed"),
        ("calico", "ipip", 0, 0, "hashed"),
    ],
)
def test_numbers_of_the_profiles(profile, encapsulation, port, vni, source_ports):
    overlay = Overlay(profile=profile, encapsulation=encapsulation)
    (tunnel,) = desired_state(facts(node=NODE4, overlay=overlay), SEEN).tunnels
    assert (tunnel.port, tunnel.vni, tunnel.source_ports) == (port, vni, source_ports)
    assert tunnel.key == f"{encapsulation}/192.0.2.1" + (f":{port}" if port else "")
    assert tunnel.mac == (vtep_mac("node-a", 4) if encapsulation == "vxlan" else bytes(6))


def test_numbers_that_were_set():
    overlay = Overlay(port=5000, vni=77, copy_dscp=False, mac=b"\2aaaaa", mac6=b"\2bbbbb")
    peer = replace(NEAR, mac=b"\2ccccc", mac6=b"\2ddddd")
    desired = desired_state(facts(overlay=overlay, peers=(peer,)), SEEN)
    by_version = {tunnel.local.version: tunnel for tunnel in desired.tunnels}
    assert {(tunnel.port, tunnel.vni, tunnel.copy_dscp) for tunnel in desired.tunnels} == {(5000, 77, False)}
    assert (by_version[4].mac, by_version[6].mac) == (b"\2aaaaa", b"\2bbbbb")
    assert only(desired, "10.244.2.0/24").mac == b"\2ccccc"
    assert only(desired, "fd00:2::/64").mac == b"\2ddddd"
    assert only(desired, "10.244.2.0/24").remote_port == 5000


def test_one_peer_with_another_encapsulation():
    peers = (replace(NEAR, encapsulation="udp"), FAR)
    desired = desired_state(facts(node=NODE4, peers=peers, overlay=Overlay(port=5000)), SEEN)
    assert {tunnel.key for tunnel in desired.tunnels} == {"vxlan/192.0.2.1:5000", "udp/192.0.2.1:8285"}
    assert only(desired, "10.244.2.0/24").target == "udp/192.0.2.1:8285"
    assert only(desired, "10.244.3.0/24").target == "vxlan/192.0.2.1:5000"


# The table of Calico's rule, both families.
MACS = {
    "node-a": ("66:07:02:c1:cc:60", "66:d4:d5:51:3d:42"),
    "worker-1": ("66:93:7f:54:d5:53", "66:d8:48:96:ab:01"),
    "kind-control-plane": ("66:07:01:14:06:90", "66:82:04:36:3b:41"),
    "ip-10-0-0-5.ec2.internal": ("66:c5:b1:66:26:a8", "66:40:f1:f6:df:a8"),
}


@pytest.mark.parametrize(("name", "macs"), MACS.items())
def test_macs_by_calicos_rule(name, macs):
    assert (vtep_mac(name, 4).hex(":"), vtep_mac(name, 6).hex(":")) == macs
