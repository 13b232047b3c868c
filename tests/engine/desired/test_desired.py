"""Facts in, desired state out: the cases by hand, then the laws for any facts."""

import random
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface, ip_network
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.apply.delta import objects, plan
from engine.config.profile import PROFILES
from engine.desired import Recomputation, compute, desired_state
from engine.desired.addressing import OVERHEAD
from engine.desired.overlay import vtep_mac
from engine.desired.rib import MAX_NEXT_HOPS, Offer, Preference, best
from engine.model import (
    Desired,
    Facts,
    HostPort,
    Identity,
    KernelRoute,
    Node,
    Overlay,
    Peer,
    Pod,
    PodDevice,
    PortMapping,
    StaticRoute,
    Underlay,
    Via,
)
from tests.engine.faults import FaultError, fault_at

# A busy machine is no mistake of ours.
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

NODE = Node(
    "node-a",
    (ip_interface("192.0.2.1/24"), ip_interface("2001:db8::1/64")),
    (ip_network("10.244.1.0/24"), ip_network("fd00:1::/64")),
)
NODE4 = replace(NODE, underlay=NODE.underlay[:1], prefixes=NODE.prefixes[:1])
NEAR = Peer(
    "near",
    (ip_address("192.0.2.2"), ip_address("2001:db8::2")),
    (ip_network("10.244.2.0/24"), ip_network("fd00:2::/64")),
)
FAR = Peer("far", (ip_address("198.51.100.3"),), (ip_network("10.244.3.0/24"),))
WEB = Pod("web", "/run/netns/web", (ip_address("10.244.1.2"), ip_address("fd00:1::2")))
SEEN = Underlay()


def route(desired, prefix):
    return desired.routes[ip_network(prefix)]


def only(desired, prefix):
    (via,) = route(desired, prefix)
    return via


def facts(**changes):
    return Facts(**{"node": NODE, "pods": (WEB,), "peers": (NEAR, FAR), **changes})


def test_labels_of_a_pod_change_nothing_but_policy():
    labelled = replace(WEB, identity=Identity(labels=(("app", "web"),)))
    assert desired_state(facts(pods=(labelled,)), SEEN) == desired_state(facts(), SEEN)


# -- addresses and ports ---------------------------------------------------------
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


# -- tunnels -----------------------------------------------------------------------
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


# -- sizes -------------------------------------------------------------------------
SIZES = [
    # outer MTU 1500, 1460, 9000, as every other implementation has it
    ("udp", 4, 1472, 1432, 8972),
    ("udp", 6, 1452, 1412, 8952),
    ("vxlan", 4, 1450, 1410, 8950),
    ("vxlan", 6, 1430, 1390, 8930),
    ("ipip", 4, 1480, 1440, 8980),
    ("ipip", 6, 1460, 1420, 8960),
    ("none", 4, 1500, 1460, 9000),
]


@pytest.mark.parametrize(("encapsulation", "version", "at_1500", "at_1460", "at_9000"), SIZES)
def test_mtu(encapsulation, version, at_1500, at_1460, at_9000):
    peer = replace(NEAR, underlay=tuple(address for address in NEAR.underlay if address.version == version))
    for path, inner in ((1500, at_1500), (1460, at_1460), (9000, at_9000)):
        seen = Underlay(path_mtu={peer.underlay[0]: path})
        desired = desired_state(facts(peers=(peer,), overlay=Overlay(encapsulation=encapsulation)), seen)
        assert desired.host.mtu == inner
        assert {device.mtu for device in desired.pods} == {inner}


def test_pods_have_the_smallest_mtu_of_all_peers_and_each_next_hop_its_own():
    seen = Underlay(path_mtu={ip_address("192.0.2.2"): 9000, ip_address("198.51.100.3"): 1400})
    desired = desired_state(facts(node=NODE4, pods=()), seen)
    assert desired.host.mtu == 1350
    assert only(desired, "10.244.2.0/24").mtu == 8950
    assert only(desired, "10.244.3.0/24").mtu == 1350


def test_mtu_before_there_are_peers():
    assert desired_state(facts(peers=()), SEEN).host.mtu == 1430
    assert desired_state(facts(peers=(), node=NODE4, pods=()), Underlay(mtu=9000)).host.mtu == 8950
    unknown = replace(NODE, underlay=())
    assert desired_state(facts(peers=(), node=unknown), SEEN).host.mtu == 1450


