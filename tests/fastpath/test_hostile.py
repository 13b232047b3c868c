"""The attack catalogue, through a plane with memory ports; a test is named after the row it stands for.

Each attack asserts the same: its reason counted exactly, no other counter moved,
nothing left the node but the ICMP messages named, and what came in is accounted for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest

from fastpath import reference
from fastpath.port.memory import MemoryPort, Super
from fastpath.reference import ICMP, ICMPV6, SCTP, TCP, UDP, Drop
from fastpath.values import Deliver, Encapsulate, Encapsulation
from tests.fastpath.network import PEER, PORTS, MemoryNode, mac, outer, pair
from tests.fastpath.packets import (
    chained,
    changed,
    echo,
    fragment_header,
    ipv4,
    ipv6,
    options_header,
    routing_header,
    sctp,
    tcp,
    udp,
)
from tests.fastpath.twin_path import wrapped

KINDS: list[Encapsulation] = ["vxlan", "udp", "ipip", "plain"]
MORE = 0x2000
HOST = IPv4Address("10.0.1.1")


def attack(
    node: MemoryNode, do: Callable[[], object], drops: dict[str, int], *, answers: int = 0, received: int | None = None
) -> list[object]:
    """Do it, and compare every counter; returns the answers, wherever they went."""
    before = node.plane.counters()
    do()
    node.turn()
    after = node.plane.counters()
    grown = {name: n - before.drops.get(name, 0) for name, n in after.drops.items() if n != before.drops.get(name, 0)}
    assert grown == drops
    assert after.received - before.received == (sum(drops.values()) if received is None else received)
    assert after.created - before.created == answers
    assert after.sent - before.sent == answers
    left: list[object] = [*node.pod.drain(), *(datagram.payload for datagram in node.tunnel.drain())]
    assert len(left) == answers
    return left


def from_pod(node: MemoryNode, *data: bytes | Super) -> Callable[[], object]:
    return lambda: node.pod.inject(list(data))


def from_peer(node: MemoryNode, *inner: bytes, traffic_class: int = 0) -> Callable[[], object]:
    """Inner packets as the peer would wrap them, one datagram each."""
    return lambda: [
        node.tunnel.inject_datagram(as_peer(node, data), node.peer_address, traffic_class=traffic_class)
        for data in inner
    ]


def as_peer(node: MemoryNode, inner: bytes) -> bytes:
    if node.encapsulation == "vxlan":
        return reference.vxlan_frame(inner, node.vni, mac(node.number), mac(node.other))
    return inner


def raw(node: MemoryNode, *payloads: bytes) -> Callable[[], object]:
    return lambda: [node.tunnel.inject_datagram(data, node.peer_address) for data in payloads]


def packet(source: MemoryNode, target: MemoryNode, family: int = 4, payload: bytes = b"towpath!", **more: int) -> bytes:
    if family == 4:
        body = udp(source.pod4, target.pod4, payload)
        return ipv4(body, source=source.pod4, destination=target.pod4, **more)
    return ipv6(udp(source.pod6, target.pod6, payload), source=source.pod6, destination=target.pod6, **more)


# -- rows 1-3: who may speak -------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("outer_family", [4, 6])
def test_01_unknown_outer_source(kind: Encapsulation, outer_family: int) -> None:
    a, b = pair(kind, outer_family)
    good = as_peer(b, packet(a, b))
    for stranger in (outer(99, outer_family), outer(b.number, outer_family), outer(99, 10 - outer_family)):
        attack(b, lambda s=stranger: b.tunnel.inject_datagram(good, s), {"peer_unknown": 1})
    attack(b, lambda: b.tunnel.inject_datagram(b"", outer(99, outer_family)), {"peer_unknown": 1})
    assert b.receive(good) != []


@pytest.mark.parametrize("sent", KINDS)
@pytest.mark.parametrize("family", [4, 6])
def test_02_wrong_kind(sent: Encapsulation, family: int) -> None:
    """The kinds without a header of their own carry the same bytes; their sockets tell them apart."""
    for configured in KINDS:
        a, b = pair(configured)
        payload = as_peer(MemoryNode(2, 1, sent), packet(a, b, family))
        if "vxlan" in (sent, configured) and sent != configured:
            attack(b, raw(b, payload), {"vxlan_flags" if configured == "vxlan" else "ip_version": 1})
        else:
            assert len(b.receive(payload)) == 1


@pytest.mark.parametrize(
    ("vni", "reason"),
    [
        (0, "vni_unknown"),
        (41, "vni_unknown"),
        (43, "vni_unknown"),
        (42 << 8, "vni_unknown"),
        (0xFFFFFF, "vni_unknown"),
        (0xCA11C0, "vni_calico_nodeport"),
    ],
)
def test_02_wrong_vni(vni: int, reason: str) -> None:
    a, b = pair()
    attack(b, raw(b, reference.vxlan_frame(packet(a, b), vni, mac(2), mac(1))), {reason: 1})


# -- rows 4-10: who may send what --------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("source", ["10.0.3.2", "10.9.9.9", "192.0.2.2", "fd00:0:0:3::2", "2001:db8::99"])
def test_04_inner_source_is_not_the_peers(kind: Encapsulation, source: str) -> None:
    _, b = pair(kind)
    third = b.plane.set_adjacency(third_peer(b))
    b.plane.set_route(ip_network("10.0.3.0/24"), third)
    b.plane.set_route(ip_network("fd00:0:0:3::/64"), third)
    attack(b, from_peer(b, between(ip_address(source), b)), {"guard_peer_source": 1})


def third_peer(node: MemoryNode) -> Encapsulate:
    return Encapsulate(node.tunnel_port, PEER + 1, outer(3, 4), node.mtu, PORTS[node.encapsulation], mac(3))


def between(source: IPv4Address | IPv6Address, target: MemoryNode) -> bytes:
    if source.version == 4:
        return ipv4(udp(source, target.pod4, b"x"), source=source, destination=target.pod4)
    return ipv6(udp(source, target.pod6, b"x"), source=source, destination=target.pod6)


@pytest.mark.parametrize("family", [4, 6])
def test_05_inner_source_is_ours(family: int) -> None:
    _, b = pair()
    neighbour = MemoryPort("neighbour", addresses=[IPv4Address("10.0.2.9"), IPv6Address("fd00:0:0:2::9")])
    to_neighbour = b.plane.set_adjacency(Deliver(b.plane.attach(neighbour), 1450))
    for prefix in ("10.0.2.9/32", "fd00:0:0:2::9/128"):
        b.plane.set_route(ip_network(prefix), to_neighbour)
    ours = ip_address("10.0.2.9" if family == 4 else "fd00:0:0:2::9")
    attack(b, from_peer(b, between(ours, b)), {"guard_own_source": 1})
    assert neighbour.drain() == []


@pytest.mark.parametrize("family", [4, 6])
def test_06_transit(family: int) -> None:
    a, b = pair()
    third = b.plane.set_adjacency(third_peer(b))
    b.plane.set_route(ip_network("10.0.3.0/24"), third)
    b.plane.set_route(ip_network("fd00:0:0:3::/64"), third)
    beyond = MemoryNode(3, 2)
    attack(b, from_peer(b, packet(a, beyond, family)), {"guard_not_local": 1})
    attack(b, from_peer(b, packet(a, MemoryNode(1, 2, mtu=1400), family)), {"land": 1})


def with_host(node: MemoryNode) -> MemoryPort:
    """A host port that owns the node's own address HOST."""
    host = MemoryPort("host", role="host", mtu=1450)
    node.plane.set_route(ip_network(HOST), node.plane.set_adjacency(Deliver(node.plane.attach(host), 1450)))
    return host


