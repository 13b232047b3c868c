"""The whole way of a packet, both directions, against the golden twin: bytes, reason and counters."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpath import reference
from fastpath.port.memory import Super
from fastpath.reference import PLAIN, Offload
from fastpath.values import Encapsulation
from tests.fastpath import packets
from tests.fastpath.network import MemoryNode, pair
from tests.fastpath.packets import bent, changed, offloads, resealed
from tests.fastpath.twin_path import Outcome, inbound, outbound, wrapped

KINDS: list[Encapsulation] = ["vxlan", "udp"]


@dataclass
class Fresh:
    """Two nodes, new ones before their ICMP messages would be limited: the twin knows no rates."""

    kind: Encapsulation
    super_packets: bool = False
    left: int = 0
    nodes: tuple[MemoryNode, MemoryNode] = field(init=False)

    def pair(self) -> tuple[MemoryNode, MemoryNode]:
        if self.left == 0:
            self.nodes, self.left = pair(self.kind, super_packets=self.super_packets), 16
        self.left -= 1
        return self.nodes


def readdressed(data: bytes, source: MemoryNode, target: MemoryNode) -> bytes:
    """The packet builders' two addresses become those of two pods; everything else stays as bent as it was."""
    for old, new in (
        (packets.A4, source.pod4),
        (packets.B4, target.pod4),
        (packets.A6, source.pod6),
        (packets.B6, target.pod6),
    ):
        at = (12, 16) if old.version == 4 else (8, 24)
        for start in at:
            if data[:1] and data[0] >> 4 == old.version and data[start : start + len(old.packed)] == old.packed:
                data = changed(data, start, new.packed)
    return resealed(data)


def judge(node: MemoryNode, before: object, expected: Outcome, pod: list, tunnel: list) -> None:
    counters = node.plane.counters()
    drops = {
        name: n - before.drops.get(name, 0) for name, n in counters.drops.items() if n != before.drops.get(name, 0)
    }
    assert drops == ({expected.reason: expected.n_segments} if expected.reason else {})
    assert counters.received - before.received == expected.n_segments
    assert tuple(pod) == expected.to_pod
    assert tuple(datagram.payload for datagram in tunnel) == expected.to_tunnel


def send(node: MemoryNode, data: bytes, offload: Offload = PLAIN) -> None:
    """One packet from the pod, judged."""
    start, field = offload.pending or (0, 0)
    before = node.plane.counters()
    tunnel = node.send(Super(data, offload.gso_type, offload.gso_size, start, field, offload.pending is not None))
    judge(node, before, outbound(node, data, offload), plain(node.pod.drain()), tunnel)


def plain(drained: list) -> list[bytes]:
    """Packets as bytes, those with metadata split and completed by the twin."""
    out: list[bytes] = []
    for item in drained:
        if isinstance(item, bytes):
            out.append(item)
            continue
        pending = (item.checksum_start, item.checksum_offset) if item.needs_checksum else None
        out += reference.split(reference.parse(item.data, Offload(item.gso_type, item.gso_size, pending)))
    return out


def receive(node: MemoryNode, payload: bytes, outer_class: int = 0) -> None:
    before = node.plane.counters()
    pod = plain(node.receive(payload, traffic_class=outer_class))
    judge(node, before, inbound(node, payload, outer_class), pod, node.tunnel.drain())


@pytest.mark.parametrize("kind", KINDS)
def test_twin_agrees_about_what_pods_send(kind: Encapsulation) -> None:
    nodes = Fresh(kind, super_packets=True)

    @settings(max_examples=400, deadline=None)
    @given(bent(), st.data())
    def agrees(data: bytes, more: st.DataObject) -> None:
        a, b = nodes.pair()
        data = readdressed(data, a, b)
        send(a, data, more.draw(st.just(PLAIN) | offloads(data)))

    agrees()


@pytest.mark.parametrize("offload", [PLAIN, Offload(gso_type=1)], ids=["plain", "odd metadata"])
@pytest.mark.parametrize("ends", ["own -> 169.254.1.1", "169.254.1.1 -> own", "169.254.1.1 -> 169.254.1.2", "own -> 127.0.0.1"])
def test_twin_agrees_about_link_local_ends(ends: str, offload: Offload) -> None:
    a, _ = pair()
    source, destination = (a.pod4 if end == "own" else IPv4Address(end) for end in ends.split(" -> "))
    send(a, reference.ip_packet(source, destination, 253, b"x" * 20), offload)


@pytest.mark.parametrize("kind", KINDS)
def test_twin_agrees_about_what_peers_send(kind: Encapsulation) -> None:
    nodes = Fresh(kind)

    @settings(max_examples=400, deadline=None)
    @given(bent(), st.integers(0, 255), st.integers(0, 30), st.binary(min_size=1, max_size=3))
    def agrees(data: bytes, outer_class: int, at: int, noise: bytes) -> None:
        a, b = nodes.pair()
        payload = wrapped(a, readdressed(data, a, b) or b"\x40")
        if at < 22 and kind == "vxlan":
            payload = changed(payload, at, noise)
        receive(b, payload, outer_class)

    agrees()


@settings(max_examples=60, deadline=None)
@given(st.lists(bent(), min_size=1, max_size=65))
def test_a_burst_is_its_packets(many: list[bytes]) -> None:
    a, b = pair()
    many = [readdressed(data, a, b) for data in many]
    expected = [outbound(a, data) for data in many]
    datagrams = a.send(*many)
    drops: dict[str, int] = {}
    for outcome in expected:
        if outcome.reason:
            drops[outcome.reason] = drops.get(outcome.reason, 0) + 1
    assert a.drops == drops
    assert sorted(d.payload for d in datagrams) == sorted(p for outcome in expected for p in outcome.to_tunnel)


def test_the_packets_of_these_tests_go_through_and_are_answered() -> None:
    """Otherwise agreement would mean little."""
    a, b = pair()
    through = readdressed(packets.packet(4), a, b)
    assert outbound(a, through).to_tunnel and inbound(b, wrapped(a, through)).to_pod
    send(a, through)
    receive(b, wrapped(a, through))
    expired = readdressed(packets.packet(6, ttl=1), a, b)
    assert outbound(a, expired).to_pod and inbound(b, wrapped(a, expired)).to_tunnel
    send(a, expired)
    receive(b, wrapped(a, expired))
    assert (IPv4Address(through[12:16]), IPv6Address(expired[8:24])) == (a.pod4, a.pod6)
