"""parse: the flow hash, then the twin over packets of every shape."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastpath.reference import ICMP, SCTP, TCP, UDP
from tests.cy import probe_wire
from tests.fastpath.packets import (
    A4,
    B4,
    VECTOR4,
    VECTOR6,
    bent,
    echo,
    fragment_header,
    ipv4,
    offloads,
    packet,
    resealed,
)
from tests.fastpath.stage.parsing import KEY, MORE, compiled, extended, twin


# -- the flow hash -----------------------------------------------------------
def test_hash_tells_flows_apart() -> None:
    hashes = {
        compiled(packet(f, p, sport=s))["flow_hash"] for f in (4, 6) for p in (TCP, UDP, SCTP) for s in range(1, 500)
    }
    assert len(hashes) >= 2994 - 3  # of 2,994 values about 0.001 collide
    echoes = {compiled(ipv4(echo(A4, B4, identifier=i), ICMP))["flow_hash"] for i in range(100)}
    assert len(echoes) == 100


def test_hash_spreads_over_buckets() -> None:
    buckets = [0] * 64
    for port in range(1, 6401):
        buckets[int(str(compiled(packet(4, TCP, sport=port))["flow_hash"])) >> 26] += 1
    # 100 expected, deviation 10; six of them happen once in 500 million
    assert min(buckets) >= 40 and max(buckets) <= 160


def test_hash_depends_on_the_key() -> None:
    data = packet(4)
    assert len({probe_wire.parse_packet(data, key)["flow_hash"] for key in range(100)}) == 100


# -- the twin ----------------------------------------------------------------
PARSE_REASONS = {
    "none",
    "truncated",
    "ip_version",
    "ip4_length",
    "ip4_checksum",
    "ip4_option",
    "ip6_length",
    "ip6_extension",
    "ip6_routing",
    "fragment",
    "fragment_tiny",
    "fragment_offset",
    "fragment_length",
    "fragment_chain",
    "udp_length",
    "tcp_offset",
    "martian",
    "land",
    "multicast",
}


def test_twin_agrees() -> None:
    reached = set()

    @settings(max_examples=1500)
    @given(bent())
    @example(b"")
    @example(VECTOR4)
    @example(VECTOR6)
    @example(packet(4, UDP, length=7))  # what chance meets too seldom
    @example(ipv4(bytes(8), TCP, fragment=MORE))
    @example(ipv4(bytes(8), fragment=0x1FFF))
    @example(ipv4(bytes(40), TCP, fragment=1))
    @example(extended(fragment_header(), fragment_header()))
    def agrees(data: bytes) -> None:
        found = compiled(data)
        reached.add(found.get("reason", "none"))
        assert found == twin(data)

    agrees()
    assert reached >= PARSE_REASONS, "the packets made here do not reach every rule"


@settings(max_examples=800)
@given(st.data())
def test_twin_agrees_about_metadata(data: st.DataObject) -> None:
    packet_bytes = data.draw(bent())
    offload = data.draw(offloads(packet_bytes))
    assert compiled(packet_bytes, offload) == twin(packet_bytes, offload)


@given(st.binary(max_size=120))
def test_twin_agrees_about_noise(data: bytes) -> None:
    data = resealed(bytes([0x45 if data[:1] < b"\x80" else 0x60]) + data)
    assert compiled(data) == twin(data)


@pytest.mark.parametrize("n", [0, 1, 2, 63, 64, 65, 255, 512])
def test_a_burst_is_its_packets(n: int) -> None:
    shapes = [VECTOR4, None, VECTOR6, VECTOR4[:19], packet(4, ICMP), packet(6, TCP, dport=0), b""]
    many = [shapes[i % len(shapes)] for i in range(n)]
    found = probe_wire.parse_many(many, KEY)
    for data, result in zip(many, found, strict=True):
        if data is None:
            assert result == {"verdict": "drop", "reason": 0, "n_segments": 0}  # left as it was
        else:
            assert result == probe_wire.parse_packet(data, KEY)