def test_mtu_that_was_set_lowers_but_never_raises():
    desired = desired_state(facts(overlay=Overlay(mtu=1400)), Underlay(path_mtu={ip_address("198.51.100.3"): 1380}))
    assert desired.host.mtu == 1330
    assert only(desired, "10.244.2.0/24").mtu == 1400


@pytest.mark.parametrize(("node", "floor"), [(NODE, 1280), (NODE4, 576)])
def test_mtu_has_a_floor(node, floor):
    seen = Underlay(path_mtu=dict.fromkeys((*NEAR.underlay, *FAR.underlay), 68))
    desired = desired_state(facts(node=node, pods=()), seen)
    assert desired.host.mtu == floor
    assert only(desired, "10.244.3.0/24").mtu == floor


def test_mtu_is_at_most_what_ip_can_say():
    desired = desired_state(facts(overlay=Overlay(encapsulation="none")), Underlay(mtu=65536))
    assert desired.host.mtu == 65535


# -- bare ----------------------------------------------------------------------------
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


# -- routes ----------------------------------------------------------------------------
def test_static_routes():
    routes = (
        StaticRoute(ip_network("198.18.0.0/15"), ("near", "far")),
        StaticRoute(ip_network("203.0.113.0/25"), ("blackhole",)),
        StaticRoute(ip_network("203.0.113.128/25"), ("host",)),
        StaticRoute(ip_network("198.51.0.0/16"), ("far",)),
        StaticRoute(ip_network("100.64.0.0/10"), ("gone",)),
        StaticRoute(ip_network("10.244.3.0/24"), ("near",)),
        StaticRoute(ip_network("10.244.1.2/32"), ("near",)),
    )
    desired = desired_state(facts(routes=routes), SEEN)
    assert [via.peer for via in route(desired, "198.18.0.0/15")] == ["far", "near"]
    assert only(desired, "203.0.113.0/25") == Via("reject", "blackhole")
    assert only(desired, "203.0.113.128/25") == Via("host", "host", mtu=1430, transit=True)
    assert only(desired, "100.64.0.0/10") == Via("reject", "unreachable")
    assert only(desired, "10.244.3.0/24").peer == "near"  # static before learned
    assert only(desired, "10.244.1.2/32").kind == "pod"  # local before static
    kernel = {str(prefix) for prefix in desired.host.routes}
    assert "198.18.0.0/15" in kernel
    assert "198.51.0.0/16" not in kernel  # far's own underlay address lies there
    assert not {"203.0.113.0/25", "203.0.113.128/25", "100.64.0.0/10"} & kernel


def test_default_route_through_a_peer_does_not_catch_the_tunnel_itself():
    desired = desired_state(facts(routes=(StaticRoute(ip_network("0.0.0.0/0"), ("far",)),)), SEEN)
    assert only(desired, "0.0.0.0/0").peer == "far"
    assert ip_network("0.0.0.0/0") not in desired.host.routes


def test_equal_cost_over_bare_peers_is_the_kernels_choice():
    other = Peer("other", (ip_address("192.0.2.7"),), ())
    routes = (StaticRoute(ip_network("198.18.0.0/15"), ("near", "other")),)
    desired = desired_state(facts(peers=(NEAR, other, FAR), routes=routes, overlay=Overlay(encapsulation="none")), SEEN)
    assert only(desired, "198.18.0.0/15") == Via("host", "host", mtu=1500, transit=True)
    assert (
        KernelRoute(ip_network("198.18.0.0/15"), (ip_address("192.0.2.2"), ip_address("192.0.2.7")))
        in desired.kernel_routes
    )


def test_equal_cost_over_bare_and_tunnelled_peers_stays_out_of_the_host_port():
    routes = (StaticRoute(ip_network("198.18.0.0/15"), ("near", "far")),)
    desired = desired_state(facts(routes=routes, overlay=Overlay(when="cross-subnet")), SEEN)
    assert [via.kind for via in route(desired, "198.18.0.0/15")] == ["host", "tunnel"]
    assert ip_network("198.18.0.0/15") not in desired.host.routes
    assert KernelRoute(ip_network("198.18.0.0/15"), (ip_address("192.0.2.2"),)) in desired.kernel_routes


def test_address_claimed_by_two_peers_has_one_owner():
    thief = replace(FAR, name="aaa", underlay=(ip_address("192.0.2.2"),))
    for peers in ((NEAR, thief), (thief, NEAR)):
        assert desired_state(facts(peers=peers), SEEN).peers[ip_address("192.0.2.2")] == "aaa"


