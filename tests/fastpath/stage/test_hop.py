"""hop: ECN on leaving a tunnel, one hop per node, size; held against the golden twin."""

from __future__ import annotations

import pytest

from fastpath import reference
from tests.fastpath.network import MemoryNode, mac, pair
from tests.fastpath.packets import ipv4, ipv6, udp


def packet(a: MemoryNode, b: MemoryNode, family: int, traffic_class: int, hops: int = 64) -> bytes:
    if family == 4:
        data = ipv4(udp(a.pod4, b.pod4), source=a.pod4, destination=b.pod4, ttl=hops)
    else:
        data = ipv6(udp(a.pod6, b.pod6), source=a.pod6, destination=b.pod6, hops=hops)
    return reference.set_class(data, traffic_class)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("inner", range(4))
@pytest.mark.parametrize("outer", range(4))
def test_ecn_follows_rfc_6040(family: int, inner: int, outer: int) -> None:
    a, b = pair()
    dscp = 0b101110 << 2
    payload = reference.vxlan_frame(packet(a, b, family, dscp | inner, hops=63), 42, mac(2), mac(1))
    got = b.receive(payload, traffic_class=outer)
    if (inner, outer) == (0, 3):
        assert got == []
        assert b.drops == {"ecn": 1}
        return
    expected = reference.ecn_decapsulate(dscp | inner, outer)
    assert got == [packet(a, b, family, expected, hops=62)]
    odd = inner == 0 and outer in (1, 2)
    assert b.plane.counters().events.get("ecn_odd", 0) == odd


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("traffic_class", [0, 1, 2, 3, 0xB8, 0xBB])
def test_class_is_copied_outwards(family: int, traffic_class: int) -> None:
    a, b = pair()
    (datagram,) = a.send(packet(a, b, family, traffic_class))
    assert datagram.traffic_class == traffic_class


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("hops", [0, 1])
def test_the_last_hop_is_answered(family: int, hops: int) -> None:
    a, b = pair()
    assert a.send(packet(a, b, family, 0, hops)) == []
    (answer,) = a.pod.drain()
    gateway, pod = (a.gateway4, a.pod4) if family == 4 else (a.gateway6, a.pod6)
    start, size = (12, 4) if family == 4 else (8, 16)
    assert answer[start : start + 2 * size] == gateway.packed + pod.packed
    assert answer[20:22] == b"\x0b\x00" if family == 4 else answer[40:42] == b"\x03\x00"
    assert a.drops == {"ttl_expired": 1}


@pytest.mark.parametrize("family", [4, 6])
def test_the_far_node_answers_through_the_tunnel(family: int) -> None:
    a, b = pair()
    (datagram,) = a.send(packet(a, b, family, 0, hops=2))
    assert b.receive(datagram.payload) == []
    (back,) = b.tunnel.drain()
    (answer,) = a.receive(back.payload)
    gateway = b.gateway4 if family == 4 else b.gateway6
    start = 12 if family == 4 else 8
    assert answer[start : start + len(gateway.packed)] == gateway.packed
