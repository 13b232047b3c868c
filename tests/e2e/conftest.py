"""Clusters of real daemons for the end-to-end tests, and what must hold of them whatever was done.

Owns: starting, judging and ending them, and showing the logs of a failed test.
Never: lets a test pass whose daemons lost count of packets or complained of errors.
Invariant: packets received and created are packets sent and dropped, at the end of every test.
"""

from __future__ import annotations

import contextlib

import pytest

from engine.control.client import Client
from engine.lab import Lab, wait_until
from engine.lab.cluster import Cluster, Plan
from engine.views import Counters


def pytest_collection_modifyitems(items):
    for item in items:
        if "/tests/e2e/" in str(item.path):
            item.add_marker(pytest.mark.root)


def balance(daemon):
    """Packets that are neither sent nor dropped."""
    with Client(daemon.control) as client:
        counters = client.ask("counters", Counters)
    return counters.received + counters.created - counters.sent - counters.dropped


def assert_balanced(daemon):
    wait_until(lambda: balance(daemon) == 0, f"{daemon.host.name} to account for every packet", seconds=3)


@contextlib.contextmanager
def told_apart(daemons):
    """Show what the daemons said when the block fails; check their books when it does not."""
    try:
        yield
        for daemon in daemons:
            if daemon.process.running:
                assert_balanced(daemon)
    except BaseException:
        for daemon in daemons:
            with contextlib.suppress(RuntimeError, OSError):
                print(f"--- {daemon.host.name}\n{daemon.process.output()}")
        raise


@contextlib.contextmanager
def running_cluster(**plan):
    with Lab("test") as lab:
        cluster = Cluster(lab, Plan(**plan))
        with told_apart([node.daemon for node in cluster.nodes]):
            yield cluster.start()


@pytest.fixture
def lab():
    with Lab("test") as lab:
        yield lab
