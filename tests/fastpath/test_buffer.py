"""The arena: where blocks lie, and what happens at its end."""

from __future__ import annotations

import pytest

from tests.cy import probe_buffer

HEADROOM = probe_buffer.HEADROOM


def test_each_block_has_its_headroom_and_starts_aligned():
    first, second = probe_buffer.rooms(4096, [1, 100])
    assert first == HEADROOM
    assert second == HEADROOM + 64 + HEADROOM
    assert (second - HEADROOM) % 64 == 0


@pytest.mark.parametrize("short_by", [0, 1])
def test_a_block_fits_exactly_or_not_at_all(short_by):
    assert probe_buffer.rooms(HEADROOM + 512 - short_by, [512]) == [None if short_by else HEADROOM]


def test_a_block_that_does_not_fit_leaves_the_arena_as_it_was():
    assert probe_buffer.rooms(2 * HEADROOM, [HEADROOM + 1, HEADROOM]) == [None, HEADROOM]


def test_a_need_near_the_top_of_32_bits_does_not_wrap():
    assert probe_buffer.rooms(4096, [2**32 - 64]) == [None]
