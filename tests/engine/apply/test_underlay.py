"""What is seen of the network below, asked of a real kernel."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network

import pytest

from engine.apply import underlay
from engine.errors import ConfigError
from engine.model import Facts, Node, Overlay, Peer
from engine.pod.namespace import run_inside
from tests.engine.namespaces import ip, namespaces, path_of

pytestmark = [pytest.mark.root, pytest.mark.needs("ip")]

FIRST, SECOND = ip_interface("192.0.2.1/24"), ip_interface("198.51.100.1/24")
SIXTH = ip_interface("2001:db8::1/64")


@pytest.fixture
def host():
    """Devices `one` (MTU 1500) and `two` (MTU 1400) with an address each, `two` with one of IPv6 too."""
    with namespaces(1) as (name,):
        for device in ("one", "two"):
            ip("link", "add", device, "type", "veth", "peer", "name", f"{device}-end", namespace=name)
            for end in (f"{device}-end", device):
                ip("link", "set", end, "up", namespace=name)
        ip("link", "set", "two", "mtu", "1400", namespace=name)
        for device, address in (("one", FIRST), ("two", SECOND)):
            ip("addr", "add", str(address), "dev", device, namespace=name)
        ip("addr", "add", str(SIXTH), "dev", "two", "nodad", namespace=name)
        yield name


def look(name, *, interface=None, addresses=(), peers=()):
    facts = Facts(Node("a", addresses, (ip_network("10.1.0.0/24"),)), Overlay(), peers=peers)
    return run_inside(path_of(name), lambda: underlay.look(facts, interface), where="host")


def test_without_a_default_route_nothing_is_taken_for_the_underlay(host):
    assert look(host) == underlay.Underlay((), {}, underlay.DEFAULT_MTU)


def test_the_devices_of_the_default_routes_in_the_order_of_preference(host):
    ip("route", "add", "default", "via", "192.0.2.9", "metric", "200", namespace=host)
    ip("route", "add", "default", "via", "198.51.100.9", "metric", "100", namespace=host)
    ip("route", "add", "10.0.0.0/8", "dev", "one", namespace=host)
    assert look(host).addresses == (SECOND, SIXTH, FIRST)
    assert look(host).mtu == 1400
    ip("route", "del", "default", "via", "198.51.100.9", namespace=host)
    assert look(host).addresses == (FIRST,)


def test_a_default_route_of_several_next_hops_counts_by_its_first(host):
    ip("route", "add", "default", "nexthop", "via", "198.51.100.9", "nexthop", "via", "192.0.2.9", namespace=host)
    assert look(host).addresses == (SECOND, SIXTH)


def test_a_device_by_its_name(host):
    assert look(host, interface="two").addresses == (SECOND, SIXTH)
    with pytest.raises(ConfigError, match="no device three"):
        look(host, interface="three")


def test_with_given_addresses_all_that_are_not_ours(host):
    ip("link", "set", "one", "alias", "towpath:host", namespace=host)
    assert set(look(host, addresses=(SECOND,)).addresses) == {SECOND, SIXTH}


def test_deprecated_addresses_are_not_used(host):
    ip("addr", "change", str(SIXTH), "dev", "two", "preferred_lft", "0", namespace=host)
    assert look(host, interface="two").addresses == (SECOND,)


def test_a_path_is_that_from_our_end_of_the_tunnel(host):
    """The host routes by source: from the second address the peer is behind the device with the smaller MTU."""
    ip("route", "add", "default", "dev", "one", namespace=host)
    ip("route", "add", "default", "dev", "two", "table", "7", namespace=host)
    ip("rule", "add", "from", str(SECOND.ip), "table", "7", namespace=host)
    far = ip_address("203.0.113.2")
    peers = (Peer("far", (far,), (ip_network("10.3.0.0/24"),)),)
    assert look(host, addresses=(FIRST,), peers=peers).path_mtu == {far: 1500}
    assert look(host, addresses=(SECOND,), peers=peers).path_mtu == {far: 1400}


def test_paths_to_peers(host):
    peers = tuple(
        Peer(name, (ip_address(address),), (ip_network(prefix),))
        for name, address, prefix in (
            ("near", "198.51.100.2", "10.2.0.0/24"),
            ("far", "203.0.113.2", "10.3.0.0/24"),
            ("sixth", "2001:db8::2", "10.4.0.0/24"),
        )
    )
    found = look(host, interface="two", peers=peers).path_mtu
    assert found == {ip_address("198.51.100.2"): 1400, ip_address("2001:db8::2"): 1400}
