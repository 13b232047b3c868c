"""How busy the processors were, all work counted: programs, the kernel, interrupts and softirq.

Owns: two readings of /proc/stat, one at each end of a `with`.
Never: asks one process: what the kernel does for a packet belongs to none.
Invariant: `Busy.seconds` is processor time of the whole machine, other
people's work included; `load` tells how much of that there was to be feared.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

_STAT = Path("/proc/stat")
_IDLE = (3, 4)  # idle, iowait
_INTERRUPT = (5, 6)  # irq, softirq
_GUEST = 8  # the rest repeats what `user` has


@dataclass(frozen=True, slots=True)
class Busy:
    elapsed: float  # seconds
    seconds: float  # processor seconds not idle, over all processors
    interrupt: float  # of these, in interrupts and softirq
    load: float  # the load average of the minute before: above zero, others were at work


class Processor:
    """with Processor() as processor: ...; processor.busy"""

    def __init__(self) -> None:
        self.busy = Busy(0, 0, 0, 0)

    def __enter__(self) -> Self:
        self._load = os.getloadavg()[0]
        self._began, self._before = time.perf_counter(), read_ticks(_STAT.read_text())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        elapsed = time.perf_counter() - self._began
        spent = [after - before for before, after in zip(self._before, read_ticks(_STAT.read_text()), strict=True)]
        tick = os.sysconf("SC_CLK_TCK")
        busy = sum(value for index, value in enumerate(spent) if index not in _IDLE)
        self.busy = Busy(elapsed, busy / tick, sum(spent[index] for index in _INTERRUPT) / tick, self._load)


def read_ticks(text: str) -> list[int]:
    """The first line of /proc/stat: ticks by kind, guests left out."""
    name, *values = text.partition("\n")[0].split()
    if name != "cpu":
        raise ValueError(f"not /proc/stat: {text[:40]!r}")
    return [int(value) for value in values[:_GUEST]]


def process_seconds(pid: int) -> float:
    """Processor time of a process, all threads, to the nanosecond."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
