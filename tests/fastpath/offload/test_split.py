"""Segments of a super-packet are byte for byte what the golden twin makes of it."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpath import reference
from tests.cy import probe_offload
from tests.fastpath.offload import packets
from tests.fastpath.offload.packets import ACK, CWR, ECE, FIN, PSH, TCP, UDP, Packet


def check(packet: Packet, size: int) -> list[bytes]:
    data = packet.but(checksum="pending").build()
    made = probe_offload.split(data, size)
    assert made == reference.split(packets.super_packet(data, size))
    return made


@given(
    family=st.sampled_from([4, 6]),
    protocol=st.sampled_from([TCP, UDP]),
    length=st.integers(8, 8000),
    size=st.integers(8, 9000),
    flags=st.sampled_from([ACK, ACK | PSH, ACK | FIN, ACK | PSH | CWR, ACK | CWR | ECE | FIN]),
    options=st.sampled_from([b"", packets.TIMESTAMPS, bytes(40)]),
    sequence=st.integers(0, 2**32 - 1),
    identification=st.integers(0, 65535),
    seed=st.integers(0, 2**16),
)
def test_any(family, protocol, length, size, flags, options, sequence, identification, seed):
    size = min(max(size, length // 120 + 1), length)
    packet = Packet(
        payload=random.Random(seed).randbytes(length),
        family=family,
        protocol=protocol,
        flags=flags,
        options=options,
        sequence=sequence,
        identification=identification,
        traffic_class=seed & 255,
        dont_fragment=bool(seed & 1),
    )
    made = check(packet, size)
    assert b"".join(segment[packets.shape(segment).payload :] for segment in made) == packet.payload


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_full_size(family, protocol):
    header = (20 if family == 4 else 40) + (32 if protocol == TCP else 8)
    size = 536
    packet = Packet(
        payload=random.Random(2).randbytes(min(65535 - header, 128 * size)), family=family, protocol=protocol
    )
    assert len(check(packet, size)) == -(-len(packet.payload) // size)


def test_sequence_and_identification_wrap():
    made = check(Packet(payload=bytes(5000), sequence=2**32 - 1000, identification=65534), 1000)
    assert [int.from_bytes(s[4:6], "big") for s in made] == [65534, 65535, 0, 1, 2]
    assert [int.from_bytes(s[24:28], "big") for s in made] == [2**32 - 1000, 0, 1000, 2000, 3000]


def test_flags_at_their_ends():
    made = check(Packet(payload=bytes(3000), flags=ACK | PSH | FIN | CWR | ECE), 1000)
    assert [s[33] for s in made] == [ACK | ECE | CWR, ACK | ECE, ACK | ECE | PSH | FIN]


def test_ip_options_and_extensions():
    check(Packet(payload=bytes(range(250)) * 10, ip_options=bytes([7, 7, 4, 0, 0, 0, 0, 0])), 700)
    hop_by_hop = bytes([0, TCP, 0, 1, 4, 0, 0, 0, 0])
    check(Packet(payload=bytes(range(250)) * 10, family=6, ip_options=hop_by_hop), 700)


@pytest.mark.parametrize("family", [4, 6])
def test_udp_checksum_of_zero_is_sent_as_all_ones(family):
    """One of 65,536 values of a word makes the sum come out as 0: find it, split it."""
    blank = Packet(payload=bytes(4), family=family, protocol=UDP).build()
    field = packets.shape(blank).transport + 6
    payload = blank[field : field + 2] + bytes(2)
    made = check(Packet(payload=payload, family=family, protocol=UDP), 4)
    assert made[0][field : field + 2] == b"\xff\xff"
