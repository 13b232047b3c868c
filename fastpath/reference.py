"""The golden twin: what the data plane does to one packet, slow and obvious.

Owns: the meaning of parse, guard, route, hop, reply, of each encapsulation's
bytes, and of split and merge, written from the RFCs and not from the .pxd files.
Never: is fast, is imported by the compiled code, or is used outside of tests.
Invariant: a function returns what goes on, or raises Drop with the name the
reason has in reasons.py; it keeps no state between calls.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TypeVar

Address = IPv4Address | IPv6Address
Prefix = IPv4Network | IPv6Network
Value = TypeVar("Value")

ICMP, IPIP, TCP, UDP, IPV6, ICMPV6, SCTP, UDPLITE = 1, 4, 6, 17, 41, 58, 132, 136
GSO_NONE, GSO_TCP4, GSO_TCP6, GSO_UDP, GSO_ECN = 0, 1, 4, 5, 0x80
FIN, SYN, RST, PSH, ACK, CWR = 1, 2, 4, 8, 16, 128
MASK64 = (1 << 64) - 1


class Drop(Exception):  # noqa: N818 - it is the ordinary end of a packet, no error
    """The packet ends here. `reply` names the message it asks for, `mtu` goes with "too_big"."""

    def __init__(self, reason: str, reply: str | None = None, mtu: int = 0) -> None:
        super().__init__(reason)
        self.reason, self.reply, self.mtu = reason, reply, mtu


def drop_if(condition: object, reason: str) -> None:
    if condition:
        raise Drop(reason)


# -- checksums ---------------------------------------------------------------
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


# -- parse -------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Offload:
    """The virtio metadata of a packet; `pending` is (start, offset) of an unfinished checksum."""

    gso_type: int = GSO_NONE
    gso_size: int = 0
    pending: tuple[int, int] | None = None


PLAIN = Offload()


@dataclass(frozen=True, slots=True)
class Parsed:
    """A packet whose headers were checked. Offsets are bytes from the IP header's first."""

    data: bytes
    source: Address
    destination: Address
    family: int
    protocol: int
    traffic_class: int
    transport: int
    payload: int
    fragment: bool = False
    later_fragment: bool = False
    dont_fragment: bool = False
    n_segments: int = 1
    offload: Offload = PLAIN

    @property
    def ttl(self) -> int:
        return self.data[8 if self.family == 4 else 7]


