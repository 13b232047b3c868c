"""Waiting for a state with a deadline, instead of sleeping and hoping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


class DeadlineError(TimeoutError):
    """A state that was waited for did not come about in time."""


def wait_until(condition: Callable[[], Result], what: str, *, seconds: float = 5.0, interval: float = 0.01) -> Result:
    """The first true value of `condition()`. DeadlineError naming `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise DeadlineError(f"waited {seconds:g} s in vain: {what}")
        time.sleep(interval)
