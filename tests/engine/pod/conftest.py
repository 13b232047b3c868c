"""Namespaces, and datapaths that end with the test."""

import pytest

from tests.engine.datapaths import datapaths
from tests.engine.namespaces import namespaces


@pytest.fixture
def names():
    with namespaces(3) as made:
        yield made


@pytest.fixture
def start(tmp_path):
    with datapaths(tmp_path) as start:
        yield start