MARTIANS: tuple[Prefix, ...] = (
    *map(IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4")),
    *map(IPv6Network, ("::/128", "::1/128", "::ffff:0:0/96", "fe80::/10", "ff00::/8")),
)
GROUPS: tuple[Prefix, ...] = (IPv4Network("224.0.0.0/4"), IPv4Network("255.255.255.255/32"), IPv6Network("ff00::/8"))


def within(address: Address, prefixes: Iterable[Prefix]) -> bool:
    # `in` would see the IPv4 address inside of a mapped one on some Python versions
    return any(
        address.version == p.version
        and int(address) >> (p.max_prefixlen - p.prefixlen) == int(p.network_address) >> (p.max_prefixlen - p.prefixlen)
        for p in prefixes
    )


def parse(data: bytes, offload: Offload = PLAIN) -> Parsed:
    drop_if(not data, "truncated")
    version = data[0] >> 4
    drop_if(version not in (4, 6), "ip_version")
    found = parse_ipv4(data, offload) if version == 4 else parse_ipv6(data, offload)
    if not found.later_fragment:
        found = parse_transport(found)
    check_pending(found, offload)
    return check_segments(found, offload)


def parse_ipv4(data: bytes, offload: Offload) -> Parsed:
    drop_if(len(data) < 20, "truncated")
    (first, tos, total, _, fragment, _, protocol, _, source, destination) = struct.unpack_from("!BBHHHBBH4s4s", data)
    header = (first & 15) * 4
    drop_if(header < 20 or total < header, "ip4_length")
    drop_if(total > len(data), "truncated")
    drop_if(checksum(data[:header]) != 0, "ip4_checksum")
    check_options(data[20:header])
    addresses = IPv4Address(source), IPv4Address(destination)
    check_addresses(*addresses)
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


def check_addresses(source: Address, destination: Address) -> None:
    drop_if(within(destination, GROUPS), "multicast")
    drop_if(within(source, MARTIANS) or within(destination, MARTIANS), "martian")
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


# -- route and guard ---------------------------------------------------------
def route(routes: Mapping[Prefix, Value], address: Address) -> tuple[Prefix, Value] | None:
    """Longest prefix that holds the address."""
    fitting = [prefix for prefix in routes if within(address, (prefix,))]
    if not fitting:
        return None
    longest = max(fitting, key=lambda prefix: prefix.prefixlen)
    return longest, routes[longest]


def guard_pod(p: Parsed, addresses: Iterable[Address]) -> None:
    drop_if(p.source not in set(addresses), "guard_pod_source")


def guard_peer(p: Parsed, peer: int, owners: Mapping[Prefix, int | None]) -> None:
    """`owners` maps a prefix to the peer behind which it lies, None to this node itself."""
    owner = route(owners, p.source)
    drop_if(owner is None, "guard_peer_source")
    assert owner is not None
    drop_if(owner[1] is None, "guard_own_source")
    drop_if(owner[1] != peer, "guard_peer_source")
    target = route(owners, p.destination)
    drop_if(target is None or target[1] is not None, "guard_not_local")


# -- hop ---------------------------------------------------------------------
def seal_ipv4(data: bytes) -> bytes:
    header = (data[0] & 15) * 4
    blank = data[:10] + b"\0\0" + data[12:header]
    return data[:10] + struct.pack("!H", checksum(blank)) + data[12:]


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


# -- ECN (RFC 6040) ----------------------------------------------------------
NOT_ECT, ECT1, ECT0, CE = 0, 1, 2, 3
ECN_DECAPSULATED: Mapping[int, Mapping[int, int | None]] = {  # inner -> outer -> result
    NOT_ECT: {NOT_ECT: NOT_ECT, ECT0: NOT_ECT, ECT1: NOT_ECT, CE: None},
    ECT0: {NOT_ECT: ECT0, ECT0: ECT0, ECT1: ECT1, CE: CE},
    ECT1: {NOT_ECT: ECT1, ECT0: ECT1, ECT1: ECT1, CE: CE},
    CE: {NOT_ECT: CE, ECT0: CE, ECT1: CE, CE: CE},
}


def ecn_decapsulate(inner_class: int, outer_class: int) -> int:
    """The inner traffic class after the tunnel."""
    result = ECN_DECAPSULATED[inner_class & 3][outer_class & 3]
    if result is None:
        raise Drop("ecn")
    return inner_class & 0xFC | result


def outer_class(inner_class: int, *, copy_dscp: bool) -> int:
    """Of the tunnel packet: ECN is copied (normal mode), DSCP when asked for."""
    return inner_class if copy_dscp else inner_class & 3


# -- reply -------------------------------------------------------------------
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


# -- encapsulations ----------------------------------------------------------
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


def vxlan_frame(inner: bytes, vni: int, destination_mac: bytes, source_mac: bytes) -> bytes:
    ethertype = b"\x08\0" if inner[0] >> 4 == 4 else b"\x86\xdd"
    return struct.pack("!II", 0x08 << 24, vni << 8) + destination_mac + source_mac + ethertype + inner


def encapsulate_vxlan(
    inner: bytes,
    local: Address,
    remote: Address,
    *,
    vni: int,
    port: int,
    source_port: int,
    destination_mac: bytes,
    source_mac: bytes,
    identification: int = 0,
    dont_fragment: bool = True,
    copy_dscp: bool = False,
) -> bytes:
    body = udp_datagram(local, remote, source_port, port, vxlan_frame(inner, vni, destination_mac, source_mac))
    return ip_packet(
        local,
        remote,
        UDP,
        body,
        traffic_class=outer_class(inner_class(inner), copy_dscp=copy_dscp),
        identification=identification,
        dont_fragment=dont_fragment,
    )


def encapsulate_udp(
    inner: bytes,
    local: Address,
    remote: Address,
    *,
    port: int,
    source_port: int,
    identification: int = 0,
    dont_fragment: bool = True,
    copy_dscp: bool = False,
) -> bytes:
    return ip_packet(
        local,
        remote,
        UDP,
        udp_datagram(local, remote, source_port, port, inner),
        traffic_class=outer_class(inner_class(inner), copy_dscp=copy_dscp),
        identification=identification,
        dont_fragment=dont_fragment,
    )


def encapsulate_ipip(
    inner: bytes,
    local: Address,
    remote: Address,
    *,
    ttl: int = 64,
    identification: int = 0,
    dont_fragment: bool = True,
    copy_dscp: bool = False,
) -> bytes:
    """4-in-4, 6-in-4, 4-in-6 and 6-in-6: the outer family is the addresses', the inner one the packet's."""
    return ip_packet(
        local,
        remote,
        IPIP if inner[0] >> 4 == 4 else IPV6,
        inner,
        traffic_class=outer_class(inner_class(inner), copy_dscp=copy_dscp),
        ttl=ttl,
        identification=identification,
        dont_fragment=dont_fragment,
    )


def inner_class(inner: bytes) -> int:
    return inner[1] if inner[0] >> 4 == 4 else int.from_bytes(inner[:2], "big") >> 4 & 0xFF


CALICO_NODEPORT = 0xCA11C0


@dataclass(frozen=True, slots=True)
class VxlanTunnel:
    vni: int
    mac: bytes
    strict_mac: bool = True
    reserved: str = "drop"


def check_peer(source: Address, peers: Mapping[Address, int]) -> int:
    drop_if(source not in peers, "peer_unknown")
    return peers[source]


def decapsulate_vxlan(payload: bytes, tunnel: VxlanTunnel) -> bytes:
    """The inner packet of a UDP payload, its version checked against the ethertype."""
    drop_if(len(payload) < 8 + 14 + 1, "truncated")
    first, second = struct.unpack_from("!II", payload)
    drop_if(not first >> 24 & 0x08, "vxlan_flags")
    if second >> 8 != tunnel.vni:
        raise Drop("vni_calico_nodeport" if second >> 8 == CALICO_NODEPORT else "vni_unknown")
    check_reserved(first & ~0x08000000, second & 0xFF, tunnel.reserved)
    destination, source, ethertype, inner = payload[8:14], payload[14:20], payload[20:22], payload[22:]
    drop_if(destination[0] & 1, "inner_group_mac")
    drop_if(ethertype not in (b"\x08\0", b"\x86\xdd"), "inner_ethernet")
    drop_if(inner[0] >> 4 != (4 if ethertype == b"\x08\0" else 6), "ip_version")
    drop_if(tunnel.strict_mac and destination != tunnel.mac, "inner_mac")
    drop_if(source == tunnel.mac, "inner_mac_loop")
    return inner


def check_reserved(first: int, last: int, reserved: str) -> None:
    """`first`: the bits before the VNI but for I; `last`: the 8 behind it. Group policy owns G, D, A and an id."""
    allowed = {"drop": 0, "gbp": 0x8048FFFF, "ignore": 0xFFFFFFFF}[reserved]
    drop_if(first & ~allowed or (last and reserved != "ignore"), "vxlan_reserved")


def decapsulate_ipip(packet: bytes, outer_protocol: int) -> bytes:
    drop_if(not packet, "truncated")
    drop_if(packet[0] >> 4 != {IPIP: 4, IPV6: 6}.get(outer_protocol), "ip_version")
    return packet


def check_nested(p: Parsed, own_addresses: Iterable[Address], own_ports: Iterable[int]) -> None:
    """Depth one: a tunnel packet for this very node may not have come through a tunnel."""
    if p.destination not in set(own_addresses):
        return
    port = struct.unpack_from("!H", p.data, p.transport + 2)[0] if p.protocol == UDP and not p.later_fragment else None
    drop_if(p.protocol in (IPIP, IPV6, 47) or (port is not None and port in set(own_ports)), "nested")


# -- split and merge ---------------------------------------------------------
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
