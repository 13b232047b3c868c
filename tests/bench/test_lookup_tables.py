"""The synthetic routing tables have the shape of the real ones they stand for."""

from __future__ import annotations

import numpy as np
import pytest

from bench.lookup import tables, traffic
from fastpath.lpm import RouteTable


def histogram(table: tables.Table) -> dict[int, int]:
    lengths, counts = np.unique(table.lengths, return_counts=True)
    return dict(zip(lengths.tolist(), counts.tolist(), strict=True))


@pytest.mark.slow
def test_the_full_ipv4_table():
    table = tables.full_v4()
    figures = tables.statistics(table)
    assert histogram(table) == tables.V4_LENGTHS
    assert figures["nesting"] == pytest.approx(tables.V4_NESTING, abs=0.02)
    assert figures["heads"] == pytest.approx(tables.V4_HEADS, rel=0.05)
    assert figures["busy"] == pytest.approx(tables.V4_BUSY, rel=0.03)
    assert figures["long sites"] == pytest.approx(tables.V4_LONG_SITES, rel=0.15)


@pytest.mark.slow
def test_the_full_ipv6_table():
    table = tables.full_v6()
    figures = tables.statistics(table)
    assert histogram(table) == tables.V6_LENGTHS
    assert figures["longer than /64"] == 83
    assert figures["heads"] == pytest.approx(tables.V6_HEADS, rel=0.05)


SMALL = [lambda: tables.full_v4(scale=0.01), lambda: tables.full_v6(scale=0.01), tables.pods, tables.pods_v6, tables.nodes_v6]


@pytest.mark.parametrize("make", SMALL)
def test_small_tables_are_valid_and_reachable(make):
    table = make()
    routes = RouteTable()
    routes.load(table.addresses, table.lengths, table.hops)
    assert len(routes) == len(table)
    for name, pattern in traffic.PATTERNS.items():
        answers = routes.lookup(np.ascontiguousarray(pattern(table, np.random.default_rng(1))))
        if name in ("in-table", "repeated", "zipf", "deepest"):
            assert answers.all(), name


def test_the_same_seed_gives_the_same_table():
    one, again = tables.full_v6(scale=0.01), tables.full_v6(scale=0.01)
    assert np.array_equal(one.addresses, again.addresses)
    assert np.array_equal(one.hops, again.hops)


def test_next_hops_have_locality_when_asked():
    rng = np.random.default_rng(1)
    alike = np.mean(np.diff(tables.hops_by_origin(100_000, rng)) == 0)
    assert alike > 0.5 > np.mean(np.diff(tables.hops_at_random(100_000, rng)) == 0)
