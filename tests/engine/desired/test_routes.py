"""Routes: static, default, of equal cost, claimed twice."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

from engine.desired import desired_state
from engine.model import KernelRoute, Overlay, Peer, StaticRoute, Via
from tests.engine.desired.facts import FAR, NEAR, SEEN, facts, only, route


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
