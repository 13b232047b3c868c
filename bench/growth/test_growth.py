"""The packet loop in memory as tables grow: routes to a million, peers to five thousand, pods to a hundred.

`one` sends all packets to one destination, as a flow does; `all` spreads them
over the whole table, which no cache survives. `extra_info` has ns per packet
of the median round, and the memory of the compiled table. The same growth end
to end, with daemons, is `python -m bench.e2e growth`.
"""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv4Network

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from fastpath.port.memory import MemoryPort
from fastpath.values import Deliver, Encapsulate
from tests.fastpath.network import PEER, MemoryNode, mac, outer
from tests.fastpath.packets import ipv4, udp

BATCH = 2048  # packets of one round
SIZE = 64  # bytes
FIRST = int(IPv4Address("11.0.0.0"))


def measure(benchmark: BenchmarkFixture, node: MemoryNode, destinations: list[IPv4Address], spread: str) -> None:
    """Forward BATCH packets a round to the destinations in a shuffled order, or to the first alone."""
    chosen = destinations[:1] if spread == "one" else random.Random(1).choices(destinations, k=BATCH)
    packets = [
        ipv4(udp(node.pod4, to, bytes(SIZE - 28), sport=1000), source=node.pod4, destination=to) for to in chosen
    ]
    rows = np.frombuffer(b"".join(packets), dtype=np.uint8).reshape(len(chosen), SIZE)
    rows = np.ascontiguousarray(rows[np.arange(BATCH) % len(chosen)])

    def inject() -> None:
        for port in sinks(node):
            port.discard()
        node.pod.inject(rows)

    def turn() -> None:
        while node.plane.turn():
            pass

    benchmark.pedantic(turn, setup=inject, rounds=100, warmup_rounds=5)
    node.check()
    assert node.plane.counters().drops == {}
    benchmark.extra_info["ns_per_packet"] = round(benchmark.stats.stats.median / BATCH * 1e9, 2)
    benchmark.extra_info["table_kib"] = sum(node.plane.fib.memory.values()) // 1024


def sinks(node: MemoryNode) -> list[MemoryPort]:
    return [node.tunnel, *getattr(node, "others", [])]


@pytest.mark.parametrize("spread", ["one", "all"])
@pytest.mark.parametrize("count", [1, 1_000, 100_000, 1_000_000])
def test_routes(benchmark: BenchmarkFixture, count: int, spread: str) -> None:
    node = MemoryNode(1, 2)
    addresses = [FIRST + i * 64 for i in range(count)]
    for address in addresses:
        node.plane.set_route(IPv4Network((address, 26)), node.to_peer)
    measure(
        benchmark, node, [IPv4Address(a + 1) for a in random.Random(2).sample(addresses, min(count, BATCH))], spread
    )


@pytest.mark.parametrize("spread", ["one", "all"])
@pytest.mark.parametrize("count", [1, 100, 5_000])
def test_peers(benchmark: BenchmarkFixture, count: int, spread: str) -> None:
    """Each peer has a prefix and an outer address of its own, so `all` merges little on the way out."""
    node = MemoryNode(1, 2)
    peers = {}
    for i in range(count):
        remote = IPv4Address("100.64.0.1") + i
        peers[remote] = PEER + 1 + i
        value = Encapsulate(node.tunnel_port, PEER + 1 + i, remote, 1450, 4789, mac(2))
        node.plane.set_route(IPv4Network((FIRST + i * 256, 24)), node.plane.set_adjacency(value))
    node.plane.set_peers({outer(2, 4): PEER, **peers})
    measure(benchmark, node, [IPv4Address(FIRST + i * 256 + 1) for i in range(count)], spread)


@pytest.mark.parametrize("spread", ["one", "all"])
@pytest.mark.parametrize("count", [1, 100])
def test_pods(benchmark: BenchmarkFixture, count: int, spread: str) -> None:
    """From one pod to others of the same node."""
    node = MemoryNode(1, 2)
    destinations = [IPv4Address("10.0.1.3") + i for i in range(count)]
    node.others = [MemoryPort(f"pod-{i}", addresses=[address]) for i, address in enumerate(destinations)]
    for port, address in zip(node.others, destinations, strict=True):
        adjacency = node.plane.set_adjacency(Deliver(node.plane.attach(port), 1450))
        node.plane.set_route(IPv4Network(address), adjacency)
    measure(benchmark, node, destinations, spread)
