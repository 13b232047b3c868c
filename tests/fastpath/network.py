"""Nodes joined in memory: each a Plane with memory ports, no privilege, no threads.

Owns: building a node with a pod, a tunnel and routes, and carrying datagrams between two.
Invariant: `check` holds after every exchange: what came in went out or was counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from fastpath.plane import Plane
from fastpath.port.memory import Datagram, MemoryPort
from fastpath.values import Address, Deliver, Encapsulate, Encapsulation, FlowSettings, Tunnel

KEY = bytes(range(8))
PEER = 7
PORTS: dict[str, int] = {"vxlan": 4789, "udp": 8285, "ipip": 0, "plain": 0}
OVERHEAD = {  # bytes, by encapsulation and outer family
    ("vxlan", 4): 50,
    ("vxlan", 6): 70,
    ("udp", 4): 28,
    ("udp", 6): 48,
    ("ipip", 4): 20,
    ("ipip", 6): 40,
    ("plain", 4): 0,
    ("plain", 6): 0,
}


def mac(number: int) -> bytes:
    return bytes([2, 0, 0, 0, 0, number])


def outer(number: int, family: int) -> Address:
    return ip_address(f"192.0.2.{number}" if family == 4 else f"2001:db8::{number}")


@dataclass
class MemoryNode:
    """Node `number`: pod 10.0.<number>.2 / fd00:0:0:<number>::2, peer node `other`."""

    number: int
    other: int
    encapsulation: Encapsulation = "vxlan"
    outer_family: int = 4
    mtu: int = 1450
    vni: int = 42
    super_packets: bool = False
    flows: FlowSettings | None = None
    plane: Plane = field(init=False)

    def __post_init__(self) -> None:
        here, there = outer(self.number, self.outer_family), outer(self.other, self.outer_family)
        port = PORTS[self.encapsulation]
        self.pod4, self.pod6 = IPv4Address(f"10.0.{self.number}.2"), IPv6Address(f"fd00:0:0:{self.number}::2")
        self.gateway4, self.gateway6 = IPv4Address(f"10.0.{self.number}.1"), IPv6Address(f"fd00:0:0:{self.number}::1")
        self.address, self.peer_address = here, there
        self.plane = Plane(hash_key=KEY, flows=self.flows)
        self.pod = MemoryPort("pod", addresses=[self.pod4, self.pod6], mtu=self.mtu, super_packets=self.super_packets)
        self.tunnel = MemoryPort(
            "tunnel",
            role="tunnel",
            tunnel=Tunnel(self.encapsulation, here, port, self.vni, mac=mac(self.number)),
        )
        self.pod_port, self.tunnel_port = self.plane.attach(self.pod), self.plane.attach(self.tunnel)
        self.to_pod = self.plane.set_adjacency(Deliver(self.pod_port, self.mtu))
        self.to_peer = self.plane.set_adjacency(
            Encapsulate(self.tunnel_port, PEER, there, self.mtu, port, mac(self.other))
        )
        self.plane.set_route(IPv4Network(self.pod4), self.to_pod)
        self.plane.set_route(IPv6Network(self.pod6), self.to_pod)
        self.plane.set_route(ip_network(f"10.0.{self.other}.0/24"), self.to_peer)
        self.plane.set_route(ip_network(f"fd00:0:0:{self.other}::/64"), self.to_peer)
        self.plane.set_peers({there: PEER})
        self.plane.set_gateway(self.gateway4, self.gateway6)

    def send(self, *packets: object) -> list[Datagram]:
        """Packets from the pod; the datagrams that leave for the peer."""
        self.pod.inject(packets)
        self.turn()
        return self.tunnel.drain()

    def receive(self, *payloads: bytes, traffic_class: int = 0, source: Address | None = None) -> list:
        """Datagrams from the peer; what reaches the pod."""
        for payload in payloads:
            self.tunnel.inject_datagram(payload, source or self.peer_address, traffic_class=traffic_class)
        self.turn()
        return self.pod.drain()

    def turn(self) -> None:
        while self.plane.turn():
            pass
        self.check()

    def check(self) -> None:
        """The law of conservation."""
        counters = self.plane.counters()
        assert counters.received + counters.created == counters.sent + sum(counters.drops.values()), counters

    @property
    def drops(self) -> dict[str, int]:
        return dict(self.plane.counters().drops)


def pair(
    encapsulation: Encapsulation = "vxlan", outer_family: int = 4, **more: object
) -> tuple[MemoryNode, MemoryNode]:
    """Two nodes that are each other's peer."""
    return (
        MemoryNode(1, 2, encapsulation, outer_family, **more),
        MemoryNode(2, 1, encapsulation, outer_family, **more),
    )