@pytest.mark.parametrize("depth", [2, 3, 4, 8, 20])
def test_07_tunnel_in_tunnel(depth: int) -> None:
    b, a = pair()  # b is node 1, which HOST belongs to
    host = with_host(b)
    inner = packet(a, b)
    for _ in range(depth - 1):
        frame = reference.vxlan_frame(inner, b.vni, mac(1), mac(2))
        inner = ipv4(udp(a.pod4, HOST, frame, dport=4789), source=a.pod4, destination=HOST)
    attack(b, from_peer(b, inner), {"nested": 1})
    assert host.drain() == []


@pytest.mark.parametrize("protocol", [4, 41, 47])
def test_07_other_tunnels_in_a_tunnel(protocol: int) -> None:
    b, a = pair()
    host = with_host(b)
    inner = ipv4(packet(a, b), protocol, source=a.pod4, destination=HOST)
    attack(b, from_peer(b, inner), {"nested": 1})
    assert host.drain() == []


def test_07_a_tunnel_packet_for_a_pod_is_the_pods_business() -> None:
    b, a = pair()
    frame = reference.vxlan_frame(packet(a, b), b.vni, mac(1), mac(2))
    nested = ipv4(udp(a.pod4, b.pod4, frame, dport=4789), source=a.pod4, destination=b.pod4)
    (delivered,) = b.receive(as_peer(b, nested))
    assert delivered[20:] == nested[20:]  # whole, once, and never opened


