"""Any split of streams over any receives delivers the same bytes, in the order of each flow.

Datagrams go into a node's tunnel port in the groups that UDP_GRO may make of
them; the golden twin splits what reaches the pod. The examples below say what
has to be gathered, so that "gather nothing" does not pass.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpath import reference
from tests.fastpath.network import MemoryNode, mac, pair
from tests.fastpath.offload import packets
from tests.fastpath.offload.packets import ACK, CWR, ECE, FIN, PSH, RST, SYN, TCP, URG, Packet
from tests.fastpath.offload.test_merge import FLOWS, MUTATIONS, by_flow, stream

SIZES = [8, 100, 536, 1398]


class Never(random.Random):
    """Cuts nowhere."""

    def random(self) -> float:
        return 1.0


def between(a: MemoryNode, b: MemoryNode, packet: Packet) -> Packet:
    ends = (a.pod4, b.pod4) if packet.family == 4 else (a.pod6, b.pod6)
    return packet.but(source=str(ends[0]), destination=str(ends[1]))


def frame(kind: str, packet: Packet) -> bytes:
    data = packet.build()
    return reference.vxlan_frame(data, 42, mac(2), mac(1)) if kind == "vxlan" else data


def receive(b: MemoryNode, kind: str, wire: list[Packet], cut: random.Random) -> list:
    """Deliver the packets in receives of equal size, the last of each maybe shorter, cut where `cut` pleases."""
    group: list[bytes] = []
    for data in (*(frame(kind, packet) for packet in wire), b""):
        ends = group and (len(group[-1]) < len(group[0]) or len(data) > len(group[0]) or cut.random() < 0.05)
        if ends or not data or sum(map(len, group)) + len(data) > 65000 or len(group) == 128:
            b.tunnel.inject_datagram(b"".join(group), b.peer_address, segment_bytes=len(group[0]))
            group = []
        group.append(data)
    b.turn()
    return b.pod.drain()


def segments_of(got: list) -> list[bytes]:
    """What the super-packets that reached the pod stand for."""
    found = []
    for item in got:
        whole = packets.super_packet(item.data, item.gso_size) if item.gso_size else None
        found += reference.split(whole) if whole else [item.data]
    return found


@st.composite
def wires(draw: st.DrawFn) -> list[Packet]:
    """Interleaved streams with everything that happens to a stream on its way."""
    source = draw(st.randoms(use_true_random=False))
    queues = []
    for first in draw(st.lists(st.sampled_from(FLOWS), min_size=1, max_size=3, unique=True)):
        size = draw(st.sampled_from(SIZES))
        sizes = [size if source.random() < 0.9 else source.randint(1, size) for _ in range(draw(st.integers(1, 40)))]
        queue = stream(first.but(sequence=source.choice([1, 2**32 - 2000])), sizes)
        for i, packet in enumerate(queue):
            if source.random() < 0.1:
                change = source.choice(MUTATIONS)
                if packet.family == 4 or "ip_options" not in change:
                    queue[i] = packet.but(**change)
        if source.random() < 0.3:
            queue.insert(source.randrange(len(queue)), source.choice(queue))
        queues.append(queue)
    wire = []
    while any(queues):
        queue = source.choice([q for q in queues if q])
        n = source.choice([1, 3, 50])
        wire += queue[:n]
        del queue[:n]
    return wire


@pytest.mark.parametrize("kind", ["vxlan", "udp"])
@settings(max_examples=150, deadline=None)
@given(wires(), st.randoms(use_true_random=False))
def test_any_split(kind, wire, cut):
    a, b = pair(kind, super_packets=True, mtu=1500)
    wire = [between(a, b, packet) for packet in wire]
    got = segments_of(receive(b, kind, wire, cut))
    assert b.drops == {}
    assert by_flow(got) == by_flow([packet.but(ttl=packet.ttl - 1).build() for packet in wire])


def gathered(wire: list[Packet], kind: str = "vxlan") -> list:
    """All in as few receives as their sizes allow."""
    a, b = pair(kind, super_packets=True, mtu=1500)
    return receive(b, kind, [between(a, b, packet) for packet in wire], Never())


@pytest.mark.parametrize("first", FLOWS)
@pytest.mark.parametrize("size", [8, 536, 1398])
def test_a_receive_becomes_one(first, size):
    count = min(100, 60000 // (size + 100))
    (got,) = gathered(stream(first, [size] * (count - 1) + [max(1, size - 1)]))
    assert (len(segments_of([got])), got.gso_size) == (count, size)


def test_receives_of_a_turn_become_one():
    a, b = pair(super_packets=True, mtu=1500)
    wire = [between(a, b, packet) for packet in stream(FLOWS[0], [1000] * 12)]
    for part in (wire[:5], wire[5:7], wire[7:]):
        b.tunnel.inject_datagram(
            b"".join(frame("vxlan", packet) for packet in part), b.peer_address, segment_bytes=len(frame("vxlan", wire[0]))
        )
    b.turn()
    (got,) = b.pod.drain()
    assert len(segments_of([got])) == 12
    assert (b.plane.counters().events["super_merged"], b.plane.counters().events["segment_merged"]) == (1, 11)


@pytest.mark.parametrize(
    "change",
    [
        *({"flags": flags} for flags in (ACK | FIN, ACK | RST, SYN, ACK | ECE, ACK | URG, ACK | CWR)),
        {"traffic_class": 1},
        {"ttl": 9},
        {"window": 1},
        {"acknowledgement": 1},
        {"dont_fragment": False},
        {"destination_port": 9},
        {"checksum": "wrong"},
        {"options": packets.TIMESTAMPS[:-1] + b"!"},
    ],
)
def test_what_differs_is_left_as_it_is(change):
    wire = stream(FLOWS[0], [1000] * 6)
    wire[3] = wire[3].but(**change)
    got = gathered(wire)
    assert [len(segments_of([item])) for item in got] == [3, 1, 2]
    assert segments_of(got)[3][-1000:] == wire[3].build()[-1000:]


def test_a_wrong_header_checksum_is_dropped_alone():
    a, b = pair("udp", super_packets=True, mtu=1500)
    wire = [between(a, b, packet).build() for packet in stream(FLOWS[0], [1000] * 6)]
    wire[3] = wire[3][:10] + bytes([wire[3][10] ^ 1]) + wire[3][11:]
    b.tunnel.inject_datagram(b"".join(wire), b.peer_address, segment_bytes=len(wire[0]))
    b.turn()
    assert [len(segments_of([item])) for item in b.pod.drain()] == [3, 2]
    assert sum(b.drops.values()) == 1


def test_push_ends_a_super_packet():
    wire = stream(FLOWS[0], [1000] * 6)
    wire[2] = wire[2].but(flags=ACK | PSH)
    assert [len(segments_of([item])) for item in gathered(wire)] == [3, 3]


def test_a_wrong_tunnel_header_is_dropped_alone():
    a, b = pair(super_packets=True, mtu=1500)
    frames = [frame("vxlan", between(a, b, packet)) for packet in stream(FLOWS[0], [1000] * 5)]
    frames[2] = frames[2][:4] + b"\0\0\x63" + frames[2][7:]
    b.tunnel.inject_datagram(b"".join(frames), b.peer_address, segment_bytes=len(frames[0]))
    b.turn()
    assert [len(segments_of([item])) for item in b.pod.drain()] == [2, 2]
    assert b.drops == {"vni_unknown": 1}


def test_a_stranger_among_the_segments_is_judged_by_itself():
    a, b = pair(super_packets=True, mtu=1500)
    wire = [between(a, b, packet) for packet in stream(FLOWS[0], [1000] * 5)]
    wire[2] = wire[2].but(source="10.0.9.9")
    got = receive(b, "vxlan", wire, Never())
    assert [len(segments_of([item])) for item in got] == [2, 2]
    assert sum(b.drops.values()) == 1


def test_udp_segments_are_bounded():
    wire = stream(FLOWS[2], [10] * 200)
    assert all(packet.protocol != TCP for packet in wire)
    assert [len(segments_of([item])) for item in gathered(wire)] == [128, 72]
