"""The lab itself, with nothing but the kernel in it: what it builds works, and nothing of it stays."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from engine.lab import DeadlineError, Lab, Profile, owner, wait_until
from engine.lab.traffic import ping

pytestmark = pytest.mark.root
ROOT = Path(__file__).parents[3]


@pytest.fixture
def lab():
    with Lab("test") as lab:
        yield lab


def pair(lab, **options):
    a, b = lab.host("a"), lab.host("b")
    link = lab.link(a, b, **options)
    link.left.address("192.0.2.1/24", "2001:db8::1/64")
    link.right.address("192.0.2.2/24", "2001:db8::2/64")
    return a, b, link


def test_link_carries_both_families_at_its_mtu(lab):
    a, _, link = pair(lab, mtu=9000)
    assert link.left.mtu == link.right.mtu == 9000
    for address, headers in (("192.0.2.2", 28), ("2001:db8::2", 48)):
        assert ping(a, address, size=9000 - headers, fragment=False).ok
        too_big = ping(a, address, size=9001 - headers, fragment=False)
        assert not too_big.ok
        assert too_big.errors[0].mtu == 9000


def test_hosts_are_apart(lab):
    a, b, _ = pair(lab)
    assert a.interfaces() == ["lo", "eth0"]
    assert a.interface("eth0").addresses() == ["192.0.2.1/24", "2001:db8::1/64"]
    b.sysctl("net/ipv4/ip_default_ttl", 33)
    assert b.sysctl("net.ipv4.ip_default_ttl") == "33" != a.sysctl("net.ipv4.ip_default_ttl")
    assert "eth0" not in [name for _, name in socket.if_nameindex() if name.startswith("port")]
    with pytest.raises(ValueError, match="already"):
        lab.host("a")


def test_switch_joins_many(lab):
    switch = lab.switch(mtu=1400)
    hosts = [lab.host(f"h{i}") for i in range(4)]
    for i, host in enumerate(hosts):
        assert switch.join(host, addresses=[f"192.0.2.{i + 1}/24"]).mtu == 1400
    for host in hosts:
        for i in range(4):
            assert ping(host, f"192.0.2.{i + 1}").ok


@pytest.mark.parametrize("profile", Profile)
def test_profile_is_what_the_kernel_says(lab, profile):
    a, _, link = pair(lab, profile=profile)
    expected = {
        Profile.DEFAULT: (True, True, True),
        Profile.NO_TUNNEL: (True, True, False),
        Profile.DUMB: (False, False, False),
        Profile.BARE: (False, False, False),
    }[profile]
    for end in (link.left, link.right):
        features = end.features()
        names = ("tx-checksum-ip-generic", "tx-tcp-segmentation", "tx-udp_tnl-segmentation")
        assert tuple(features[name] for name in names) == expected
        assert profile not in {Profile.DUMB, Profile.BARE} or features["rx-gro"] is (profile is Profile.DUMB)
    assert ping(a, "192.0.2.2").ok


def test_cut_link_is_silent_until_mended(lab):
    a, _, link = pair(lab)
    link.cut()
    assert not ping(a, "192.0.2.2", seconds=0.1).ok
    link.mend()
    wait_until(link.left.is_up, "the link")
    assert ping(a, "192.0.2.2").ok


def test_router_between_two_hosts(lab):
    a, router, b = lab.host("a"), lab.host("router").forward(), lab.host("b")
    lab.link(a, router, names=("eth0", "left")).left.address("10.1.0.2/24", "fd01::2/64")
    lab.link(router, b, names=("right", "eth0")).right.address("10.2.0.2/24", "fd02::2/64")
    router.interface("left").address("10.1.0.1/24", "fd01::1/64")
    router.interface("right").address("10.2.0.1/24", "fd02::1/64")
    for host, v4, v6 in ((a, "10.1.0.1", "fd01::1"), (b, "10.2.0.1", "fd02::1")):
        host.route("0.0.0.0/0", via=v4).route("::/0", via=v6)
    assert ping(a, "10.2.0.2").ok
    assert ping(a, "fd02::2").ok


def test_program_runs_inside_and_is_logged(lab):
    a, _, _ = pair(lab)
    script = "import socket, sys; print([n for _, n in socket.if_nameindex()]); print('late', file=sys.stderr)"
    process = a.start([sys.executable, "-c", script], name="script")
    assert process.wait() == 0
    assert process.output() == "['lo', 'eth0']\nlate\n"
    assert a.run(["cat", "/proc/net/dev"]).stdout.count("eth0:") == 1


def test_expect_says_why_when_the_program_ends(lab):
    process = lab.host("a").start([sys.executable, "-c", "print('no'); raise SystemExit(3)"])
    with pytest.raises(RuntimeError, match=r"ended with 3 before 'yes':\nno"):
        process.expect("yes")


def test_missing_program_is_named(lab):
    process = lab.host("a").start(["towpath-no-such-program"])
    assert process.wait() == 127
    assert process.output() == "towpath-no-such-program: no such program\n"


def test_stop_kills_what_does_not_listen(lab):
    script = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    process = lab.host("a").start([sys.executable, "-c", script])
    process.expect("deaf")
    assert process.stop(seconds=0.1) == -signal.SIGKILL


def test_nothing_stays_after_an_exception():
    seen = []

    def crash():
        with Lab("test") as lab:
            a, _, _ = pair(lab)
            descriptors = {host.namespace.descriptor for host in lab.hosts}
            seen.extend([a.start(["sleep", "1000"]), lab.directory, os.stat(a.namespace.path).st_ino, descriptors])
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        crash()
    process, directory, inode, descriptors = seen
    assert not process.running
    assert not directory.exists()
    for descriptor in descriptors:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
    assert inode not in _namespaces_in_use()


def test_wait_until_names_what_it_waited_for():
    with pytest.raises(DeadlineError, match="a miracle"):
        wait_until(lambda: False, "a miracle", seconds=0.02)


CRASHING = """
import os, signal, sys
from engine.lab import Lab
lab = Lab("test").__enter__()
a, b = lab.host("a"), lab.host("b")
lab.link(a, b)
process = a.start(["sleep", "1000"])
print(lab.directory, process.pid, os.stat(a.namespace.path).st_ino, flush=True)
signal.pause()
"""


def test_killed_owner_leaves_only_a_directory_which_sweep_removes(labs_apart):
    crashing = subprocess.Popen(
        [sys.executable, "-c", CRASHING], stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    with crashing:
        directory, pid, inode = crashing.stdout.readline().split()
        assert [f.owner for f in owner.find() if str(f.path) == directory] == [crashing.pid]
        assert Path(directory) not in owner.sweep()  # its owner lives
        crashing.kill()
        crashing.wait()
    wait_until(lambda: not _alive(int(pid)), "the program to die with its lab")
    wait_until(lambda: int(inode) not in _namespaces_in_use(), "the namespace to go")
    assert Path(directory).exists()
    assert Path(directory) in owner.sweep()
    assert not Path(directory).exists()


def test_sweep_ends_programs_that_outlived_their_lab(tmp_path, monkeypatch):
    monkeypatch.setattr(owner.tempfile, "gettempdir", lambda: str(tmp_path))
    left = tmp_path / f"{owner.PREFIX}test-dead"
    left.mkdir()
    (left / "owner").write_text("1\n")
    orphan = subprocess.Popen(["sleep", "1000"], env={owner.MARK: str(left)})
    other = subprocess.Popen(["sleep", "1000"], env={owner.MARK: "elsewhere"})
    try:
        wait_until(lambda: b"sleep" in Path(f"/proc/{orphan.pid}/cmdline").read_bytes(), "the orphan to start")
        assert owner.sweep() == [left]
        assert orphan.wait(5) == -signal.SIGKILL
        assert other.poll() is None
    finally:
        for process in (orphan, other):
            process.kill()
            process.wait()


KEEPING = """
import signal, sys
from engine.lab import Lab
from engine.lab.keeping import Ended, run_apart, signals_raise

