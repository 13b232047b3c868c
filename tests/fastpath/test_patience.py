"""A worker that may look for work before it sleeps does so while it pays, and sleeps when nobody sends."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastpath.plane import Plane
from fastpath.port.memory import MemoryPort

SECONDS = 10.0


def worker_nanoseconds() -> int:
    """Processor time of the worker thread so far."""
    (thread,) = (each for each in threading.enumerate() if each.name == "towpath-worker-0")
    return int(Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text().split()[0])


@pytest.fixture(params=[0, 10_000])
def running(request: pytest.FixtureRequest) -> Iterator[tuple[Plane, MemoryPort, int]]:
    with Plane(busy_poll=request.param) as plane, MemoryPort("pod") as pod:
        plane.attach(pod)
        plane.start()
        yield plane, pod, request.param


def exchange(plane: Plane, pod: MemoryPort, n: int) -> None:
    """Have n packets refused, each as soon as the one before was."""
    deadline = time.monotonic() + SECONDS
    for _ in range(n):
        before = plane.counters().received
        pod.inject(b"\x45" + bytes(19))
        while plane.counters().received == before:
            assert time.monotonic() < deadline, "the worker did not wake up"
            os.sched_yield()


def test_looks_while_it_pays(running: tuple[Plane, MemoryPort, int]) -> None:
    plane, pod, limit = running
    deadline = time.monotonic() + SECONDS
    exchange(plane, pod, 100)
    while limit and not plane.counters().events.get("awake"):
        assert time.monotonic() < deadline, "never found anything by looking"
        exchange(plane, pod, 100)
    assert bool(limit) == bool(plane.counters().events.get("awake"))


def test_sleeps_when_idle(running: tuple[Plane, MemoryPort, int]) -> None:
    plane, pod, _ = running
    exchange(plane, pod, 100)
    deadline = time.monotonic() + SECONDS
    spent = -1
    while spent != worker_nanoseconds():
        assert time.monotonic() < deadline, "the worker never slept"
        spent = worker_nanoseconds()
        time.sleep(0.05)  # what an idle worker does not use


@pytest.mark.parametrize("busy_poll", [-1, 10_001])
def test_the_limit_is_bounded(busy_poll: int) -> None:
    with pytest.raises(ValueError, match="busy_poll must be"):
        Plane(busy_poll=busy_poll)
