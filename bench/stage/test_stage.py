"""What each stage costs a packet: nanoseconds of the fastest round, the laying out of the burst taken off.

`extra_info["ns_per_packet"]` is the figure; the raw time of a round includes
the layout. Splitting and merging have their own suite, bench/offload.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from tests.cy.probe_stage import STAGES, StageBench

from fastpath import reference
from fastpath.values import Deliver, Encapsulate
from tests.fastpath.network import PEER, MemoryNode, mac, outer
from tests.fastpath.packets import ipv4, ipv6, udp

BURST = 256
ROUNDS = 400  # bursts of one timed call
TUNNEL_HEADER = 22  # VXLAN and inner Ethernet


def packets(node: MemoryNode, family: int, size: int, *, inwards: bool) -> list[bytes]:
    """BURST packets of 64 flows between the pods of two nodes."""
    own, peer = (node.pod4, ip_address("10.0.2.2")) if family == 4 else (node.pod6, ip_address("fd00:0:0:2::2"))
    source, destination = (peer, own) if inwards else (own, peer)
    build, header = (ipv4, 28) if family == 4 else (ipv6, 48)
    return [
        build(
            udp(source, destination, bytes(size - header), sport=1000 + i % 64), source=source, destination=destination
        )
        for i in range(BURST)
    ]


def outwards(family: int, size: int) -> StageBench:
    """A pod's packets towards a peer."""
    node = MemoryNode(1, 2)
    peer = Encapsulate(1, PEER, outer(2, 4), 1450, 4789, mac(2))
    prefixes = [ip_network("10.0.2.0/24"), ip_network("fd00:0:0:2::/64")]
    return StageBench(node.pod, node.tunnel, peer, prefixes, {}, packets(node, family, size, inwards=False))


def inwards(family: int, size: int, stage: str) -> StageBench:
    """A peer's datagrams for a pod; guard wants the way back to lead to the peer, what follows one to the pod."""
    node = MemoryNode(1, 2)
    frames = [reference.vxlan_frame(p, 42, mac(1), mac(2)) for p in packets(node, family, size, inwards=True)]
    back = Encapsulate(0, PEER, outer(2, 4), 1450, 4789, mac(2))
    everything = [ip_network("0.0.0.0/0"), ip_network("::/0")]
    value = back if stage in {"decap", "parse", "guard"} else Deliver(1, 1450)
    return StageBench(node.tunnel, node.pod, value, everything, {outer(2, 4): PEER}, frames, TUNNEL_HEADER)


def measure(benchmark: BenchmarkFixture, bench: StageBench, stage: str) -> None:
    bench.reach(stage)
    found: list[tuple[float, float]] = []
    benchmark.pedantic(lambda: found.append(bench.run(stage, ROUNDS)), rounds=20, warmup_rounds=2)
    both, layout = (min(column) for column in zip(*found, strict=True))
    benchmark.extra_info["ns_per_packet"] = round(both - layout, 2)


@pytest.mark.parametrize("size", [64, 1400])
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("stage", STAGES[1:])
def test_outwards(benchmark: BenchmarkFixture, stage: str, family: int, size: int) -> None:
    measure(benchmark, outwards(family, size), stage)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("stage", ["decap", "parse", "guard"])
def test_inwards(benchmark: BenchmarkFixture, stage: str, family: int) -> None:
    measure(benchmark, inwards(family, 64, stage), stage)