# -- the RIB -----------------------------------------------------------------------------
def hop(number, kind="tunnel"):
    return Via(kind, f"t{number:03}", mtu=1450)


PREFIX = ip_network("10.0.0.0/8")


def test_best_is_the_lowest_preference():
    offers = [Offer(PREFIX, preference, (hop(int(preference)),)) for preference in Preference]
    assert best(offers) == best(reversed(offers)) == {PREFIX: (hop(0),)}


def test_equal_preference_merges_without_repetition_up_to_the_limit():
    offers = [Offer(PREFIX, Preference.PEER, (hop(number), hop(number + 1))) for number in range(40)]
    (vias,) = best(offers).values()
    assert vias == tuple(hop(number) for number in range(MAX_NEXT_HOPS))
    assert best(offers[::-1] + offers) == best(offers)


def test_unreachable_gives_way_to_its_equals_only():
    nowhere = Via("reject", "unreachable")
    assert best([Offer(PREFIX, Preference.PEER, (nowhere, hop(1)))]) == {PREFIX: (hop(1),)}
    assert best([Offer(PREFIX, Preference.STATIC, (nowhere,)), Offer(PREFIX, Preference.PEER, (hop(1),))]) == {
        PREFIX: (nowhere,)
    }
    both = [Offer(PREFIX, Preference.STATIC, (nowhere, Via("reject", "blackhole")))]
    assert best(both) == {PREFIX: (Via("reject", "blackhole"),)}


# -- the laws ----------------------------------------------------------------------------
def reverse(given_facts):
    return replace(
        given_facts, pods=given_facts.pods[::-1], peers=given_facts.peers[::-1], routes=given_facts.routes[::-1]
    )


def repeat(given_facts):
    return replace(given_facts, pods=given_facts.pods * 2, peers=given_facts.peers * 3, routes=given_facts.routes * 2)


def shuffle(given_facts):
    def mixed(values):
        return tuple(random.Random(7).sample(values, len(values)))

    return replace(
        given_facts, pods=mixed(given_facts.pods), peers=mixed(given_facts.peers), routes=mixed(given_facts.routes)
    )


def reverse_next_hops(given_facts):
    return replace(given_facts, routes=tuple(replace(route, via=route.via[::-1]) for route in given_facts.routes))


def after_other_facts(given_facts):
    """What was computed before does not show: nothing, half of it, other nodes' facts."""
    half = replace(given_facts, pods=given_facts.pods[::2], peers=given_facts.peers[::2], routes=())
    for before in (Facts(given_facts.node), half, facts()):
        desired_state(before, Underlay(mtu=1300))
    return given_facts


EXPANDERS = (reverse, repeat, shuffle, reverse_next_hops, after_other_facts)


def node_name(number):
    return f"n{number}"


@st.composite
def any_facts(draw):
    numbers = draw(st.lists(st.integers(2, 9), unique=True, max_size=5))
    overlay = Overlay(
        encapsulation=draw(st.sampled_from(["vxlan", "udp", "ipip", "none"])),
        when=draw(st.sampled_from(["always", "cross-subnet"])),
        profile=draw(st.sampled_from(["towpath", "flannel"])),
        mtu=draw(st.sampled_from([0, 1400])),
    )
    families = st.sampled_from([(4,), (6,), (4, 6), (6, 4)])
    subnets = st.sampled_from(["192.0.2.{}", "198.51.100.{}"]), st.sampled_from(["2001:db8::{}", "2001:db8:1::{}"])

    def underlay(number):
        by_version = {4: draw(subnets[0]), 6: draw(subnets[1])}
        return tuple(ip_address(by_version[version].format(number)) for version in draw(families))

    def prefixes(number):
        by_version = {4: f"10.244.{number}.0/24", 6: f"fd00:{number}::/64"}
        return tuple(ip_network(by_version[version]) for version in draw(families))

    encapsulations = st.sampled_from([None, None, "vxlan", "udp", "none"])
    peers = tuple(
        Peer(node_name(number), underlay(number), prefixes(number), encapsulation=draw(encapsulations))
        for number in numbers
    )
    own = draw(st.sampled_from([NODE, NODE4, replace(NODE, underlay=()), replace(NODE, underlay=NODE.underlay[1:])]))
    hops = st.lists(st.integers(1, 9).map(node_name), min_size=1, max_size=4, unique=True).map(tuple)
    targets = st.one_of(hops, st.sampled_from([("host",), ("blackhole",)]))
    destinations = st.sampled_from(
        ["198.18.0.0/15", "10.244.4.0/24", "10.244.1.64/26", "2400::/12", "0.0.0.0/0", "::/0"]
    )
    routes = draw(st.dictionaries(destinations.map(ip_network), targets, max_size=4))
    pods = tuple(
        Pod(f"p{number}", f"/run/netns/p{number}", (own.prefixes[0].network_address + number,))
        for number in draw(st.lists(st.integers(2, 20), unique=True, max_size=4))
    )
    static = tuple(StaticRoute(prefix, via) for prefix, via in routes.items())
    return Facts(own, overlay, pods, peers, static, HostPort(enabled=draw(st.booleans())))


