"""Random packets of random conversations, one after the other: the data plane and its twin agree on each."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from fastpath.reference import TCP
from tests.fastpath.cluster import MemoryCluster
from tests.fastpath.conversations import Conversations
from tests.fastpath.policies import ALLOW_80, ISOLATED, snapshot_of

REASONS = {
    "policy_deny", "flow_invalid", "flow_bad_rst", "icmp_bad_quote", "fragment_unknown", "fragment_overlap",
}  # fmt: skip


def converse(seeds: Iterable[int], packets: int, **drawing: tuple[int, ...]) -> set[str]:
    reasons: set[str] = set()
    for seed in seeds:
        snapshot = snapshot_of([ALLOW_80] if seed % 2 else [ISOLATED])
        conversations = Conversations(MemoryCluster(snapshot), snapshot, random.Random(seed), **drawing)
        for number in range(packets):
            try:
                conversations.step()
            except AssertionError as error:
                raise AssertionError(f"seed {seed}, packet {number}: {error}") from error
        conversations.compare_states()
        reasons |= conversations.reasons
    return reasons


def test_plane_and_twin_agree() -> None:
    assert converse(range(60), 120) >= REASONS


def test_plane_and_twin_agree_about_icmp() -> None:
    assert converse(range(20), 120, weights=(0, 0, 1, 0, 0, 0, 0)) == {"policy_deny"}


@pytest.mark.slow
def test_plane_and_twin_agree_for_long() -> None:
    assert converse(range(1000, 2000), 300) >= REASONS


def test_the_policies_of_these_tests_differ() -> None:
    assert ALLOW_80.ingress and not ISOLATED.ingress and TCP == 6
