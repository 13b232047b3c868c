"""What failed is tried again, whatever happens while it is tried."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from engine.errors import TowpathError
from engine.vigil import RETRY_PAUSE, Vigil


class Loop:
    """Keeps the pauses that it is asked for, and calls nobody."""

    def __init__(self):
        self.pauses = []

    def after(self, seconds, callback):
        self.pauses.append(seconds)
        self.callback = callback
        return SimpleNamespace(cancel=lambda: None)


class Datapath:
    """Something of it failed and is overdue."""

    policy_is_due = True

    def __init__(self, *, overdue=1.0):
        self.repaired = 0
        self.fails_with = None
        self.reconciler = SimpleNamespace(retry_at=time.monotonic() - overdue)

    def repair(self):
        self.repaired += 1
        if self.fails_with is not None:
            raise self.fails_with


def vigil(loop, datapath, policy=lambda: None):
    return Vigil(loop, datapath, underlay=None, forwarding=None, residents=None, policy=policy)


@pytest.mark.parametrize(
    "error", [MemoryError("no room"), TowpathError("no room")], ids=lambda error: type(error).__name__
)
def test_a_policy_that_cannot_be_seen_to_keeps_nothing_else_from_its_next_try(error, caplog):
    def fail():
        raise error

    loop, datapath = Loop(), Datapath()
    made = vigil(loop, datapath, fail)
    made.arm_retry()
    loop.callback()
    assert datapath.repaired == 1
    assert "no room" in caplog.text
    assert len(loop.pauses) == 2


def test_a_repair_that_fails_is_not_the_last():
    loop, datapath = Loop(), Datapath()
    datapath.fails_with = MemoryError("no room")
    made = vigil(loop, datapath)
    made.arm_retry()
    assert loop.pauses == [0.0]
    for _ in range(3):
        with pytest.raises(MemoryError):
            loop.callback()
    assert len(loop.pauses) == 4
    assert all(RETRY_PAUSE / 2 < pause <= RETRY_PAUSE for pause in loop.pauses[1:]), "nor does it spin"


def test_what_is_due_later_waits_as_long_as_it_has_to():
    loop, datapath = Loop(), Datapath(overdue=-60.0)
    made = vigil(loop, datapath)
    made.arm_retry()
    loop.callback()
    assert all(RETRY_PAUSE < pause <= 60.0 for pause in loop.pauses)
