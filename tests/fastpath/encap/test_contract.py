"""The contract every encapsulation fulfils, run over all of them by two nodes in memory."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from fastpath import reference
from fastpath.values import Encapsulation
from tests.fastpath.network import PORTS, MemoryNode, mac, outer, pair
from tests.fastpath.packets import ipv4, ipv6, udp

KINDS: list[Encapsulation] = ["vxlan", "udp", "ipip", "plain"]
every = pytest.mark.parametrize(
    ("kind", "outer_family", "family"), [(k, o, f) for k in KINDS for o in (4, 6) for f in (4, 6)]
)


def packet(source: MemoryNode, target: MemoryNode, family: int, payload: bytes = b"towpath!", hops: int = 64) -> bytes:
    if family == 4:
        body = udp(source.pod4, target.pod4, payload)
        return ipv4(body, source=source.pod4, destination=target.pod4, ttl=hops)
    body = udp(source.pod6, target.pod6, payload)
    return ipv6(body, source=source.pod6, destination=target.pod6, hops=hops)


def hops_of(data: bytes) -> int:
    return data[8] if data[0] >> 4 == 4 else data[7]


@every
def test_a_packet_arrives_unchanged_but_for_two_hops(kind: Encapsulation, outer_family: int, family: int) -> None:
    a, b = pair(kind, outer_family)
    sent = packet(a, b, family)
    datagrams = a.send(sent)
    assert [(d.remote, d.remote_port) for d in datagrams] == [(b.address, PORTS[kind])]
    assert b.receive(datagrams[0].payload) == [packet(a, b, family, hops=62)]
    assert a.drops == b.drops == {}


@every
def test_the_payload_is_that_of_the_golden_twin(kind: Encapsulation, outer_family: int, family: int) -> None:
    a, b = pair(kind, outer_family)
    inner = packet(a, b, family, hops=63)
    expected = reference.vxlan_frame(inner, a.vni, mac(2), mac(1)) if kind == "vxlan" else inner
    assert [d.payload for d in a.send(packet(a, b, family))] == [expected]


@every
def test_largest_packet_passes_and_one_more_byte_is_refused(
    kind: Encapsulation, outer_family: int, family: int
) -> None:
    a, b = pair(kind, outer_family)
    room = a.mtu - (28 if family == 4 else 48)
    fits, too_big = packet(a, b, family, bytes(room)), packet(a, b, family, bytes(room + 1))
    if family == 4:  # with DF, or it would be fragmented
        fits, too_big = (reference.seal_ipv4(p[:6] + b"\x40" + p[7:]) for p in (fits, too_big))
    assert len(a.send(fits)) == 1
    assert a.send(too_big) == []
    assert a.drops == {"too_big": 1}
    (answer,) = a.pod.drain()
    announced = answer[26:28] if family == 4 else answer[44:48]
    assert int.from_bytes(announced) == a.mtu


@every
def test_short_and_foreign_payloads_are_dropped_and_counted(
    kind: Encapsulation, outer_family: int, family: int
) -> None:
    a, b = pair(kind, outer_family)
    (datagram,) = a.send(packet(a, b, family))
    whole = datagram.payload
    for n in range(len(whole)):
        assert b.receive(whole[:n]) == []
    assert sum(b.drops.values()) == len(whole)
    assert b.receive(whole) == [packet(a, b, family, hops=62)]


@every
def test_a_stranger_is_not_heard(kind: Encapsulation, outer_family: int, family: int) -> None:
    a, b = pair(kind, outer_family)
    (datagram,) = a.send(packet(a, b, family))
    assert b.receive(datagram.payload, source=outer(99, outer_family)) == []
    assert b.drops == {"peer_unknown": 1}


@every
def test_a_peer_speaks_only_for_its_own_prefixes(kind: Encapsulation, outer_family: int, family: int) -> None:
    a, b = pair(kind, outer_family)
    forged = packet(b, b, family)  # the source is node b's own pod
    other = MemoryNode(3, 2, kind, outer_family)
    foreign = packet(other, b, family)
    wrap = (lambda p: reference.vxlan_frame(p, a.vni, mac(2), mac(1))) if kind == "vxlan" else (lambda p: p)
    assert b.receive(wrap(foreign)) == []
    assert b.drops == {"guard_peer_source": 1}
    same = forged[:12] + b.pod4.packed[:3] + b"\x03" + forged[16:] if family == 4 else None
    if same is not None:
        b.plane.set_route(ip_network("10.0.2.3/32"), b.to_pod)
        assert b.receive(wrap(reference.seal_ipv4(same))) == []
        assert b.drops == {"guard_peer_source": 1, "guard_own_source": 1}


@pytest.mark.parametrize(
    ("at", "value", "reason"),
    [
        (0, 0x00, "vxlan_flags"),
        (0, 0x88, "vxlan_reserved"),
        (0, 0x0C, "vxlan_reserved"),
        (1, 0x01, "vxlan_reserved"),
        (3, 0x80, "vxlan_reserved"),
        (7, 0x01, "vxlan_reserved"),
        (6, 43, "vni_unknown"),
        (8, 0x03, "inner_group_mac"),
        (13, 9, "inner_mac"),
        (20, 0x81, "inner_ethernet"),
        (21, 0x06, "inner_ethernet"),
        (22, 0x65, "ip_version"),
    ],
)
def test_vxlan_header_fields(at: int, value: int, reason: str) -> None:
    a, b = pair("vxlan")
    (datagram,) = a.send(packet(a, b, 4))
    payload = bytearray(datagram.payload)
    payload[at] = value
    assert b.receive(bytes(payload)) == []
    assert b.drops == {reason: 1}


def test_vxlan_loop_and_calico_nodeport() -> None:
    a, b = pair("vxlan")
    inner = packet(a, b, 4, hops=63)
    assert b.receive(reference.vxlan_frame(inner, 42, mac(2), mac(2))) == []
    assert b.receive(reference.vxlan_frame(inner, 0xCA11C0, mac(2), mac(1))) == []
    assert b.drops == {"inner_mac_loop": 1, "vni_calico_nodeport": 1}