def test_08_a_route_to_the_peer_through_its_own_tunnel() -> None:
    a, _ = pair()
    a.plane.set_route(ip_network("192.0.2.0/24"), a.to_peer)
    data = ipv4(udp(a.pod4, a.peer_address), source=a.pod4, destination=a.peer_address)
    attack(a, from_pod(a, data), {"encap_loop": 1})


def test_09_ping_pong_ends_at_once() -> None:
    """Both nodes believe that the other serves the prefix: one crossing, no second."""
    a, b = pair()
    for node in (a, b):
        node.plane.set_route(ip_network("10.7.0.0/16"), node.to_peer)
    lost = IPv4Address("10.7.1.1")
    (datagram,) = a.send(ipv4(udp(a.pod4, lost), source=a.pod4, destination=lost, ttl=255))
    attack(b, raw(b, datagram.payload), {"guard_not_local": 1})


@pytest.mark.parametrize("source", ["10.0.1.3", "10.0.2.9", "192.0.2.1", "8.8.8.8", "fd00:0:0:1::3", "2001:db8::1"])
def test_10_a_pod_with_anothers_address(source: str) -> None:
    a, b = pair()
    attack(a, from_pod(a, between(ip_address(source), b)), {"guard_pod_source": 1})


# -- row 11: hop counts ------------------------------------------------------
@pytest.mark.parametrize("ttl", [0, 1])
@pytest.mark.parametrize("family", [4, 6])
def test_11_no_hops_left(family: int, ttl: int) -> None:
    a, b = pair()
    data = packet(a, b, family, **{"ttl" if family == 4 else "hops": ttl})
    (answer,) = attack(a, from_pod(a, data), {"ttl_expired": 1}, answers=1)
    gateway = a.gateway4 if family == 4 else a.gateway6
    assert answer == reference.reply(reference.parse(data), "time_exceeded", 0, gateway)
    (answer,) = attack(b, from_peer(b, data), {"ttl_expired": 1}, answers=1)
    gateway = b.gateway4 if family == 4 else b.gateway6
    assert answer == wrapped(b, reference.reply(reference.parse(data), "time_exceeded", 0, gateway) or b"")


def test_11_what_is_never_answered() -> None:
    a, b = pair()
    ends4, ends6 = (a.pod4, b.pod4), (a.pod6, b.pod6)
    for kind in (3, 4, 5, 11, 12):
        error = ipv4(echo(*ends4, kind=kind), ICMP, ttl=1, source=a.pod4, destination=b.pod4)
        attack(a, from_pod(a, error), {"ttl_expired": 1})
    for kind in (1, 2, 3, 4, 137):
        error = ipv6(echo(*ends6, kind=kind), ICMPV6, hops=1, source=a.pod6, destination=b.pod6)
        attack(a, from_pod(a, error), {"ttl_expired": 1})
    later = ipv4(bytes(40), UDP, fragment=100, ttl=1, source=a.pod4, destination=b.pod4)
    attack(a, from_pod(a, later), {"ttl_expired": 1})


