"""The golden twin's headers: an IP packet or a datagram around its body.

Owns: how IPv4, IPv6 and UDP headers are written, and which of their fields can be changed afterwards.
Never: checks what it is given.
Invariant: what comes out has its checksum in full.
"""

from __future__ import annotations

import struct

from fastpath.reference.packet import UDP, Address
from fastpath.reference.sums import checksum, transport_checksum


def seal_ipv4(data: bytes) -> bytes:
    header = (data[0] & 15) * 4
    blank = data[:10] + b"\0\0" + data[12:header]
    return data[:10] + struct.pack("!H", checksum(blank)) + data[12:]


def ip_packet(
    source: Address,
    destination: Address,
    protocol: int,
    body: bytes,
    *,
    traffic_class: int = 0,
    ttl: int = 64,
    identification: int = 0,
    dont_fragment: bool = False,
) -> bytes:
    if source.version == 4:
        header = struct.pack(
            "!BBHHHBBH4s4s",
            0x45,
            traffic_class,
            20 + len(body),
            identification,
            0x4000 if dont_fragment else 0,
            ttl,
            protocol,
            0,
            source.packed,
            destination.packed,
        )
        return seal_ipv4(header + body)
    return struct.pack("!IHBB", 6 << 28 | traffic_class << 20, len(body), protocol, ttl) + (
        source.packed + destination.packed + body
    )


def udp_datagram(source: Address, destination: Address, source_port: int, port: int, body: bytes) -> bytes:
    header = struct.pack("!HHH", source_port, port, 8 + len(body))
    value = transport_checksum(source, destination, UDP, header + b"\0\0" + body)
    return header + struct.pack("!H", value) + body
