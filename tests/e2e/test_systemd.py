"""The units of contrib under a real systemd, which boots in namespaces of its own: as docs/operations.md says to use them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from engine.lab import wait_until

CONTRIB = Path(__file__).parents[2] / "contrib"
BOOT = Path(__file__).with_name("systemd-root")
NAMESPACES = ("--mount", "--pid", "--fork", "--net", "--uts", "--ipc", "--cgroup", "--kill-child=KILL")
UNITS = "/etc/systemd/system"
CONFIGURATION = """
[node]
name = "a"
underlay = ["192.0.2.1/24"]
prefixes = ["10.0.1.0/24"]

[[pods]]
name = "web"
namespace = "web"
addresses = ["10.0.1.10"]

[[peers]]
name = "b"
underlay = ["192.0.2.2"]
prefixes = ["10.0.2.0/24"]
"""
SECOND_POD = """
[[pods]]
name = "db"
namespace = "db"
addresses = ["10.0.1.11"]
"""
# A Python below /root or /home is hidden by ProtectHome=yes, and the one that runs the tests may be there.
DROP_IN = "[Service]\nProtectHome=read-only\nWatchdogSec=10\n"

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.needs("systemctl", "unshare", "nsenter", "ip", "ping"),
    pytest.mark.timeout(120),
]


class Machine:
    """A booted systemd; `run` runs a program inside."""

    def __init__(self, directory: Path) -> None:
        self.log = directory / "log"
        view = directory / "view"
        view.mkdir()
        with self.log.open("wb") as log:
            self.unshare = subprocess.Popen(["unshare", *NAMESPACES, BOOT, view], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.process = wait_until(self._first_process, "the machine to begin", seconds=10)
        wait_until(lambda: self.unit("bare.target", "ActiveState") == "active", "systemd to have booted", seconds=20)

    def _first_process(self):
        return Path(f"/proc/{self.unshare.pid}/task/{self.unshare.pid}/children").read_text().strip()

    def run(self, *argv, check=True, **more):
        inside = ["nsenter", "-t", self.process, "-m", "-p", "-n", "-u", "-i", "-C", "-w", "--", *argv]
        done = subprocess.run(inside, capture_output=True, text=True, check=False, timeout=60, **more)
        if check and done.returncode:
            raise AssertionError(f"{argv}: {done.stdout}{done.stderr}\n{self.log.read_text(errors='replace')[-5000:]}")
        return done.stdout

    def write(self, path, text):
        self.run("sh", "-c", 'mkdir -p "$(dirname "$1")" && cat > "$1"', "-", path, input=text)

    def unit(self, name, field):
        return self.run("systemctl", "show", "--value", "-p", field, name, check=False).strip()

    def end(self):
        self.unshare.kill()
        self.unshare.wait(10)


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    machine = Machine(tmp_path_factory.mktemp("machine"))
    try:
        furnish(machine)
        yield machine
    finally:
        machine.end()


def furnish(machine):
    """An underlay, two namespaces, Towpath on the path, and the units as they are installed."""
    machine.run("sh", "-ec", "ip link add u0 type veth peer name u1; ip addr add 192.0.2.1/24 dev u0; ip link set u0 up; ip link set u1 up")
    for name in ("web", "db"):
        machine.run("ip", "netns", "add", name)
    machine.run("ln", "-s", str(Path(sys.executable).with_name("towpath")), "/usr/local/bin/towpath")
    version = int(re.search(r"systemd (\d+)", machine.run("systemctl", "--version"))[1])
    service = (CONTRIB / "towpath.service").read_text()
    if version < 253:  # as the unit's own comment says
        service = service.replace("Type=notify-reload", "Type=notify\nExecReload=/bin/kill -HUP $MAINPID")
    machine.write(f"{UNITS}/towpath.service", service)
    machine.write(f"{UNITS}/towpath.service.d/test.conf", DROP_IN)
    machine.write(f"{UNITS}/towpath.socket", (CONTRIB / "towpath.socket").read_text())
    machine.write(f"{UNITS}/towpath-next.service", service)
    machine.write(f"{UNITS}/towpath-next.service.d/test.conf", f"{DROP_IN}Sockets=towpath.socket\n")
    machine.run("systemctl", "daemon-reload")


@pytest.fixture
def towpath(machine):
    """The service, started; stopped afterwards, with its sockets."""
    machine.write("/etc/towpath/towpath.toml", CONFIGURATION)
    machine.run("systemctl", "start", "towpath")
    yield machine
    machine.run("systemctl", "stop", "towpath.socket", "towpath", "towpath-next")


class Pinging:
    """A ping from the pod to its gateway, a hundred a second for so long."""

    def __init__(self, machine, seconds):
        self.machine, self.seconds = machine, seconds

    def __enter__(self):
        argv = ["ip", "netns", "exec", "web", "ping", "-q", "-i", "0.01", "-c", str(100 * self.seconds), "-W", "5", "10.0.1.1"]
        self.ping = subprocess.Popen(
            ["nsenter", "-t", self.machine.process, "-m", "-n", "--", *argv], stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *_):
        self.said, _ = self.ping.communicate(timeout=self.seconds * 5 + 10)

    @property
    def lost(self):
        sent, received = re.search(r"(\d+) packets transmitted, (\d+) received", self.said).groups()
        assert int(sent) > 100, self.said
        return int(sent) - int(received)


def main_process(machine, unit="towpath"):
    return int(machine.unit(unit, "MainPID"))


def test_it_starts_with_a_status_and_takes_another_configuration(towpath):
    assert towpath.unit("towpath", "StatusText") == "1 pod, 1 peer"
    assert towpath.run("ip", "netns", "exec", "web", "ping", "-c", "1", "-W", "5", "10.0.1.1")
    towpath.write("/etc/towpath/towpath.toml", CONFIGURATION + SECOND_POD)
    towpath.run("systemctl", "reload", "towpath")
    wait_until(lambda: towpath.unit("towpath", "StatusText") == "2 pods, 1 peer", "the second pod", seconds=10)


@pytest.mark.parametrize("signal", ["KILL", "STOP"])  # a stopped process feeds no watchdog
def test_who_is_killed_is_started_again_and_who_hangs_too(towpath, signal):
    before = main_process(towpath)
    towpath.run("systemctl", "kill", f"--signal={signal}", "towpath")
    wait_until(lambda: main_process(towpath) not in (0, before), "another process", seconds=40)
    wait_until(lambda: towpath.unit("towpath", "ActiveState") == "active", "it to be ready", seconds=20)
    assert towpath.run("ip", "netns", "exec", "web", "ping", "-c", "1", "-W", "5", "10.0.1.1")


def test_an_upgrade_is_the_main_process_afterwards_and_loses_nothing(towpath):
    before = main_process(towpath)
    with Pinging(towpath, 4) as ping:
        towpath.run("towpath", "upgrade")
    assert ping.lost == 0
    assert main_process(towpath) not in (0, before)
    assert towpath.unit("towpath", "ActiveState") == "active"


def test_who_asks_at_systemds_socket_starts_the_daemon_and_waits(towpath):
    towpath.run("systemctl", "stop", "towpath")
    towpath.run("systemctl", "start", "towpath.socket")
    assert re.search(r"state +ready", towpath.run("towpath", "status"))
    assert main_process(towpath)
    assert "problem" not in towpath.run("towpath", "status")
    towpath.run("systemctl", "stop", "towpath.socket", "towpath")
    assert towpath.run("ls", "/run/towpath").split() == []


def test_another_unit_with_the_same_sockets_succeeds_and_loses_nothing(towpath):
    towpath.run("systemctl", "stop", "towpath")
    towpath.run("systemctl", "start", "towpath.socket", "towpath")
    before = main_process(towpath)
    with Pinging(towpath, 6) as ping:
        towpath.run("systemctl", "start", "towpath-next")
    assert ping.lost == 0
    assert main_process(towpath, "towpath-next") not in (0, before)
    assert re.search(r"state +ready", towpath.run("towpath", "status"))
