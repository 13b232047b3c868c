"""The golden twin of parse: which packets are ones, and where their headers end.

Owns: every check of IPv4, IPv6, its extensions, transport headers and virtio metadata, from the RFCs.
Never: looks past the transport header.
Invariant: returns a Parsed, or raises Drop with the first thing that is wrong.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from fastpath.reference.lookup import LINK_LOCAL, within
from fastpath.reference.packet import (
    GSO_ECN,
    GSO_NONE,
    GSO_TCP4,
    GSO_TCP6,
    GSO_UDP,
    ICMP,
    ICMPV6,
    PLAIN,
    SCTP,
    TCP,
    UDP,
    UDPLITE,
    Address,
    Offload,
    Parsed,
    Prefix,
    drop_if,
)
from fastpath.reference.sums import checksum

MARTIANS: tuple[Prefix, ...] = (
    *map(IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4")),
    *map(IPv6Network, ("::/128", "::1/128", "::ffff:0:0/96", "fe80::/10", "ff00::/8")),
)
GROUPS: tuple[Prefix, ...] = (IPv4Network("224.0.0.0/4"), IPv4Network("255.255.255.255/32"), IPv6Network("ff00::/8"))


def parse(data: bytes, offload: Offload = PLAIN, *, link_local: bool = False) -> Parsed:
    """`link_local`: one end may have such an address in IPv4, as what a pod and services of its host exchange."""
    drop_if(not data, "truncated")
    version = data[0] >> 4
    drop_if(version not in (4, 6), "ip_version")
    found = parse_ipv4(data, offload, link_local=link_local) if version == 4 else parse_ipv6(data, offload)
    if not found.later_fragment:
        found = parse_transport(found)
    check_pending(found, offload)
    return check_segments(found, offload)


def parse_ipv4(data: bytes, offload: Offload, *, link_local: bool) -> Parsed:
    drop_if(len(data) < 20, "truncated")
    (first, tos, total, _, fragment, _, protocol, _, source, destination) = struct.unpack_from("!BBHHHBBH4s4s", data)
    header = (first & 15) * 4
    drop_if(header < 20 or total < header, "ip4_length")
    drop_if(total > len(data), "truncated")
    drop_if(checksum(data[:header]) != 0, "ip4_checksum")
    check_options(data[20:header])
    addresses = IPv4Address(source), IPv4Address(destination)
    check_addresses(*addresses, link_local=link_local)
    data = trim(data, total, offload)
    offset, more = (fragment & 0x1FFF) * 8, bool(fragment & 0x2000)
    if offset or more:
        check_fragment(offset, total - header, header, more=more)
    return Parsed(
        data,
        *addresses,
        4,
        protocol,
        tos,
        header,
        header,
        bool(offset or more),
        offset > 0,
        bool(fragment & 0x4000),
    )


def check_options(options: bytes) -> None:
    """No source route (RFC 7126), and lengths that add up."""
    while options and options[0] != 0:
        drop_if(options[0] in (131, 137), "ip4_option")
        if options[0] == 1:
            options = options[1:]
            continue
        drop_if(len(options) < 2 or options[1] < 2 or options[1] > len(options), "ip4_option")
        options = options[options[1] :]


def check_addresses(source: Address, destination: Address, *, link_local: bool = False) -> None:
    drop_if(within(destination, GROUPS), "multicast")
    martians = [address for address in (source, destination) if within(address, MARTIANS)]
    allowed = link_local and len(martians) == 1 and within(martians[0], LINK_LOCAL)
    drop_if(martians and not allowed, "martian")
    drop_if(source == destination, "land")


def trim(data: bytes, total: int, offload: Offload) -> bytes:
    drop_if(total != len(data) and (offload.gso_type, offload.gso_size) != (GSO_NONE, 0), "vnet_header")
    return data[:total]


def check_fragment(offset: int, carried: int, others: int, *, more: bool) -> None:
    """A TCP header ends within 60 bytes: no fragment starts there."""
    drop_if(carried == 0, "fragment")
    drop_if(more and carried % 8 != 0, "fragment")
    drop_if(0 < offset < 64, "fragment_offset")
    drop_if(offset + carried + others > 65535, "fragment_length")


def parse_ipv6(data: bytes, offload: Offload) -> Parsed:
    drop_if(len(data) < 40, "truncated")
    word, payload, protocol, _ = struct.unpack_from("!IHBB", data)
    drop_if(payload == 0 or payload + 40 > 65535, "ip6_length")
    drop_if(payload + 40 > len(data), "truncated")
    addresses = IPv6Address(data[8:24]), IPv6Address(data[24:40])
    check_addresses(*addresses)
    data = trim(data, 40 + payload, offload)
    protocol, offset, position = walk_extensions(data, protocol)
    return Parsed(
        data,
        *addresses,
        6,
        protocol,
        word >> 20 & 0xFF,
        offset,
        offset,
        position is not None,
        bool(position),
        True,
    )


def walk_extensions(data: bytes, kind: int) -> tuple[int, int, int | None]:
    """Transport protocol, its offset, and the position in the datagram when this is a fragment."""
    at = 40
    seen: list[int] = []
    position: int | None = None
    while kind in (0, 43, 44, 60):
        drop_if(len(seen) == 8, "ip6_extension")
        cut = "ip6_extension" if position is None else "fragment_chain"
        drop_if(len(data) - at < 8, cut)
        size = 8 if kind == 44 else (data[at + 1] + 1) * 8
        if kind == 44:
            drop_if(44 in seen, "fragment_chain")
            (word,) = struct.unpack_from("!H", data, at + 2)
            if word & ~6:  # otherwise atomic: a whole packet (RFC 6946)
                position = word & ~7
                check_fragment(position, len(data) - at - 8, at - 40, more=bool(word & 1))
        else:
            drop_if(size > 256, "ip6_extension")
            drop_if(len(data) - at < size, cut)
            if kind == 0:
                drop_if(seen, "ip6_extension")
                check_hop_by_hop(data[at + 2 : at + size])
            drop_if(kind == 43 and data[at + 2] == 0, "ip6_routing")
        seen.append(kind)
        kind = data[at]
        at += size
        drop_if(at - 40 > 256, "ip6_extension")
        if position:
            break
    return kind, at, position


def check_hop_by_hop(options: bytes) -> None:
    while options:
        drop_if(options[0] == 0xC2, "ip6_length")
        if options[0] == 0:
            options = options[1:]
            continue
        drop_if(len(options) < 2 or options[1] + 2 > len(options), "ip6_extension")
        options = options[options[1] + 2 :]


def parse_transport(p: Parsed) -> Parsed:
    data = p.data[p.transport :]
    minimum = {TCP: 20, UDP: 8, UDPLITE: 8, SCTP: 12, ICMP if p.family == 4 else ICMPV6: 8}.get(p.protocol, 0)
    drop_if(len(data) < minimum, "fragment_tiny" if p.fragment else "truncated")
    header = minimum
    if p.protocol == TCP:
        header = (data[12] >> 4) * 4
        drop_if(header < 20, "tcp_offset")
        drop_if(header > len(data), "fragment_tiny" if p.fragment else "tcp_offset")
    if p.protocol == UDP:
        (length,) = struct.unpack_from("!H", data, 4)
        drop_if(length < 8 or (length > len(data) and not p.fragment), "udp_length")
    if p.protocol in (TCP, UDP, UDPLITE, SCTP):
        ports = struct.unpack_from("!HH", data)
        drop_if(ports[1] == 0 or (ports[0] == 0 and p.protocol not in (UDP, UDPLITE)), "land")
    return replace(p, payload=p.transport + header)


def check_pending(p: Parsed, offload: Offload) -> None:
    """Completing a checksum may write its own field, or bytes behind the transport header."""
    if offload.pending is None:
        return
    start, offset = offload.pending
    drop_if(p.fragment or start + offset + 2 > len(p.data), "vnet_header")
    if start == p.transport and p.protocol in (TCP, UDP):
        drop_if(offset != (16 if p.protocol == TCP else 6), "vnet_header")
    else:
        drop_if(start < p.payload or start == p.transport, "vnet_header")


def check_segments(p: Parsed, offload: Offload) -> Parsed:
    if offload.gso_type == GSO_NONE and offload.gso_size == 0:
        return replace(p, offload=offload)
    size, kind, carried = offload.gso_size, offload.gso_type & ~GSO_ECN, len(p.data) - p.payload
    sound = not p.fragment and offload.pending is not None and offload.pending[0] == p.transport
    sound = sound and 0 < size <= carried
    if kind == GSO_UDP:
        sound = sound and p.protocol == UDP and offload.gso_type == GSO_UDP and carried <= size * 128
        sound = sound and struct.unpack_from("!H", p.data, p.transport + 4)[0] == len(p.data) - p.transport
    else:
        sound = sound and p.protocol == TCP and kind == (GSO_TCP4 if p.family == 4 else GSO_TCP6) and size >= 8
    drop_if(not sound, "vnet_header")
    n_segments = -(-carried // size)
    if n_segments == 1:
        offload = replace(offload, gso_type=GSO_NONE, gso_size=0)
    return replace(p, offload=offload, n_segments=n_segments)
