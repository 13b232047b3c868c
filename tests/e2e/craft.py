"""Packets by hand, byte by byte, so that they can be wrong in one place at a time."""

from __future__ import annotations

import ipaddress
import struct

ICMP, IPIP, TCP, UDP, IP6IP, ROUTING, FRAGMENT, ICMP6 = 1, 4, 6, 17, 41, 43, 44, 58


def checksum(data):
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(
    source,
    target,
    body,
    *,
    protocol=UDP,
    ttl=64,
    version=4,
    words=5,
    length=None,
    fragment=0,
    options=b"",
    bad_sum=0,
    tos=0,
):
    """An IPv4 packet; `words`, `length` and `bad_sum` tell lies when given."""
    size = 20 + len(options) + len(body) if length is None else length
    words += len(options) // 4
    head = struct.pack(
        "!BBHHHBBH4s4s",
        version << 4 | words,
        tos,
        size,
        0x1234,
        fragment,
        ttl,
        protocol,
        0,
        ipaddress.ip_address(source).packed,
        ipaddress.ip_address(target).packed,
    )
    value = checksum(head + options) ^ bad_sum
    return head[:10] + value.to_bytes(2, "big") + head[12:] + options + body


def ipv6(source, target, body, *, following=UDP, hops=64, version=6, length=None):
    head = struct.pack("!IHBB", version << 28, len(body) if length is None else length, following, hops)
    return head + ipaddress.ip_address(source).packed + ipaddress.ip_address(target).packed + body


def udp(payload, *, source=1111, target=2222, length=None, addresses=None):
    """A UDP datagram; without `addresses` it carries no checksum, as IPv4 allows."""
    size = 8 + len(payload) if length is None else length
    head = struct.pack("!HHHH", source, target, size, 0)
    if addresses is None:
        return head + payload
    packed = b"".join(ipaddress.ip_address(each).packed for each in addresses)
    value = checksum(packed + struct.pack("!II", size, UDP) + head + payload) or 0xFFFF
    return head[:6] + value.to_bytes(2, "big") + payload


def tcp(payload, *, words=5):
    return struct.pack("!HHIIBBHHH", 1111, 2222, 1, 1, words << 4, 0x10, 1000, 0, 0) + payload


def ethernet(target, source, kind, body):
    return (
        bytes.fromhex(target.replace(":", "")) + bytes.fromhex(source.replace(":", "")) + struct.pack("!H", kind) + body
    )


def vxlan(frame, *, vni=1, flags=0x08, reserved=0, last=0):
    return struct.pack("!B", flags) + reserved.to_bytes(3, "big") + vni.to_bytes(3, "big") + bytes([last]) + frame
