"""Where threads run, as the kernel says it."""

import os
import threading

import pytest

from engine.lab import wait_until
from engine.observe.placement import in_ranges, placement


@pytest.mark.parametrize(
    ("numbers", "text"),
    [((), ""), ((3,), "3"), ((0, 1), "0-1"), ((5, 0, 2, 1), "0-2,5"), ((0, 2, 4), "0,2,4"), (range(64), "0-63")],
)
def test_sets_of_cpus_are_written_as_the_kernel_does(numbers, text):
    assert in_ranges(numbers) == text


def test_a_thread_is_on_one_of_the_cpus_it_may_use_and_a_pinned_one_on_its_own():
    cpu = min(os.sched_getaffinity(0))
    ready, end = threading.Event(), threading.Event()

    def pinned():
        os.sched_setaffinity(0, {cpu})
        ready.set()
        end.wait()

    thread = threading.Thread(target=pinned)
    thread.start()
    try:
        assert ready.wait(5)
        mine, other = placement([threading.get_native_id(), thread.native_id])
    finally:
        end.set()
        thread.join()
    assert mine.cpu in os.sched_getaffinity(0)
    assert mine.allowed == in_ranges(os.sched_getaffinity(0))
    assert (other.cpu, other.allowed) == (cpu, str(cpu))


def test_a_thread_that_ended_is_left_out():
    thread = threading.Thread(target=int)
    thread.start()
    number = thread.native_id
    thread.join()
    wait_until(lambda: not os.path.exists(f"/proc/self/task/{number}"), "the kernel's half of the thread to end, too")
    assert placement([number]) == []
