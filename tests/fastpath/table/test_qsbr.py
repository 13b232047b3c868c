"""Reclamation: what is retired waits for readers, and for nothing else."""

from __future__ import annotations

import os
import threading
import time

import pytest
from tests.cy.probe_qsbr import Torture

from fastpath.table.qsbr import Reclaimer

READERS = 3


def torture(seconds: float, least: int, *, careless: bool = False) -> tuple[Torture, Reclaimer, list[tuple[int, int, int]]]:
    """Publish for a time, and `least` times at the least, while readers read."""
    reclaimer = Reclaimer(workers=READERS)
    subject = Torture(reclaimer, careless=careless)
    seen: list[tuple[int, int, int]] = []
    readers = [threading.Thread(target=lambda slot=slot: seen.append(subject.read(slot, slot == 0))) for slot in range(READERS)]
    for reader in readers:
        reader.start()
    published, until = 0, time.monotonic() + seconds
    while (time.monotonic() < until or published < least) and time.monotonic() < until + 60:
        published += subject.publish()
        time.sleep(0)
    subject.finish()
    for reader in readers:
        reader.join()
    assert published >= least
    return subject, reclaimer, seen


def test_no_reader_ever_sees_what_was_released():
    _, reclaimer, seen = torture(2, 1000)
    assert len(seen) == READERS
    assert all(bursts > 100 for bursts, _, _ in seen)
    assert [(bad, backwards) for _, bad, backwards in seen] == [(0, 0)] * READERS
    assert reclaimer.reclaim() == 0


def test_a_writer_who_does_not_wait_is_noticed():
    """The torture itself can fail."""
    _, _, seen = torture(2, 1000, careless=True)
    assert sum(bad for _, bad, _ in seen) > 0


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_no_reader_ever_sees_what_was_released_for_long():
    _, reclaimer, seen = torture(float(os.environ.get("SOAK_SECONDS", "600")), 1000)
    assert [(bad, backwards) for _, bad, backwards in seen] == [(0, 0)] * READERS
    assert reclaimer.reclaim() == 0


def test_synchronize_waits_for_readers_that_report():
    reclaimer = Reclaimer(workers=READERS)
    subject = Torture(reclaimer)
    reader = threading.Thread(target=lambda: subject.read(1, False))
    reader.start()
    subject.publish()
    reclaimer.synchronize()
    assert reclaimer.waiting == 0
    subject.finish()
    reader.join()


def test_synchronize_names_a_reader_that_does_not_report():
    reclaimer = Reclaimer()
    table = Torture(reclaimer)
    slot = reclaimer.claim()
    table.come_online(slot)
    with pytest.raises(TimeoutError, match=rf"readers \[{slot}\] did not report"):
        reclaimer.synchronize(timeout=0.05)
    reclaimer.release(slot)
    reclaimer.synchronize()
