"""The truth tables of both upstream suites through the data plane: handshakes, answers, data, in memory."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from fastpath.reference import SCTP, TCP, UDP
from tests.engine.policy.tables import Probe, Step, Table, cluster_tables, kubernetes_tables
from tests.fastpath.cluster import ACK, MemoryCluster, answers, opening, sctp, segment

TABLES = [*kubernetes_tables(), *cluster_tables()]


def converse(cluster: MemoryCluster, step: Step, probe: Probe, sport: int) -> bool:
    """Whether a whole conversation goes through; when it opens, everything after must."""
    c = probe.connection(step.snapshot)
    a, b = c.source, c.destination
    if not cluster.passes(a, b, opening(a, b, c.protocol, probe.port, sport)):
        return False
    assert cluster.passes(b, a, answers(a, b, c.protocol, probe.port, sport)), "an answer was kept out"
    more = further(a, b, c.protocol, probe.port, sport)
    assert cluster.passes(a, b, *more) == len(more), "what follows was kept out"
    return True


def further(a: object, b: object, protocol: int, port: int, sport: int) -> list[bytes]:
    if protocol == TCP:
        return [
            segment(a, b, ACK, sport=sport, dport=port, seq=1001, ack=5001),
            segment(a, b, ACK | 8, sport=sport, dport=port, seq=1001, ack=5001, payload=b"data"),
        ]
    if protocol == SCTP:
        return [sctp(a, b, sport, port, 10, 0x2222, 0), sctp(a, b, sport, port, 0, 0x2222, 0)]
    assert protocol == UDP
    return [opening(a, b, protocol, port, sport)]


def wrong(cluster: MemoryCluster, step: Step, sports: Iterator[int]) -> list[str]:
    return [
        f"{p.source} -> {p.destination} {p.protocol}/{p.port}: expected {p.allowed}"
        for p in step.probes
        if converse(cluster, step, p, next(sports)) != p.allowed
    ]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_table(table: Table) -> None:
    """Every step swaps the policy of the running plane; connections of earlier steps stay open."""
    cluster = MemoryCluster(table.steps[0].snapshot)
    sports = count(20_000)
    denied = 0
    for step in table.steps:
        cluster.apply(step.snapshot)
        assert not (found := wrong(cluster, step, sports)), "\n".join([step.name, *found])
        denied += sum(not probe.allowed for probe in step.probes)
    assert cluster.drops == ({"policy_deny": denied} if denied else {})
