"""The golden twin of the encapsulations: a packet's bytes inside VXLAN, UDP or IP, and out again.

Owns: the bytes of each kind of tunnel, the checks of what comes out of one, and the way of
congestion marks through it (RFC 6040).
Never: chooses a tunnel.
Invariant: decapsulating what was encapsulated gives the same bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fastpath.reference.header import ip_packet, udp_datagram
from fastpath.reference.packet import IPIP, IPV6, UDP, Address, Drop, Parsed, drop_if

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
