"""The twin itself, against scapy, against published vectors and against arithmetic done by hand."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scapy.layers import inet
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet

from fastpath import reference
from fastpath.reference import ICMP, ICMPV6, SCTP, TCP, UDP, Drop, Offload
from tests.fastpath.packets import (
    A4,
    A6,
    B4,
    B6,
    VECTOR4,
    VECTOR6,
    bent,
    changed,
    ipv4,
    packet,
    resealed,
    tcp,
    udp,
)

LOCAL4, REMOTE4 = IPv4Address("192.168.64.3"), IPv4Address("192.168.64.4")
LOCAL6, REMOTE6 = IPv6Address("fd00::3"), IPv6Address("fd00::4")


def reason_of(call: object, *arguments: object) -> str:
    with pytest.raises(Drop) as caught:
        call(*arguments)  # type: ignore[operator]
    return caught.value.reason


def recomputed(layer: Packet, depth: int = 9) -> bytes:
    """The same packet with the checksums and lengths of its first `depth` layers computed by scapy."""
    again = layer.copy()
    part = again
    while part and depth:
        for field in {"chksum", "cksum", "len", "plen"} & part.fields.keys():
            delattr(part, field)
        part, depth = part.payload, depth - 1
    return bytes(again)


def reads(data: bytes) -> Packet:
    return inet.IP(data) if data[0] >> 4 == 4 else IPv6(data)


# -- checksums and packets ---------------------------------------------------
def test_checksum_of_rfc_1071() -> None:
    assert reference.ones_sum(bytes.fromhex("0001f203f4f5f6f7")) == 0xDDF2
    assert reference.checksum(b"") == 0xFFFF


@pytest.mark.parametrize(("family", "protocol"), [(4, TCP), (4, UDP), (4, ICMP), (6, TCP), (6, UDP), (6, ICMPV6)])
@pytest.mark.parametrize("size", [0, 1, 8, 1001])
def test_scapy_computes_the_same_checksums(family: int, protocol: int, size: int) -> None:
    data = packet(family, protocol, bytes(range(256)) * 4 if size == 1001 else bytes(size))
    assert recomputed(reads(data)) == data


def test_a_udp_checksum_of_zero_is_sent_as_ffff() -> None:
    seen = {
        reference.transport_checksum(A4, B4, UDP, struct.pack("!HHHHH", 1, 2, 10, 0, word)) for word in range(65536)
    }
    assert 0 not in seen and 0xFFFF in seen


# -- parse -------------------------------------------------------------------
@pytest.mark.parametrize("vector", [VECTOR4, VECTOR6])
def test_parse_finds_what_scapy_finds(vector: bytes) -> None:
    p, layer = reference.parse(vector), reads(vector)
    assert (str(p.source), str(p.destination)) == (layer.src, layer.dst)
    assert bytes(layer[inet.UDP].payload) == vector[p.payload :]
    assert (p.ttl, p.protocol, p.dont_fragment) == (63, UDP, True)


@given(bent())
def test_what_parse_passes_scapy_reads(data: bytes) -> None:
    try:
        p = reference.parse(data)
    except Drop:
        assume(False)
    layer = reads(p.data)
    assert (ip_address(layer.src), ip_address(layer.dst)) == (p.source, p.destination)
    if p.family == 4:
        assert layer.ihl * 4 == p.transport and layer.len == len(p.data)
        assert reference.checksum(p.data[: p.transport]) == 0


# -- route and guard ---------------------------------------------------------
def test_route_is_the_longest_match() -> None:
    routes = {
        ip_network(text): text for text in ("0.0.0.0/0", "10.0.0.0/8", "10.244.0.0/16", "10.244.2.3/32", "fd00::/8")
    }
    for address, expected in [
        ("10.244.2.3", "10.244.2.3/32"),
        ("10.244.2.4", "10.244.0.0/16"),
        ("10.1.1.1", "10.0.0.0/8"),
        ("9.9.9.9", "0.0.0.0/0"),
        ("fd12::1", "fd00::/8"),
    ]:
        assert reference.route(routes, ip_address(address)) == (ip_network(expected), expected)
    assert reference.route(routes, ip_address("2001:db8::1")) is None
    assert reference.route({}, ip_address("10.0.0.1")) is None


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 32))
def test_route_agrees_with_ipaddress(address: int, network: int, length: int) -> None:
    prefix = IPv4Network((network, length), strict=False)
    found = reference.route({prefix: 1}, IPv4Address(address))
    assert (found is not None) == (IPv4Address(address) in prefix)


def test_guard() -> None:
    p = reference.parse(VECTOR4)
    reference.guard_pod(p, [A4, A6])
    assert reason_of(reference.guard_pod, p, [B4, A6]) == "guard_pod_source"
    owners: dict[IPv4Network | IPv6Network, int | None] = {
        IPv4Network("10.244.1.0/24"): 1,
        IPv4Network("10.244.2.0/24"): None,
    }
    reference.guard_peer(p, 1, owners)
    assert reason_of(reference.guard_peer, p, 2, owners) == "guard_peer_source"
    assert reason_of(reference.guard_peer, p, 1, {}) == "guard_peer_source"
    assert reason_of(reference.guard_peer, p, 1, owners | {IPv4Network("10.244.1.2/32"): None}) == "guard_own_source"
    assert reason_of(reference.guard_peer, p, 1, owners | {IPv4Network("10.244.2.3/32"): 2}) == "guard_not_local"


# -- hop ---------------------------------------------------------------------
@pytest.mark.parametrize("family", [4, 6])
def test_hop_takes_one(family: int) -> None:
    data = packet(family, ttl=2)
    layer = reads(reference.hop(reference.parse(data), 1500))
    assert (layer.ttl if family == 4 else layer.hlim) == 1
    assert recomputed(layer) == bytes(layer)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("ttl", [0, 1])
def test_hop_ends(family: int, ttl: int) -> None:  # row 11
    with pytest.raises(Drop) as caught:
        reference.hop(reference.parse(packet(family, ttl=ttl)), 1500)
    assert (caught.value.reason, caught.value.reply) == ("ttl_expired", "time_exceeded")


@pytest.mark.parametrize(
    ("family", "df", "size", "fits"),
    [
        (4, True, 1450, True),
        (4, True, 1451, False),
        (4, False, 1451, True),
        (6, False, 1450, True),
        (6, False, 1451, False),
    ],
)
def test_hop_measures(family: int, df: bool, size: int, fits: bool) -> None:  # row 42
    header = 28 if family == 4 else 48
    p = reference.parse(packet(family, UDP, bytes(size - header), dont_fragment=df))
    if fits:
        assert len(reference.hop(p, 1450)) == size
    else:
        with pytest.raises(Drop) as caught:
            reference.hop(p, 1450)
        assert (caught.value.reason, caught.value.reply, caught.value.mtu) == ("too_big", "too_big", 1450)


def test_hop_measures_segments_not_the_super_packet() -> None:
    data = packet(4, TCP, bytes(10000), dont_fragment=True)
    fits, long = Offload(1, 1410, (20, 16)), Offload(1, 1411, (20, 16))
    assert len(reference.hop(reference.parse(data, fits), 1450)) == len(data)
    assert reason_of(reference.hop, reference.parse(data, long), 1450) == "too_big"


@pytest.mark.parametrize("mtu", [576, 1280, 1450])
@pytest.mark.parametrize("options", [b"", b"\x94\x04\x00\x00"])
def test_fragments_are_put_together_again(mtu: int, options: bytes) -> None:
    data = ipv4(udp(A4, B4, bytes(range(256)) * 16), options=options)
    pieces = reference.fragments(data, mtu)
    assert len(pieces) > 2 and all(len(piece) <= mtu for piece in pieces)
    body = {}
    for piece in pieces:
        layer = inet.IP(piece)
        assert recomputed(layer, depth=1) == piece and layer.id == 0x1234
        body[layer.frag * 8] = bytes(layer.payload)
        assert bool(layer.flags.MF) == (piece is not pieces[-1])
        reference.parse(piece)
    assert b"".join(body[at] for at in sorted(body)) == data[20 + len(options) :]
    assert sorted(body) == [sum(len(body[b]) for b in sorted(body) if b < at) for at in sorted(body)]


def test_fragments_of_a_fragment() -> None:
    middle = ipv4(bytes(1400), fragment=0x2000 | 100)
    layers = [inet.IP(piece) for piece in reference.fragments(middle, 576)]
    assert [layer.frag for layer in layers] == [100, 100 + 69, 100 + 138]
    assert all(layer.flags.MF for layer in layers)


# -- ECN ---------------------------------------------------------------------
# RFC 6040, figure 4; rows: inner Not-ECT, ECT(0), ECT(1), CE; columns: outer the same.
FIGURE_4 = {0: [0, 0, 0, None], 2: [2, 2, 1, 3], 1: [1, 1, 1, 3], 3: [3, 3, 3, 3]}


@pytest.mark.parametrize("inner", [0, 1, 2, 3])
@pytest.mark.parametrize("outer", [0, 1, 2, 3])
def test_ecn(inner: int, outer: int) -> None:  # row 43
    expected = FIGURE_4[inner][[0, 2, 1, 3].index(outer)]
    for dscp in (0, 46 << 2):
        if expected is None:
            assert reason_of(reference.ecn_decapsulate, dscp | inner, outer) == "ecn"
        else:
            assert reference.ecn_decapsulate(dscp | inner, 0xFC | outer) == dscp | expected


def test_class_goes_out() -> None:
    assert reference.outer_class(0xBB, copy_dscp=True) == 0xBB
    assert reference.outer_class(0xBB, copy_dscp=False) == 3


# -- encapsulations ----------------------------------------------------------
MAC_A4, MAC_W4 = bytes.fromhex("660702c1cc60"), bytes.fromhex("66937f54d553")
MAC_A6, MAC_W6 = bytes.fromhex("66d4d5513d42"), bytes.fromhex("66d84896ab01")
FLANNEL_UDP = (
    "450000400001000040117954c0a84003c0a84004205d205d002cd69145000024123440003e1111a90af401020af40203"
    "9c400035001094f6746f777061746821"
)
FLANNEL_VXLAN = (
    "45000056000100004011793ec0a84003c0a84004c000211800426f4d0800000000000100c6d2326f8f4412c66589b4e30800"
    "45000024123440003f1110a90af401020af402039c400035001094f6746f777061746821"
)
CALICO_VXLAN = (
    "45000056000100004011793ec0a84003c0a84004c00012b5004243f5080000000010000066937f54d553660702c1cc600800"
    "45000024123440003f1110a90af401020af402039c400035001094f6746f777061746821"
)
LINUX_IPIP = (
    "45000038000140003f043a69c0a84003c0a8400445000024123440003f1110a90af401020af402039c400035001094f6746f777061746821"
)
CALICO_VXLAN6 = (
    "6000000000561140fd000000000000000000000000000003fd000000000000000000000000000004c00012b500565e8f"
    "080000000010000066d84896ab0166d4d5513d4286dd600000000010113ffd000010024400010000000000000002"
    "fd0000100244000200000000000000039c4000350010af31746f777061746821"
)


def test_published_vectors() -> None:
    inner = reference.hop(reference.parse(VECTOR4), 1500)
    assert (
        reference.encapsulate_udp(
            inner, LOCAL4, REMOTE4, port=8285, source_port=8285, identification=1, dont_fragment=False
        ).hex()
        == FLANNEL_UDP
    )
    assert (
        reference.encapsulate_vxlan(
            VECTOR4,
            LOCAL4,
            REMOTE4,
            vni=1,
            port=8472,
            source_port=49152,
            destination_mac=bytes.fromhex("c6d2326f8f44"),
            source_mac=bytes.fromhex("12c66589b4e3"),
            identification=1,
            dont_fragment=False,
        ).hex()
        == FLANNEL_VXLAN
    )
    assert (
        reference.encapsulate_vxlan(
            VECTOR4,
            LOCAL4,
            REMOTE4,
            vni=4096,
            port=4789,
            source_port=49152,
            destination_mac=MAC_W4,
            source_mac=MAC_A4,
            identification=1,
            dont_fragment=False,
        ).hex()
        == CALICO_VXLAN
    )
    assert reference.encapsulate_ipip(VECTOR4, LOCAL4, REMOTE4, ttl=63, identification=1).hex() == LINUX_IPIP
    assert (
        reference.encapsulate_vxlan(
            VECTOR6, LOCAL6, REMOTE6, vni=4096, port=4789, source_port=49152, destination_mac=MAC_W6, source_mac=MAC_A6
        ).hex()
        == CALICO_VXLAN6
    )


@pytest.mark.parametrize("inner", [VECTOR4, VECTOR6])
@pytest.mark.parametrize("ends", [(LOCAL4, REMOTE4), (LOCAL6, REMOTE6)])
def test_scapy_decodes_every_encapsulation(inner: bytes, ends: tuple[reference.Address, reference.Address]) -> None:
    local, remote = ends
    outer = reads(
        reference.encapsulate_vxlan(
            inner, local, remote, vni=77, port=4789, source_port=50000, destination_mac=MAC_W4, source_mac=MAC_A4
        )
    )
    assert (outer.src, outer.dst, outer[inet.UDP].dport, outer[VXLAN].vni) == (str(local), str(remote), 4789, 77)
    assert bytes(outer[Ether].payload) == inner and recomputed(outer) == bytes(outer)
    outer = reads(reference.encapsulate_udp(inner, local, remote, port=9999, source_port=50000))
    assert bytes(outer[inet.UDP].payload) == inner and recomputed(outer) == bytes(outer)
    outer = reads(reference.encapsulate_ipip(inner, local, remote))
    assert (outer.proto if local.version == 4 else outer.nh) == (4 if inner[0] >> 4 == 4 else 41)
    assert bytes(outer.payload) == inner


TUNNEL = reference.VxlanTunnel(vni=4096, mac=MAC_W4)
FRAME = reference.vxlan_frame(VECTOR4, 4096, MAC_W4, MAC_A4)


def test_vxlan_takes_off_what_it_puts_on() -> None:
    assert reference.decapsulate_vxlan(FRAME, TUNNEL) == VECTOR4
    assert reference.decapsulate_vxlan(reference.vxlan_frame(VECTOR6, 4096, MAC_W4, MAC_A4), TUNNEL) == VECTOR6


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", "truncated"),
        (FRAME[:7], "truncated"),
        (FRAME[:21], "truncated"),
        (FRAME[:22], "truncated"),
        (changed(FRAME, 0, b"\x00"), "vxlan_flags"),
        *((changed(FRAME, 0, bytes([8 | bit])), "vxlan_reserved") for bit in (1, 2, 4, 16, 32, 64, 128)),
        *((changed(FRAME, at, b"\x01"), "vxlan_reserved") for at in (1, 2, 3, 7)),
        (changed(FRAME, 4, b"\x00\x10\x01"), "vni_unknown"),
        (changed(FRAME, 4, b"\xca\x11\xc0"), "vni_calico_nodeport"),
        (changed(FRAME, 20, b"\x81\x00"), "inner_ethernet"),
        (changed(FRAME, 20, b"\x08\x06"), "inner_ethernet"),
        (changed(FRAME, 8, b"\xff" * 6), "inner_group_mac"),
        (changed(FRAME, 8, b"\x01\x00\x5e\x00\x00\x01"), "inner_group_mac"),
        (changed(FRAME, 13, b"\x54"), "inner_mac"),
        (changed(FRAME, 14, MAC_W4), "inner_mac_loop"),
        (changed(FRAME, 20, b"\x86\xdd"), "ip_version"),
    ],
)
def test_vxlan_refuses(frame: bytes, reason: str) -> None:  # rows 21, 22
    assert reason_of(reference.decapsulate_vxlan, frame, TUNNEL) == reason


def test_vxlan_options() -> None:
    loose = reference.VxlanTunnel(4096, MAC_W4, strict_mac=False, reserved="ignore")
    gbp = reference.VxlanTunnel(4096, MAC_W4, reserved="gbp")
    assert reference.decapsulate_vxlan(changed(changed(FRAME, 0, b"\xff\xff\xff\xff"), 13, b"\x54"), loose) == VECTOR4
    assert reference.decapsulate_vxlan(changed(FRAME, 0, b"\x88\x40\x12\x34"), gbp) == VECTOR4
    for head in (b"\x98", b"\x88\x80", b"\x8c"):
        assert reason_of(reference.decapsulate_vxlan, changed(FRAME, 0, head), gbp) == "vxlan_reserved"
    assert reason_of(reference.decapsulate_vxlan, changed(FRAME, 7, b"\x01"), gbp) == "vxlan_reserved"
    assert reason_of(reference.decapsulate_vxlan, changed(FRAME, 14, MAC_W4), loose) == "inner_mac_loop"


def test_ipip_checks_the_version() -> None:
    assert reference.decapsulate_ipip(VECTOR4, 4) == VECTOR4
    assert reference.decapsulate_ipip(VECTOR6, 41) == VECTOR6
    for data, protocol in ((VECTOR4, 41), (VECTOR6, 4), (b"\x50", 4), (VECTOR4, 47)):
        assert reason_of(reference.decapsulate_ipip, data, protocol) == "ip_version"
    assert reason_of(reference.decapsulate_ipip, b"", 4) == "truncated"


def test_peers() -> None:
    assert reference.check_peer(REMOTE4, {REMOTE4: 3}) == 3
    assert reason_of(reference.check_peer, LOCAL4, {REMOTE4: 3}) == "peer_unknown"


@pytest.mark.parametrize(("protocol", "port"), [(4, 0), (41, 0), (47, 0), (UDP, 4789)])
def test_nested(protocol: int, port: int) -> None:  # row 7
    data = packet(4, protocol, VECTOR4, **({"dport": port} if port else {}))
    assert reason_of(reference.check_nested, reference.parse(data), [B4], [4789]) == "nested"
    reference.check_nested(reference.parse(data), [LOCAL4], [4789])  # a pod's own tunnel, through us
    reference.check_nested(reference.parse(packet(4, UDP, dport=4790)), [B4], [4789])


# -- split and merge ---------------------------------------------------------
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("size", [1400, 1, 8])
@pytest.mark.parametrize("n", [1, 2, 3, 44])
def test_segments_of_tcp(family: int, size: int, n: int) -> None:
    size = max(size, 8)
    a, b = (A4, B4) if family == 4 else (A6, B6)
    stream = bytes(i % 251 for i in range(size * n - 3))
    flags = 0x80 | 0x18 | 0x01  # CWR, PSH, ACK, FIN
    body = tcp(a, b, stream, seq=0xFFFFFF00, flags=flags, options=b"\x01\x01\x08\x0a" + bytes(8))
    data = reference.ip_packet(a, b, TCP, body, identification=0xFFFF)
    pieces = reference.split(
        reference.parse(
            data, Offload(1 if family == 4 else 4, size, (len(data) - len(body), 16)) if n > 1 else Offload()
        )
    )
    layers = [reads(piece) for piece in pieces]
    assert len(pieces) == n
    assert b"".join(bytes(layer[inet.TCP].payload) for layer in layers) == stream
    assert [layer[inet.TCP].seq for layer in layers] == [(0xFFFFFF00 + i * size) % 2**32 for i in range(n)]
    assert [layer[inet.TCP].flags.F for layer in layers] == [0] * (n - 1) + [1]
    assert [bool(layer[inet.TCP].flags.P) for layer in layers] == [False] * (n - 1) + [True]
    assert [bool(layer[inet.TCP].flags.C) for layer in layers] == [True] + [False] * (n - 1)
    if family == 4:
        assert [layer.id for layer in layers] == [(0xFFFF + i) % 2**16 for i in range(n)]
    for layer, piece in zip(layers, pieces, strict=True):
        assert recomputed(layer) == piece


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("sizes", [[100, 100], [100, 100, 100, 40], [9] * 128])
def test_merge_is_undone_by_split(family: int, protocol: int, sizes: list[int]) -> None:
    a, b = (A4, B4) if family == 4 else (A6, B6)
    pieces, at = [], 0
    for i, size in enumerate(sizes):
        body = (
            tcp(a, b, bytes([i]) * size, seq=5 + at, flags=0x18 if i == len(sizes) - 1 else 0x10)
            if protocol == TCP
            else udp(a, b, bytes([i]) * size)
        )
        pieces.append(reference.ip_packet(a, b, protocol, body, identification=i, dont_fragment=True))
        at += size
    merged = reference.merge([reference.parse(piece) for piece in pieces])
    assert (merged.n_segments, merged.offload.gso_size) == (len(sizes), sizes[0])
    assert reference.split(merged) == pieces


def test_what_does_not_follow_is_not_merged() -> None:
    one = packet(4, TCP, bytes(100), seq=1)
    for other in (
        packet(4, TCP, bytes(100), seq=102),
        packet(4, TCP, bytes(100), seq=101, sport=2),
        packet(4, TCP, bytes(100), seq=101, ttl=9),
        packet(4, TCP, bytes(101), seq=101),
    ):
        with pytest.raises((ValueError, Drop)):
            reference.merge([reference.parse(one), reference.parse(other)])


@given(
    st.sampled_from([4, 6]),
    st.sampled_from([TCP, UDP]),
    st.binary(min_size=9, max_size=900),
    st.integers(8, 900),
    st.integers(0, 255),
)
def test_split_keeps_every_payload_byte(family: int, protocol: int, payload: bytes, size: int, flags: int) -> None:
    data = packet(family, protocol, payload, **({"flags": flags} if protocol == TCP else {}))
    start = 20 if family == 4 else 40
    kind = 5 if protocol == UDP else 1 if family == 4 else 4
    p = reference.parse(data, Offload(kind, min(size, len(payload)), (start, 16 if protocol == TCP else 6)))
    assume(p.n_segments > 1)
    pieces = reference.split(p)
    assert len(pieces) == p.n_segments
    assert b"".join(piece[p.payload :] for piece in pieces) == payload
    assert {len(reference.parse(piece).data) - p.payload for piece in pieces[:-1]} == {p.offload.gso_size}


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_pending_checksums_are_completed(family: int, protocol: int) -> None:
    data = packet(family, protocol, b"some bytes")
    start, field = (20 if family == 4 else 40), (16 if protocol == TCP else 6)
    p = reference.parse(data)
    pseudo = reference.pseudo_header(p.source, p.destination, protocol, len(data) - start)
    pending = resealed(changed(data, start + field, struct.pack("!H", reference.ones_sum(pseudo))))
    assert reference.split(reference.parse(pending, Offload(pending=(start, field)))) == [data]


def test_sctp_is_left_alone() -> None:
    data = packet(4, SCTP)
    assert reference.split(reference.parse(data)) == [data]
    assert inet.ICMP not in inet.IP(data)
