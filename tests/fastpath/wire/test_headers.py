"""Each header: what is written can be read, what a router changes keeps the checksum, what is bad is refused."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpath import reasons, reference
from tests.cy import probe_wire as wire
from tests.fastpath.packets import A4, A6, B4, B6, packet, packets4, packets6

NUMBER = {reason.name: number for number, reason in enumerate(reasons.REASONS)}


@given(st.binary(min_size=8, max_size=8))
def test_loads_and_stores_are_big_endian(data: bytes) -> None:
    assert wire.loads(data) == struct.unpack("!H6x", data) + struct.unpack("!I4x", data) + struct.unpack("!Q", data)
    assert wire.stores(int.from_bytes(data, "big")) == data[6:] + data[4:] + data


# -- Ethernet ----------------------------------------------------------------
@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (bytes(12) + b"\x08\x00", "none"),
        (bytes(12) + b"\x86\xdd", "none"),
        (bytes(12) + b"\x08", "truncated"),
        (b"", "truncated"),
        (bytes(12) + b"\x08\x06", "inner_ethernet"),  # ARP
        (bytes(12) + b"\x81\x00", "inner_ethernet"),  # VLAN
        (bytes(12) + b"\x88\xa8", "inner_ethernet"),  # QinQ
        (bytes(12) + b"\x05\xdc", "inner_ethernet"),  # a length: IEEE 802.3
    ],
)
def test_ethernet_check(frame: bytes, reason: str) -> None:
    assert wire.ethernet_check(frame) == NUMBER[reason]


@pytest.mark.parametrize("family", [4, 6])
def test_ethernet_put(family: int) -> None:
    destination, source = bytes.fromhex("c6d2326f8f44"), bytes.fromhex("12c66589b4e3")
    frame, found, group = wire.ethernet_put(destination, source, family)
    assert frame == destination + source + (b"\x08\x00" if family == 4 else b"\x86\xdd")
    assert found == family and not group
    assert wire.ethernet_put(b"\xff" * 6, source, family)[2]


# -- IP ----------------------------------------------------------------------
@given(
    st.integers(0, 255),
    st.integers(20, 65535),
    st.integers(0, 255),
    st.integers(0, 65535),
    st.booleans(),
    st.integers(0, 255),
)
def test_ipv4_put_is_the_twins(protocol: int, total: int, tos: int, identification: int, df: bool, ttl: int) -> None:
    written = wire.ipv4_put(A4.packed, B4.packed, protocol, total, tos, identification, 0x4000 if df else 0, ttl)
    assert (
        written
        == reference.ip_packet(
            A4,
            B4,
            protocol,
            bytes(total - 20),
            traffic_class=tos,
            ttl=ttl,
            identification=identification,
            dont_fragment=df,
        )[:20]
    )


@given(st.integers(0, 255), st.integers(0, 65535), st.integers(0, 255), st.integers(0, 2**20 - 1), st.integers(0, 255))
def test_ipv6_put(protocol: int, payload: int, traffic_class: int, label: int, hops: int) -> None:
    written = wire.ipv6_put(A6.packed, B6.packed, protocol, payload, traffic_class, label, hops)
    head = struct.pack("!IHBB", 6 << 28 | traffic_class << 20 | label, payload, protocol, hops)
    assert written == head + A6.packed + B6.packed


@given(packets4() | packets6(), st.integers(0, 255))
def test_class_change_is_the_twins(data: bytes, traffic_class: int) -> None:
    try:
        reference.parse(data)
    except reference.Drop:
        return
    assert wire.set_class(data, traffic_class) == reference.set_class(data, traffic_class)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("ttl", range(2, 256))
def test_one_hop_less_is_the_twins(family: int, ttl: int) -> None:
    data = packet(family, ttl=ttl)
    assert wire.decrement(data) == reference.hop(reference.parse(data), 1500)


def test_one_hop_less_changes_every_checksum_as_rfc_1624_says() -> None:
    before = bytearray(packet(4, ttl=64)[:20])
    word = int.from_bytes(before[8:10])
    for field in range(1 << 16):
        before[10:12] = field.to_bytes(2)
        after = wire.decrement(bytes(before))
        assert int.from_bytes(after[10:12]) == wire.checksum_replace16(field, word, word - 0x100), hex(field)


@pytest.mark.parametrize("low", [0, 1, 0xFFFF])
def test_ordinary_addresses_are_those_that_are_nothing_else(low: int) -> None:
    for high in range(1 << 16):
        ordinary, group, martian = wire.address4(high << 16 | low)
        assert ordinary == (not group and not martian), hex(high << 16 | low)


# -- virtio ------------------------------------------------------------------
def virtio(flags: int = 0, kind: int = 0, header: int = 0, size: int = 0, start: int = 0, offset: int = 0) -> bytes:
    return struct.pack("<BBHHHH", flags, kind, header, size, start, offset)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (virtio(), ("none", 0, 0, 0, 0, 0)),
        (virtio(flags=2, start=9, offset=9), ("none", 0, 0, 0, 0, 0)),
        (virtio(flags=1, start=20, offset=16), ("none", 1, 0, 0, 20, 16)),
        (virtio(flags=1, kind=1, size=1448, start=20, offset=16), ("none", 1, 1, 1448, 20, 16)),
        (virtio(flags=1, kind=0x84, size=1428, start=40, offset=16), ("none", 1, 0x84, 1428, 40, 16)),
        (virtio(kind=0x80, size=5), ("none", 0, 0, 0, 0, 0)),  # the ECN bit alone says nothing, and a size neither
    ],
)
def test_virtio_read(header: bytes, expected: tuple[object, ...]) -> None:
    assert wire.virtio_read(header) == (NUMBER[str(expected[0])], *expected[1:])


@pytest.mark.parametrize(
    "header",
    [
        virtio(flags=4),
        virtio(flags=8),
        virtio(flags=0x81),  # unknown flags
        virtio(flags=1, kind=1, size=0),
        virtio(flags=1, kind=5, size=0),  # a super-packet of nothing
        *(virtio(flags=1, kind=kind, size=1000) for kind in (2, 3, 6, 7, 0x21, 0x40, 0x7F)),  # UFO, tunnels, unknown
    ],
)
def test_virtio_refuses(header: bytes) -> None:
    assert wire.virtio_read(header)[0] == NUMBER["vnet_header"]


@pytest.mark.parametrize("n", [10, 12, 24])
def test_virtio_put(n: int) -> None:
    head = virtio(1, 0x81, 52, 1448, 20, 16)
    assert wire.virtio_put(n, 1, 0x81, 1448, 20, 16, 52) == head + bytes(n - 10)
    assert wire.virtio_put(n, 0, 0, 0, 20, 16, 52) == bytes(n)
