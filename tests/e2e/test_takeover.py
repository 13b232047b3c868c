"""One daemon takes the place of another under traffic: nothing is lost, and whatever goes wrong, one of them forwards."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from engine.handover import giver
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


def taken_over_under_traffic(encapsulation, times):
    with running_cluster(encapsulation=encapsulation, nodes=2, pods=2) as cluster:
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
        assert min(away.sent, back.sent, within.sent) > 100 * times
        assert [away.lost, back.lost, within.lost] == [0, 0, 0]
        assert {pod.name: identity(pod) for pod in node.pods} == before
        reaches_everything(node, other)
        assert node.daemon.stop() == 0
        assert not node.daemon.control.exists()
        assert "towpath0" not in node.host.interfaces()


@pytest.mark.parametrize("encapsulation", ["vxlan", pytest.param("ipip", marks=SLOW), pytest.param("none", marks=SLOW)])
def test_no_packet_is_lost_and_no_connection_broken(encapsulation):
    taken_over_under_traffic(encapsulation, times=3)


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
