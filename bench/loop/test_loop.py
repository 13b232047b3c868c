"""The packet loop in memory, one worker, one core: cost per packet by burst size and encapsulation.

Run by `make bench`. Each round injects a batch (not timed), turns the plane
until it is empty (timed), and throws the result away (not timed).
`extra_info` gives ns per packet and Mpps of the median round.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture

from fastpath import reference
from fastpath.values import Encapsulation
from tests.fastpath.network import MemoryNode, mac, pair
from tests.fastpath.packets import ipv4, ipv6, udp

BATCH = 4096  # packets of one round
ROUNDS = 200
CAPACITY = 8 << 20


def outgoing(a: MemoryNode, b: MemoryNode, family: int, size: int, flows: int) -> NDArray[np.uint8]:
    """BATCH packets from a's pod to b's, shape (BATCH, bytes), over `flows` UDP flows."""
    packets = []
    for i in range(flows):
        if family == 4:
            body = udp(a.pod4, b.pod4, bytes(size - 28), sport=1000 + i)
            packets.append(ipv4(body, source=a.pod4, destination=b.pod4))
        else:
            body = udp(a.pod6, b.pod6, bytes(size - 48), sport=1000 + i)
            packets.append(ipv6(body, source=a.pod6, destination=b.pod6))
    rows = np.frombuffer(b"".join(packets), dtype=np.uint8).reshape(flows, -1)
    return np.ascontiguousarray(rows[np.arange(BATCH) % flows])


def measure(benchmark: BenchmarkFixture, node: MemoryNode, rows: NDArray[np.uint8], burst: int = BATCH) -> None:
    """Forward BATCH packets a round, `burst` injected at a time."""

    def inject() -> None:
        node.tunnel.discard()
        node.pod.inject(rows[:burst])

    def turn() -> None:
        while node.plane.turn():
            pass

    benchmark.pedantic(turn, setup=inject, rounds=ROUNDS, warmup_rounds=5)
    node.check()
    counters = node.plane.counters()
    assert counters.drops == {}
    seconds = benchmark.stats.stats.median
    benchmark.extra_info["packets"] = burst
    benchmark.extra_info["ns_per_packet"] = round(seconds / burst * 1e9, 2)
    benchmark.extra_info["mpps"] = round(burst / seconds / 1e6, 2)


@pytest.mark.parametrize("burst", [1, 8, 32, 256, 2048])
def test_burst_size(benchmark: BenchmarkFixture, burst: int) -> None:
    a, b = pair("vxlan")
    measure(benchmark, a, outgoing(a, b, 4, 64, 1), burst)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("kind", ["vxlan", "udp", "ipip", "plain"])
def test_encapsulate(benchmark: BenchmarkFixture, kind: Encapsulation, family: int) -> None:
    a, b = pair(kind)
    measure(benchmark, a, outgoing(a, b, family, 64, 1), 2048)


@pytest.mark.parametrize("size", [64, 512, 1400])
@pytest.mark.parametrize("flows", [1, 64])
def test_size_and_flows(benchmark: BenchmarkFixture, size: int, flows: int) -> None:
    a, b = pair("vxlan")
    measure(benchmark, a, outgoing(a, b, 4, size, flows), 2048)


@pytest.mark.parametrize("family", [4, 6])
def test_decapsulate(benchmark: BenchmarkFixture, family: int) -> None:
    """64-byte packets out of a tunnel, 64 in one receive as UDP_GRO delivers them."""
    a, b = pair("vxlan", super_packets=True)
    rows = outgoing(a, b, family, 64, 64)[:64]
    frames = b"".join(reference.vxlan_frame(bytes(row), 42, mac(2), mac(1)) for row in rows)
    size = len(frames) // 64

    def inject() -> None:
        b.pod.discard()
        for _ in range(32):
            b.tunnel.inject_datagram(frames, b.peer_address, segment_bytes=size)

    def turn() -> None:
        while b.plane.turn():
            pass

    benchmark.pedantic(turn, setup=inject, rounds=ROUNDS, warmup_rounds=5)
    b.check()
    assert b.drops == {}
    benchmark.extra_info["ns_per_packet"] = round(benchmark.stats.stats.median / 2048 * 1e9, 2)
    benchmark.extra_info["mpps"] = round(2048 / benchmark.stats.stats.median / 1e6, 2)
