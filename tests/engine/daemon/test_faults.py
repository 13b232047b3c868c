"""What goes wrong around a daemon: devices taken from under it, no descriptors, no disk, no processor for a while.

It stays alive, says what is wrong, touches nothing of others, and is right again soon after the cause is gone.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.engine.daemon.test_idle import AT_ONCE, is_right
from tests.engine.namespaces import device, ip, routes, wait_for
from tests.engine.nodes import Talk, started, towpath, two_nodes

pytestmark = [pytest.mark.root, pytest.mark.needs("ip", "ping")]


@pytest.fixture
def nodes(tmp_path):
    with two_nodes(tmp_path) as made:
        yield made


# -- devices -------------------------------------------------------------------
POD_FAULTS = [
    "link set eth0 down",
    "link del eth0",
    "link set eth0 mtu 1300",
    "addr flush dev eth0",
    "addr add 10.99.0.1/32 dev eth0",
    "link set eth0 down name eth7",
    "route flush dev eth0",
    "link set eth0 alias somebody",
]
HOST_FAULTS = [
    "link set towpath0 down",
    "link del towpath0",
    "link set towpath0 mtu 1300",
    "addr flush dev towpath0",
    "link set towpath0 down name other0",
    "route flush proto 116",
    "route del 10.2.0.0/24",
    "link set under mtu 1400",
    "link set under mtu 1500",
]
FOREIGN = ("198.51.100.0/24", "192.0.2.9")


def host_is_right(node):
    found = device(node.host, "towpath0")
    return (
        found is not None
        and "UP" in found["flags"]
        and found["mtu"] == 1450
        and {("10.1.0.0/24", "towpath0"), ("10.2.0.0/24", "towpath0")} <= set(routes(node.host, "proto", "116"))
    )


@pytest.mark.parametrize("seconds", [3, pytest.param(60, marks=[pytest.mark.slow, pytest.mark.timeout(300)])])
def test_a_change_every_200_ms(nodes, seconds):
    a, b = started(nodes)
    ip("route", "add", FOREIGN[0], "via", FOREIGN[1], namespace=a.host)
    ip("link", "add", "eth5", "type", "veth", "peer", "name", "eth6", namespace=a.pod_namespaces[0])
    ip("addr", "add", "203.0.113.1/24", "dev", "eth5", namespace=a.pod_namespaces[0])
    pid, chance = a.status().pid, random.Random(7)
    end = time.monotonic() + seconds
    done = 0
    while time.monotonic() < end:
        place, faults = chance.choice([(a.pod_namespaces[0], POD_FAULTS), (a.host, HOST_FAULTS)])
        ip(*chance.choice(faults).split(), namespace=place, check=False)  # what it would change may be away just now
        done += 1
        time.sleep(0.2)
    ip("link", "set", "under", "mtu", "1500", namespace=a.host)
    assert done >= seconds
    wait_for(lambda: is_right(a) and host_is_right(a), 15)
    wait_for(lambda: a.status().problems == [], 15)
    assert a.status().pid == pid
    assert FOREIGN in routes(a.host)
    assert any(entry["local"] == "203.0.113.1" for entry in device(a.pod_namespaces[0], "eth5")["addr_info"])
    assert device(a.pod_namespaces[0], "eth7") is None, "no second device of the pod"
    assert device(a.host, "other0") is None
    assert a.ping(0, b.address(0))
    assert a.ping(0, "10.1.0.1")


def test_a_device_under_another_name_is_put_in_its_place(nodes):
    a, b = started(nodes)
    ip("link", "set", "eth0", "down", "name", "eth7", namespace=a.pod_namespaces[0])
    wait_for(lambda: is_right(a), AT_ONCE)
    assert device(a.pod_namespaces[0], "eth7") is None
    assert a.ping(0, b.address(0))


# -- no processor ----------------------------------------------------------------
@pytest.mark.parametrize("seconds", [3, pytest.param(30, marks=[pytest.mark.slow, pytest.mark.timeout(200)])])
def test_a_daemon_that_was_stopped_for_a_while_goes_on(nodes, seconds):
    a, b = started(nodes)
    with Talk(a, b) as talk:
        assert talk.works()
        before = device(a.pod_namespaces[0])["ifindex"]
        a.send(signal.SIGSTOP)
        lines = "".join(f"route add 10.{100 + (n >> 8)}.{n & 255}.0/24 via 192.0.2.9\n" for n in range(8000))
        subprocess.run(["ip", "-n", a.host, "-batch", "-"], input=lines, text=True, check=True)  # more than it can hear
        ip("route", "del", "10.2.0.0/24", namespace=a.host)
        time.sleep(seconds)
        a.send(signal.SIGCONT)
        assert talk.works()
        wait_for(lambda: ("10.2.0.0/24", "towpath0") in routes(a.host, "proto", "116"), AT_ONCE)
        assert device(a.pod_namespaces[0])["ifindex"] == before
        assert a.status().problems == []
        assert talk.works()


# -- no descriptors ----------------------------------------------------------------
def limit_descriptors(pid, number):
    """The soft limit alone: raising the hard one again takes a capability that a container may lack."""
    hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (number, hard))


def test_without_descriptors_the_rest_goes_on_and_the_missing_comes_later(nodes):
    a, b = started(nodes)
    pid = a.status().pid
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = max(int(name) for name in os.listdir(f"/proc/{pid}/fd"))
    limit_descriptors(pid, used + 1)
    try:
        a.write(pods=2)
        time.sleep(1.0)  # the file is read, or cannot be; either way nothing can be asked now
        assert a.ping(0, b.address(0)), "what there was goes on"
        with contextlib.suppress(OSError):
            a.send(signal.SIGHUP)
        ip("addr", "flush", "dev", "eth0", namespace=a.pod_namespaces[0])
        time.sleep(1.0)
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    wait_for(lambda: is_right(a), 30)
    a.send(signal.SIGHUP)
    wait_for(lambda: a.pods().get("a1") and a.pods()["a1"].state == "attached", 30)
    wait_for(lambda: a.status().problems == [], 30)
    assert a.status().pid == pid
    assert a.ping(0, b.address(0))
    assert a.ping(1, b.address(0))


# -- no disk -----------------------------------------------------------------------
@pytest.fixture
def small_disk(nodes):
    """64 kB for the state of node a."""
    state = Path(nodes[0].folder, "state")
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(state)], check=True)
    yield state
    nodes[0].stop(signal.SIGKILL)
    subprocess.run(["umount", "-l", str(state)], check=True)


def fill(folder):
    with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as filler:
        while filler.write(bytes(512)):
            pass


@pytest.mark.needs("mount")
def test_a_full_disk_is_said_and_what_runs_goes_on(nodes, small_disk):
    a, b = started(nodes)
    fill(small_disk)
    a.write(pods=2)
    wait_for(lambda: any("No space left" in problem.what for problem in a.status().problems))
    assert a.ping(0, b.address(0))
    assert device(a.pod_namespaces[1]) is None, "nothing half-made"
    (small_disk / "filler").unlink()
    wait_for(lambda: a.pods()["a1"].state == "attached", 30)
    assert a.status().problems == []
    assert a.stop() == 0
    fill(small_disk)
    a.start()
    assert a.ping(0, b.address(0)), "a start needs no room for what is written down already"
    assert a.stop() == 0


@contextlib.contextmanager
def read_only(folder, pid=None):
    """As somebody finds it who opens a file there now, in the mount namespace of `pid`; what is open stays open."""
    enter = ["nsenter", f"--mount=/proc/{pid}/ns/mnt"] if pid else []
    subprocess.run([*enter, "mount", "--bind", folder, folder], check=True)
    try:
        subprocess.run([*enter, "mount", "-o", "remount,bind,ro", folder], check=True)
        yield
    finally:
        subprocess.run([*enter, "umount", "-l", folder], check=True)


@pytest.mark.needs("mount", "nsenter")
def test_a_state_directory_that_cannot_be_written_is_one_sentence(nodes, small_disk):
    a = nodes[0]
    with read_only(small_disk):
        refused = towpath("run", "-c", a.file, inside=a.host)
    assert refused.returncode == 3
    assert str(small_disk) in refused.stderr
    assert "ead-only" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert device(a.host, "towpath0") is None
    assert device(a.pod_namespaces[0]) is None
    a.start()
    with read_only(small_disk, a.status().pid):
        a.write(pods=2)
        wait_for(lambda: any("ead-only" in problem.what for problem in a.status().problems))
        assert a.ping(0, "10.1.0.1")
    wait_for(lambda: a.pods()["a1"].state == "attached", 30)