# -- rows 12-34: what is no packet -------------------------------------------
def malformed(a: MemoryNode, b: MemoryNode) -> Iterator[tuple[str, bytes, str]]:
    """(name, packet from a pod of `a` to one of `b`, reason)"""
    ends4: dict[str, IPv4Address] = {"source": a.pod4, "destination": b.pod4}
    ends6: dict[str, IPv6Address] = {"source": a.pod6, "destination": b.pod6}
    four, six = udp(a.pod4, b.pod4, b"towpath!"), udp(a.pod6, b.pod6, b"towpath!")

    def chain(*headers: tuple[int, bytes], body: bytes = six, protocol: int = UDP) -> bytes:
        kind, data = chained(list(headers), protocol, body)
        return ipv6(data, kind, **ends6)

    for ihl in range(5):
        yield f"12-ihl-{ihl}", ipv4(four, ihl=ihl, **ends4), "ip4_length"
    for total in (0, 1, 19):
        yield f"12-total-{total}", ipv4(four, total=total, **ends4), "ip4_length"
    for length in (0, 65496, 65535):
        yield f"14-length-{length}", ipv6(six, length=length, **ends6), "ip6_length"
    yield "14-jumbo", chain((0, bytes([0, 0xC2, 4]) + bytes(4))), "ip6_length"
    yield "15-loose", ipv4(four, options=b"\x83\x07\x04\x0a\x00\x00\x01\x00", **ends4), "ip4_option"
    yield "15-strict", ipv4(four, options=b"\x01\x89\x03\x04", **ends4), "ip4_option"
    yield "15-cut", ipv4(four, options=b"\x07\xff\x00\x00", **ends4), "ip4_option"
    yield "17-checksum", changed(ipv4(four, **ends4), 10, b"\xbe\xef"), "ip4_checksum"
    yield "20-short", ipv4(udp(a.pod4, b.pod4, b"x" * 8, length=7), **ends4), "udp_length"
    yield "20-long", ipv4(udp(a.pod4, b.pod4, b"x" * 8, length=17), **ends4), "udp_length"
    yield "20-long6", ipv6(udp(a.pod6, b.pod6, b"x" * 8, length=17), **ends6), "udp_length"
    whole = tcp(a.pod4, b.pod4, bytes(100), options=bytes(40))
    for size in (8, 16, 24, 56):
        yield f"24-tiny-{size}", ipv4(whole[:size], TCP, fragment=MORE, **ends4), "fragment_tiny"
        tiny = chain(fragment_header(0, more=True), body=whole[:size], protocol=TCP)
        yield f"24-tiny6-{size}", tiny, "fragment_tiny"
    for offset in (1, 2, 7):
        yield f"25-offset-{offset}", ipv4(bytes(40), TCP, fragment=offset, **ends4), "fragment_offset"
        yield f"25-offset6-{offset}", chain(fragment_header(offset * 8), body=bytes(40)), "fragment_offset"
    yield "27-odd", ipv4(bytes(41), fragment=MORE | 100, **ends4), "fragment"
    yield "27-empty", ipv4(b"", fragment=100, **ends4), "fragment"
    yield "28-death", ipv4(bytes(100), fragment=0x1FFF, **ends4), "fragment_length"
    yield "28-death6", chain(fragment_header(65528), body=bytes(100)), "fragment_length"
    yield "30-nine", chain(*[options_header(60)] * 9), "ip6_extension"
    yield "30-order", chain(options_header(60), options_header(0)), "ip6_extension"
    yield "30-long", chain(options_header(60, 31), options_header(60)), "ip6_extension"
    cut = chained([fragment_header(0, more=True), options_header(60, 9)], UDP, b"")[1][:24]
    yield "31-cut-chain", ipv6(cut, 44, **ends6), "fragment_chain"
    yield "31-two", chain(fragment_header(), fragment_header()), "fragment_chain"
    yield "32-rh0", chain(options_header(60), routing_header(0)), "ip6_routing"
    for text in ("0.0.0.0", "127.0.0.1", "169.254.1.1", "240.0.0.1", "255.255.255.255", "224.0.0.1"):
        bad = IPv4Address(text)
        yield f"33-source-{text}", ipv4(four, source=bad, destination=b.pod4), "martian"
    for text in ("0.0.0.0", "127.0.0.1", "169.254.169.254", "240.0.0.1"):
        yield f"33-to-{text}", ipv4(four, source=a.pod4, destination=IPv4Address(text)), "martian"
    for text in ("224.0.0.251", "255.255.255.255"):
        yield f"33-to-{text}", ipv4(four, source=a.pod4, destination=IPv4Address(text)), "multicast"
    for text in ("::", "::1", "::ffff:10.0.0.1", "fe80::1", "ff02::1"):
        yield f"33-source-{text}", ipv6(six, source=IPv6Address(text), destination=b.pod6), "martian"
    for text, reason in (("::1", "martian"), ("fe80::1", "martian"), ("ff02::fb", "multicast")):
        yield f"33-to-{text}", ipv6(six, source=a.pod6, destination=IPv6Address(text)), reason
    yield "34-land", ipv4(four, source=b.pod4, destination=b.pod4), "land"
    yield "34-land6", ipv6(six, source=b.pod6, destination=b.pod6), "land"
    yield "34-ports", ipv4(sctp(0, 0), SCTP, **ends4), "land"
    yield "34-tcp", ipv6(tcp(a.pod6, b.pod6, dport=0), TCP, **ends6), "land"
    yield "tcp-offset", ipv4(tcp(a.pod4, b.pod4, b"x" * 20, offset=4), TCP, **ends4), "tcp_offset"
    yield "truncated", ipv4(four, total=500, **ends4), "truncated"


