"""What passes between pods and the host's port: replies that must go through the host, and link-local services."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest

from fastpath.plane import Plane
from fastpath.port.memory import MemoryPort
from fastpath.values import Deliver
from tests.fastpath.network import MemoryNode, pair
from tests.fastpath.packets import ipv4, ipv6, udp

SERVICE4, SERVICE6 = IPv4Address("10.96.0.10"), IPv6Address("fd00:96::10")
METADATA = IPv4Address("169.254.169.254")


class Node(MemoryNode):
    """With a second pod and the host's port, to which everything else is routed."""

    def __post_init__(self):
        super().__post_init__()
        self.near4, self.near6 = IPv4Address("10.0.1.3"), IPv6Address("fd00:0:0:1::3")
        self.near = MemoryPort("near", addresses=[self.near4, self.near6], mtu=self.mtu)
        self.host = MemoryPort("host", role="host", addresses=[self.gateway4, self.gateway6], mtu=self.mtu)
        to_near = self.plane.set_adjacency(Deliver(self.plane.attach(self.near), self.mtu))
        number = self.plane.attach(self.host)
        self.to_host = self.plane.set_adjacency(Deliver(number, self.mtu))
        outside = self.plane.set_adjacency(Deliver(number, self.mtu, transit=True))
        for address, adjacency in (
            (self.near4, to_near),
            (self.near6, to_near),
            (self.gateway4, self.to_host),
            (self.gateway6, self.to_host),
        ):
            self.plane.set_route(ip_network(address), adjacency)
        for prefix in ("0.0.0.0/0", "::/0", "169.254.0.0/16"):
            self.plane.set_route(ip_network(prefix), outside)

    def from_port(self, port, packet):
        port.inject([packet])
        self.turn()

    @property
    def far4(self):
        return IPv4Address("10.0.2.2")

    @property
    def far6(self):
        return IPv6Address("fd00:0:0:2::2")


@pytest.fixture
def node():
    return Node(1, 2, "udp")


def packet(source, destination, sport=4000, dport=53):
    body = udp(source, destination, b"x", sport=sport, dport=dport)
    return ipv4(body, source=source, destination=destination) if source.version == 4 else ipv6(
        body, source=source, destination=destination
    )


def ends(data):
    if data[0] >> 4 == 4:
        return IPv4Address(data[12:16]), IPv4Address(data[16:20])
    return IPv6Address(data[8:24]), IPv6Address(data[24:40])


FAMILIES = pytest.mark.parametrize("v", [4, 6])


@FAMILIES
@pytest.mark.parametrize("where", ["near", "far"])
def test_reply_of_a_service_goes_back_through_the_host(node, v, where):
    """pod -> service -> host changes the destination -> other pod; its reply -> host changes the source -> pod."""
    pod, service = (node.pod4, SERVICE4) if v == 4 else (node.pod6, SERVICE6)
    other = getattr(node, f"{where}{v}")
    node.plane.set_detour(node.to_host)
    node.from_port(node.pod, packet(pod, service))
    assert ends(node.host.drain()[0]) == (pod, service)
    node.from_port(node.host, packet(pod, other))
    if where == "near":
        assert ends(node.near.drain()[0]) == (pod, other)
        node.from_port(node.near, packet(other, pod, 53, 4000))
    else:
        assert ends(node.tunnel.drain()[0].payload) == (pod, other)
        node.tunnel.inject_datagram(packet(other, pod, 53, 4000), node.peer_address)
        node.turn()
    assert node.pod.drain() == []
    assert ends(node.host.drain()[0]) == (other, pod)
    node.from_port(node.host, packet(service, pod, 53, 4000))
    assert ends(node.pod.drain()[0]) == (service, pod)
    # What the host did not change comes back with the other pod's address, and is not sent round again.
    node.from_port(node.host, packet(other, pod, 53, 4000))
    assert ends(node.pod.drain()[0]) == (other, pod) if where == "far" else True
    assert not node.host.drain()


