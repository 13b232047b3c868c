"""The golden twin's checksums: the Internet's, and the transports' over it.

Owns: RFC 1071 and the pseudo headers of IPv4 and IPv6.
Never: writes a sum into a packet.
Invariant: a function of bytes alone.
"""

from __future__ import annotations

import struct

from fastpath.reference.packet import UDP, Address


def ones_sum(data: bytes) -> int:
    """Ones-complement sum of the 16-bit words, folded, not inverted (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total >> 16) + (total & 0xFFFF)
    return total


def checksum(data: bytes) -> int:
    return ~ones_sum(data) & 0xFFFF


def pseudo_header(source: Address, destination: Address, protocol: int, length: int) -> bytes:
    if source.version == 4:
        return source.packed + destination.packed + struct.pack("!BBH", 0, protocol, length)
    return source.packed + destination.packed + struct.pack("!IHBB", length, 0, 0, protocol)


def transport_checksum(source: Address, destination: Address, protocol: int, data: bytes) -> int:
    """Of `data`, whose checksum field is 0. UDP sends 0 as 0xffff (RFC 768)."""
    value = checksum(pseudo_header(source, destination, protocol, len(data)) + data)
    return 0xFFFF if value == 0 and protocol == UDP else value
