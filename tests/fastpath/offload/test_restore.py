"""What a kernel tunnel leaves of its metadata is recognised by the bytes alone."""

import random

import pytest

from fastpath import reference
from fastpath.reasons import REASONS
from tests.cy import probe_offload
from tests.fastpath.offload import packets
from tests.fastpath.offload.packets import PSH, TCP, UDP, Packet

MTU = 1450
FAMILIES = pytest.mark.parametrize("family", [4, 6])
PROTOCOLS = pytest.mark.parametrize("protocol", [TCP, UDP])


def restored(packet, mtu=MTU):
    data = packet.build()
    out = probe_offload.restore(data, mtu)
    assert out["data"] == data, "restore reads only"
    assert out["n_segments"] == 1
    return out


@FAMILIES
@PROTOCOLS
@pytest.mark.parametrize("length", [0, 1, 1300])
def test_a_pending_checksum_is_recognised(family, protocol, length):
    out = restored(Packet(payload=bytes(length), family=family, protocol=protocol, checksum="pending"))
    assert (out["reason"], out["pending"], out["gso_size"]) == (0, True, 0)
    assert (out["checksum_start"], out["checksum_offset"]) == (20 if family == 4 else 40, 16 if protocol == TCP else 6)


@FAMILIES
@PROTOCOLS
@pytest.mark.parametrize("checksum", ["full", "wrong"])
@pytest.mark.parametrize("length", [4, 1300, 8000])
def test_others_are_left(family, protocol, checksum, length):
    payload = random.Random(length).randbytes(length)
    out = restored(Packet(payload=payload, family=family, protocol=protocol, checksum=checksum))
    assert (out["reason"], out["pending"], out["gso_size"]) == (0, False, 0)


@FAMILIES
def test_udp_without_a_checksum_has_none_pending(family):
    out = restored(Packet(payload=bytes(9), family=family, protocol=UDP, checksum="none"))
    assert (out["reason"], out["pending"]) == (0, False)


@FAMILIES
def test_an_unsegmented_tcp_super_packet_is_split_to_the_mtu(family):
    packet = Packet(
        payload=random.Random(5).randbytes(50000), family=family, flags=packets.ACK | PSH, checksum="pending"
    )
    out = restored(packet)
    headers = packets.shape(out["data"]).payload
    assert (out["pending"], out["gso_size"], out["gso_type"]) == (True, MTU - headers, 1 if family == 4 else 4)
    segments = probe_offload.split(out["data"], out["gso_size"])
    assert segments == reference.split(packets.super_packet(out["data"], MTU - headers))
    assert max(map(len, segments)) == MTU


@FAMILIES
def test_an_unsegmented_udp_super_packet_has_no_boundaries(family):
    out = restored(Packet(payload=bytes(5000), family=family, protocol=UDP, checksum="pending"))
    assert REASONS[out["reason"]].name == "super_udp"


def test_the_mtu_itself_fits():
    assert restored(Packet(payload=bytes(MTU - 52), checksum="pending"))["gso_size"] == 0
    assert restored(Packet(payload=bytes(MTU - 51), checksum="pending"))["gso_size"] == MTU - 52


def test_an_mtu_below_the_headers_leaves_the_packet_whole():
    assert restored(Packet(payload=bytes(100), checksum="pending"), 40)["gso_size"] == 0


def test_a_fragment_is_left():
    data = Packet(payload=bytes(1000), checksum="pending", dont_fragment=False).build()
    first = probe_offload.fragment(data, 600)[0]
    assert not probe_offload.restore(first, MTU)["pending"]