@FAMILIES
def test_other_connections_stay_direct(node, v):
    pod, near = (node.pod4, node.near4) if v == 4 else (node.pod6, node.near6)
    node.plane.set_detour(node.to_host)
    node.from_port(node.host, packet(pod, near))
    node.near.drain()
    node.from_port(node.near, packet(near, pod, 53, 4001))
    node.from_port(node.near, packet(near, pod, 54, 4000))
    assert len(node.pod.drain()) == 2
    # The pod speaks to that end directly now, with the port it used before: so does the other.
    node.from_port(node.pod, packet(pod, near))
    node.from_port(node.near, packet(near, pod, 53, 4000))
    assert len(node.pod.drain()) == 1
    assert node.host.drain() == []


@FAMILIES
def test_without_leave_the_host_cannot_speak_as_a_pod(node, v):
    pod, near = (node.pod4, node.near4) if v == 4 else (node.pod6, node.near6)
    for adjacency in (None, node.to_host, None):
        node.plane.set_detour(adjacency)
        node.from_port(node.host, packet(pod, near))
        assert len(node.near.drain()) == (adjacency is not None)
    assert node.drops == {"guard_own_source": 2}


def test_detours_outlive_the_plane_and_are_bounded(node):
    node.plane.set_detour(node.to_host)
    for sport in range(1, 1001):
        node.from_port(node.host, packet(node.pod4, node.near4, sport))
    node.near.drain()
    data = node.plane.export_detours()
    assert len(data) == 24 + 1000 * 20
    heir = Node(1, 2, "udp")
    heir.plane.import_detours(data)
    heir.plane.set_detour(heir.to_host)
    for sport in range(1, 1001):
        heir.from_port(heir.near, packet(heir.near4, heir.pod4, 53, sport))
    assert len(heir.host.drain()) == 1000
    for bad in (b"", data[:23], data[:-1], b"detours2" + data[8:], data[:24] + b"\xff" * 20):
        with pytest.raises(ValueError, match="no detours"):
            Plane().import_detours(bad)
    with pytest.raises(ValueError, match="does not lead to a local port"):
        node.plane.set_detour(node.to_peer)


def test_more_connections_than_there_is_room_for_lose_the_oldest(node):
    node.plane.set_detour(node.to_host)
    for round_ in range(4):
        for sport in range(1, 30001):
            node.host.inject([packet(node.pod4, IPv4Address(f"10.0.2.{round_ + 2}"), sport)])
            if sport % 500 == 0:
                node.turn()
                node.tunnel.discard()
    assert len(node.plane.export_detours()) <= 24 + 65536 * 20
    node.tunnel.inject_datagram(packet(IPv4Address("10.0.2.5"), node.pod4, 53, 30000), node.peer_address)
    node.turn()
    assert len(node.host.drain()) == 1


# -- link-local ----------------------------------------------------------------
def test_link_local_services_of_the_host(node):
    node.from_port(node.pod, packet(node.pod4, METADATA, 4000, 80))
    assert ends(node.host.drain()[0]) == (node.pod4, METADATA)
    node.from_port(node.host, packet(METADATA, node.pod4, 80, 4000))
    assert ends(node.pod.drain()[0]) == (METADATA, node.pod4)
    assert node.drops == {}


def test_link_local_addresses_go_nowhere_else(node):
    """Not as a pod's source, not to or from a peer, not from the host to a peer, not through a wider route."""
    other = IPv4Address("169.254.1.1")
    node.from_port(node.pod, packet(METADATA, node.near4))
    node.from_port(node.pod, packet(METADATA, other))
    node.from_port(node.host, packet(METADATA, node.far4))
    node.from_port(node.host, packet(node.gateway4, METADATA))
    node.from_port(node.host, packet(METADATA, other))
    for source, destination in ((METADATA, node.pod4), (node.far4, METADATA), (METADATA, other)):
        node.tunnel.inject_datagram(packet(source, destination), node.peer_address)
    node.turn()
    assert node.drops == {"martian": 8}
    node.plane.set_route(ip_network("169.254.0.0/16"), node.to_peer)
    node.from_port(node.pod, packet(node.pod4, METADATA))
    assert node.drops == {"martian": 9}
    assert not any(port.drain() for port in (node.pod, node.near, node.host, node.tunnel))


def test_without_a_host_port_there_is_no_link_local():
    node, _ = pair("vxlan")
    node.send(packet(node.pod4, METADATA))
    assert node.drops == {"martian": 1}
