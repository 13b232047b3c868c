"""One daemon takes the place of another under traffic: nothing is lost, and whatever goes wrong, one of them forwards."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from engine.handover import giver
from engine.handover.messages import FORMAT
from engine.lab import wait_until
from engine.lab.traffic import Beat, Responder, ping, tcp_echo, udp_echo
from tests.e2e.conftest import running_cluster
from tests.e2e.streams import Conversation, identity

SLOW = pytest.mark.slow
SUCCESSOR = Path(__file__).with_name("successor.py")


@pytest.fixture
def cluster():
    with running_cluster(nodes=2, pods=2) as cluster:
        answer(cluster)
        yield cluster


def answer(cluster):
    for pod in cluster.pods:
        Responder(pod.host)


def reaches_everything(node, other):
    """From a pod of `node` to one beside it and one of `other`, in which something must answer."""
    a, b = node.pods[0], other.pods[0]
    for target in (b, node.pods[1]):
        for address in target.addresses.values():
            assert ping(a.host, address, count=3).ok
            tcp_echo(a.host, address)
            udp_echo(a.host, address)
    assert node.daemon.ask("status")["problems"] == []


def taken_over_under_traffic(encapsulation, times, workers=1):
    with running_cluster(encapsulation=encapsulation, nodes=2, pods=2, workers=workers) as cluster:
        answer(cluster)
        node, other = cluster.nodes
        a, b, c = node.pods[0], other.pods[0], node.pods[1]
        before = {pod.name: identity(pod) for pod in node.pods}
        talks = [Conversation(a.host, b.host, b.addresses[4]), Conversation(b.host, a.host, a.addresses[6])]
        away = Beat(a.host, b.host, b.addresses[4])
        back = Beat(b.host, a.host, a.addresses[4])
        within = Beat(c.host, a.host, a.addresses[6])
        with away, back, within:
            for _ in range(times):
                old = node.daemon.process
                node.daemon.take_over()
                assert old.exit_code == 0
                for talk in talks:
                    talk.goes_on()
        for talk in talks:
            talk.end()
        beats = (away, back, within)
        carried = sum(talk.received for talk in talks)
        print(f"{times} takeovers: {sum(beat.sent for beat in beats)} datagrams, {carried >> 20} MiB of TCP;", end=" ")
        print(f"longest gap {max(beat.longest_gap for beat in beats) * 1e3:.1f} ms")
        assert [beat.lost for beat in beats] == [0, 0, 0]
        assert min(beat.hertz for beat in beats) > 990
        assert {pod.name: identity(pod) for pod in node.pods} == before
        reaches_everything(node, other)
        assert node.daemon.stop() == 0
        assert not node.daemon.control.exists()
        assert "towpath0" not in node.host.interfaces()


@pytest.mark.alone
@pytest.mark.parametrize("encapsulation", ["vxlan", *(pytest.param(name, marks=SLOW) for name in ("udp", "ipip", "none"))])
def test_no_packet_is_lost_and_no_connection_broken(encapsulation):
    taken_over_under_traffic(encapsulation, times=3)


def test_several_workers_keep_their_sockets():
    taken_over_under_traffic("vxlan", times=1, workers=3)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_fifty_times():
    taken_over_under_traffic("vxlan", times=50)


def test_the_configuration_of_the_successor_is_put_in_force(cluster):
    """A pod more and a pod less in the file that the successor reads, and a pod it keeps."""
    node, other = cluster.nodes
    a, gone = node.pods
    new = cluster.add_pod(node)
    node.pods.remove(gone)
    before = identity(a)
    with Beat(a.host, other.pods[0].host, other.pods[0].addresses[4]) as stream:
        node.daemon.config = node.daemon.directory / "next.toml"  # which the running daemon does not watch
        cluster.configure(node)
        node.daemon.take_over()
    assert stream.lost == 0
    wait_until(lambda: "eth0" in new.host.interfaces(), "the new pod's device")
    wait_until(lambda: "eth0" not in gone.host.interfaces(), "the old pod's device to go")
    assert identity(a) == before
    Responder(new.host)
    udp_echo(other.pods[0].host, new.addresses[4])


def test_upgrade_starts_a_successor(cluster):
    node, other = cluster.nodes
    old = node.daemon.process
    with Beat(node.pods[0].host, other.pods[0].host, other.pods[0].addresses[4]) as stream:
        done = node.daemon.command("upgrade")
    assert done.returncode == 0, done.stderr
    assert "runs as process" in done.stdout
    assert stream.lost == 0
    assert old.wait(10) == 0
    pid = node.daemon.ask("version")["daemon"]["pid"]
    assert pid != old.pid
    reaches_everything(node, other)
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not node.daemon.control.exists(), "the successor to end")


def test_two_successors_at_once_follow_one_another(cluster):
    """The second finds the first in the old one's place, or the old one still there."""
    node, other = cluster.nodes
    a, b = node.pods[0], other.pods[0]
    talk = Conversation(a.host, b.host, b.addresses[4])
    with Beat(a.host, b.host, b.addresses[4]) as beat:
        processes = [node.daemon.process, node.daemon.launch("--takeover"), node.daemon.launch("--takeover")]
        wait_until(lambda: sum(process.running for process in processes) == 1, "all but one to end", seconds=30)
        talk.goes_on()
    talk.end()
    assert beat.lost == 0
    (left,) = (process for process in processes if process.running)
    assert left is not processes[0]
    assert [process.exit_code for process in processes if process is not left] == [0, 0]
    assert node.daemon.ask("version")["daemon"]["pid"] == left.pid
    reaches_everything(node, other)
    assert left.stop() == 0


