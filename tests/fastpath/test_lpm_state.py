"""The route table under any sequence of operations, wrong ones among them, as hypothesis invents them.

Each machine runs in a process of its own: a crash of the extension is a failing
test with hypothesis' example on stderr, not the end of the suite.
"""

from __future__ import annotations

import faulthandler
import os
import subprocess
import sys
from ipaddress import ip_network
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from fastpath.lpm import RouteTable
from tests.fastpath.table.linear import BITS, Linear, as_array, edge_addresses, mask

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = {"quick": 15, "long": 2000}


def prefixes(version: int) -> strategies.SearchStrategy[tuple[int, int]]:
    """Prefixes that nest: few distinct leading bits, any length."""
    bits = BITS[version]
    heads = strategies.sampled_from([0, 10, 0x20, 0x7F, 0xFF]).map(lambda head: head << (bits - 8))
    tails = strategies.one_of(strategies.integers(0, 255), strategies.integers(0, 2 ** (bits - 8) - 1))
    lengths = strategies.one_of(strategies.integers(0, bits), strategies.sampled_from([0, 8, 9, 16, 24, 32, bits]))
    return strategies.tuples(heads, tails, lengths).map(lambda p: ((p[0] | p[1]) & mask(bits, p[2]), p[2]))


class TableMachine(RuleBasedStateMachine):
    version = 4

    def __init__(self) -> None:
        super().__init__()
        self.table, self.twin = RouteTable(), Linear(self.version)
        self.views: list[tuple[object, dict]] = []

    def text(self, prefix: tuple[int, int]) -> str:
        return str(ip_network((prefix[0], prefix[1])) if self.version == 4 or prefix[0] >= 2**32 else
                   ip_network((prefix[0].to_bytes(16, "big"), prefix[1])))

    def numbers(self, routes: dict) -> np.ndarray:
        known = Linear(self.version, routes)
        return known.find_many(self.questions(routes))

    def questions(self, routes: dict) -> np.ndarray:
        return as_array(self.version, [*edge_addresses(list(routes), BITS[self.version]), 0])

    @rule(data=strategies.data(), value=strategies.integers(1, 100_000))
    def insert(self, data, value):
        prefix = data.draw(prefixes(self.version))
        self.table[self.text(prefix)] = value
        self.twin.routes[prefix] = value

    @rule(data=strategies.data(), values=strategies.lists(strategies.integers(1, 50), max_size=20))
    def update(self, data, values):
        routes = {data.draw(prefixes(self.version)): value for value in values}
        self.table.update((self.text(prefix), value) for prefix, value in routes.items())
        self.twin.routes.update(routes)

    @rule(data=strategies.data())
    def withdraw(self, data):
        prefix = data.draw(strategies.sampled_from(sorted(self.twin.routes)) if self.twin.routes else prefixes(self.version))
        if prefix in self.twin.routes:
            assert self.table.pop(self.text(prefix)) == self.twin.routes.pop(prefix)
        else:
            with pytest.raises(KeyError):
                del self.table[self.text(prefix)]

    @rule(data=strategies.data())
    def refused(self, data):
        start, length = data.draw(prefixes(self.version))
        if length < BITS[self.version]:
            with pytest.raises(ValueError, match="bits set"):
                self.table[(start | 1).to_bytes(BITS[self.version] // 8, "big"), length] = 1
        with pytest.raises((TypeError, ValueError)):
            self.table.update([(self.text((start, length)), 1), (None, 1)])
        with pytest.raises(ValueError, match="is not 0"):
            self.table[start.to_bytes(BITS[self.version] // 8, "big"), 129] = 1

    @rule()
    def clear(self):
        self.table.clear()
        self.twin.routes.clear()

    @rule()
    def open_view(self):
        if len(self.views) < 4:
            self.views.append((self.table.snapshot(), dict(self.twin.routes)))

    @rule()
    def close_view(self):
        if self.views:
            self.views.pop(0)[0].close()

    @invariant()
    def lookups_agree(self):
        questions = self.questions(self.twin.routes)
        found = [value or 0 for value in self.table.resolve(self.table.lookup(questions))]
        assert found == self.numbers(self.twin.routes).tolist()

    @invariant()
    def routes_agree(self):
        assert [(k, v) for k, v in self.table.items()] == [(self.text(p), v) for p, v in sorted(self.twin.routes.items())]

    @invariant()
    def views_are_untouched(self):
        for view, routes in self.views:
            found = [value or 0 for value in view.resolve(view.lookup(self.questions(routes)))]
            assert found == self.numbers(routes).tolist()

    def teardown(self):
        for view, _ in self.views:
            view.close()
        self.table.clear()
        assert self.table.reclaim() == 0
        assert self.table.memory == {"routes": 0, "ipv4": 262176, "ipv6": 262176}


class Table6Machine(TableMachine):
    version = 6


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("length", ["quick", pytest.param("long", marks=[pytest.mark.slow, pytest.mark.timeout(0)])])
def test_any_sequence_of_operations(version, length):
    done = subprocess.run(
        [sys.executable, "-m", "tests.fastpath.test_lpm_state", str(version), length],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    assert "machine ran" in done.stdout


if __name__ == "__main__":
    faulthandler.enable()
    quiet = settings(max_examples=EXAMPLES[sys.argv[2]], stateful_step_count=30, deadline=None, database=None, print_blob=True,
                     suppress_health_check=list(HealthCheck))
    run_state_machine_as_test({"4": TableMachine, "6": Table6Machine}[sys.argv[1]], settings=quiet)
    print("machine ran")
