"""Merging a burst changes how bytes are carried, never which bytes arrive or in what order.

The property: let the golden twin split every packet that comes out and take the
packets of one flow; they are the packets that went in. The examples below it
say what has to be merged, so that "merge nothing" does not pass.
"""

from __future__ import annotations

import random
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpath import reference
from tests.cy import probe_offload
from tests.fastpath.offload import packets
from tests.fastpath.offload.packets import (
    ACK,
    CWR,
    DROP,
    ECE,
    FIN,
    MERGED,
    PASS,
    PSH,
    RST,
    SYN,
    TCP,
    UDP,
    URG,
    Entry,
    Packet,
)

UDP_SEGMENTS = 128


def full(packet: bytes) -> bytes:
    """The packet with its checksum in full, unless that is wrong; DF leaves the identification without meaning."""
    if packet[0] >> 4 == 4 and packet[6] & 0x40:
        packet = packets.seal_ip4(packet[:4] + b"\0\0" + packet[6:])
    return packet if packets.checksum_state(packet) == "wrong" else packets.set_checksum(packet)


def flow(packet: bytes) -> tuple[bytes, int, bytes]:
    at = packets.shape(packet)
    return packets.addresses(packet), at.protocol, packet[at.transport : at.transport + 4]


def is_pure_acknowledgement(packet: bytes) -> bool:
    at = packets.shape(packet)
    return at.protocol == TCP and at.payload == len(packet) and packet[at.transport + 13] & ~(ECE | CWR) == ACK


def by_flow(wire: list[bytes]) -> dict[object, list[bytes]]:
    """Wire packets per flow; acknowledgements without data have an order of their own."""
    flows: dict[object, list[bytes]] = {}
    for packet in wire:
        flows.setdefault((flow(packet), is_pure_acknowledgement(packet)), []).append(full(packet))
    return flows


def check_metadata(out: dict[str, object]) -> None:
    """What a super-packet tells the kernel agrees with its bytes."""
    data = out["data"]
    at = packets.shape(data)
    assert (out["pending"], out["checksum_start"]) == (True, at.transport)
    assert (out["gso_type"], out["checksum_offset"]) == {(4, TCP): (1, 16), (6, TCP): (4, 16)}.get(
        (at.family, at.protocol), (5, 6)
    )
    assert packets.set_pending(data) == data
    assert len(packets.super_packet(data, out["gso_size"]).data) == len(data) <= 65535


def merged(entries: list[Entry], udp_segments: int = UDP_SEGMENTS) -> list[dict[str, object]]:
    """Merge, check everything that must hold of any burst, return what came out."""
    burst = probe_offload.Burst(entries)
    burst.merge(udp_segments)
    check_burst(entries, burst.packets())
    return burst.packets()


def check_burst(entries: list[Entry], outs: list[dict[str, object]]) -> None:
    wire = []
    for entry, out in zip(entries, outs, strict=True):
        if entry.verdict == DROP:
            assert out["verdict"] == DROP
            assert not entry.reply or out["data"] == entry.data, "a reply quotes these bytes"
        elif out["verdict"] == PASS and out["n_segments"] > 1:
            check_metadata(out)
            segments = reference.split(packets.super_packet(out["data"], out["gso_size"]))
            assert len(segments) == out["n_segments"]
            wire += segments
        elif out["verdict"] == PASS:
            assert out["data"] == entry.data
            wire.append(out["data"])
        else:
            assert out["verdict"] == MERGED
    assert by_flow(wire) == by_flow([entry.data for entry in entries if entry.verdict == PASS])


def alive(outs: list[dict[str, object]]) -> list[tuple[int, int]]:
    """(segments, pieces) of everything that still travels."""
    return [(out["n_segments"], out["n_tail"]) for out in outs if out["verdict"] == PASS]


def stream(first: Packet, sizes: list[int]) -> list[Packet]:
    """Packets of one flow in sequence, with consecutive identifications."""
    source = random.Random(first.sequence)
    starts = accumulate(sizes, initial=first.sequence)
    return [
        first.but(payload=source.randbytes(size), sequence=start, identification=first.identification + i)
        for i, (size, start) in enumerate(zip(sizes, starts, strict=False))
    ]


def entries_of(wire: list[Packet], **known: int) -> list[Entry]:
    return [Entry.of(packet, **known) for packet in wire]