@st.composite
def any_underlay(draw):
    addresses = draw(st.permutations([ip_interface("192.0.2.1/24"), ip_interface("2001:db8::1/64")]))
    remotes = [f"192.0.2.{n}" for n in range(2, 10)] + [f"2001:db8::{n}" for n in range(2, 10)]
    paths = draw(st.dictionaries(st.sampled_from(remotes).map(ip_address), st.integers(68, 9000), max_size=5))
    return Underlay(tuple(addresses[: draw(st.integers(0, 2))]), paths, draw(st.sampled_from([1500, 9000])))


@pytest.mark.parametrize("expander", EXPANDERS, ids=lambda expander: expander.__name__)
@settings(CALM, max_examples=40)
@given(given_facts=any_facts(), seen=any_underlay())
def test_result_depends_on_the_facts_alone(expander, given_facts, seen):
    expected = desired_state(given_facts, seen)
    assert desired_state(given_facts, seen) == expected
    assert desired_state(expander(given_facts), seen) == expected
    turned = replace(seen, path_mtu=dict(reversed(seen.path_mtu.items())))
    assert desired_state(given_facts, turned) == expected


@settings(CALM, max_examples=60)
@given(steps=st.lists(st.tuples(any_facts(), any_underlay(), st.booleans()), min_size=1, max_size=4))
def test_a_state_computed_with_the_last_one_at_hand_is_the_same(steps):
    """Steps change everything, or pods alone."""
    recompute = Recomputation()
    facts_now, seen = steps[0][:2]
    for other, other_seen, pods_alone in steps:
        facts_now, seen = (replace(facts_now, pods=other.pods), seen) if pods_alone else (other, other_seen)
        assert recompute(facts_now, seen) == desired_state(facts_now, seen)


def test_a_pod_more_shares_everything_else():
    recompute = Recomputation()
    before = recompute(facts(), SEEN)
    after = recompute(facts(pods=(WEB, Pod("db", "/run/netns/db", (ip_address("10.244.1.3"),)))), SEEN)
    assert after.peers is before.peers
    assert after.kernel_routes is before.kernel_routes
    added = [(ip_network("10.244.1.3/32"), (Via("pod", "db", mtu=1430),))]
    assert list(after.routes.beside(before.routes)) == added
    assert list(before.routes.beside(after.routes)) == []
    again = recompute(facts(), SEEN)
    assert list(again.routes.beside(after.routes)) == []
    assert list(after.routes.beside(again.routes)) == added
    assert recompute(facts(), SEEN) is again
    assert list(again.routes.beside(before.routes)) == list(again.routes.top.items()), "not made from that one"


def test_a_fault_on_the_way_does_not_show_in_what_is_computed_next():
    more = facts(pods=(Pod("db", "/run/netns/db", (ip_address("10.244.1.3"),)),))
    for wanted in (more, facts()):
        expected = desired_state(wanted, SEEN)
        for call in count():
            recompute = Recomputation()
            recompute(facts(), SEEN)
            try:
                with fault_at(call, (compute,)):
                    recompute(more, SEEN)
            except FaultError:
                assert recompute(wanted, SEEN) == expected, call
            else:
                break
        assert call > 3


COMING_AND_GOING = [
    Pod(f"p{number}", f"/run/netns/p{number}", addresses, ports=ports)
    for number, (addresses, ports) in enumerate(
        [((ip_address(f"10.244.1.{host}"), ip_address(f"fd00:1::{host}")), ()) for host in range(2, 8)]
        + [((ip_address("10.244.1.2"),), ()), ((ip_address("10.244.1.9"),), (PortMapping(80, 8080),))]
        + [((ip_address("10.244.2.2"),), ())]  # in a peer's prefix
    )
]