NAMES = [(name, reason) for name, _, reason in malformed(*pair())]


@pytest.fixture(scope="module")
def every_pair() -> dict[Encapsulation, tuple[MemoryNode, MemoryNode]]:
    return {kind: pair(kind) for kind in KINDS}


@pytest.mark.parametrize("index", range(len(NAMES)), ids=[name for name, _ in NAMES])
def test_malformed_from_pods_and_from_peers(index: int, every_pair: dict) -> None:
    for kind in KINDS:
        a, b = every_pair[kind]
        _, data, reason = list(malformed(a, b))[index]
        attack(a, from_pod(a, data), {reason: 1})
        attack(b, from_peer(b, data), {reason: 1})


def test_malformed_at_every_place_of_a_datagram_train() -> None:
    """Corollary (c): one GRO buffer of three, the bad one first, in the middle, last; the good ones arrive."""
    a, b = pair()
    good = [packet(a, b, family, payload) for family, payload in ((4, b"first"), (6, b"second"))]
    tried = 0
    for _name, data, reason in malformed(a, b):
        size = max(len(as_peer(b, p)) for p in (data, *good))
        bad = padded(data, size - 22)
        if outcome(bad) != reason:
            continue  # padding made another packet of it
        tried += 1
        for place in range(3):
            inner = [padded(p, size - 22) for p in good]
            inner.insert(place, bad)
            before = b.drops
            b.tunnel.inject_datagram(b"".join(as_peer(b, p) for p in inner), b.peer_address, segment_bytes=size)
            b.turn()
            hops = [reference.hop(reference.parse(p), b.mtu) for p in good]
            assert b.pod.drain() == hops
            assert b.drops == before | {reason: before.get(reason, 0) + 1}
            assert b.tunnel.drain() == []
    assert tried > len(NAMES) * 3 // 4


def padded(data: bytes, size: int) -> bytes:
    return data + b"\xee" * (size - len(data))


def outcome(data: bytes) -> str | None:
    try:
        reference.parse(data)
    except Drop as drop:
        return drop.reason
    return None


