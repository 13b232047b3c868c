"""The plugin killed at every system call, and the daemon in the middle of a call."""

from __future__ import annotations

import json
import os
import re
import signal
import time

import pytest

from tests.engine.cni.runtime import finished
from tests.engine.namespaces import device, path_of, wait_for

pytestmark = [pytest.mark.root, pytest.mark.needs("ip")]


KILLED_BY_DEFAULT = 12  # of some thirty calls; all of them in the slow form


@pytest.mark.needs("strace")
@pytest.mark.parametrize(
    "verb", [pytest.param("ADD"), pytest.param("DEL"), pytest.param("ADD-all", marks=pytest.mark.slow)]
)
def test_killed_at_every_system_call(runtime, sandbox, tmp_path, verb):
    whole = verb.endswith("-all")
    verb = verb.removesuffix("-all")
    if verb == "DEL":
        assert runtime.add("c1", sandbox).status == 0
    calls = traced(runtime, sandbox, verb, tmp_path)
    if verb == "ADD":
        assert runtime.delete("c1", sandbox).status == 0
    assert {"connect", "write" if verb == "ADD" else "exit_group"} <= {name for name, _ in calls}
    chosen = calls if whole else calls[-KILLED_BY_DEFAULT:]
    for name, number in chosen:
        if verb == "DEL" and runtime.add("c1", sandbox).code not in (0, 101):
            pytest.fail("cannot add what is to be deleted")
        killed = injected(runtime, sandbox, verb, f"--inject={name}:signal=SIGKILL:when={number}")
        assert killed.status in (-signal.SIGKILL, 137), (name, number)
        if verb == "ADD" and name != "exit_group":
            wait_for(lambda: device(sandbox) is None)
        assert runtime.delete("c1", sandbox).status == 0
        assert device(sandbox) is None
        again = runtime.add("c1", sandbox)
        assert again.status == 0, again.output
        assert runtime.delete("c1", sandbox).status == 0


def traced(runtime, sandbox, verb, folder):
    """(system call, the how many-eth of its name) of a whole run, in order."""
    log = folder / "trace"
    assert injected(runtime, sandbox, verb, f"--output={log}").status == 0
    counts = {}
    found = []
    for line in log.read_text().splitlines():
        match = re.match(r"(\w+)\(", line)
        if match and match[1] != "execve":
            counts[match[1]] = counts.get(match[1], 0) + 1
            found.append((match[1], counts[match[1]]))
    return found


def injected(runtime, sandbox, verb, option):
    variables = {"CNI_COMMAND": verb, "CNI_CONTAINERID": "c1", "CNI_NETNS": path_of(sandbox), "CNI_IFNAME": "eth0"}
    text = json.dumps(runtime.configuration()).encode()
    tracer = ["strace", "--quiet=all", option] if "output" in option else ["strace", "--quiet=all", "-o", "/dev/null", option]
    return finished(runtime.start_raw({"PATH": os.environ["PATH"], **variables}, text, prefix=tracer))


def test_killed_at_varying_moments(runtime, sandbox):
    for step in range(15):
        process = runtime.start("ADD", "c1", sandbox, "eth0")
        time.sleep(step * 0.001)  # a moment, not a wait
        process.kill()
        process.communicate()
        assert runtime.delete("c1", sandbox).status == 0
        assert device(sandbox) is None


# -- the daemon dies ---------------------------------------------------------------
def test_a_daemon_that_dies_in_the_middle(runtime, sandbox, node):
    """Whatever was acknowledged stays, whatever was not can be deleted and added again."""
    assert runtime.add("kept", node.pod_namespaces[1]).status == 0
    for step in range(2):
        process = runtime.start("ADD", "c1", sandbox, "eth0")
        time.sleep(0.004)  # a moment, not a wait
        node.stop(signal.SIGKILL)
        said = finished(process)
        assert said.code in (0, 11), said.output
        if step % 2:
            assert runtime.delete("c1", sandbox).status == 0, "remembered"
            node.start()
            wait_for(lambda: device(sandbox) is None)
        else:
            node.start()
            assert runtime.delete("c1", sandbox).status == 0
            assert device(sandbox) is None
    assert device(node.pod_namespaces[1]) is not None
    assert len(node.pods()) == 1


def test_a_deletion_remembered_does_not_hit_what_came_after_it(runtime, sandbox, node):
    assert runtime.add("c1", sandbox).status == 0
    node.stop()
    assert runtime.delete("c1", sandbox).status == 0
    saved = [(path, path.read_bytes()) for path in runtime.spool.iterdir()]
    assert len(saved) == 1
    node.start()
    wait_for(lambda: device(sandbox) is None)
    for path, data in saved:  # as if it had been written while the daemon began to listen
        path.write_bytes(data)
    assert runtime.add("c1", sandbox).status == 0
    assert not saved[0][0].exists()
    assert device(sandbox) is not None
