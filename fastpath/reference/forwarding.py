"""The golden twin of hop: one router further.

Owns: TTL, MTU, traffic class, and fragments (RFC 791).
Never: writes a reply; a Drop names the one it asks for.
Invariant: an IPv4 packet that comes out has its header's checksum in full.
"""

from __future__ import annotations

import struct

from fastpath.reference.header import seal_ipv4
from fastpath.reference.packet import Drop, Parsed


def set_class(data: bytes, traffic_class: int) -> bytes:
    if data[0] >> 4 == 4:
        return seal_ipv4(data[:1] + bytes([traffic_class]) + data[2:])
    word = int.from_bytes(data[:4], "big") & ~(0xFF << 20) | traffic_class << 20
    return word.to_bytes(4, "big") + data[4:]


def hop(p: Parsed, mtu: int) -> bytes:
    """One router further: TTL - 1, and no wire packet longer than `mtu`.

    An IPv4 packet that may be fragmented is returned whole; its segments are
    what has to fit when it stands for several.
    """
    if p.ttl <= 1:
        raise Drop("ttl_expired", "time_exceeded")
    longest = len(p.data) if p.n_segments == 1 else p.payload + p.offload.gso_size
    if longest > mtu and p.dont_fragment:
        raise Drop("too_big", "too_big", mtu)
    if p.family == 4:
        return seal_ipv4(p.data[:8] + bytes([p.ttl - 1]) + p.data[9:])
    return p.data[:7] + bytes([p.ttl - 1]) + p.data[8:]


def fragments(data: bytes, mtu: int) -> list[bytes]:
    """An IPv4 packet cut to pieces of at most `mtu` bytes (RFC 791); options are copied whole."""
    header = (data[0] & 15) * 4
    (word,) = struct.unpack_from("!H", data, 6)
    step = (mtu - header) // 8 * 8
    body, pieces = data[header:], []
    for at in range(0, len(body), step):
        piece = body[at : at + step]
        more = 0x2000 if at + step < len(body) else word & 0x2000
        head = data[:2] + struct.pack("!H", header + len(piece)) + data[4:6]
        head += struct.pack("!H", (word & 0xC000) | more | (word & 0x1FFF) + at // 8) + data[8:header]
        pieces.append(seal_ipv4(head + piece))
    return pieces
