"""Builds packets for the offload tests.

Owns: packets by their fields, and bursts of them.
Never: imports compiled code; the golden twin says what must become of a packet.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import NamedTuple

from fastpath.reference import GSO_TCP4, GSO_TCP6, GSO_UDP, Offload, Parsed, parse

TCP, UDP = 6, 17
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << i for i in range(8))
TIMESTAMPS = bytes.fromhex("0101080a0000303900010932")

SOURCE = {4: "10.1.0.2", 6: "fd00:1::2"}
DESTINATION = {4: "10.2.0.9", 6: "fd00:2::9"}


class Shape(NamedTuple):
    """Where the headers are."""

    family: int
    protocol: int
    transport: int
    payload: int


def words(data: bytes) -> int:
    """Ones' complement sum of big-endian 16-bit words, folded."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def addresses(packet: bytes) -> bytes:
    return packet[12:20] if packet[0] >> 4 == 4 else packet[8:40]


def pseudo_header(packet: bytes, protocol: int, length: int) -> bytes:
    return addresses(packet) + struct.pack("!II", length, protocol)


def shape(packet: bytes) -> Shape:
    """Where the headers of a packet built here are."""
    family = packet[0] >> 4
    if family == 4:
        transport, protocol = (packet[0] & 15) * 4, packet[9]
    else:
        transport, protocol = 40, packet[6]
        while protocol in (0, 60):  # hop-by-hop and destination options
            protocol, transport = packet[transport], transport + 8 + packet[transport + 1] * 8
    payload = transport
    if protocol == TCP:
        payload = transport + (packet[transport + 12] >> 4) * 4
    elif protocol == UDP:
        payload = transport + 8
    return Shape(family, protocol, transport, payload)


@dataclass(frozen=True)
class Packet:
    """The fields of a packet; `build` turns them into bytes."""

    payload: bytes = b""
    family: int = 4
    protocol: int = TCP
    source: str = ""
    destination: str = ""
    source_port: int = 40000
    destination_port: int = 5201
    sequence: int = 1000
    acknowledgement: int = 77
    flags: int = ACK
    window: int = 502
    options: bytes = TIMESTAMPS
    ttl: int = 63
    traffic_class: int = 0
    identification: int = 7
    dont_fragment: bool = True
    ip_options: bytes = b""
    checksum: str = "full"  # or "pending", "none" (UDP), "wrong"

    def but(self, **changes: object) -> Packet:
        return replace(self, **changes)  # type: ignore[arg-type]

    def _transport(self) -> bytes:
        ports = struct.pack("!HH", self.source_port, self.destination_port)
        if self.protocol == UDP:
            return ports + struct.pack("!HH", 8 + len(self.payload), 0)
        offset = (20 + len(self.options)) // 4
        return (
            ports
            + struct.pack(
                "!IIBBHHH", self.sequence % 2**32, self.acknowledgement, offset << 4, self.flags, self.window, 0, 0
            )
            + self.options
        )

    def _ip(self, length: int) -> bytes:
        source = ip_address(self.source or SOURCE[self.family]).packed
        destination = ip_address(self.destination or DESTINATION[self.family]).packed
        if self.family == 6:
            next_header = self.ip_options[0] if self.ip_options else self.protocol
            first = 6 << 28 | self.traffic_class << 20 | 0x12345
            extensions = self.ip_options[1:]
            return (
                struct.pack("!IHBB", first, length + len(extensions), next_header, self.ttl)
                + source
                + destination
                + extensions
            )
        header_length = 20 + len(self.ip_options)
        header = (
            struct.pack(
                "!BBHHHBBH",
                0x40 | header_length // 4,
                self.traffic_class,
                header_length + length,
                self.identification % 65536,
                0x4000 if self.dont_fragment else 0,
                self.ttl,
                self.protocol,
                0,
            )
            + source
            + destination
            + self.ip_options
        )
        return seal_ip4(header)

    def build(self) -> bytes:
        transport = self._transport()
        packet = self._ip(len(transport) + len(self.payload)) + transport + self.payload
        if self.checksum == "none":
            return packet
        if self.checksum == "pending":
            return set_pending(packet)
        packet = set_checksum(packet)
        if self.checksum == "wrong":
            packet = packet[:-1] + bytes([packet[-1] ^ 0x55])
        return packet


def seal_ip4(packet: bytes) -> bytes:
    n = (packet[0] & 15) * 4
    header = packet[:10] + b"\0\0" + packet[12:n]
    return header[:10] + struct.pack("!H", 0xFFFF - words(header)) + packet[12:]


def _set_field(packet: bytes, *, pending: bool) -> bytes:
    at = shape(packet)
    field = at.transport + (16 if at.protocol == TCP else 6)
    packet = packet[:field] + b"\0\0" + packet[field + 2 :]
    transport = packet[at.transport :]
    pseudo = pseudo_header(packet, at.protocol, len(transport))
    value = words(pseudo) if pending else 0xFFFF - words(pseudo + transport)
    if at.protocol == UDP and value == 0 and not pending:
        value = 0xFFFF
    return packet[:field] + struct.pack("!H", value) + packet[field + 2 :]


def set_checksum(packet: bytes) -> bytes:
    """The packet with its transport checksum in full."""
    return _set_field(packet, pending=False)


def set_pending(packet: bytes) -> bytes:
    """The packet with the pseudo-header sum in its transport checksum field."""
    return _set_field(packet, pending=True)


def super_packet(packet: bytes, size: int) -> Parsed:
    """What the golden twin reads in a super-packet; fastpath.reference.Drop if it makes no sense."""
    at = shape(packet)
    kind = GSO_UDP if at.protocol == UDP else GSO_TCP4 if at.family == 4 else GSO_TCP6
    return parse(packet, Offload(kind, size, (at.transport, 16 if at.protocol == TCP else 6)))


PASS, DROP, SENT, MERGED = range(4)  # fastpath.reason.verdict_t


@dataclass(frozen=True)
class Entry:
    """A packet's place in a burst: dead bytes in front of it, and what the loop knows about it."""

    data: bytes
    gap: int = 50
    pending: bool = False
    checksum_start: int = 0  # of a checksum pending inside the payload
    gso_size: int = 0
    adjacency: int = 1
    verdict: int = PASS
    reply: int = 0

    @classmethod
    def of(cls, packet: Packet, **known: int) -> Entry:
        return cls(packet.build(), pending=packet.checksum == "pending", **known)


def checksum_state(packet: bytes) -> str:
    at = shape(packet)
    field = at.transport + (16 if at.protocol == TCP else 6)
    value = packet[field : field + 2]
    if value == b"\0\0" and at.protocol == UDP:
        return "none"
    if value == set_checksum(packet)[field : field + 2]:
        return "full"
    if value == set_pending(packet)[field : field + 2]:
        return "pending"
    return "wrong"
