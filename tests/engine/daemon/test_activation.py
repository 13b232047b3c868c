"""A daemon whose sockets a service manager holds: clients wait for the next one, and a second start is a successor."""

from __future__ import annotations

import signal
import socket
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from engine.control.client import Client
from engine.pod.namespace import run_inside
from engine.views import Health, Status
from tests.engine.namespaces import path_of, wait_for
from tests.engine.nodes import Talk, started, two_nodes

pytestmark = [pytest.mark.root, pytest.mark.needs("ip", "ping")]


@pytest.fixture
def nodes(tmp_path):
    with two_nodes(tmp_path) as made:
        yield made


@contextmanager
def manager(node):
    """What a service manager holds for the node."""
    with ExitStack() as stack:
        kinds = {"control": (node.socket, socket.SOCK_STREAM), "cni": (node.folder / "cni.sock", socket.SOCK_SEQPACKET)}
        opened = {name: stack.enter_context(socket.socket(socket.AF_UNIX, kind)) for name, (_, kind) in kinds.items()}
        for name, (path, _) in kinds.items():
            opened[name].bind(str(path))
            opened[name].listen(64)
        yield opened


def files(node):
    return node.socket.is_socket(), (node.folder / "cni.sock").is_socket()


def call_by_a_runtime(node):
    """A runtime's question before anybody answers; the connection."""
    asking = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    asking.settimeout(20)
    asking.connect(str(node.folder / "cni.sock"))
    return asking


def test_who_came_before_the_daemon_is_served_by_it_and_by_the_next(nodes):
    a = nodes[0]
    with manager(a) as sockets:
        for _ in range(2):
            with Client(a.socket) as early, call_by_a_runtime(a) as runtime:
                a.start(sockets=sockets)
                assert early.ask("health", Health).live
                runtime.send(b"nonsense")
                assert runtime.recv(65536), "a call is answered, whatever it is"
            assert a.status().problems == []
            assert a.stop() == 0
            assert files(a) == (True, True), "the files are the manager's"


def test_a_second_start_with_the_sockets_is_a_successor(nodes):
    a, b = nodes
    with manager(a) as sockets:
        a.start(sockets=sockets)
        b.start()
        with Talk(a, b) as talk:
            assert talk.works()
            for _ in range(2):
                old, pid = a.process, a.status().pid
                a.start(sockets=sockets, wait=False)
                assert old.wait(30) == 0
                wait_for(lambda pid=pid: a.ask("status", Status).pid != pid)
                assert talk.works()
                assert a.status().problems == []
        assert a.stop() == 0
        assert files(a) == (True, True)


def test_a_killed_daemon_is_followed_by_a_start(nodes):
    a = nodes[0]
    with manager(a) as sockets:
        a.start(sockets=sockets)
        a.stop(signal.SIGKILL)
        a.start(sockets=sockets)
        assert a.status().problems == []


def waiting(node):
    """Connections to the control socket that nobody has taken yet."""
    lines = run_inside(path_of(node.host), Path("/proc/thread-self/net/unix").read_text, where="test").splitlines()
    return sum(line.endswith(f" {node.socket}") and line.split()[5] == "02" for line in lines)


def test_a_daemon_that_ends_while_it_is_asked_is_followed_by_a_usual_start(nodes):
    a = nodes[0]
    with manager(a) as sockets:
        old = a.start(sockets=sockets).process
        old.send_signal(signal.SIGSTOP)
        try:
            a.start(sockets=sockets, wait=False)
            wait_for(lambda: waiting(a))
        finally:
            old.kill()
            old.wait(10)
        wait_for(a.is_ready, 30)
        assert a.status().problems == []


def test_nobody_starts_beside_a_daemon_of_another_directory_whose_place_it_was_to_take(nodes):
    a = nodes[0]
    with manager(a) as sockets:
        old = a.start(sockets=sockets).process
        pid = a.status().pid
        a.start("--takeover", "--set", f"state.directory={a.folder / 'other'}", sockets=sockets, wait=False)
        assert a.process.wait(30) == 3
        a.process = old
        assert "the running daemon has another state directory" in a.log.read_text()
        assert a.status().pid == pid
        a.start("--takeover", sockets=sockets, wait=False)
        assert old.wait(30) == 0, "its own directory's successor is welcome afterwards"


def test_a_takeover_with_sockets_where_nobody_runs_is_a_start(nodes):
    a = nodes[0]
    with manager(a) as sockets:
        a.start("--takeover", sockets=sockets)
        assert a.status().problems == []


def test_a_successor_without_sockets_inherits_them_and_leaves_their_files(nodes):
    a = nodes[0]
    with manager(a) as sockets:
        a.start(sockets=sockets)
        for _ in range(2):
            old = a.process
            a.start("--takeover", wait=False)
            assert old.wait(30) == 0
            wait_for(a.is_ready)
        assert a.stop() == 0
        assert files(a) == (True, True)


def test_a_daemon_with_sockets_of_its_own_is_taken_over_too(nodes):
    """The manager has one that the running daemon lacks."""
    a, b = started(nodes)
    assert a.ping(0, b.address(0))
    a.extra = '[health]\nlisten = "127.0.0.1:9099"'
    a.write()
    old = a.process
    with run_inside(path_of(a.host), lambda: socket.create_server(("127.0.0.1", 9099)), where="test") as health:
        a.start(sockets={"health": health}, wait=False)
        assert old.wait(30) == 0
        wait_for(a.is_ready)
        assert a.ping(0, b.address(0))
    assert a.stop() == 0
    assert files(a) == (False, False), "these were its own"


def test_a_socket_that_nobody_serves_is_a_problem(nodes):
    a = nodes[0]
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(a.folder / "other.sock"))
        other.listen()
        a.start(sockets={"other": other})
        (problem,) = a.status().problems
        assert f"not used: other at {a.folder / 'other.sock'}" in problem.what
        assert a.stop() == 0
