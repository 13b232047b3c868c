"""Forward packets inside one program: a data plane between memory ports, without any privilege.

Two planes stand for two nodes. What pod A sends is looked up, put into VXLAN
by the first, taken out by the second, and delivered to pod B.

    python examples/forward_bytes.py
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from fastpath import Deliver, Encapsulate, Plane, Tunnel
from fastpath.port.memory import MemoryPort

Address = IPv4Address | IPv6Address
VXLAN_PORT = 4789


class Node:
    """A plane with one pod, one tunnel, and one peer."""

    def __init__(self, number: int) -> None:
        self.underlay = ip_address(f"192.0.2.{number}")
        self.mac = bytes([2, 0, 0, 0, 0, number])
        self.pod_address = ip_address(f"10.{number}.0.2")
        self.prefix = ip_network(f"10.{number}.0.0/16")
        self.plane = Plane()
        self.pod = MemoryPort(f"pod{number}", addresses=[self.pod_address])
        self.tunnel = MemoryPort(
            f"tunnel{number}",
            role="tunnel",
            tunnel=Tunnel("vxlan", self.underlay, VXLAN_PORT, vni=1, mac=self.mac),
        )
        self.pod_port = self.plane.attach(self.pod)
        self.tunnel_port = self.plane.attach(self.tunnel)
        here = self.plane.set_adjacency(Deliver(self.pod_port, mtu=1500))
        self.plane.set_route(ip_network(self.pod_address), here)

    def know(self, other: Node) -> None:
        """Send what is for the other's prefix through the tunnel, and accept what comes from there."""
        there = Encapsulate(
            self.tunnel_port, peer=1, remote=other.underlay, mtu=1450, remote_port=VXLAN_PORT, mac=other.mac
        )
        self.plane.set_route(other.prefix, self.plane.set_adjacency(there))
        self.plane.set_peers({other.underlay: 1})


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of an even number of bytes."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def udp_packet(source: Address, destination: Address, payload: bytes) -> bytes:
    """An IPv4 packet with a UDP datagram (checksum 0: none)."""
    udp = struct.pack("!HHHH", 40000, 7, 8 + len(payload), 0) + payload
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0x4000, 64, 17, 0) + source.packed + destination.packed
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + udp


def main() -> None:
    a, b = Node(1), Node(2)
    a.know(b)
    b.know(a)

    sent = [udp_packet(a.pod_address, b.pod_address, f"packet {number}".encode()) for number in range(3)]
    a.pod.inject(sent)
    a.plane.turn()  # one pass over all ports; `start` would run it in threads instead

    for datagram in a.tunnel.drain():
        print(f"on the wire: {len(datagram.payload)} bytes of VXLAN to {datagram.remote}")
        b.tunnel.inject_datagram(datagram.payload, a.underlay)
    b.plane.turn()

    received = b.pod.drain()
    for packet in received:
        print(f"pod B got:   {packet[28:].decode()!r}, TTL {packet[8]}")
    assert [packet[28:] for packet in received] == [packet[28:] for packet in sent]
    assert all(packet[8] == 62 for packet in received), "each node takes one off the TTL"

    stray = udp_packet(ip_address("10.99.0.1"), b.pod_address, b"not my address")
    a.pod.inject(stray)
    a.plane.turn()
    dropped = {reason: n for reason, n in a.plane.counters().drops.items() if n}
    print(f"dropped:     {dropped}")
    assert dropped == {"guard_pod_source": 1}


if __name__ == "__main__":
    main()
