"""A pod whose device the kernel does not delete: cut off by its daemon, and by every one that comes after it."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from engine.views import IpamCheck
from tests.engine.cni.runtime import runtime_of
from tests.engine.namespaces import device, wait_for
from tests.engine.nodes import two_nodes

SLOW = pytest.mark.slow
pytestmark = [pytest.mark.root, pytest.mark.needs("ip", "ping")]

STUBBORN_KERNEL = """
import os
from engine.pod import departure
from fastpath.port.tun import TunPort

def unless_busy(delete):
    def attempt(*arguments):
        if os.path.exists({flag!r}):
            raise OSError(16, "Device or resource busy")
        delete(*arguments)
    return attempt

TunPort.delete, departure.delete = unless_busy(TunPort.delete), unless_busy(departure.delete)

from engine import daemon

daemon.COLLECT_PAUSE = 0.5
"""


@pytest.fixture
def node(tmp_path):
    """Its daemons delete no device while there is a file `busy`."""
    with two_nodes(tmp_path) as (node, _):
        node.busy = tmp_path / "busy"
        (tmp_path / "sitecustomize.py").write_text(STUBBORN_KERNEL.format(flag=str(node.busy)))
        node.environment = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
        node.write(pods=1, peers=False)
        yield node.start(environment=node.environment)


def kill(node):
    node.stop(signal.SIGKILL)
    node.start(environment=node.environment)


def restart(node):
    node.stop()
    node.start(environment=node.environment)


def take_over(node):
    before = node.process
    node.start("--takeover", wait=False, environment=node.environment)
    assert before.wait(30) == 0
    wait_for(node.is_ready, 30)


@pytest.mark.parametrize("follow", [kill, pytest.param(restart, marks=SLOW), pytest.param(take_over, marks=SLOW)])
def test_who_was_to_go_stays_out_until_it_is_gone(node, follow):
    runtime, sandbox = runtime_of(node), node.pod_namespaces[1]
    assert node.ping(0, runtime.add("c1", sandbox).addresses()[0])
    node.busy.touch()
    assert runtime.delete("c1", sandbox).code == 100
    follow(node)
    assert list(node.pods()) == ["a0"]
    assert device(sandbox) is not None
    wait_for(lambda: [problem for problem in node.status().problems if "busy" in problem.what])
    assert node.ask("ipam_check", IpamCheck).leaks == [], "nobody else gets its address"
    node.busy.unlink()
    wait_for(lambda: device(sandbox) is None and not node.status().problems, 20)
    assert runtime.add("c1", sandbox).status == 0
    assert runtime.delete("c1", sandbox).status == 0
