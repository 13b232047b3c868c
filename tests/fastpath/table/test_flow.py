"""The flow table: room, eviction, the spread of hashes, threads."""

from __future__ import annotations

import random
import threading

import pytest
from tests.cy.probe_flow import FlowProbe

from fastpath.table.flow import FlowTable
from fastpath.values import FLOW_EVENTS, FLOW_STATES, FLOW_TIMEOUTS, FlowSettings


def probe(capacity: int, workers: int = 1, **more: object) -> FlowProbe:
    return FlowProbe(FlowTable(FlowSettings(capacity=capacity, **{"quota": 1 << 24, **more}), workers=workers))


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("workers", [1, 4])
def test_what_is_put_in_is_found(family: int, workers: int) -> None:
    p = probe(8192, workers)
    assert p.fill(0, 4096, family) == (0, 0)
    assert (p.present(0, 4096, family), p.present(4096, 4096, family)) == (4096, 0)
    assert len(p.table) == 4096
    assert p.lookups(10_000, 4096, family) > 0


def test_two_choices_fill_a_table_far() -> None:
    p = probe(65_536)
    full, _ = p.fill(0, 65_536)
    assert 65_536 - full > 0.90 * 65_536
    assert p.counts["evicted"] == 0, "established flows do not go"


def test_established_flows_survive_any_number_of_new_ones() -> None:
    p = probe(4096)
    p.fill(0, 1024)
    full, _ = p.fill(1 << 20, 100_000, 4, False)
    assert p.present(0, 1024) == 1024
    assert len(p.table) <= p.table.capacity == 4096
    assert p.counts["evicted"] == p.counts["opened"] - len(p.table)
    assert full < 1000


@pytest.mark.slow
def test_ten_million_new_tuples_touch_no_established_flow() -> None:
    p = probe(262_144)
    p.fill(0, 50_000)
    p.fill(1 << 30, 10_000_000, 4, False)
    assert p.present(0, 50_000) == 50_000


def test_three_quarters_fit_whatever_the_key() -> None:
    table = FlowTable(FlowSettings(capacity=4096, quota=1 << 24), hash_key=bytes(8))
    full, _ = FlowProbe(table).fill(0, 3000)
    other, _ = FlowProbe(FlowTable(FlowSettings(capacity=4096, quota=1 << 24))).fill(0, 3000)
    assert max(full, other) <= 6, "one in 10,000 is to be expected"


def test_nobody_without_the_key_can_aim_at_a_bucket() -> None:
    """Flows chosen to meet in two buckets under a known key spread like any others under a random one."""
    settings = FlowSettings(capacity=1024, quota=1 << 24)
    known = FlowProbe(FlowTable(settings, hash_key=bytes(16)))
    chosen = known.crowd(0, 1_000_000, 7)
    assert 40 < len(chosen) < 100
    assert sum(known.fill(number, 1)[0] for number in chosen) == len(chosen) - 16, "two buckets are full"
    for _ in range(5):
        other = FlowProbe(FlowTable(settings))
        assert sum(other.fill(number, 1)[0] for number in chosen) == 0
        assert all(other.present(number, 1) for number in chosen)


def test_a_slot_that_was_given_up_is_nobodys() -> None:
    """Workers remember slots: what stood in one must not be taken for what is asked."""
    p = probe(64)
    p.fill(0, 32)
    assert not any(p.finds_released(number) for number in range(32))
    assert len(p.table) == 0


def test_a_wrong_guess_is_no_place_to_look() -> None:
    """The stripe that is locked then is the flow's own, and what was guessed may be in another."""
    p = FlowProbe(FlowTable(FlowSettings(capacity=512, quota=1 << 24), workers=2))
    p.fill(0, 40)
    assert all(p.holds_elsewhere(number, number) for number in range(40))
    assert not any(p.holds_elsewhere(number, (number + 1) % 40) for number in range(40))


def test_threads_share_a_table() -> None:
    """Four workers open, touch and release the same flows, while flows are listed and forgotten."""
    table = FlowTable(FlowSettings(capacity=512, quota=1 << 24), workers=4)
    probes = [FlowProbe(table) for _ in range(4)]
    threads = [threading.Thread(target=p.churn, args=(0, 700, 40)) for p in probes]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        rows, _ = table.listing(0, 1000)
        assert len(rows) <= table.capacity
        table.export()
    for thread in threads:
        thread.join()
    counted = [p.counts for p in probes]
    assert sum(c["opened"] for c in counted) > 700
    rows, cursor = table.listing(0, 10_000)
    assert cursor is None and len(rows) == len(table)
    keys = {(bytes(r["source"]), bytes(r["destination"]), r["source_port"], r["destination_port"]) for r in rows}
    assert len(keys) == len(rows), "no flow stands twice"


def test_flows_are_listed_page_by_page() -> None:
    p = probe(4096)
    p.fill(0, 2000)
    p.fill(0, 500, 6)
    cursor, found, pages = 0, 0, 0
    while cursor is not None:
        rows, cursor = p.table.listing(cursor, 100)
        assert len(rows) <= 107
        found, pages = found + len(rows), pages + 1
    assert (found, pages > 20) == (2500, True)


def test_an_import_cannot_lead_outside_of_the_table() -> None:
    p = probe(256)
    p.fill(0, 100)
    whole = p.table.export()
    draw = random.Random(5)
    for _ in range(300):
        spoilt = bytearray(whole)
        for _ in range(8):
            spoilt[draw.randrange(28, len(spoilt))] = draw.randrange(256)
        target = FlowTable(FlowSettings(capacity=64))
        assert target.load(bytes(spoilt)) <= 100
        rows, _ = target.listing(0, 1000)
        assert all(state < len(FLOW_STATES) for state in rows["state"])


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"timeouts": {"tcp": 1}}, "no timeout is called 'tcp'"),
        ({"timeouts": {"udp": 0}}, "timeout udp"),
        ({"quota": 0}, "quota"),
        ({"events": frozenset({"x"})}, "no flow event"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        FlowSettings(**wrong)
    with pytest.raises(ValueError, match="capacity"):
        FlowTable(FlowSettings(capacity=1))


def test_names_follow_the_records() -> None:
    assert FLOW_STATES[0] == "tcp_syn_sent" and FLOW_STATES[16] == "generic" and len(FLOW_TIMEOUTS) == 18
    assert sorted(FLOW_EVENTS.values()) == [1, 2, 4, 8]
