"""The golden twin of split and merge: a super-packet and the wire packets it stands for.

Owns: what differs between the segments of one super-packet, and a pending checksum made whole.
Never: decides when to merge.
Invariant: split() of what merge() returns gives the same bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from fastpath.reference.header import seal_ipv4
from fastpath.reference.packet import CWR, FIN, GSO_TCP4, GSO_TCP6, GSO_UDP, PSH, TCP, UDP, Offload, Parsed
from fastpath.reference.parsing import parse
from fastpath.reference.sums import checksum, ones_sum, pseudo_header, transport_checksum


def split(p: Parsed) -> list[bytes]:
    """The wire packets a super-packet stands for, each with complete checksums."""
    if p.n_segments == 1:
        return [complete(p)]
    size, header, body = p.offload.gso_size, p.data[: p.payload], p.data[p.payload :]
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return [segment(p, header, piece, i, last=i == len(pieces) - 1) for i, piece in enumerate(pieces)]


def complete(p: Parsed) -> bytes:
    """The packet with its pending checksum in full; the field holds the pseudo-header sum."""
    if p.offload.pending is None:
        return p.data
    start, offset = p.offload.pending
    value = checksum(p.data[start:])
    if value == 0 and p.protocol == UDP:
        value = 0xFFFF
    at = start + offset
    return p.data[:at] + struct.pack("!H", value) + p.data[at + 2 :]


def segment(p: Parsed, header: bytes, piece: bytes, i: int, *, last: bool) -> bytes:
    data = bytearray(header + piece)
    if p.family == 4:
        (identification,) = struct.unpack_from("!H", data, 4)
        struct.pack_into("!H", data, 2, len(data))
        struct.pack_into("!H", data, 4, identification + i & 0xFFFF)
        data = bytearray(seal_ipv4(bytes(data)))
    else:
        struct.pack_into("!H", data, 4, len(data) - 40)
    t, field = p.transport, 16 if p.protocol == TCP else 6
    if p.protocol == TCP:
        (sequence,) = struct.unpack_from("!I", data, t + 4)
        struct.pack_into("!I", data, t + 4, sequence + i * p.offload.gso_size & 0xFFFFFFFF)
        data[t + 13] &= 0xFF if last else ~(FIN | PSH) & 0xFF
        data[t + 13] &= 0xFF if i == 0 else ~CWR & 0xFF
    else:
        struct.pack_into("!H", data, t + 4, len(data) - t)
    struct.pack_into("!H", data, t + field, 0)
    value = transport_checksum(p.source, p.destination, p.protocol, bytes(data[t:]))
    struct.pack_into("!H", data, t + field, value)
    return bytes(data)


def merge(packets: Sequence[Parsed]) -> Parsed:
    """The super-packet of segments that follow each other in one flow; ValueError when they do not.

    split() of the result gives back the same bytes.
    """
    first, size = packets[0], len(packets[0].data) - packets[0].payload
    pending = (first.transport, 16 if first.protocol == TCP else 6)
    kind = GSO_UDP if first.protocol == UDP else GSO_TCP4 if first.family == 4 else GSO_TCP6
    data = bytearray(first.data[: first.payload] + b"".join(p.data[p.payload :] for p in packets))
    if first.family == 4:
        struct.pack_into("!H", data, 2, len(data))
        data = bytearray(seal_ipv4(bytes(data)))
    else:
        struct.pack_into("!H", data, 4, len(data) - 40)
    if first.protocol == UDP:
        struct.pack_into("!H", data, first.transport + 4, len(data) - first.transport)
    else:
        data[first.transport + 13] |= packets[-1].data[first.transport + 13] & (FIN | PSH)
    pseudo = pseudo_header(first.source, first.destination, first.protocol, len(data) - first.transport)
    struct.pack_into("!H", data, first.transport + pending[1], ones_sum(pseudo))
    merged = parse(bytes(data), Offload(kind, size, pending))
    if split(merged) != [p.data for p in packets]:
        raise ValueError("these packets are no run of segments of one flow")
    return merged
