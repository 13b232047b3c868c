"""The golden twin of reply: the ICMP message about a packet that went no further.

Owns: which message, whether any may be sent (RFC 1812, RFC 4443), and its bytes.
Never: limits their rate.
Invariant: there is no message about a message of error.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from fastpath.reference.header import ip_packet
from fastpath.reference.packet import ICMP, ICMPV6, Address, Parsed
from fastpath.reference.sums import checksum, transport_checksum

REPLIES: Mapping[str, tuple[tuple[int, int], tuple[int, int]]] = {  # (type, code) in ICMP, in ICMPv6
    "time_exceeded": ((11, 0), (3, 0)),
    "too_big": ((3, 4), (2, 0)),
    "no_route": ((3, 0), (1, 0)),
    "host_unreachable": ((3, 1), (1, 3)),
    "prohibited": ((3, 13), (1, 1)),
}


def reply(p: Parsed, kind: str, mtu: int, gateway: Address | None) -> bytes | None:
    """The message about `p`, or None when none may be sent (RFC 1812 4.3.2.7, RFC 4443 2.4)."""
    if gateway is None or p.later_fragment or is_icmp_error(p):
        return None
    code = REPLIES[kind][0 if p.family == 4 else 1]
    rest = struct.pack("!I", mtu if kind == "too_big" else 0)
    quote = p.data[: 576 - 28] if p.family == 4 else p.data[: 1280 - 48]
    body = bytes(code) + b"\0\0" + rest + quote
    if p.family == 4:
        body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
        return ip_packet(gateway, p.source, ICMP, body, traffic_class=0xC0, dont_fragment=True)
    value = transport_checksum(gateway, p.source, ICMPV6, body)
    body = body[:2] + struct.pack("!H", value) + body[4:]
    return ip_packet(gateway, p.source, ICMPV6, body, traffic_class=0xC0)


def is_icmp_error(p: Parsed) -> bool:
    kind = p.data[p.transport] if p.transport < len(p.data) else 0
    if p.family == 4:
        return p.protocol == ICMP and kind in (3, 4, 5, 11, 12)
    return p.protocol == ICMPV6 and (kind < 128 or kind == 137)
