"""Where threads run: the CPU each was seen on, and those it may use.

Owns: reading it from /proc and the scheduler.
Never: moves a thread.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from engine import views

_PROCESSOR = 36  # of the fields of /proc/<pid>/stat behind the name, which may hold anything


def placement(threads: Iterable[int]) -> list[views.WorkerStatus]:
    """Of this process's threads, by their native numbers; one that has ended is left out."""
    found = []
    for thread in threads:
        try:
            text = Path(f"/proc/self/task/{thread}/stat").read_text()
            allowed = os.sched_getaffinity(thread)
        except OSError:
            continue
        found.append(views.WorkerStatus(int(text.rpartition(")")[2].split()[_PROCESSOR]), in_ranges(allowed)))
    return found


def in_ranges(numbers: Iterable[int]) -> str:
    """0, 1, 2, 5 -> "0-2,5", as the kernel writes sets of CPUs."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)
