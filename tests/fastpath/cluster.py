"""A policy's whole cluster behind one plane in memory: every endpoint is a pod with a port of its own.

Owns: building it from a snapshot, and conversations between two addresses:
an opening packet, its answer, more of both.
Never: judges.
Invariant: `turn` leaves the law of conservation intact.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from ipaddress import ip_network

from engine.apply.policy import policy_image
from engine.desired.policy.compiler import Compiler
from engine.desired.policy.enforced import Enforced
from engine.desired.policy.model import Snapshot
from fastpath.plane import Plane
from fastpath.port.memory import MemoryPort
from fastpath.reference import ICMP, ICMPV6, SCTP, TCP, UDP
from fastpath.values import Address, Deliver, FlowSettings
from tests.fastpath import packets

KEY = bytes(range(8))
SYN, ACK, RST, FIN = 2, 16, 4, 1


class MemoryCluster:
    """`strangers` are behind the host port, each endpoint's addresses behind a port of its own."""

    def __init__(self, snapshot: Snapshot, flows: FlowSettings | None = None) -> None:
        self.plane = Plane(hash_key=KEY, flows=flows)
        self.compiler = Compiler()
        self.ports: dict[Address, MemoryPort] = {}
        self.host = MemoryPort("host", role="host", mtu=1500)
        host = self.plane.set_adjacency(Deliver(self.plane.attach(self.host), 1500, True))
        self.plane.set_route(ip_network("0.0.0.0/0"), host)
        self.plane.set_route(ip_network("::/0"), host)
        for key, endpoint in snapshot.endpoints.items():
            if not endpoint.host_network and not endpoint.is_host and endpoint.addresses:
                self.add(key, endpoint.addresses)
        self.apply(snapshot)

    def add(self, name: str, addresses: Iterable[Address]) -> None:
        fresh = [address for address in addresses if address not in self.ports]
        if not fresh:
            return
        port = MemoryPort(name, addresses=fresh, mtu=1500, capacity=1 << 18)
        to = self.plane.set_adjacency(Deliver(self.plane.attach(port), 1500))
        for address in fresh:
            self.plane.set_route(ip_network(address), to)
            self.ports[address] = port

    def apply(self, snapshot: Snapshot) -> None:
        self.program = self.compiler.update(snapshot)
        self.plane.set_policy(policy_image(Enforced(self.program)))

    def port(self, address: Address) -> MemoryPort:
        return self.ports.get(address, self.host)

    def turn(self) -> None:
        while self.plane.turn():
            pass
        counters = self.plane.counters()
        assert counters.received + counters.created == counters.sent + sum(counters.drops.values()), counters

    def passes(self, source: Address, destination: Address, *data: bytes) -> int:
        """Packets from one address to another; how many arrive."""
        self.port(source).inject(list(data))
        self.turn()
        return len(self.port(destination).drain())

    @property
    def drops(self) -> dict[str, int]:
        return dict(self.plane.counters().drops)


def datagram(source: Address, destination: Address, body: bytes, protocol: int, **more: object) -> bytes:
    build = packets.ipv4 if source.version == 4 else packets.ipv6
    return build(body, protocol, source=source, destination=destination, **more)


def segment(
    source: Address, destination: Address, flags: int, *, sport: int, dport: int, seq: int = 1000, ack: int = 0,
    payload: bytes = b"", window: int = 512, options: bytes = b"",
) -> bytes:  # fmt: skip
    words = 5 + len(options) // 4
    head = struct.pack("!HHIIBBHHH", sport, dport, seq, ack, words << 4, flags, window, 0, 0)
    body = packets.filled(source, destination, TCP, head + options + payload, 16)
    return datagram(source, destination, body, TCP)


def sctp(source: Address, destination: Address, sport: int, dport: int, chunk: int, tag: int, initiate: int) -> bytes:
    body = (
        sport.to_bytes(2) + dport.to_bytes(2) + tag.to_bytes(4) + bytes(4)
        + bytes([chunk, 0, 0, 20]) + initiate.to_bytes(4) + bytes(12)
    )  # fmt: skip
    return datagram(source, destination, body, SCTP)


def opening(source: Address, destination: Address, protocol: int, port: int, sport: int = 40_000) -> bytes:
    """The first packet of a connection. `port` of ICMP is type << 8 | code."""
    if protocol == TCP:
        return segment(source, destination, SYN, sport=sport, dport=port, seq=1000)
    if protocol == UDP:
        return datagram(source, destination, packets.udp(source, destination, b"ask", sport=sport, dport=port), UDP)
    if protocol == SCTP:
        return sctp(source, destination, sport, port, 1, 0, 0x1111)
    if protocol == (ICMP if source.version == 4 else ICMPV6):
        return datagram(
            source, destination, packets.echo(source, destination, kind=port >> 8, code=port & 255), protocol
        )
    body = sport.to_bytes(2) + port.to_bytes(2) + bytes(8)
    return datagram(source, destination, body, protocol)


def answers(source: Address, destination: Address, protocol: int, port: int, sport: int = 40_000) -> bytes:
    """What the destination says to it."""
    if protocol == TCP:
        return segment(destination, source, SYN | ACK, sport=port, dport=sport, seq=5000, ack=1001)
    if protocol == UDP:
        return datagram(destination, source, packets.udp(destination, source, b"told", sport=port, dport=sport), UDP)
    if protocol == SCTP:
        return sctp(destination, source, port, sport, 2, 0x1111, 0x2222)
    raise ValueError(f"no answer of protocol {protocol}")
