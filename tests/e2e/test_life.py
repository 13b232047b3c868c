"""A daemon's life under traffic: killed, started again, reloaded, stopped, refused."""

from __future__ import annotations

import os
import signal
import socket
import time
from dataclasses import replace

import pytest

from engine.lab import wait_until
from engine.lab.cluster import Cluster, Plan
from engine.lab.traffic import Beat, Responder, ping, tcp_echo, udp_echo
from tests.e2e.conftest import assert_balanced, running_cluster, told_apart
from tests.e2e.streams import Conversation, identity

SLOW = pytest.mark.slow


@pytest.fixture
def conversation():
    made = []

    def start(source, target, address):
        made.append(Conversation(source, target, address))
        made[-1].goes_on()
        return made[-1]

    yield start
    for each in made:
        each.end()


@pytest.mark.parametrize("encapsulation", ["vxlan", "none", *(pytest.param(e, marks=SLOW) for e in ("udp", "ipip"))])
def test_kill_and_restart_under_traffic(encapsulation, conversation):
    """Pods keep their devices and addresses, and a connection goes on; after that everything is as before."""
    with running_cluster(encapsulation=encapsulation, nodes=2, pods=2) as cluster:
        node = cluster.nodes[0]
        a, b = node.pods[0], cluster.nodes[1].pods[0]
        talk = conversation(a.host, b.host, b.addresses[4])
        before = {pod.name: identity(pod) for pod in node.pods}
        for _ in range(2):
            node.daemon.process.kill()
            assert {pod.name: identity(pod) for pod in node.pods} == before
            node.daemon.start()
            talk.goes_on()
            assert {pod.name: identity(pod) for pod in node.pods} == before
        for pod in cluster.pods:
            Responder(pod.host)
        for address in b.addresses.values():
            assert ping(a.host, address, count=3).ok
            tcp_echo(a.host, address)
        assert node.daemon.ask("status")["problems"] == []


def test_reload_touches_only_what_differs(conversation):
    with running_cluster(nodes=2, pods=1) as cluster:
        node, other = cluster.nodes
        a, b = node.pods[0], other.pods[0]
        talk = conversation(a.host, b.host, b.addresses[4])
        before = identity(a)
        new = cluster.add_pod(node)
        cluster.configure(node)
        node.daemon.reload()
        Responder(new.host)
        udp_echo(a.host, new.addresses[4])
        tcp_echo(b.host, new.addresses[6])
        assert identity(a) == before
        talk.goes_on()
        node.pods.remove(new)
        cluster.configure(node)
        node.daemon.reload()
        assert "eth0" not in new.host.interfaces()
        assert identity(a) == before
        talk.goes_on()


def test_changed_file_is_followed_without_being_told():
    with running_cluster(nodes=2, pods=1) as cluster:
        node = cluster.nodes[0]
        new = cluster.add_pod(node)
        cluster.configure(node)
        wait_until(lambda: "eth0" in new.host.interfaces(), "the new pod's device", seconds=10)
        wait_until(lambda: len(node.daemon.ask("pods")["pods"]) == 2, "the new pod to be listed", seconds=5)


def test_no_packet_is_lost_by_a_reload():
    """One thousand datagrams a second, each counted, while pods come and go."""
    with running_cluster(nodes=2, pods=1) as cluster:
        node = cluster.nodes[0]
        a, b = node.pods[0], cluster.nodes[1].pods[0]
        with Beat(a.host, b.host, b.addresses[4]) as stream:
            for _ in range(3):
                new = cluster.add_pod(node)
                cluster.configure(node)
                node.daemon.reload()
                node.pods.remove(new)
                cluster.configure(node)
                node.daemon.reload()
                cluster.lab.remove(new.host)
        assert stream.sent > 100
        assert stream.lost == 0


def test_no_packet_is_lost_when_a_pod_gets_another_name(conversation):
    with running_cluster(nodes=2, pods=1) as cluster:
        node = cluster.nodes[0]
        a, b = node.pods[0], cluster.nodes[1].pods[0]
        before = a.host.interface("eth0").index
        talk = conversation(b.host, a.host, a.addresses[6])
        with Beat(a.host, b.host, b.addresses[4]) as away, Beat(b.host, a.host, a.addresses[4]) as back:
            for name in ("renamed", "again", a.name):
                node.pods[0] = replace(a, name=name)
                cluster.configure(node)
                node.daemon.reload()
                assert [pod["name"] for pod in node.daemon.ask("pods")["pods"]] == [name]
        talk.goes_on()
        assert (away.lost, back.lost) == (0, 0)
        assert a.host.interface("eth0").index == before
        assert node.daemon.ask("status")["problems"] == []