@pytest.mark.parametrize("version", [0, 5, *range(7, 16)])
def test_16_versions(version: int) -> None:
    a, b = pair()
    bad = changed(packet(a, b), 0, bytes([version << 4 | 5]))
    attack(a, from_pod(a, bad), {"ip_version": 1})
    attack(b, from_peer(b, bad), {"ip_version": 1})


def test_16_version_against_the_ethertype() -> None:
    a, b = pair()
    for family, ethertype in ((4, b"\x86\xdd"), (6, b"\x08\x00")):
        attack(b, raw(b, changed(as_peer(b, packet(a, b, family)), 20, ethertype)), {"ip_version": 1})


def test_13_padding_is_never_delivered() -> None:
    a, b = pair()
    for family in (4, 6):
        (delivered,) = b.receive(as_peer(b, packet(a, b, family) + b"\xee" * 30))
        assert len(delivered) == len(packet(a, b, family))


def test_17_each_bit_of_the_header() -> None:
    a, b = pair()
    good, reasons = packet(a, b), {}
    for bit in range(160):
        flipped = changed(good, bit // 8, bytes([good[bit // 8] ^ 0x80 >> bit % 8]))
        reason = outcome(flipped)
        assert reason is not None
        reasons[reason] = reasons.get(reason, 0) + 1
        attack(a, from_pod(a, flipped), {reason: 1})
    assert reasons["ip4_checksum"] > 120


# -- rows 21-23: VXLAN and Ethernet ------------------------------------------
@pytest.mark.parametrize("flags", [0x00, 0xF7, 0x09, 0x0A, 0x0C, 0x18, 0x28, 0x48, 0x88, 0xFF])
def test_21_flags(flags: int) -> None:
    a, b = pair()
    frame = changed(as_peer(b, packet(a, b)), 0, bytes([flags]))
    attack(b, raw(b, frame), {"vxlan_reserved" if flags & 8 else "vxlan_flags": 1})


@pytest.mark.parametrize("at", [1, 2, 3, 7])
def test_21_reserved(at: int) -> None:
    a, b = pair()
    for bit in range(8):
        attack(b, raw(b, changed(as_peer(b, packet(a, b)), at, bytes([1 << bit]))), {"vxlan_reserved": 1})


@pytest.mark.parametrize(
    ("at", "value", "reason"),
    [
        (8, b"\xff" * 6, "inner_group_mac"),
        (8, b"\x01\x00\x5e\x00\x00\xfb", "inner_group_mac"),
        (8, b"\x33\x33\x00\x00\x00\x01", "inner_group_mac"),
        (8, b"\x02\x00\x00\x00\x00\x07", "inner_mac"),
        (14, mac(2), "inner_mac_loop"),
        (20, b"\x08\x06", "inner_ethernet"),
        (20, b"\x81\x00", "inner_ethernet"),
        (20, b"\x88\xa8", "inner_ethernet"),
        (20, b"\x00\x2e", "inner_ethernet"),
    ],
)
def test_22_inner_frames(at: int, value: bytes, reason: str) -> None:
    a, b = pair()
    attack(b, raw(b, changed(as_peer(b, packet(a, b)), at, value)), {reason: 1})


def test_44_every_cut_of_a_datagram() -> None:
    for kind in KINDS:
        a, b = pair(kind)
        for family in (4, 6):
            whole = as_peer(b, packet(a, b, family))
            attack(b, raw(b, *(whole[:n] for n in range(len(whole)))), {"truncated": len(whole)})


# -- super-packets: corollary (b) --------------------------------------------
@pytest.mark.parametrize(
    "bad",
    [
        {"gso_type": 1, "gso_size": 5000},
        {"gso_type": 1, "gso_size": 7},
        {"gso_type": 4, "gso_size": 100},
        {"gso_type": 5, "gso_size": 100},
        {"gso_type": 1, "gso_size": 100, "checksum_start": 22},
        {"gso_type": 1, "gso_size": 100, "checksum_offset": 6},
        {"gso_type": 1, "gso_size": 100, "needs_checksum": False},
        {"checksum_offset": 2},
        {"checksum_start": 12, "checksum_offset": 0},
        {"checksum_start": 65535},
        {"gso_type": 3, "gso_size": 100},
        {"gso_type": 0, "gso_size": 100},
    ],
)
def test_lying_metadata(bad: dict[str, int]) -> None:
    a, b = pair(super_packets=True)
    data = ipv4(tcp(a.pod4, b.pod4, bytes(1000)), TCP, source=a.pod4, destination=b.pod4)
    given = {"gso_type": 0, "gso_size": 0, "checksum_start": 20, "checksum_offset": 16, "needs_checksum": True} | bad
    attack(a, from_pod(a, Super(data, **given)), {"vnet_header": 1})  # type: ignore[arg-type]


def test_a_super_packet_is_dropped_whole_and_counted_in_segments() -> None:
    a, b = pair(super_packets=True)
    other = ip_address("10.0.1.77")
    data = ipv4(tcp(other, b.pod4, bytes(1000)), TCP, source=other, destination=b.pod4)
    attack(a, from_pod(a, Super(data, 1, 100, 20, 16, True)), {"guard_pod_source": 10})


# -- row 37: answers as a weapon ---------------------------------------------
@pytest.mark.parametrize("family", [4, 6])
def test_37_a_flood_is_answered_a_few_times(family: int) -> None:
    a, b = pair()
    data = packet(a, b, family, **{"ttl" if family == 4 else "hops": 1})
    n = 5000
    for _ in range(n // 250):
        a.pod.inject([data] * 250)
        a.turn()
        assert a.tunnel.drain() == []
    counters = a.plane.counters()
    answers = a.pod.drain()
    assert counters.drops == {"ttl_expired": n}
    assert counters.created == len(answers) > 0
    assert counters.created + counters.events["reply_limited"] == n
    # 20 at once and 100 a second; a slow machine takes a few seconds over this
    assert len(answers) <= 20 + 100 * 10
    assert {len(answer) for answer in answers} == {len(data) + (28 if family == 4 else 48)}


# -- row 43: ECN -------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("inner", [0, 1, 2, 3])
@pytest.mark.parametrize("outer_ecn", [0, 1, 2, 3])
def test_43_ecn(kind: Encapsulation, inner: int, outer_ecn: int) -> None:
    a, b = pair(kind)
    for family in (4, 6):
        data = reference.set_class(packet(a, b, family), 0xB8 | inner)
        try:
            expected = reference.ecn_decapsulate(0xB8 | inner, outer_ecn)
        except Drop:
            attack(b, from_peer(b, data, traffic_class=outer_ecn), {"ecn": 1})
            continue
        (delivered,) = b.receive(as_peer(b, data), traffic_class=outer_ecn)
        assert reference.parse(delivered).traffic_class == expected


# -- after it all ------------------------------------------------------------
def test_a_node_under_attack_goes_on_serving() -> None:
    a, b = pair()
    for _, data, _ in malformed(a, b):
        b.tunnel.inject_datagram(as_peer(b, data), b.peer_address)
        b.tunnel.inject_datagram(as_peer(b, packet(a, b)), b.peer_address)
    b.turn()
    assert len(b.pod.drain()) == len(NAMES)
    assert sum(b.drops.values()) == len(NAMES)


def test_strangers_learn_nothing() -> None:
    """No answer of any kind goes to who is no peer, whatever it sends."""
    a, b = pair()
    stranger = outer(99, 4)
    for _, data, _ in malformed(a, b):
        b.tunnel.inject_datagram(as_peer(b, data), stranger)
    expired = packet(a, b, ttl=1)
    b.tunnel.inject_datagram(as_peer(b, expired), stranger)
    b.turn()
    assert (b.pod.drain(), b.tunnel.drain()) == ([], [])
    assert b.drops == {"peer_unknown": len(NAMES) + 1}
