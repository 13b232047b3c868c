"""Random clusters: the compiled program against the slow evaluator, decision by decision.

Each snapshot is judged; then a pod gets other labels, goes or comes, and it is judged again
by the updated program, so that the incremental path is compared as much as the whole one.
The slow test makes 120,000 verdicts.
"""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address

import pytest

from engine.desired.policy import compiler as compiler_module
from engine.desired.policy import golden
from engine.desired.policy.compiler import Compiler
from engine.desired.policy.matrix import reachability
from engine.desired.policy.model import Connection
from engine.desired.policy.reader import Reading
from tests.engine.policy.generator import STRANGERS, Generator

STEPS, CONNECTIONS = 5, 20


def compare(seeds):
    """How often each kind of decision was compared."""
    seen = Counter()
    for seed in seeds:
        generator = Generator(seed)
        snapshot = generator.snapshot()
        compiler = Compiler()
        program = compiler.compile(snapshot)
        for step in range(STEPS):
            for _ in range(CONNECTIONS):
                connection = generator.connection(snapshot)
                expected, found = golden.judge(snapshot, connection), program.judge(connection)
                assert found == expected, f"seed {seed}, step {step}: {connection}"
                seen.update((d.why, d.allowed) for d in (expected.egress, expected.ingress))
            snapshot = generator.moved(snapshot) if step % 2 else generator.relabelled(snapshot)
            program = compiler.update(snapshot)
    return seen


def assert_varied(seen):
    """The comparison was about something: every kind of decision occurred, both ways where it has two."""
    for why in ("rule", "profile", "default"):
        assert seen[why, True] and seen[why, False], seen
    assert seen["end-of-tier", False] and seen["refused", False] and seen["own-node", True] and seen["self", True], seen
    assert seen["service", True], seen
    assert seen["rule", True] + seen["rule", False] + seen["end-of-tier", False] > seen.total() / 8, seen


def test_random_verdicts():
    assert_varied(compare(range(40)))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(6))
def test_twenty_thousand_random_verdicts(part):
    """Six parts: 120,000 in all."""
    seen = compare(range(1000 + 100 * part, 1100 + 100 * part))
    assert seen.total() == 20_000
    assert_varied(seen)


def test_pods_come_and_go_like_in_a_compilation(monkeypatch):
    """Twelve moves each, judged by the slow evaluator; few of them may compile: those that change what rows are made of."""
    built = []
    real = compiler_module.build
    monkeypatch.setattr(compiler_module, "build", lambda *args: built.append(1) or real(*args))
    for seed in range(3000, 3030):
        generator = Generator(seed)
        snapshot = generator.snapshot()
        compiler = Compiler()
        compiler.compile(snapshot)
        for move in range(12):
            snapshot = generator.moved(snapshot)
            program = compiler.update(snapshot)
            for _ in range(8):
                connection = generator.connection(snapshot)
                assert program.judge(connection) == golden.judge(snapshot, connection), f"seed {seed}, move {move}: {connection}"
    assert 30 < len(built) < 30 + 30 * 12 * 2 / 3


def test_random_matrices():
    for seed in range(2000, 2012):
        snapshot = Generator(seed).snapshot()
        program = Compiler().compile(snapshot)
        for version in (4, 6):
            known = dict.fromkeys(a for e in snapshot.endpoints.values() for a in e.addresses if a.version == version)
            addresses = [*known, *(a for a in map(ip_address, STRANGERS) if a.version == version)]
            egress, ingress = reachability(program, addresses, 6 << 16 | 80, 40_000)
            for i, source in enumerate(addresses):
                for j, destination in enumerate(addresses):
                    verdict = golden.judge(snapshot, Connection(source, destination, 6, 80, 40_000))
                    assert (egress[i, j], ingress[i, j]) == (verdict.egress.allowed, verdict.ingress.allowed), seed


def test_generated_snapshots_do_not_repeat():
    assert Generator(1).snapshot() == Generator(1).snapshot()
    assert Generator(1).snapshot() != Generator(2).snapshot()
    assert not Reading().problems
