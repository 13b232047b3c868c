"""How long a daemon takes from its start to READY=1, and a command to its first word.

Needs root: each daemon runs in a namespace of its own, with its pods in theirs.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from engine.lab import Lab
from engine.lab.daemon import TOWPATH, Daemon

ROUNDS = 5
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="a daemon in a namespace needs root")


def node(lab: Lab, *, pods: int, peers: int) -> Daemon:
    """A configured daemon that nobody has started."""
    daemon = daemon_on_a_link(lab)
    daemon.configure(
        [
            ("node", {"name": "node", "underlay": ["192.0.2.1/24"], "prefixes": ["10.244.1.0/24"]}),
            *(("[peers]", peer(number)) for number in range(peers)),
            *(("[pods]", pod(lab, number)) for number in range(pods)),
        ]
    )
    return daemon


def daemon_on_a_link(lab: Lab) -> Daemon:
    """Of the host `node`, from which every `peer` can be reached; not configured."""
    host = lab.host("node").forward()
    link = lab.link(host, lab.host("other"))
    link.left.address("192.0.2.1/24")
    link.right.address("192.0.2.2/24")
    host.route("100.64.0.0/10", via="192.0.2.2")
    return Daemon(host)


def peer(number: int) -> dict[str, object]:
    return {
        "name": f"peer-{number}",
        "underlay": [f"100.64.{number >> 8}.{number & 255}"],
        "prefixes": [f"100.{80 + (number >> 8)}.{number & 255}.0/24"],
    }


def pod(lab: Lab, number: int) -> dict[str, object]:
    namespace = lab.pod(f"pod-{number}").namespace
    return {"name": f"pod-{number}", "namespace": namespace.path, "addresses": [f"10.244.1.{2 + number}"]}


@as_root
@pytest.mark.parametrize(("pods", "peers"), [(1, 1), (100, 1), (1, 1000)])
def test_daemon_start(benchmark: BenchmarkFixture, pods: int, peers: int) -> None:
    """From exec to READY=1, each but the first after a clean stop of the one before."""
    with Lab("bench") as lab:
        daemon = node(lab, pods=pods, peers=peers)
        benchmark.pedantic(lambda: daemon.start(seconds=60), setup=lambda: stop(daemon), rounds=ROUNDS, warmup_rounds=0)
        benchmark.extra_info |= {"pods": pods, "peers": peers}
        daemon.stop()


def stop(daemon: Daemon) -> None:
    """End the one of the round before, if there was one."""
    try:
        process = daemon.process
    except RuntimeError:
        return
    if process.running:
        daemon.stop()


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["config", "schema"]], ids=" ".join)
def test_command_start(benchmark: BenchmarkFixture, arguments: list[str]) -> None:
    argv = [sys.executable, *TOWPATH[1:], *arguments]
    benchmark.pedantic(lambda: subprocess.run(argv, check=True, capture_output=True), rounds=10, warmup_rounds=1)
