"""A pending checksum becomes the full one, whatever lies in front of it."""

import random

import pytest

from tests.cy import probe_offload
from tests.fastpath.offload.packets import TCP, UDP, Packet


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_lengths(family, protocol):
    for length in [*range(200), 1399, 1400, 65000]:
        packet = Packet(payload=random.Random(length).randbytes(length), family=family, protocol=protocol)
        pending = packet.but(checksum="pending").build()
        assert probe_offload.complete(pending) == (packet.build(), False)


def test_udp_zero_becomes_all_ones():
    blank = Packet(payload=bytes(4), protocol=UDP).build()
    payload = blank[26:28] + bytes(2)
    pending = Packet(payload=payload, protocol=UDP, checksum="pending").build()
    done, _ = probe_offload.complete(pending)
    assert done[26:28] == b"\xff\xff"


def test_behind_ip_options():
    packet = Packet(payload=b"abc", ip_options=bytes([1, 1, 1, 0]))
    pending = packet.but(checksum="pending").build()
    assert probe_offload.complete(pending) == (packet.build(), False)