ONLY_THE_OTHER = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: only-the-other}}
spec:
  podSelector: {{}}
  policyTypes: [Ingress]
  ingress: [{{from: [{{ipBlock: {{cidr: {}/32}}}}]}}]
"""


def test_policy_is_in_force_before_and_after(cluster, tmp_path):
    """What is denied gets through at no moment, and what is allowed loses nothing."""
    node, other = cluster.nodes
    a, c, b = *node.pods, other.pods[0]
    document = tmp_path / "policy.yaml"
    document.write_text(ONLY_THE_OTHER.format(b.addresses[4]))
    assert node.daemon.command("policy", "apply", str(document)).returncode == 0
    with c.host.socket(socket.AF_INET, socket.SOCK_DGRAM) as denied, Beat(b.host, a.host, a.addresses[4]) as allowed:
        denied.bind((c.addresses[4], 0))
        denied.settimeout(0)
        with a.host.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(3):
                old = node.daemon.process
                node.daemon.launch("--takeover")
                while old.running:
                    sender.sendto(b"x", denied.getsockname())
                    time.sleep(0.001)
                node.daemon.wait_ready()
        with pytest.raises(BlockingIOError):
            denied.recv(10)
    assert allowed.lost == 0
    assert not ping(a.host, c.addresses[4], seconds=0.3).ok
    assert ping(b.host, c.addresses[4]).ok


def test_who_left_while_daemons_changed_leaves_no_flows(cluster, tmp_path):
    """Whoever gets the address next begins anew; who stays goes on."""
    node, other = cluster.nodes
    (stays, gone), far = node.pods, other.pods[0]
    document = tmp_path / "policy.yaml"
    document.write_text(ONLY_THE_OTHER.format(far.addresses[4]))
    assert node.daemon.command("policy", "apply", str(document)).returncode == 0

    def known(pod):
        return node.daemon.ask("flows", pod.addresses[4])["flows"]

    for pod in (stays, gone):
        udp_echo(far.host, pod.addresses[4])
        assert known(pod)
    node.pods.remove(gone)
    node.daemon.config = node.daemon.directory / "next.toml"  # which the running daemon does not watch
    cluster.configure(node)
    node.daemon.take_over()
    assert known(stays)
    assert known(gone) == []


# -- versions ------------------------------------------------------------------
def successor_of_version(newest, oldest):
    return (sys.executable, str(SUCCESSOR), "speak", str(newest), str(oldest))


def test_a_successor_that_also_speaks_a_later_format_takes_over(cluster):
    node, other = cluster.nodes
    old = node.daemon.process
    with Beat(node.pods[0].host, other.pods[0].host, other.pods[0].addresses[4]) as beat:
        node.daemon.launch("--takeover", program=successor_of_version(FORMAT + 5, FORMAT))
        node.daemon.wait_ready()
        assert old.wait(10) == 0
    assert beat.lost == 0
    reaches_everything(node, other)


def test_a_successor_that_speaks_no_common_format_is_refused(cluster):
    node, other = cluster.nodes
    old = node.daemon.process
    with Beat(node.pods[0].host, other.pods[0].host, other.pods[0].addresses[4]) as beat:
        failed = node.daemon.launch("--takeover", program=successor_of_version(FORMAT + 5, FORMAT + 1))
        assert failed.wait(15) == 1
    assert "cannot take over" in failed.output()
    assert "restart the daemon instead" in failed.output()
    assert beat.lost == 0
    assert old.running
    reaches_everything(node, other)


# -- what goes wrong ---------------------------------------------------------
def fails(node, *arguments):
    return node.host.start([sys.executable, str(SUCCESSOR), str(node.daemon.control), *arguments], name="successor")


QUICK = [("asked", "die"), ("offer", "die"), ("ready", "die"), ("go", "die"), ("go", "refuse"), ("go", "babble")]
LONG = [("asked", "hang"), ("go", "hang"), ("offer", "babble"), ("ready", "babble"), ("offer", "refuse")]


@pytest.mark.parametrize(("step", "how"), [*QUICK, *(pytest.param(*case, marks=SLOW) for case in LONG)])
def test_failed_successor_leaves_the_old_one_running(cluster, step, how):
    node, other = cluster.nodes
    old = node.daemon.process
    talk = Conversation(node.pods[0].host, other.pods[0].host, other.pods[0].addresses[4])
    with Beat(node.pods[0].host, other.pods[0].host, other.pods[0].addresses[4]) as stream:
        failing = fails(node, step, how)
        failing.expect("failing")
        old.expect(r"did not take over", seconds=giver.COMMIT_SECONDS + 5)
        if how == "hang" and step == "go":
            assert failing.wait(5) == -signal.SIGKILL
        talk.goes_on()
    talk.end()
    if how != "hang":
        assert stream.lost == 0
    assert old.running
    reaches_everything(node, other)
    node.daemon.take_over()
    reaches_everything(node, other)


def test_a_bad_configuration_ends_the_successor_alone(cluster):
    node, other = cluster.nodes
    old = node.daemon.process
    text = node.daemon.config.read_text()
    bad = node.host.start(
        [sys.executable, "-m", "engine.cli", "run", "--takeover", "--config", str(node.daemon.config), "--set", "network.mtu=7"],
        name="bad",
    )
    assert bad.wait(15) == 2, bad.output()
    elsewhere = node.daemon.directory / "elsewhere.toml"
    elsewhere.write_text(text.replace(str(node.daemon.directory / "state"), str(node.daemon.directory / "other")))
    elsewhere = node.host.start(
        [sys.executable, "-m", "engine.cli", "run", "--takeover", "--config", str(elsewhere)], name="elsewhere"
    )
    assert elsewhere.wait(15) == 3
    assert "state directory" in elsewhere.output()
    assert old.running
    reaches_everything(node, other)


def test_the_old_one_dies_while_it_hands_over(cluster):
    """The successor has all it needs by then, and forwards."""
    node, other = cluster.nodes
    talk = Conversation(node.pods[0].host, other.pods[0].host, other.pods[0].addresses[4])
    old = node.daemon.process
    node.daemon.launch("--takeover", program=(sys.executable, str(SUCCESSOR), "outlive"))
    node.daemon.wait_ready()
    assert old.wait(5) == -signal.SIGKILL
    assert "going on without what it knew of connections" in node.daemon.process.output()
    talk.goes_on()
    talk.end()
    reaches_everything(node, other)


def test_nobody_to_take_over_from(cluster):
    node, other = cluster.nodes
    node.daemon.stop()
    node.daemon.launch("--takeover")
    node.daemon.wait_ready()
    reaches_everything(node, other)
