"""Fragments put together again are the packet; each of them is one a receiver accepts."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpath import reference
from tests.cy import probe_offload
from tests.fastpath.offload import packets
from tests.fastpath.offload.packets import Packet

COPIED, NOT_COPIED = bytes([0x94, 4, 0, 0]), bytes([0x07, 7, 4, 0, 0, 0, 0])  # router alert, record route
END, NO_OPERATION = b"\x00", b"\x01"


def word(fragment: bytes) -> int:
    return int.from_bytes(fragment[6:8], "big")


def reassembled(fragments: list[bytes]) -> bytes:
    header = fragments[0][: (fragments[0][0] & 15) * 4]
    body = bytearray()
    for fragment in fragments:
        assert (word(fragment) & 0x1FFF) * 8 == len(body)
        body += fragment[(fragment[0] & 15) * 4 :]
    total = (len(header) + len(body)).to_bytes(2, "big")
    return packets.seal_ip4(header[:2] + total + header[4:6] + b"\0\0" + header[8:] + body)


@given(
    length=st.integers(0, 9000),
    mtu=st.integers(68, 9000),
    protocol=st.sampled_from([packets.TCP, packets.UDP]),
    pending=st.booleans(),
    seed=st.integers(0, 999),
)
def test_any(length, mtu, protocol, pending, seed):
    packet = Packet(payload=random.Random(seed).randbytes(length), protocol=protocol, dont_fragment=False)
    sent = packet.but(checksum="pending") if pending else packet
    made = probe_offload.fragment(sent.build(), mtu, pending)
    assert made == reference.fragments(packet.build(), mtu)
    assert all(len(fragment) <= mtu for fragment in made)
    assert all(word(fragment) & 0x2000 for fragment in made[:-1])
    assert not word(made[-1]) & 0x2000
    assert reassembled(made) == packet.build()


def test_fragments_of_a_fragment_carry_on():
    whole = Packet(payload=bytes(range(256)) * 20, dont_fragment=False).build()
    once = probe_offload.fragment(whole, 1500)
    twice = [piece for fragment in once for piece in probe_offload.fragment(fragment, 576)]
    assert len(twice) > len(once)
    assert [bool(word(f) & 0x2000) for f in twice] == [True] * (len(twice) - 1) + [False]
    assert reassembled(twice) == whole


def test_options_are_copied_by_their_flag():
    options = NOT_COPIED + COPIED + END
    made = probe_offload.fragment(Packet(payload=bytes(3000), ip_options=options, dont_fragment=False).build(), 1000)
    assert made[0][20:32] == options
    assert [fragment[20:32] for fragment in made[1:]] == [NO_OPERATION * 7 + COPIED + END] * (len(made) - 1)
    assert all(packets.seal_ip4(fragment) == fragment for fragment in made)


@pytest.mark.parametrize("mtu", [0, 20, 27])
def test_no_room_no_fragment(mtu):
    assert probe_offload.fragment(Packet(payload=bytes(100), dont_fragment=False).build(), mtu) == []


def test_ipv6_is_not_fragmented():
    assert probe_offload.fragment(Packet(payload=bytes(3000), family=6).build(), 1400) == []