FLOWS = [
    Packet(family=4, protocol=TCP),
    Packet(family=6, protocol=TCP, source_port=40001),
    Packet(family=4, protocol=UDP, source_port=40002),
    Packet(family=6, protocol=UDP, source_port=40003),
    Packet(family=4, protocol=TCP, source_port=40004, dont_fragment=False, options=b""),
    Packet(family=4, protocol=UDP, source_port=40005, dont_fragment=False),
]
MUTATIONS = [
    {"flags": ACK | PSH},
    {"flags": ACK | FIN},
    {"flags": SYN},
    {"flags": ACK | RST},
    {"flags": ACK | ECE},
    {"flags": ACK | URG},
    {"traffic_class": 3},
    {"ttl": 12},
    {"options": bytes(12)},
    {"options": b""},
    {"window": 9},
    {"acknowledgement": 78},
    {"checksum": "wrong"},
    {"checksum": "pending"},
    {"ip_options": bytes(4)},
    {"dont_fragment": False},
    {"payload": b""},
]


@st.composite
def bursts(draw: st.DrawFn) -> list[Entry]:
    """Interleaved streams with everything that happens to a stream on its way."""
    source = draw(st.randoms(use_true_random=False))
    queues = []
    for first in draw(st.lists(st.sampled_from(FLOWS), min_size=1, max_size=4, unique=True)):
        size = draw(st.sampled_from([1, 8, 100, 536, 1398]))
        sizes = [size if source.random() < 0.9 else source.randint(1, size) for _ in range(draw(st.integers(1, 40)))]
        queue = stream(
            first.but(sequence=source.choice([1, 2**32 - 2000]), identification=source.choice([1, 65530])), sizes
        )
        for i, packet in enumerate(queue):
            if source.random() < 0.15:
                change = source.choice(MUTATIONS)
                if packet.family == 4 or "ip_options" not in change:
                    queue[i] = packet.but(**change)
            if packet.family == 4 and packet.protocol == UDP and source.random() < 0.2:
                queue[i] = packet.but(checksum="none")
        if source.random() < 0.3:  # a retransmission, a loss, a swap
            k = source.randrange(len(queue))
            queue.insert(source.randrange(len(queue)), queue[k])
            del queue[source.randrange(len(queue))]
            queue[k:] = queue[k:][::-1]
        queues.append(queue)
    run_length = draw(st.sampled_from([1, 3, 50]))
    entries = []
    while any(queues):
        queue = source.choice([q for q in queues if q])
        for _ in range(min(len(queue), source.randint(1, run_length))):
            dropped = source.random() < 0.05
            entries.append(
                Entry.of(
                    queue.pop(0),
                    gap=source.choice([0, 22, 50, 200]),
                    verdict=DROP if dropped else PASS,
                    reply=int(dropped and source.random() < 0.5),
                )
            )
    return entries


@settings(max_examples=300, deadline=None)
@given(bursts(), st.sampled_from([0, 2, 64, 128]))
def test_any_burst(entries, udp_segments):
    merged(entries, udp_segments)


@settings(max_examples=50, deadline=None)
@given(bursts())
def test_any_burst_against_the_order_of_memory(entries):
    burst = probe_offload.Burst(entries)
    burst.reverse()
    burst.merge(UDP_SEGMENTS)
    check_burst(entries[::-1], burst.packets())


@settings(max_examples=50, deadline=None)
@given(bursts(), st.randoms(use_true_random=False))
def test_only_what_is_local_is_touched(entries, source):
    local = {i for i in range(len(entries)) if source.random() < 0.7 and entries[i].verdict == PASS}
    outs = probe_offload.Burst(entries)
    outs.merge_some(UDP_SEGMENTS, local)
    for i, (entry, out) in enumerate(zip(entries, outs.packets(), strict=True)):
        if i not in local and entry.verdict == PASS:
            assert (out["verdict"], out["data"], out["n_segments"]) == (PASS, entry.data, 1)


