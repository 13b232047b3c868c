"""Medians and spread of few measurements, and of the ratio of two series taken in turn.

Owns: the arithmetic, no I/O.
Never: throws a value away: an outlier widens the spread, and that is the message.
Invariant: lowest <= lower quartile <= median <= upper quartile <= highest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Summary:
    """Of `count` values."""

    count: int
    median: float
    lowest: float
    highest: float
    lower_quartile: float
    upper_quartile: float

    @property
    def spread(self) -> float:
        """The interquartile range."""
        return self.upper_quartile - self.lower_quartile


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the sorted values lie, interpolated between neighbours."""
    if not ordered:
        raise ValueError("no values")
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def summarize(values: Sequence[float]) -> Summary:
    ordered = sorted(values)
    return Summary(
        len(ordered),
        quantile(ordered, 0.5),
        quantile(ordered, 0.0),
        quantile(ordered, 1.0),
        quantile(ordered, 0.25),
        quantile(ordered, 0.75),
    )


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Summary:
    """Ours / theirs, pair by pair: what disturbed both of a pair cancels out."""
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} values against {len(theirs)}: they were not taken in turn")
    return summarize([our / their for our, their in zip(ours, theirs, strict=True)])
