"""The arithmetic of the benchmarks, and the order in which they measure."""

from __future__ import annotations

import pytest

from engine.lab.contest import Contender, Measurement, play, ratio, summarize
from engine.lab.contest.match import values
from engine.lab.contest.processor import Processor, read_ticks
from engine.lab.contest.statistics import quantile


def test_quantiles_lie_between_their_neighbours():
    assert quantile([1, 2, 3, 4, 5], 0.5) == 3
    assert quantile([1, 2, 3, 4], 0.5) == 2.5
    assert quantile([10, 20], 0.25) == 12.5
    assert quantile([7], 0.9) == 7
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)


def test_a_summary_is_in_order_and_keeps_outliers():
    found = summarize([3, 1, 100, 2, 4])
    assert (found.count, found.lowest, found.median, found.highest) == (5, 1, 3, 100)
    assert found.lowest <= found.lower_quartile <= found.median <= found.upper_quartile <= found.highest
    assert found.spread == found.upper_quartile - found.lower_quartile == 2


def test_a_ratio_is_taken_round_by_round():
    """What slowed both of a round leaves no trace: the medians alone would say 0.25."""
    assert ratio([8, 2, 4], [4, 1, 2]).median == 2
    assert ratio([8, 2, 4], [4, 1, 2]).spread == 0
    with pytest.raises(ValueError, match="not taken in turn"):
        ratio([1, 2], [1])


def contender(name):
    return Contender(name, name, None, None, {4: ["192.0.2.1"]})


def test_everybody_plays_every_round_and_the_order_turns():
    played = []

    def measure(one):
        played.append(one.name)
        return Measurement(len(played))

    samples = play([contender("a"), contender("b"), contender("c")], measure, pairs=3)
    assert "".join(played) == "abc" + "cba" + "abc"
    assert values(samples, "a") == [1, 6, 7]
    assert values(samples, "c") == [3, 4, 9]


def test_what_a_measurement_raises_ends_the_match():
    def measure(_):
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        play([contender("a")], measure, pairs=2)


def test_ticks_leave_guests_out():
    assert read_ticks("cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 0 0\n") == [1, 2, 3, 4, 5, 6, 7, 8]
    with pytest.raises(ValueError, match="not /proc/stat"):
        read_ticks("intr 1 2\n")


def test_work_is_counted_as_processor_time():
    with Processor() as processor:
        sum(i * i for i in range(2_000_000))
    assert processor.busy.elapsed > 0
    assert 0 <= processor.busy.interrupt <= processor.busy.seconds
