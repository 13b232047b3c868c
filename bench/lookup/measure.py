"""Timing that stands a noisy machine: many short calls, the median and the quartiles, contenders in turns.

Owns: the clock and the statistics.
Never: knows what is measured.
"""

from __future__ import annotations

import gc
import platform
import random
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np


def summary(took_ns: list[int] | np.ndarray, items: int = 1) -> dict[str, float]:
    """Median, quartiles and tail of calls that did `items` things each; M/s of the median and of the best decile."""
    p10, p25, p50, p75, p99, p999 = np.percentile(np.asarray(took_ns), [10, 25, 50, 75, 99, 99.9])
    return {"median_ns": float(p50), "iqr_ns": float(p75 - p25), "p99_ns": float(p99), "p999_ns": float(p999),
            "mega_per_s": items / p50 * 1e3, "mega_per_s_best_decile": items / p10 * 1e3}  # fmt: skip


def batches(call: Callable[[np.ndarray], object], keys: np.ndarray, size: int, passes: int = 2) -> list[int]:
    """Nanoseconds of each call with `size` of the keys."""
    clock = time.perf_counter_ns
    took = []
    parts = [keys[i : i + size] for i in range(0, len(keys) - size + 1, size)]
    for _ in range(passes):
        for part in parts:
            start = clock()
            call(part)
            took.append(clock() - start)
    return took


def in_turns(contenders: dict[str, Callable[[], list[int]]], rounds: int = 5) -> dict[str, list[int]]:
    """Let each contender measure itself once a round, so that all share the machine's moods.

    Their order changes by the round: what the one before leaves in the caches is not always the same one's lot.
    """
    took: dict[str, list[int]] = {name: [] for name in contenders}
    for turn in range(rounds):
        for name in random.Random(turn).sample(list(contenders), len(contenders)):
            took[name] += contenders[name]()
    return took


def each(call: Callable[..., object], arguments: list[tuple[object, ...]]) -> list[int]:
    """Nanoseconds of single calls, without garbage collection in between."""
    clock = time.perf_counter_ns
    took = []
    gc.disable()
    for some in arguments:
        start = clock()
        call(*some)
        took.append(clock() - start)
    gc.enable()
    return took


def loop_rate(call: Callable[[object], object], arguments: list[object], rounds: int = 5) -> float:
    """Million calls a second of a plain loop, the best of some."""
    best = []
    for _ in range(rounds):
        start = time.perf_counter()
        for argument in arguments:
            call(argument)
        best.append(len(arguments) / (time.perf_counter() - start) / 1e6)
    return max(best)


def machine() -> dict[str, object]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    flags = next((line for line in lines if line.startswith("flags")), "")
    revision = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return {"cpu": model, "avx512": "avx512f" in flags, "python": platform.python_version(), "numpy": np.__version__,
            "kernel": platform.release().split("-")[0], "revision": revision, "load": Path("/proc/loadavg").read_text().split()[0],
            "random_loads": {f"{mib} MiB": random_loads(mib) for mib in (1, 4, 16, 64)}}  # fmt: skip


def random_loads(mebibytes: int) -> float:
    """M/s of independent random 2-byte loads by numpy.take: what memory of that size allows here, right now."""
    table = np.ones(mebibytes << 19, np.uint16)
    places = np.random.default_rng(1).integers(0, len(table), 4096 * 64, dtype=np.int64)
    out = np.empty(4096, np.uint16)
    took = batches(lambda part: np.take(table, part, out=out, mode="clip"), places, 4096, 5)
    return 4096 / statistics.median(took) * 1e3


GAUGE_TABLE = np.ones(4096, np.uint16)
GAUGE_PLACES = np.random.default_rng(2).integers(0, 4096, 4096, dtype=np.int64)
GAUGE_OUT = np.empty(4096, np.uint16)


def gauge() -> float:
    """M/s of loads that never leave the first cache: what the core gives us just now."""
    took = []
    for _ in range(15):
        start = time.perf_counter_ns()
        np.take(GAUGE_TABLE, GAUGE_PLACES, out=GAUGE_OUT, mode="clip")
        took.append(time.perf_counter_ns() - start)
    return 4096 / statistics.median(took) * 1e3
