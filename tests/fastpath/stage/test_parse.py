"""parse: one vector a rule of plain packets.

Owns: the rows of the attack catalogue that one packet can be judged by alone, with
test_parse_chains and test_parse_offload beside it.
"""

from __future__ import annotations

import pytest

from fastpath.reference import ICMP, ICMPV6, SCTP, TCP, UDP
from tests.fastpath.packets import A4, A6, B4, B6, VECTOR4, VECTOR6, ipv4, ipv6, packet, tcp, udp
from tests.fastpath.stage.parsing import assert_dropped, assert_passed, compiled


# -- what passes -------------------------------------------------------------
def test_plain_packets() -> None:
    assert_passed(VECTOR4, family=4, protocol=17, transport=20, payload=28, length=36, dont_fragment=True)
    assert_passed(VECTOR6, family=6, protocol=17, transport=40, payload=48, length=56, dont_fragment=True)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(("protocol", "header"), [(TCP, 20), (UDP, 8), (SCTP, 12), (50, 0), (51, 0), (0xFF, 0)])
def test_transport_headers_are_measured(family: int, protocol: int, header: int) -> None:
    transport = 20 if family == 4 else 40
    assert_passed(
        packet(family, protocol, traffic_class=0xB9),
        protocol=protocol,
        transport=transport,
        payload=transport + header,
        traffic_class=0xB9,
    )


def test_icmp_of_its_own_family_has_a_header() -> None:
    assert_passed(packet(4, ICMP), payload=28)
    assert_passed(packet(6, ICMPV6), payload=48)
    assert_passed(packet(4, ICMPV6), payload=20)
    assert_passed(packet(6, ICMP), payload=40)


def test_tcp_options_belong_to_the_header() -> None:
    assert_passed(ipv4(tcp(A4, B4, b"data", options=bytes(40)), TCP), transport=20, payload=80)


@pytest.mark.parametrize("padding", [1, 10, 26, 1000])
@pytest.mark.parametrize("family", [4, 6])
def test_trailing_padding_is_cut(family: int, padding: int) -> None:  # row 13
    data = packet(family)
    assert_passed(data + b"\xee" * padding, length=len(data))


# -- lengths and versions ----------------------------------------------------
@pytest.mark.parametrize("family", [4, 6])
def test_every_cut_is_truncated(family: int) -> None:  # row 44
    data = packet(family, TCP)
    for n in range(len(data)):
        assert_dropped(data[:n], "truncated")


@pytest.mark.parametrize("version", [0, 1, 2, 3, 5, *range(7, 16)])
def test_other_versions(version: int) -> None:  # row 16
    assert_dropped(bytes([version << 4 | 5]) + VECTOR4[1:], "ip_version")


@pytest.mark.parametrize("ihl", range(5))
@pytest.mark.parametrize("size", [0, 1, 8, 100])
def test_header_length_below_20(ihl: int, size: int) -> None:  # row 12
    assert_dropped(ipv4(bytes(size), ihl=ihl), "ip4_length")


@pytest.mark.parametrize("ihl", range(6, 16))
def test_header_length_beyond_the_packet(ihl: int) -> None:
    assert_dropped(ipv4(b"", ihl=ihl), "ip4_length")


@pytest.mark.parametrize("total", [0, 1, 19])
def test_total_length_below_the_header(total: int) -> None:
    assert_dropped(ipv4(bytes(20), total=total), "ip4_length")


@pytest.mark.parametrize("total", [41, 42, 1500, 65535])
def test_total_length_beyond_the_packet(total: int) -> None:
    assert_dropped(ipv4(bytes(20), total=total), "truncated")


