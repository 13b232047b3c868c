"""The inputs fuzzing starts from: well-formed and nearly well-formed, in the layout probe_fuzz.pyx reads.

Owns: that layout, and one small input for each thing the parsers know.
Invariant: names are stable, so that a corpus can be compared between runs.
"""

from __future__ import annotations

import struct

from fastpath import reference
from fastpath.reference import ICMP, ICMPV6, SCTP, TCP, UDP
from tests.fastpath.packets import (
    A4,
    A6,
    B4,
    B6,
    VECTOR4,
    VECTOR6,
    chained,
    fragment_header,
    ipv4,
    ipv6,
    options_header,
    packet,
    routing_header,
    tcp,
    udp,
)

SEAL, METADATA = 1, 2
MAC = b"\x02\0\0\0\0\x01"


def with_choices(data: bytes, choices: int = SEAL, virtio: bytes = bytes(10)) -> bytes:
    return virtio + bytes([choices]) + data


def super_packet(family: int, protocol: int) -> bytes:
    start, field = (20 if family == 4 else 40), (16 if protocol == TCP else 6)
    kind = 5 if protocol == UDP else 1 if family == 4 else 4
    virtio = struct.pack("<BBHHHH", 1, kind, 0, 100, start, field)
    return with_choices(packet(family, protocol, bytes(350)), SEAL | METADATA, virtio)


def packets4() -> dict[str, bytes]:
    return {
        **{f"plain-{p}": packet(4, p) for p in (TCP, UDP, SCTP, ICMP, 4, 41, 47, 50)},
        "options": ipv4(udp(A4, B4), options=b"\x94\x04\x00\x00\x07\x07\x04\x00\x00\x00\x00\x00"),
        "source-route": ipv4(udp(A4, B4), options=b"\x83\x07\x04\x0a\x00\x00\x01\x00"),
        "tcp-options": ipv4(tcp(A4, B4, b"x", options=b"\x02\x04\x05\xb4"), TCP),
        "first-fragment": ipv4(udp(A4, B4, bytes(80)), fragment=0x2000),
        "later-fragment": ipv4(bytes(80), fragment=11),
        "padded": VECTOR4 + bytes(10),
    }


def packets6() -> dict[str, bytes]:
    kinds = {
        "chain": [options_header(0), routing_header(4), options_header(60, 1)],
        "long-chain": [options_header(60)] * 8,
        "atomic": [fragment_header()],
        "first-fragment": [fragment_header(0, more=True), options_header(60)],
        "later-fragment": [fragment_header(64)],
        "routing-0": [routing_header(0)],
        "jumbo": [(0, bytes([0, 0xC2, 4]) + bytes(4))],
    }
    made = {f"plain-{p}": packet(6, p) for p in (TCP, UDP, SCTP, ICMPV6, 4, 41, 59)}
    for name, headers in kinds.items():
        kind, body = chained(headers, UDP, udp(A6, B6, bytes(48)))
        made[name] = ipv6(body, kind)
    return made | {"padded": VECTOR6 + bytes(10)}


def tunnel_payloads() -> dict[str, bytes]:
    frame = reference.vxlan_frame(VECTOR4, 42, MAC, b"\x02\0\0\0\0\x02")
    frame6 = reference.vxlan_frame(VECTOR6, 42, MAC, b"\x02\0\0\0\0\x02")
    vni = b"\0\0\x2a\x01"
    made = {f"vxlan-{i}": bytes([1 | i << 3]) + vni + data for i in range(6) for data in (frame, frame6)}
    for kind in (0, 2, 3):
        made |= {f"bare-{kind}-4": bytes([kind]) + vni + VECTOR4, f"bare-{kind}-6": bytes([kind]) + vni + VECTOR6}
    made["gbp"] = bytes([1 | 2 << 4]) + vni + b"\x88\x40\x12\x34" + frame[4:]
    made["nested"] = bytes([1]) + vni + reference.vxlan_frame(packet(4, 4, VECTOR4), 42, MAC, MAC)
    return made


def seeds() -> dict[str, dict[str, bytes]]:
    """target -> name -> input"""
    four = {name: with_choices(data) for name, data in packets4().items()}
    six = {name: with_choices(data) for name, data in packets6().items()}
    four |= {f"super-{p}": super_packet(4, p) for p in (TCP, UDP)}
    six |= {f"super-{p}": super_packet(6, p) for p in (TCP, UDP)}
    quotes = {
        f"{name}-{kind}": data[:10] + bytes([data[10] | kind << 2]) + data[11:]
        for name, data in {**{f"4-{n}": d for n, d in four.items()}, **{f"6-{n}": d for n, d in six.items()}}.items()
        for kind in (1, 2)
    }
    return {"wire_ip4": four, "wire_ip6_ext": six, "icmp_quote": quotes, "decap_any": tunnel_payloads()}