@settings(CALM, max_examples=100)
@given(steps=st.lists(st.sets(st.sampled_from(range(len(COMING_AND_GOING)))), min_size=2, max_size=12))
def test_pods_that_come_and_go_one_state_after_the_other(steps):
    """Each state is as if computed anew, and what is planned from one to the next is as if all were compared."""
    recompute, before, known = Recomputation(), None, None
    for chosen in steps:
        given_facts = facts(pods=tuple(COMING_AND_GOING[number] for number in sorted(chosen)))
        desired = recompute(given_facts, SEEN)
        expected = desired_state(given_facts, SEEN)
        assert desired == expected
        assert dict(desired.routes) == dict(expected.routes)
        now = objects(desired, before, known)
        if known is not None:
            plain = [{kind: dict(values) for kind, values in state.items()} for state in (now, known)]
            assert plan(now, known) == plan(*plain)
        before, known = desired, now


def test_a_pod_with_an_address_that_somebody_announces_has_it():
    announced = replace(FAR, prefixes=(*FAR.prefixes, ip_network("10.244.1.2/32")))
    for recompute in (desired_state, Recomputation()):
        desired = recompute(facts(peers=(NEAR, announced)), SEEN)
        assert only(desired, "10.244.1.2/32").kind == "pod"
        assert ip_network("10.244.1.2/32") not in desired.host.routes
        without = recompute(facts(peers=(NEAR, announced), pods=()), SEEN)
        assert only(without, "10.244.1.2/32").kind == "tunnel"
        assert ip_network("10.244.1.2/32") in without.host.routes


@CALM
@given(given_facts=any_facts(), seen=any_underlay())
def test_laws_of_any_desired_state(given_facts, seen):
    desired = desired_state(given_facts, seen)
    tunnels = {tunnel.key: tunnel for tunnel in desired.tunnels}
    assert len(tunnels) == len(desired.tunnels)
    mtus = {}
    for prefix, vias in desired.routes.items():
        assert 1 <= len(vias) <= MAX_NEXT_HOPS
        assert len(set(vias)) == len(vias)
        assert len(vias) == 1 or all(via.kind != "reject" for via in vias)
        for via in vias:
            # one size for each next hop, whatever the family inside
            assert mtus.setdefault(replace(via, mtu=0), via.mtu) == via.mtu
            if via.kind == "tunnel":
                assert tunnels[via.target].local.version == via.remote.version
                assert tunnels[via.target].port == via.remote_port
                assert desired.peers[via.remote] == via.peer
            if via.kind == "host":
                # what came by a tunnel may go to the host itself, and through it nowhere
                assert desired.host is not None
                assert via.transit is (prefix not in {address.network for address in desired.host.addresses})
    check_pods(given_facts, desired)
    check_host(given_facts, desired)


def check_pods(given_facts, desired: Desired):
    floor = 1280 if any(prefix.version == 6 for prefix in given_facts.node.prefixes) else 576
    for device in desired.pods:
        assert floor <= device.mtu <= 65535
        for address in device.pod.addresses:
            assert only(desired, str(address)) == Via("pod", device.pod.name, mtu=device.mtu)
    peers_prefixes = {prefix for peer in given_facts.peers for prefix in peer.prefixes}
    for via in (via for prefix in peers_prefixes for via in desired.routes[prefix] if via.kind == "tunnel"):
        own = {prefix.version for prefix in given_facts.node.prefixes}
        assert via.mtu >= floor
        if len(own) == 2:
            assert all(device.mtu <= via.mtu for device in desired.pods)


def check_host(given_facts, desired: Desired):
    if desired.host is None:
        assert desired.kernel_routes == frozenset()
        return
    kernel = {one.prefix for one in desired.kernel_routes}
    assert not kernel & set(desired.host.routes)
    assert set(given_facts.node.prefixes) <= set(desired.host.routes)
    ends = [address for peer in given_facts.peers for address in peer.underlay]
    ends += [tunnel.local for tunnel in desired.tunnels]
    for prefix in desired.host.routes:
        assert not any(end in prefix for end in ends)
    for one in desired.kernel_routes:
        assert one.via
        assert all(via.version == one.prefix.version for via in one.via)


def test_every_pair_of_profile_and_encapsulation_can_be_computed():
    for profile, encapsulation in PROFILES:
        overlay = Overlay(profile=profile, encapsulation=encapsulation)
        assert desired_state(facts(overlay=overlay), SEEN).routes
