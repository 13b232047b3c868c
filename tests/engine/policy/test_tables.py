"""All cases of the two upstream suites, by the slow evaluator and by the compiled program."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engine.desired.policy import golden
from engine.desired.policy.compiler import Compiler
from engine.desired.policy.model import Connection, Snapshot, Verdict
from tests.engine.policy.tables import Table, cluster_tables, kubernetes_tables

Judge = Callable[[Connection], Verdict]
TABLES = [*kubernetes_tables(), *cluster_tables()]


def slow() -> Callable[[Snapshot], Judge]:
    return lambda snapshot: lambda connection: golden.judge(snapshot, connection)


def compiled() -> Callable[[Snapshot], Judge]:
    """One compiler for a whole table: every step after the first is an update."""
    compiler = Compiler()
    return lambda snapshot: compiler.update(snapshot).judge


@pytest.mark.parametrize("make", [slow, compiled], ids=["golden", "compiled"])
@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_table(table: Table, make: Callable[[], Callable[[Snapshot], Judge]]) -> None:
    judge_of = make()
    for step in table.steps:
        judge = judge_of(step.snapshot)
        wrong = [
            f"{p.source} -> {p.destination} {p.protocol}/{p.port}: expected {p.allowed}, {verdict.egress}; {verdict.ingress}"
            for p in step.probes
            if (verdict := judge(p.connection(step.snapshot))).allowed != p.allowed
        ]
        assert not wrong, "\n".join([step.name, *wrong])


def test_the_suites_are_whole() -> None:
    assert len(kubernetes_tables()) == 48
    tables = cluster_tables()
    assert len(tables) == 24
    cases = {(table.name, step.name.partition(": ")[2]) for table in tables for step in table.steps}
    assert len(cases) == 92
    assert sum(len(step.probes) for table in tables for step in table.steps) == 301
    allowed = {p.allowed for table in TABLES for step in table.steps for p in step.probes}
    assert allowed == {True, False}
