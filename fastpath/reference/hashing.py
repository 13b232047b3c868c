"""The golden twin of the flow hash, which chooses among equal routes and a tunnel's source port.

Owns: what is hashed of a packet, and how.
Never: depends on anything but the packet's addresses, protocol, ports and the key.
Invariant: all fragments of a packet have one hash.
"""

from __future__ import annotations

from fastpath.reference.packet import ICMP, ICMPV6, SCTP, TCP, UDP, UDPLITE, Parsed

MASK64 = (1 << 64) - 1


def flow_hash(p: Parsed, key: int) -> int:
    """32 bits, keyed; of a fragment only the addresses count."""

    def mix(a: int, b: int) -> int:
        product = (a & MASK64) * (b & MASK64)
        return (product & MASK64) ^ (product >> 64)

    key2 = (key * 0x9E3779B97F4A7C15 & MASK64) ^ 0xD1B54A32D192ED03
    tail = 0 if p.fragment else p.protocol << 32 | flow_ports(p)
    source, destination = int(p.source), int(p.destination)
    if p.family == 4:
        value = mix((source << 32 | destination) ^ key, tail ^ key2)
    else:
        value = mix(source >> 64 ^ key, source & MASK64 ^ key2)
        value = mix(destination >> 64 ^ value ^ key, destination & MASK64 ^ key2)
        value = mix(value ^ key, tail ^ key2)
    return mix(value ^ key2, 0xA0761D6478BD642F) >> 32


def flow_ports(p: Parsed) -> int:
    data = p.data[p.transport :]
    if p.protocol in (TCP, UDP, UDPLITE, SCTP):
        return int.from_bytes(data[:4], "big")
    echo = {(4, ICMP): (0, 8), (6, ICMPV6): (128, 129)}.get((p.family, p.protocol), ())
    return int.from_bytes(data[4:6], "big") if echo and data[0] in echo else 0
