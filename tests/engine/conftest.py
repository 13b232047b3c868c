"""A loop whose time is the test's."""

from __future__ import annotations

import pytest

from engine.loop import Loop


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def loop(clock):
    loop = Loop(clock=clock)
    yield loop
    loop.close()
