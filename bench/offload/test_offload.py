"""What a segment costs to split, to merge and to sum: nanoseconds, in extra_info, beside the raw time of a round.

Never: counts the laying out of a burst as merging; it is timed by itself and taken off.
"""

from __future__ import annotations

import random
import time

import pytest

from tests.cy import probe_offload
from tests.fastpath.offload.packets import ACK, PSH, TCP, UDP, Entry, Packet

ROUNDS = 200  # calls of compiled code within one timed round


def payload(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@pytest.mark.parametrize("kernel", ["scalar", "chosen"])
@pytest.mark.parametrize("size", [64, 1448, 65536])
def test_checksum(benchmark, kernel, size):
    benchmark(probe_offload.time_checksum, payload(size), kernel, ROUNDS)
    benchmark.extra_info["ns_each"] = benchmark.stats["min"] / ROUNDS * 1e9


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize(("size", "count"), [(1398, 44), (64, 128)])
def test_split(benchmark, family, protocol, size, count):
    data = Packet(payload=payload(size * count), family=family, protocol=protocol, checksum="pending").build()
    segments = benchmark(probe_offload.time_split, data, size, ROUNDS)
    benchmark.extra_info["ns_per_segment"] = benchmark.stats["min"] / segments * 1e9


def segments_of(count: int, size: int, *, protocol: int = TCP, flags: int = ACK, flows: int = 1) -> list[Packet]:
    """`count` packets in all, of `flows` flows in turn."""
    return [
        Packet(
            payload=payload(size), protocol=protocol, flags=flags, source_port=1000 + i % flows,
            sequence=1 + i // flows * size, checksum="full",
        )
        for i in range(count)
    ]  # fmt: skip


BURSTS = {
    "tcp-1448-one-flow": segments_of(44, 1398),
    "tcp-1448-four-flows": segments_of(44, 1398, flows=4),
    "udp-64-one-flow": segments_of(128, 64, protocol=UDP),
    "udp-64-all-different": segments_of(128, 64, protocol=UDP, flows=128),
    "pure-acknowledgements": segments_of(128, 0),
    "tcp-small-pushed": segments_of(128, 64, flags=ACK | PSH, flows=128),
}


@pytest.mark.parametrize("name", BURSTS)
def test_merge(benchmark, name):
    burst = probe_offload.Burst([Entry.of(packet, gap=50) for packet in BURSTS[name]])
    benchmark(burst.time_merge, 128, ROUNDS, False)
    prepare = min(timed(burst) for _ in range(20))
    cost = (benchmark.stats["min"] - prepare) / ROUNDS / len(BURSTS[name]) * 1e9
    benchmark.extra_info["ns_per_packet"] = cost


def timed(burst: probe_offload.Burst) -> float:
    """Seconds of the rounds without the merge."""
    start = time.perf_counter()
    burst.time_merge(128, ROUNDS, True)
    return time.perf_counter() - start
