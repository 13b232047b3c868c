"""The forwarding tables over a plane double."""

import pytest

from engine.apply.plane import Forwarding
from tests.engine.fakes import FakePlane


@pytest.fixture
def plane():
    return FakePlane()


@pytest.fixture
def forwarding(plane):
    return Forwarding(plane)