@pytest.mark.parametrize("encapsulation", ["vxlan", "none"])
def test_clean_stop_removes_its_routes_and_keeps_pods(encapsulation):
    with running_cluster(encapsulation=encapsulation, nodes=2, pods=1) as cluster:
        node = cluster.nodes[0]
        before = identity(node.pods[0])
        assert_balanced(node.daemon)
        if encapsulation == "none":
            assert "10.244.2.0/24 via 192.0.2.2" in routes(node.host)
        assert node.daemon.stop() == 0
        assert "10.244.2.0/24" not in routes(node.host)
        assert "fd00:10:244:2::/64" not in routes(node.host)
        assert identity(node.pods[0]) == before
        assert not os.path.exists(node.daemon.control)
        node.daemon.start()
        assert ping(node.pods[0].host, cluster.nodes[1].pods[0].addresses[4], seconds=3).ok


def routes(host):
    return host.run(["ip", "route"]).stdout + host.run(["ip", "-6", "route"]).stdout


def test_two_daemons_do_not_share_a_node():
    with running_cluster(nodes=1, pods=1) as cluster:
        node = cluster.nodes[0]
        first = node.daemon.process
        second = node.daemon.launch()
        assert second.wait(15) != 0
        assert len(second.output().strip().splitlines()) >= 1
        assert first.running
        node.daemon._process = first


# -- refusals ----------------------------------------------------------------
def refused(node):
    """Exit code and last words of a daemon that must not start."""
    process = node.daemon.launch()
    code = process.wait(15)
    return code, process.output()


@pytest.fixture
def unstarted(lab):
    return Cluster(lab, Plan(nodes=1, pods=1)).nodes[0]


def assert_untouched(node):
    assert node.host.interfaces() == ["lo", "eth0"]
    for pod in node.pods:
        assert pod.host.interfaces() == ["lo"]
    assert not os.path.exists(node.daemon.control)


def test_port_in_use_is_named(unstarted):
    with unstarted.host.socket(socket.AF_INET, socket.SOCK_DGRAM) as occupant:
        occupant.bind(("192.0.2.1", 4789))
        code, words = refused(unstarted)
    assert code == 3
    assert "4789" in words
    assert "Traceback" not in words
    assert_untouched(unstarted)


def test_missing_namespace_is_named(unstarted):
    text = unstarted.daemon.config.read_text()
    unstarted.daemon.config.write_text(text.replace(unstarted.pods[0].host.namespace.path, "/run/netns/not-there"))
    code, words = refused(unstarted)
    assert code == 3
    assert "/run/netns/not-there" in words
    assert "Traceback" not in words
    assert_untouched(unstarted)


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("[node]", "[nodes]", "nodes"),
        ('"10.244.1.0/24"', '"10.244.1.0/33"', "10.244.1.0/33"),
        ("mode = ", "mod = ", "mod"),
        ('"10.244.1.2"', '"10.250.1.2"', "10.250.1.2"),
        ("[network]", "[network", "towpath.toml:6"),
    ],
)
def test_mistake_in_the_file_is_one_sentence(unstarted, before, after, says):
    text = unstarted.daemon.config.read_text()
    assert before in text
    unstarted.daemon.config.write_text(text.replace(before, after, 1))
    code, words = refused(unstarted)
    assert code == 2
    assert says in words
    assert "towpath.toml" in words
    assert "Traceback" not in words
    assert_untouched(unstarted)


def test_missing_file_is_one_sentence(unstarted):
    unstarted.daemon.config.unlink()
    code, words = refused(unstarted)
    assert code in {1, 2}
    assert "towpath.toml" in words
    assert "Traceback" not in words


def test_signals_end_it_cleanly(unstarted):
    for number in (signal.SIGTERM, signal.SIGINT):
        with told_apart([unstarted.daemon]):
            unstarted.daemon.start()
            began = time.monotonic()
            unstarted.daemon.process.signal(number)
            assert unstarted.daemon.process.wait(10) == 0
            assert time.monotonic() - began < 5
