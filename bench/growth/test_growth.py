"""The packet loop in memory as tables grow: routes to a million, peers to five thousand, pods to a hundred.

`one` sends all packets to one destination, as a flow does; `all` spreads them
over the whole table, which no cache survives. `extra_info` has ns per packet
of the median round, and the memory of the compiled table. How a large node
compares with a small one, in turn, is `python -m bench.growth.run`; the same
end to end, with daemons, `python -m bench.e2e growth`.
"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.growth.nodes import BATCH, NODES

COUNTS = {"routes": (1, 1_000, 100_000, 1_000_000), "peers": (1, 100, 5_000), "pods": (1, 100)}


@pytest.mark.parametrize("spread", ["one", "all"])
@pytest.mark.parametrize(("kind", "count"), [(kind, count) for kind, counts in COUNTS.items() for count in counts])
def test_growth(benchmark: BenchmarkFixture, kind: str, count: int, spread: str) -> None:
    grown = NODES[kind](count)
    benchmark.pedantic(grown.turn, setup=lambda: grown.inject(spread), rounds=100, warmup_rounds=5)
    grown.node.check()
    assert grown.node.plane.counters().drops == {}
    benchmark.extra_info["ns_per_packet"] = round(benchmark.stats.stats.median / BATCH * 1e9, 2)
    benchmark.extra_info["table_kib"] = sum(grown.node.plane.fib.memory.values()) // 1024
