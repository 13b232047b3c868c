"""Contenders on one underlay, measured in turn: what `towpath bench` and bench/e2e stand on.

with Lab("bench") as lab:
    field = Field(lab, "a", Profile.DEFAULT)
    contenders = [field.kernel_vxlan(), field.towpath()]
    samples = play(contenders, measure, pairs=10)
"""

from engine.lab.contest.field import Contender, Field
from engine.lab.contest.match import Measurement, Sample, play
from engine.lab.contest.processor import Busy, Processor
from engine.lab.contest.statistics import Summary, ratio, summarize

__all__ = [
    "Busy",
    "Contender",
    "Field",
    "Measurement",
    "Processor",
    "Sample",
    "Summary",
    "play",
    "ratio",
    "summarize",
]