def test_every_bit_of_the_header_is_under_the_checksum() -> None:  # row 17
    for bit in range(8 * 20):
        flipped = bytearray(VECTOR4)
        flipped[bit // 8] ^= 0x80 >> bit % 8
        assert "reason" in compiled(bytes(flipped))
        if bit // 8 not in (0, 2, 3):  # those may be refused for what they say before they are summed
            assert_dropped(bytes(flipped), "ip4_checksum")


@pytest.mark.parametrize("length", [0, 65496, 65535])
def test_payload_lengths_that_ipv6_has_no_packet_for(length: int) -> None:  # row 14
    assert_dropped(ipv6(udp(A6, B6), length=length), "ip6_length")


def test_longest_packets() -> None:
    assert_passed(ipv4(udp(A4, B4, bytes(65535 - 28))), length=65535)
    assert_passed(ipv6(udp(A6, B6, bytes(65535 - 48))), length=65535)


# -- options -----------------------------------------------------------------
@pytest.mark.parametrize(
    "options",
    [
        b"\x83\x07\x04" + A4.packed + b"\x00",  # loose source route
        b"\x89\x07\x04" + A4.packed + b"\x00",  # strict source route
        b"\x01\x01\x01\x83\x03\x04\x00\x00",  # behind no-operations
        b"\x07\x00\x00\x00",
        b"\x07\x01\x00\x00",  # a length below its own two bytes
        b"\x07\x05\x00\x00",
        b"\x07\xff\x00\x00",  # a length beyond the header
        b"\x01\x01\x01\x07",  # no length at all
    ],
)
def test_options_refused(options: bytes) -> None:  # row 15
    assert_dropped(ipv4(udp(A4, B4), options=options), "ip4_option")


@pytest.mark.parametrize(
    "options",
    [
        b"\x94\x04\x00\x00",  # router alert
        b"\x07\x07\x04" + bytes(4) + b"\x00",  # record route
        b"\x44\x08\x05\x00" + bytes(4),  # timestamp
        b"\x01\x01\x01\x01",
        b"\x00\x83\x89\x00",  # what stands behind the end is no option
        bytes(40),
    ],
)
def test_options_passed(options: bytes) -> None:
    assert_passed(ipv4(udp(A4, B4), options=options), transport=20 + len(options))


# -- addresses ---------------------------------------------------------------
@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "0.255.255.255",
        "127.0.0.1",
        "127.255.255.255",
        "169.254.0.0",
        "169.254.169.254",
        "240.0.0.1",
        "255.255.255.254",
        "::",
        "::1",
        "::ffff:10.0.0.1",
        "fe80::1",
        "febf:ffff::1",
    ],
)
@pytest.mark.parametrize("end", ["source", "destination"])
def test_martians(address: str, end: str) -> None:  # row 33
    data = packet(6 if ":" in address else 4, **{end: address})  # type: ignore[arg-type]
    assert_dropped(data, "martian")


@pytest.mark.parametrize("address", ["224.0.0.1", "239.255.255.255", "255.255.255.255", "ff02::1", "ff0e::1"])
def test_groups(address: str) -> None:
    family = 6 if ":" in address else 4
    assert_dropped(packet(family, source=address), "martian")
    assert_dropped(packet(family, destination=address), "multicast")


@pytest.mark.parametrize(
    "address",
    [
        "1.0.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "169.253.255.255",
        "169.255.0.0",
        "223.255.255.255",
        "::2",
        "::fffe:0:1",
        "fe7f:ffff::1",
        "fec0::1",
        "feff::1",
        "2001:db8::1",
    ],
)
@pytest.mark.parametrize("end", ["source", "destination"])
def test_neighbours_of_martians(address: str, end: str) -> None:
    assert_passed(packet(6 if ":" in address else 4, **{end: address}))  # type: ignore[arg-type]


@pytest.mark.parametrize("family", [4, 6])
def test_land(family: int) -> None:  # row 34
    here = str(A4 if family == 4 else A6)
    assert_dropped(packet(family, source=here, destination=here), "land")
    assert_dropped(packet(family, TCP, dport=0), "land")
    assert_dropped(packet(family, TCP, sport=0), "land")
    assert_dropped(packet(family, UDP, dport=0), "land")
    assert_dropped(packet(family, SCTP, sport=0), "land")
    assert_passed(packet(family, UDP, sport=0))


# -- transports --------------------------------------------------------------
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("length", [*range(8), 17, 1000, 65535])
def test_udp_length(family: int, length: int) -> None:  # row 20
    assert_dropped(packet(family, UDP, b"12345678", length=length), "udp_length")


@pytest.mark.parametrize("length", [8, 9, 16])
def test_udp_may_be_shorter_than_the_packet(length: int) -> None:
    assert_passed(packet(4, UDP, b"12345678", length=length))


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("offset", [0, 1, 4, 6, 15])
def test_tcp_offset(family: int, offset: int) -> None:
    assert_dropped(packet(family, TCP, b"", offset=offset), "tcp_offset")
