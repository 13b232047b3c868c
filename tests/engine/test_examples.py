"""The examples run, and say what they promise; and the library's face is what it says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import engine
from engine import ConfigError, KernelError, Node
from tests.engine.fakes import FakeKernel, FakePlane, small_config

ROOT = Path(__file__).parents[2]


def run(name, *prefix):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [*prefix, sys.executable, str(ROOT / "examples" / name)], env=environment, capture_output=True, text=True
    )


def test_forward_bytes():
    done = run("forward_bytes.py")
    assert done.returncode == 0, done.stderr
    assert "pod B got:   'packet 2', TTL 62" in done.stdout
    assert "{'guard_pod_source': 1}" in done.stdout


def test_embed_node():
    done = run("embed_node.py")
    assert done.returncode == 0, done.stderr
    assert "10.2.0.7 goes to other at 127.0.0.2" in done.stdout
    assert "2 changes" in done.stdout


def test_the_face_is_complete_and_lazy():
    assert set(engine.__all__) <= set(dir(engine))
    for name in engine.__all__:
        assert getattr(engine, name).__name__ == name
    with pytest.raises(AttributeError):
        engine.nothing  # noqa: B018
    code = "import sys, engine; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"msgspec", "pyroute2", "engine.node"} & set(done.stdout.split())


@pytest.fixture
def config(tmp_path):
    return small_config(tmp_path, '[[peers]]\nname = "b"\nunderlay = ["127.0.0.2"]\nprefixes = ["10.2.0.0/24"]\n')


def test_a_node_runs_on_doubles(config):
    kernel, plane = FakeKernel(), FakePlane()
    with Node(config, openers=kernel.openers, plane=plane) as node:
        assert plane.running
        status = node.status()
        assert (status.node, status.routes, status.problems) == ("a", 2, [])
        assert node.peers().peers[0].sent_packets == 2
        assert node.pods().pods == []
        assert node.drops().drops[0].reason == "no_route"
        assert node.drops().drops[0].meaning
        assert node.counters().dropped == 1
        assert node.health().ready
        assert node.reload(config).changed == 0
        assert node.routes("10.2.0.0/16").total == 1
        with pytest.raises(ConfigError, match="no IP address"):
            node.route_get("x")
        with pytest.raises(ConfigError):
            node.routes("x")
    assert not plane.running
    assert not any(port.is_open for port in kernel.opened.values())


def test_a_failed_start_leaves_nothing(config, tmp_path):
    kernel, plane = FakeKernel(), FakePlane()
    kernel.refuse["vxlan/127.0.0.1:4789"] = PermissionError(1, "no")
    node = Node(config, openers=kernel.openers, plane=plane)
    with pytest.raises(KernelError, match="not permitted"):
        node.start()
    assert plane.ports == {}
    with Node(config, openers=FakeKernel().openers, plane=FakePlane()):
        pass  # the lock was let go


def test_keep_going_tries_again(config):
    kernel = FakeKernel()
    kernel.refuse["vxlan/127.0.0.1:4789"] = PermissionError(1, "no")
    with Node(config, openers=kernel.openers, plane=FakePlane(), keep_going=True) as node:
        assert "not permitted" in node.problems()[0].what
        assert node.routes("10.2.0.0/24").routes[0].state == "unreachable"
        kernel.refuse.clear()
        assert node.reload(config).problems == []
        assert node.routes("10.2.0.0/24").routes[0].state == "active"
