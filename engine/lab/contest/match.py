"""Measuring contenders in turn, again and again, so that a ratio means something on a shared machine.

Owns: the order of play.
Never: drops a sample or repeats one that looks bad.
Invariant: every contender has exactly one sample a round, and the direction
of play turns every round, so that a drift favours nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from engine.lab.contest.field import Contender
from engine.lab.contest.processor import Busy, Processor


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a workload found: the figure it is judged by, the work done, and further figures."""

    value: float
    gigabits: float = 0.0  # moved meanwhile, warm-up included; 0 where that is not the point
    more: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sample:
    contender: str
    turn: int
    measurement: Measurement
    busy: Busy


def play(
    contenders: Sequence[Contender],
    measure: Callable[[Contender], Measurement],
    *,
    pairs: int,
    advance: Callable[[Sample], object] = lambda _: None,
) -> list[Sample]:
    """`pairs` rounds over all contenders. What `measure` raises ends the match."""
    samples = []
    for turn in range(pairs):
        for contender in contenders if turn % 2 == 0 else reversed(contenders):
            with Processor() as processor:
                measurement = measure(contender)
            samples.append(Sample(contender.name, turn, measurement, processor.busy))
            advance(samples[-1])
    return samples


def values(samples: Sequence[Sample], contender: str) -> list[float]:
    """A contender's figures, in the order of rounds."""
    return [s.measurement.value for s in sorted(samples, key=lambda s: s.turn) if s.contender == contender]
