"""The benchmarks of flows and policy run, and measure what they say."""

from __future__ import annotations

from bench.flow.measure import filled
from bench.policy.plane import cut, established, questions
from bench.policy.workload import production


def test_lookups_are_measured() -> None:
    assert 0 < filled(256, 4).lookups(1000, 256) < 1e6


def test_established_flows_pass_the_production_policy() -> None:
    """The policy denies the opener's port: only known flows pass, and all of them do."""
    found = established(cut(production(), 680), 2, 4)
    assert all(len(rounds) == 2 for rounds in found.values())


def test_questions_are_alike_or_not() -> None:
    snapshot = cut(production(), 68)
    assert len({tuple(row) for row in questions(snapshot, 100, alike=True)}) == 1
    assert len({tuple(row) for row in questions(snapshot, 100, alike=False)}) > 90