def work(leave):
    try:
        with signals_raise(), Lab("test") as lab:
            lab.host("a").start(["sleep", "1000"])
            print(lab.directory, flush=True)
            if sys.argv[1] == "keep":
                leave(7)
            signal.pause()
    except Ended as ended:
        return ended.exit_code
    return 0

sys.exit(run_apart(work))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_takes_the_lab_down_and_shows_in_the_exit_code(number):
    with _keeping("drop") as process:
        directory = Path(process.stdout.readline().strip())
        assert directory.exists()
        process.send_signal(number)
        assert process.wait(10) == 128 + number
        assert not directory.exists()


def test_kept_lab_outlives_its_command_and_can_be_dismissed():
    with _keeping("keep") as process:
        directory = Path(process.stdout.readline().strip())
        assert process.wait(10) == 7
    (found,) = [found for found in owner.find() if found.path == directory]
    assert found.owner
    assert _alive(found.owner)
    assert directory not in owner.sweep()
    owner.dismiss(found)
    assert not directory.exists()
    wait_until(lambda: not _alive(found.owner), "the keeper to end")


def _keeping(mode):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KEEPING), mode],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _namespaces_in_use():
    """Inode numbers of the network namespaces that some process is in."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found.add(os.stat(entry / "ns/net").st_ino)
            except OSError:
                continue
    return found
