"""A few scenes of the fuzzer of the whole path under policy, those among them that found something."""

from __future__ import annotations

import pytest

from tests.fuzz.fuzz_policed_path import AFTER, EXACT, one_scene

FOUND = [24, 1_795_702_180_608_158_237]  # ICMP errors that passed: about open flows to be judged again, about strangers


@pytest.mark.parametrize("seed", [*FOUND, *range(20)])
def test_nothing_else_comes_out_than_may(seed: int) -> None:
    assert one_scene(seed) == EXACT + AFTER
