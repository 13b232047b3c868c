"""transmit: order within flows whatever is merged, trains by size, super-packets split and cut."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st
from tests.cy.probe_send import transmit_by

from fastpath import reference
from fastpath.port.memory import Super
from fastpath.values import Encapsulate
from tests.fastpath.network import MemoryNode, mac, pair
from tests.fastpath.packets import ipv4, ipv6, tcp, udp

SIZES = st.sampled_from([1, 20, 20, 20, 64, 64, 200, 1000])


def numbered(a: MemoryNode, b: MemoryNode, flow: int, number: int, size: int) -> bytes:
    body = udp(a.pod4, b.pod4, number.to_bytes(2) + bytes(size), sport=1000 + flow)
    return ipv4(body, source=a.pod4, destination=b.pod4)


@given(st.lists(st.tuples(st.integers(0, 5), SIZES), max_size=120))
def test_flows_keep_their_order_and_every_byte(plan: list[tuple[int, int]]) -> None:
    a, b = pair()
    sent = [numbered(a, b, flow, number, size) for number, (flow, size) in enumerate(plan)]
    got = b.receive(*[d.payload for d in a.send(*sent)])
    assert sorted(p[28:] for p in got) == sorted(p[28:] for p in sent)
    for flow in range(6):
        port = (1000 + flow).to_bytes(2)
        assert [p[28:] for p in got if p[20:22] == port] == [p[28:] for p in sent if p[20:22] == port]


@given(st.lists(st.tuples(st.integers(0, 20), SIZES), min_size=1, max_size=100))
def test_more_destinations_than_trains(plan: list[tuple[int, int]]) -> None:
    a, _ = pair()
    for i in range(21):
        remote = ip_address(f"198.51.100.{i}")
        number = a.plane.set_adjacency(Encapsulate(a.tunnel_port, 30 + i, remote, 1450, 4789))
        a.plane.set_route(ip_network(f"10.60.{i}.0/24"), number)
    sent = []
    for n, (i, size) in enumerate(plan):
        to = ip_address(f"10.60.{i}.1")
        sent.append(ipv4(udp(a.pod4, to, n.to_bytes(2) + bytes(size)), source=a.pod4, destination=to))
    datagrams = a.send(*sent)
    for i in range(21):
        to = ip_address(f"10.60.{i}.1").packed
        remote = ip_address(f"198.51.100.{i}")
        assert [d.payload[22 + 28 :] for d in datagrams if d.remote == remote] == [
            p[28:] for p in sent if p[16:20] == to
        ]


def test_a_flow_keeps_its_order_when_its_next_hop_is_replaced_on_the_way() -> None:
    """Two records of one number in one burst: what the second sends at once may not overtake what waits for the first."""
    a, b = pair()
    value = Encapsulate(a.tunnel_port, 7, b.peer_address, 1450, 4789, mac(2))
    packets = [numbered(a, b, 0, number, size) for number, size in enumerate((100, 100, 50))]
    transmit_by(a.tunnel, value, list(zip((0, 1, 1), packets, strict=True)))
    assert [d.payload[22:] for d in a.tunnel.drain()] == packets


def super_tcp(a: MemoryNode, b: MemoryNode, payload: bytes, size: int) -> Super:
    """A super-packet as a TUN gives it: pseudo-header sum in the checksum field."""
    body = bytearray(tcp(a.pod4, b.pod4, payload))
    pseudo = reference.ones_sum(reference.pseudo_header(a.pod4, b.pod4, reference.TCP, len(body)))
    body[16:18] = pseudo.to_bytes(2)
    data = ipv4(bytes(body), reference.TCP, source=a.pod4, destination=b.pod4, fragment=0x4000)
    return Super(data, 1, size, 20, 16, needs_checksum=True)


@given(st.lists(st.tuples(st.sampled_from([4, 6]), st.sampled_from([60, 60, 80])), min_size=1, max_size=60))
def test_each_datagram_has_the_header_of_its_own_family(plan: list[tuple[int, int]]) -> None:
    """Of both families and equal sizes in one burst: a train's header is its first packet's."""
    a, b = pair()
    sent = []
    for number, (family, size) in enumerate(plan):
        if family == 4:
            body = udp(a.pod4, b.pod4, bytes(size - 30) + number.to_bytes(2))
            sent.append(ipv4(body, source=a.pod4, destination=b.pod4))
        else:
            body = udp(a.pod6, b.pod6, bytes(size - 50) + number.to_bytes(2))
            sent.append(ipv6(body, source=a.pod6, destination=b.pod6))
    datagrams = a.send(*sent)
    for d in datagrams:
        assert d.payload[:22] == reference.vxlan_frame(d.payload[22:], 42, mac(2), mac(1))[:22]
    assert sorted(d.payload[-10:] for d in datagrams) == sorted(packet[-10:] for packet in sent)


def test_a_datagram_larger_than_any_train_goes_alone() -> None:
    a, b = pair("plain", mtu=65535)
    sent = [numbered(a, b, 0, number, size) for number, size in enumerate([65_500, 65_500, 100, 65_500])]
    assert [d.payload[28:] for d in a.send(*sent)] == [p[28:] for p in sent]


def test_a_super_packet_leaves_as_segments_and_arrives_as_one() -> None:
    a, b = pair(super_packets=True)
    payload = bytes(range(256)) * 100
    whole = super_tcp(a, b, payload, 1400)
    datagrams = a.send(whole)
    assert len(datagrams) == -(-len(payload) // 1400)
    for d in b_receive_segments(datagrams):
        b.tunnel.inject_datagram(d, b.peer_address, segment_bytes=len(datagrams[0].payload))
    b.turn()
    (got,) = b.pod.drain()
    assert got.gso_size == 1400
    assert got.data[40:] == payload
    assert a.plane.counters().events["super_split"] == 1
    assert b.plane.counters().events["super_merged"] == 1


def b_receive_segments(datagrams: list) -> list[bytes]:
    """All datagrams in one buffer, as UDP_GRO delivers them."""
    return [b"".join(d.payload for d in datagrams)]


def test_a_port_without_offload_gets_single_packets() -> None:
    a, b = pair(super_packets=True)
    _, plain = pair()
    payload = bytes(range(256)) * 30
    datagrams = a.send(super_tcp(a, b, payload, 1000))
    got = plain.receive(*[d.payload for d in datagrams])
    assert b"".join(p[40:] for p in got) == payload
    assert all(
        reference.transport_checksum(a.pod4, b.pod4, 6, p[20:36] + b"\0\0" + p[38:]) == int.from_bytes(p[36:38])
        for p in got
    )


def test_a_full_ring_is_a_counted_drop() -> None:
    a, b = pair()
    big = ipv4(udp(a.pod4, b.pod4, bytes(1300)), source=a.pod4, destination=b.pod4)
    for _ in range(80):
        a.pod.inject([big] * 100)
        a.turn()
    counters = a.plane.counters()
    assert counters.drops["tx_full"] > 0
    assert counters.sent + counters.drops["tx_full"] == 8000


@given(st.integers(69, 2000), st.integers(0, 4000))
def test_packets_without_df_are_fragmented(mtu: int, size: int) -> None:
    a, b = pair()
    a.plane.set_adjacency(Encapsulate(a.tunnel_port, 7, a.peer_address, mtu, 4789), a.to_peer)
    sent = ipv4(udp(a.pod4, b.pod4, bytes(i % 251 for i in range(size))), source=a.pod4, destination=b.pod4)
    forwarded = reference.hop(reference.parse(sent), 65535)
    expected = reference.fragments(forwarded, mtu) if len(forwarded) > mtu else [forwarded]
    assert [d.payload[22:] for d in a.send(sent)] == expected
