"""A node that has nothing to do does nothing; a change that somebody makes is noticed and set right within a second."""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests.engine.namespaces import device, ip, routes, wait_for
from tests.engine.nodes import two_nodes

pytestmark = [pytest.mark.root, pytest.mark.needs("ip", "ping")]

QUIET = 3.0  # seconds; nothing may be due in them
AT_ONCE = 4.0  # seconds on a busy machine; a second is promised


@pytest.fixture
def nodes(tmp_path):
    with two_nodes(tmp_path) as made:
        yield made


def sleeps(pid):
    """How often any thread of the process has gone to sleep."""
    found = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        status = (task / "status").read_text()
        found += int(status.partition("voluntary_ctxt_switches:")[2].split()[0])
    return found


@pytest.fixture
def quiet_nodes():
    """Where nobody else makes files: a node hears of every file that is made on the way to its own."""
    with tempfile.TemporaryDirectory(dir="/var/lib") as folder, two_nodes(Path(folder)) as made:
        yield made


def test_an_idle_node_does_not_wake(quiet_nodes):
    a = quiet_nodes[0]
    a.write(pods=2)
    a.start()
    pid = a.status().pid

    def slept_through():
        before, began = sleeps(pid), time.monotonic()
        while time.monotonic() < began + QUIET:
            if sleeps(pid) != before:
                return False
            time.sleep(0.1)
        return True

    # Neighbour discovery and the like of a new link end; a look every 10 seconds may fall into one of the tries.
    wait_for(slept_through, 60)


def pod_device(node):
    return device(node.pod_namespaces[0])


def is_right(node):
    found = pod_device(node)
    if found is None or "UP" not in found["flags"] or found["mtu"] != 1450:
        return False
    addresses = {entry["local"] for entry in found["addr_info"] if entry["scope"] == "global"}
    return addresses == {node.address(0), node.address(0, 6)} and len(routes(node.pod_namespaces[0], "default")) == 2


FAULTS = {
    "down": [("link", "set", "eth0", "down")],
    "deleted": [("link", "del", "eth0")],
    "smaller": [("link", "set", "eth0", "mtu", "1300")],
    "without addresses": [("addr", "flush", "dev", "eth0")],
    "with a foreign address": [("addr", "add", "10.99.0.1/32", "dev", "eth0")],
    "without a default route": [("route", "del", "default")],
}


def test_what_somebody_does_to_a_pod_is_set_right_at_once(nodes):
    a = nodes[0].start()
    wait_for(lambda: is_right(a))
    for name, commands in FAULTS.items():
        for command in commands:
            ip(*command, namespace=a.pod_namespaces[0])
        began = time.monotonic()
        wait_for(lambda: is_right(a), AT_ONCE)
        assert time.monotonic() - began < AT_ONCE, name
    assert a.ping(0, "10.1.0.1")
    assert a.status().problems == []


def test_what_somebody_does_to_the_host_is_set_right_at_once(nodes):
    a = nodes[0].start()
    ours = {("10.1.0.0/24", "towpath0"), ("10.2.0.0/24", "towpath0")}

    def right():
        found = device(a.host, "towpath0")
        return (
            found is not None
            and "UP" in found["flags"]
            and found["mtu"] == 1450
            and ours <= set(routes(a.host, "proto", "116"))
            and any(entry["local"] == "10.1.0.1" for entry in found["addr_info"])
        )

    wait_for(right)
    for command in (
        ("route", "del", "10.2.0.0/24"),
        ("route", "flush", "proto", "116"),
        ("link", "set", "towpath0", "down"),
        ("link", "set", "towpath0", "mtu", "1300"),
        ("addr", "flush", "dev", "towpath0"),
        ("link", "del", "towpath0"),
    ):
        ip(*command, namespace=a.host)
        wait_for(right, AT_ONCE)
    assert a.ping(0, "10.1.0.1")
    assert a.status().problems == []


def test_a_foreign_route_in_the_place_of_ours_is_told_and_left(nodes):
    a = nodes[0].start()
    wait_for(lambda: ("10.2.0.0/24", "towpath0") in routes(a.host, "proto", "116"))
    ip("route", "replace", "10.2.0.0/24", "via", "192.0.2.2", namespace=a.host)
    wait_for(lambda: any("10.2.0.0/24" in problem.what for problem in a.status().problems), AT_ONCE)
    assert "10.2.0.0/24 via 192.0.2.2" in ip("route", namespace=a.host)
    subprocess.run(["ip", "-n", a.host, "route", "del", "10.2.0.0/24"], check=True)
    wait_for(lambda: ("10.2.0.0/24", "towpath0") in routes(a.host, "proto", "116"), AT_ONCE)
    wait_for(lambda: a.status().problems == [], AT_ONCE)
