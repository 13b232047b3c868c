"""Packets for tests: well-formed ones by part, and hypothesis strategies that bend them.

Owns: building. Never: judges; fastpath.reference does.
Invariant: every builder gives right lengths and checksums unless it was asked for wrong ones.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from hypothesis import strategies as st

from fastpath import reference
from fastpath.reference import ICMP, ICMPV6, SCTP, TCP, UDP, Address

A4, B4 = IPv4Address("10.244.1.2"), IPv4Address("10.244.2.3")
A6, B6 = IPv6Address("fd00:10:244:1::2"), IPv6Address("fd00:10:244:2::3")
# The inner packet that every published tunnel vector carries.
VECTOR4 = bytes.fromhex("45000024123440003f1110a90af401020af402039c400035001094f6746f777061746821")
VECTOR6 = bytes.fromhex(
    "600000000010113ffd000010024400010000000000000002fd0000100244000200000000000000039c4000350010af31746f777061746821"
)


def ends(family: int) -> tuple[Address, Address]:
    return (A4, B4) if family == 4 else (A6, B6)


def filled(source: Address, destination: Address, protocol: int, body: bytes, at: int) -> bytes:
    """`body` with its checksum at offset `at`."""
    value = reference.transport_checksum(source, destination, protocol, body)
    return body[:at] + struct.pack("!H", value) + body[at + 2 :]


def tcp(
    source: Address,
    destination: Address,
    payload: bytes = b"",
    *,
    sport: int = 40000,
    dport: int = 80,
    seq: int = 1,
    flags: int = 0x10,
    options: bytes = b"",
    offset: int | None = None,
) -> bytes:
    words = 5 + len(options) // 4 if offset is None else offset
    head = struct.pack("!HHIIBBHHH", sport, dport, seq, 7, words << 4, flags, 512, 0, 0)
    return filled(source, destination, TCP, head + options + payload, 16)


def udp(
    source: Address,
    destination: Address,
    payload: bytes = b"",
    *,
    sport: int = 40000,
    dport: int = 53,
    length: int | None = None,
) -> bytes:
    head = struct.pack("!HHHH", sport, dport, 8 + len(payload) if length is None else length, 0)
    return filled(source, destination, UDP, head + payload, 6)


def echo(
    source: Address,
    destination: Address,
    payload: bytes = b"towpath!",
    *,
    kind: int | None = None,
    code: int = 0,
    identifier: int = 77,
) -> bytes:
    if source.version == 4:
        body = struct.pack("!BBHHH", 8 if kind is None else kind, code, 0, identifier, 1) + payload
        return body[:2] + struct.pack("!H", reference.checksum(body)) + body[4:]
    body = struct.pack("!BBHHH", 128 if kind is None else kind, code, 0, identifier, 1) + payload
    return filled(source, destination, ICMPV6, body, 2)


def sctp(sport: int = 40000, dport: int = 5000) -> bytes:
    return struct.pack("!HHII", sport, dport, 1, 0) + bytes(8)


def packet(
    family: int,
    protocol: int = UDP,
    payload: bytes = b"towpath!",
    *,
    ttl: int = 64,
    traffic_class: int = 0,
    dont_fragment: bool = False,
    source: str | None = None,
    destination: str | None = None,
    **fields: Any,
) -> bytes:
    """A whole packet of one of the protocols that parse knows."""
    a, b = ends(family)
    a, b = ip_address(source) if source else a, ip_address(destination) if destination else b
    body = {
        TCP: lambda: tcp(a, b, payload, **fields),
        UDP: lambda: udp(a, b, payload, **fields),
        SCTP: lambda: sctp(**fields),
        ICMP: lambda: echo(a, b, payload, **fields),
        ICMPV6: lambda: echo(a, b, payload, **fields),
    }.get(protocol, lambda: payload)()
    return reference.ip_packet(a, b, protocol, body, ttl=ttl, traffic_class=traffic_class, dont_fragment=dont_fragment)


def resealed(data: bytes) -> bytes:
    """With a right IPv4 header checksum, when there is a header to seal."""
    if len(data) >= 20 and data[0] >> 4 == 4 and 20 <= (data[0] & 15) * 4 <= len(data):
        return reference.seal_ipv4(data)
    return data


def changed(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def ipv4(
    body: bytes,
    protocol: int = UDP,
    *,
    options: bytes = b"",
    fragment: int = 0,
    total: int | None = None,
    ihl: int | None = None,
    ttl: int = 64,
    source: Address = A4,
    destination: Address = B4,
) -> bytes:
    """An IPv4 packet with any header field set by hand, and a right checksum."""
    header = 20 + len(options)
    head = struct.pack(
        "!BBHHHBBH4s4s",
        0x40 | (header // 4 if ihl is None else ihl),
        0,
        header + len(body) if total is None else total,
        0x1234,
        fragment,
        ttl,
        protocol,
        0,
        source.packed,
        destination.packed,
    )
    return resealed(head + options + body)


def ipv6(
    body: bytes,
    next_header: int = UDP,
    *,
    length: int | None = None,
    hops: int = 64,
    source: Address = A6,
    destination: Address = B6,
) -> bytes:
    head = struct.pack("!IHBB", 6 << 28, len(body) if length is None else length, next_header, hops)
    return head + source.packed + destination.packed + body


def chained(headers: list[tuple[int, bytes]], protocol: int, body: bytes) -> tuple[int, bytes]:
    """Extension headers in front of a body: (first next-header, bytes). Each header lacks its first byte."""
    kind, data = protocol, body
    for name, rest in reversed(headers):
        data = bytes([kind]) + rest + data
        kind = name
    return kind, data


def options_header(name: int, words: int = 0) -> tuple[int, bytes]:
    """Hop-by-hop (0) or destination (60) options: one PadN, 8 + 8 * words bytes."""
    pad = 4 + 8 * words
    return name, bytes([words, 1, pad]) + bytes(pad) if words < 31 else bytes([words]) + bytes(6 + 8 * words)


def routing_header(kind: int) -> tuple[int, bytes]:
    return 43, bytes([0, kind, 0]) + bytes(4)


def fragment_header(offset: int = 0, more: bool = False) -> tuple[int, bytes]:
    return 44, struct.pack("!BHI", 0, offset | more, 0xABCD)


# -- strategies --------------------------------------------------------------
PROTOCOLS = st.sampled_from([TCP, UDP, SCTP, ICMP, ICMPV6, 0, 4, 41, 47, 50, 51, 59, 255])
PAYLOADS = st.binary(max_size=120)


@st.composite
def transports(draw: st.DrawFn, family: int) -> tuple[int, bytes]:
    protocol = draw(PROTOCOLS)
    a, b = ends(family)
    payload = draw(PAYLOADS)
    port = st.sampled_from([0, 1, 53, 4789, 65535])
    if protocol == TCP:
        options = bytes(4 * draw(st.integers(0, 10)))
        return protocol, tcp(
            a,
            b,
            payload,
            sport=draw(port),
            dport=draw(port),
            options=options,
            flags=draw(st.integers(0, 255)),
            offset=draw(st.none() | st.integers(0, 15)),
        )
    if protocol == UDP:
        return protocol, udp(
            a, b, payload, sport=draw(port), dport=draw(port), length=draw(st.none() | st.integers(0, 200))
        )
    if protocol == SCTP:
        return protocol, sctp(draw(port), draw(port))
    if protocol in (ICMP, ICMPV6):
        return protocol, echo(a, b, payload, kind=draw(st.integers(0, 255)))
    return protocol, payload


ADDRESSES4 = st.sampled_from(
    [
        A4,
        B4,
        *map(
            IPv4Address,
            (
                "0.0.0.0",
                "0.1.2.3",
                "10.0.0.1",
                "126.255.255.255",
                "127.0.0.1",
                "128.0.0.0",
                "169.253.255.255",
                "169.254.1.1",
                "169.255.0.0",
                "223.255.255.255",
                "224.0.0.1",
                "239.255.255.255",
                "240.0.0.1",
                "255.255.255.254",
                "255.255.255.255",
            ),
        ),
    ]
) | st.integers(0, 2**32 - 1).map(IPv4Address)
ADDRESSES6 = st.sampled_from(
    [
        A6,
        B6,
        *map(
            IPv6Address,
            (
                "::",
                "::1",
                "::2",
                "::fffe:1.2.3.4",
                "::ffff:1.2.3.4",
                "::1:0:0:0",
                "fe7f::1",
                "fe80::1",
                "febf::1",
                "fec0::1",
                "feff::1",
                "ff02::1",
                "2001:db8::1",
                "64:ff9b::1.2.3.4",
            ),
        ),
    ]
) | st.integers(0, 2**128 - 1).map(IPv6Address)


@st.composite
def packets4(draw: st.DrawFn) -> bytes:
    protocol, body = draw(transports(4))
    options = b""
    if draw(st.integers(0, 3)) == 0:
        options = draw(
            st.binary(max_size=40)
            | st.lists(
                st.sampled_from(
                    [
                        b"\x01",
                        b"\x00",
                        b"\x83\x07\x04" + bytes(4),
                        b"\x89\x03\x04",
                        b"\x07\x07\x04" + bytes(4),
                        b"\x94\x04\x00\x00",
                        b"\x44\x02",
                        b"\x44\xff",
                    ]
                ),
                max_size=6,
            ).map(b"".join)
        )[:40]
        options += bytes(-len(options) % 4)
    plain = draw(st.integers(0, 3)) != 0
    return ipv4(
        body,
        protocol,
        options=options,
        fragment=0 if plain else draw(st.sampled_from([0x4000, 0x8000, 0x2000, 1, 7, 8, 9, 0x2008, 0x1FFF])),
        ttl=draw(st.integers(0, 255)),
        source=A4 if plain else draw(ADDRESSES4),
        destination=B4 if plain else draw(ADDRESSES4),
        total=None if draw(st.integers(0, 7)) else draw(st.integers(0, 65535)),
        ihl=None if draw(st.integers(0, 7)) else draw(st.integers(0, 15)),
    )


@st.composite
def packets6(draw: st.DrawFn) -> bytes:
    protocol, body = draw(transports(6))
    extension = st.one_of(
        st.sampled_from([0, 60]).map(options_header),
        st.sampled_from(
            [
                (0, bytes([0, 0xC2, 4]) + bytes(4)),
                (0, bytes([0, 5, 2, 0, 0, 1, 9])),
                (60, b"\x04" + bytes(38)),
                (0, bytes([0, 0, 0, 0, 0, 0, 1])),
            ]
        ),
        st.integers(0, 31).map(lambda words: options_header(60, words)),
        st.sampled_from([0, 2, 4]).map(routing_header),
        st.tuples(st.sampled_from([0, 0, 8, 56, 64, 72, 65528]), st.booleans()).map(lambda x: fragment_header(*x)),
    )
    headers = draw(st.lists(extension, max_size=3) | st.lists(extension, max_size=10))
    kind, data = chained(headers, protocol, body)
    plain = draw(st.integers(0, 3)) != 0
    return ipv6(
        data,
        kind,
        hops=draw(st.integers(0, 255)),
        source=A6 if plain else draw(ADDRESSES6),
        destination=B6 if plain else draw(ADDRESSES6),
        length=None if draw(st.integers(0, 7)) else draw(st.integers(0, 65535)),
    )


@st.composite
def bent(draw: st.DrawFn) -> bytes:
    """A packet of either family: as built, or cut, padded, or with some bytes changed."""
    data = draw(packets4() | packets6())
    if draw(st.booleans()):
        return data
    for _ in range(draw(st.integers(0, 3))):
        if data:
            data = changed(data, draw(st.integers(0, min(len(data), 100) - 1)), draw(st.binary(min_size=1, max_size=2)))
    data = data[: draw(st.integers(0, len(data)))] if draw(st.integers(0, 3)) == 0 else data
    data += draw(st.binary(max_size=12)) if draw(st.integers(0, 3)) == 0 else b""
    return resealed(data) if draw(st.booleans()) else data


@st.composite
def offloads(draw: st.DrawFn, data: bytes) -> reference.Offload:
    """Metadata that mostly fits the packet it is for."""
    try:
        found = reference.parse(data)
        start, field = found.transport, {TCP: 16, UDP: 6}.get(found.protocol, 2)
        kind = {TCP: 1 if found.family == 4 else 4, UDP: 5}.get(found.protocol, 0)
    except reference.Drop:
        start, field, kind = 20, 16, 1
    near = st.integers(0, 120)
    pending = draw(
        st.none()
        | st.just((start, field))
        | st.tuples(st.just(start) | near, st.just(field) | near)
        | st.tuples(st.integers(0, 65535), st.integers(0, 65535))
    )
    if draw(st.booleans()):
        return reference.Offload(pending=pending)
    kind = draw(st.just(kind) | st.sampled_from([0, 1, 4, 5, 0x81, 0x84, 0x85]))
    return reference.Offload(kind, draw(st.integers(0, 130) | st.integers(0, 65535)), pending)