@pytest.mark.parametrize("first", FLOWS)
@pytest.mark.parametrize("size", [8, 536, 1398])
def test_a_stream_becomes_one(first, size):
    count = min(100, 60000 // size)
    outs = merged(entries_of(stream(first, [size] * (count - 1) + [max(1, size - 1)])))
    assert alive(outs) == [(count, 0)]
    assert outs[0]["gso_size"] == size


@pytest.mark.parametrize("first", FLOWS)
def test_split_then_merge_is_the_same(first):
    flags = ACK | PSH if first.protocol == TCP else ACK
    data = first.but(payload=random.Random(3).randbytes(45000), flags=flags, checksum="pending").build()
    segments = probe_offload.split(data, 1398)
    outs = merged([Entry(segment) for segment in segments])
    assert [out["data"] for out in outs if out["verdict"] == PASS] == [data]


def test_flows_side_by_side_grow_by_pieces():
    queues = [stream(first, [1000] * 10) for first in FLOWS]
    outs = merged(entries_of([packet for row in zip(*queues, strict=True) for packet in row]))
    assert alive(outs) == [(10, 9)] * 6


def test_runs_of_a_flow_share_a_piece():
    a, b = (stream(first, [1000] * 12) for first in FLOWS[:2])
    outs = merged(entries_of(a[:4] + b[:4] + a[4:8] + b[4:8] + a[8:] + b[8:]))
    assert alive(outs) == [(12, 2), (12, 2)]


def test_capacity_of_a_burst():
    queues = [stream(FLOWS[0].but(source_port=1000 + i), [100] * 64) for i in range(8)]
    outs = merged(entries_of([packet for row in zip(*queues, strict=True) for packet in row]))
    assert len(outs) == probe_offload.CAPACITY
    assert alive(outs) == [(64, 63)] * 8


def test_total_length_is_bounded():
    outs = merged(entries_of(stream(FLOWS[0], [1398] * 100)))
    assert [n for n, _ in alive(outs)] == [46, 46, 8]


@pytest.mark.parametrize("limit", [2, 64, 128])
def test_udp_segments_are_bounded(limit):
    outs = merged(entries_of(stream(FLOWS[2], [10] * 300)), limit)
    assert [n for n, _ in alive(outs)] == [limit] * (300 // limit) + ([300 % limit] if 300 % limit else [])


def test_udp_is_left_alone_where_ports_cannot_take_it():
    assert alive(merged(entries_of(stream(FLOWS[2], [10] * 9)), 0)) == [(1, 0)] * 9


def test_tcp_segments_are_bounded_by_length_only():
    assert alive(merged(entries_of(stream(FLOWS[0], [10] * 500)))) == [(500, 0)]


def test_push_ends_a_run():
    wire = stream(FLOWS[0], [1000] * 6)
    wire[2] = wire[2].but(flags=ACK | PSH)
    assert alive(merged(entries_of(wire))) == [(3, 0), (3, 0)]


@pytest.mark.parametrize("flags", [ACK | FIN, ACK | RST, SYN, ACK | ECE, ACK | URG, ACK | CWR])
def test_flags_end_a_run_of_their_flow_only(flags):
    wire = stream(FLOWS[0], [1000] * 6)
    wire[2] = wire[2].but(flags=flags)
    other = stream(FLOWS[1], [1000] * 6)
    outs = merged(entries_of([packet for pair in zip(wire, other, strict=True) for packet in pair]))
    assert sorted(n for n, _ in alive(outs)) == [1, 2, 3, 6]


def test_acknowledgements_pass_without_ending_a_run():
    wire = stream(FLOWS[0], [1000] * 4)
    wire.insert(2, wire[2].but(payload=b""))
    assert alive(merged(entries_of(wire))) == [(4, 1), (1, 0)]


@pytest.mark.parametrize(
    "change",
    [
        {"traffic_class": 3},
        {"ttl": 9},
        {"options": bytes(12)},
        {"options": b""},
        {"window": 1},
        {"acknowledgement": 1},
        {"dont_fragment": False},
        {"destination_port": 9},
        {"destination": "10.2.0.8"},
        {"source": "10.1.0.7"},
    ],
)
def test_what_differs_is_not_merged(change):
    first, second = stream(FLOWS[0], [1000, 1000])
    assert alive(merged(entries_of([first, second.but(**change)]))) == [(1, 0), (1, 0)]


def test_next_hops_are_kept_apart():
    first, second = stream(FLOWS[0], [1000, 1000])
    assert alive(merged([Entry.of(first, adjacency=1), Entry.of(second, adjacency=2)])) == [(1, 0), (1, 0)]


def test_identifications_count_without_df():
    first, second = stream(FLOWS[4], [1000, 1000])
    assert alive(merged(entries_of([first, second]))) == [(2, 0)]
    assert alive(merged(entries_of([first, second.but(identification=first.identification)]))) == [(1, 0), (1, 0)]


@pytest.mark.parametrize("at", range(4))
def test_a_wrong_checksum_stays_visible(at):
    """What merge lets into a super-packet nobody verifies again."""
    wire = stream(FLOWS[0], [1000] * 4)
    wire[at] = wire[at].but(checksum="wrong")
    assert (1, 0) in alive(merged(entries_of(wire)))


def test_udp_without_a_checksum_is_merged():
    wire = [packet.but(checksum="none") for packet in stream(FLOWS[2], [1000] * 4)]
    assert alive(merged(entries_of(wire))) == [(4, 0)]


def test_udp6_without_a_checksum_stays_without():
    wire = [packet.but(checksum="none") for packet in stream(FLOWS[3], [1000] * 4)]
    assert alive(merged(entries_of(wire))) == [(1, 0)] * 4


def test_pending_counts_as_valid():
    wire = [packet.but(checksum="pending") for packet in stream(FLOWS[0], [1000] * 4)]
    assert alive(merged(entries_of(wire))) == [(4, 0)]


def with_super(sizes: list[int], size: int) -> list[tuple[int, int]]:
    """A stream whose third packet is a super-packet with segments of `size`."""
    wire = stream(FLOWS[0], sizes)
    entries = entries_of(wire)
    entries[2] = Entry(wire[2].but(checksum="pending").build(), pending=True, gso_size=size)
    outs = probe_offload.Burst(entries)
    outs.merge(UDP_SEGMENTS)
    for out in outs.packets():
        if out["verdict"] == PASS and out["n_segments"] > 1:
            check_metadata(out)
    return alive(outs.packets())


def test_super_packets_grow_and_are_grown():
    assert with_super([1000, 1000, 3000, 1000, 1000], 1000) == [(7, 0)]


def test_a_super_packet_with_a_short_end_closes_the_run():
    assert with_super([1000, 1000, 2500, 1000, 1000], 1000) == [(5, 0), (2, 0)]


def test_super_packets_of_another_segment_size_are_kept_apart():
    assert with_super([1000, 1000, 3000, 1000, 1000], 500) == [(2, 0), (6, 0), (2, 0)]


def test_a_shorter_segment_ends_a_run():
    assert alive(merged(entries_of(stream(FLOWS[0], [1000, 1000, 999, 1000, 1000])))) == [(3, 0), (2, 0)]


def test_a_longer_segment_begins_a_run():
    assert alive(merged(entries_of(stream(FLOWS[2], [10, 10, 11, 11])))) == [(2, 0), (2, 0)]


def altered(packet: Packet, at: int, value: int) -> bytes:
    """A packet with one byte changed and its transport checksum made right again."""
    data = packet.build()
    return packets.set_checksum(data[:at] + bytes([value]) + data[at + 1 :])


def test_reserved_tcp_bits_are_no_ordinary_data():
    wire = [Entry(altered(packet, 32, 0x81)) for packet in stream(FLOWS[0], [1000, 1000])]
    assert alive(merged(wire)) == [(1, 0), (1, 0)]


def test_udp_options_are_kept():
    """Bytes between the end of the UDP length and that of the IP packet (RFC 9868) are no payload."""
    wire = [Entry(altered(packet, 25, 200)) for packet in stream(FLOWS[2], [240, 240])]
    assert alive(merged(wire)) == [(1, 0), (1, 0)]


def test_a_checksum_pending_further_inside_says_nothing_of_the_packets_own():
    wire = [Entry.of(packet.but(checksum="wrong"), checksum_start=100) for packet in stream(FLOWS[2], [240, 240])]
    assert alive(merged(wire)) == [(1, 0), (1, 0)]


def test_tiny_segments_begin_no_run():
    """Linux makes none of less than 8 bytes, and parse refuses them from a device."""
    assert alive(merged(entries_of(stream(FLOWS[0], [7, 7, 7])))) == [(1, 0)] * 3
    assert alive(merged(entries_of(stream(FLOWS[0], [8, 8, 7])))) == [(3, 0)]
    assert alive(merged(entries_of(stream(FLOWS[2], [1, 1, 1])))) == [(3, 0)]


def test_many_flows_fill_the_table():
    """More flows than slots: merges are missed, packets are not."""
    wire = [packet for i in range(250) for packet in stream(FLOWS[2].but(source_port=i + 1), [20, 20])]
    outs = merged(entries_of(wire))
    assert alive(outs) == [(2, 0)] * 250
    shuffled = sorted(wire, key=lambda packet: packet.sequence)
    assert sum(n for n, _ in alive(merged(entries_of(shuffled)))) == 500


def test_a_fragment_ends_every_run():
    first, second = stream(FLOWS[2], [1000, 1000])
    data = bytearray(FLOWS[2].but(payload=bytes(800)).build())
    data[6] = 0x20  # more fragments
    fragment = Entry(packets.seal_ip4(bytes(data)))
    burst = probe_offload.Burst([Entry.of(first), fragment, Entry.of(second)])
    burst.merge(UDP_SEGMENTS)
    assert alive(burst.packets()) == [(1, 0)] * 3
