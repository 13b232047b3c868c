"""What several tests of the plugin stand on: a node without a process of its own, a container, a kernel that takes its time."""

from __future__ import annotations

import threading

import pytest

from engine.pod.departure import Departure
from tests.engine.cni.home import Home
from tests.engine.namespaces import namespaces


@pytest.fixture
def home(tmp_path):
    with Home(tmp_path) as made:
        yield made


@pytest.fixture
def sandbox():
    with namespaces(1) as (name,):
        yield name


@pytest.fixture
def slow_kernel(monkeypatch):
    """The first devices that go take until `finish` is set; `begun` tells that they are going."""
    slow = threading.Event(), threading.Event()
    delete = Departure.delete

    def wait_and_delete(departure):
        if threading.current_thread() is not threading.main_thread() and not slow[0].is_set():
            slow[0].set()
            assert slow[1].wait(5)
        delete(departure)

    monkeypatch.setattr(Departure, "delete", wait_and_delete)
    yield slow
    slow[1].set()
