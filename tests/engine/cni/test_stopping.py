"""A daemon that stops completes what is asked of it, or undoes it, and leaves nobody waiting."""

from __future__ import annotations

import json
import socket
import threading

import pytest

from engine.cni import server
from engine.cni.call import MESSAGE_LIMIT, checked, pack
from engine.cni.server import Server
from tests.engine.cni.home import Home
from tests.engine.cni.runtime import Runtime, finished
from tests.engine.namespaces import device, path_of

pytestmark = [pytest.mark.root, pytest.mark.needs("ip")]


@pytest.fixture
def home(tmp_path):
    with Home(tmp_path) as made:
        made.server = Server(made.node.loop, tmp_path / "cni.sock", made.verbs)
        yield made


@pytest.fixture
def runtime(home):
    return Runtime(home.folder / "cni.sock", home.spool)


def stop(home):
    home.node.loop.stop()
    home.server.close()
    home.verbs.close()


def plugin(folder, script):
    """A delegated plugin that says that it began."""
    program = folder / "lazy"
    program.write_text(f"#!/bin/sh\ntouch {folder}/$CNI_COMMAND\n{script}\n")
    program.chmod(0o755)


def begin_delegated(home, runtime, sandbox):
    text = json.dumps(runtime.configuration(ipam={"type": "lazy"})).encode()
    variables = {"CNI_CONTAINERID": "c1", "CNI_NETNS": path_of(sandbox), "CNI_IFNAME": "eth0"}
    running = runtime.start_raw({**variables, "CNI_COMMAND": "ADD", "CNI_PATH": str(home.folder)}, text)
    home.turn_until((home.folder / "ADD").exists)
    return running


def test_an_addition_under_way_is_completed(home, runtime, sandbox):
    go_on = home.folder / "go-on"
    answer = '{"cniVersion":"1.1.0","ips":[{"address":"10.1.0.77/24"}]}'
    plugin(home.folder, f"while [ $CNI_COMMAND = ADD ] && [ ! -e {go_on} ]; do sleep 0.01; done; echo '{answer}'")
    running = begin_delegated(home, runtime, sandbox)
    threading.Timer(0.2, go_on.touch).start()
    stop(home)
    said = finished(running)
    assert (said.status, said.addresses()) == (0, ["10.1.0.77"])
    (attachment,) = home.node.residents.attachments
    assert attachment.confirmed
    assert device(sandbox) is not None


@pytest.mark.parametrize("hangs", ["always", "to give an address"])
def test_an_addition_that_takes_too_long_is_undone_and_answered(home, runtime, sandbox, monkeypatch, hangs):
    monkeypatch.setattr(server, "PATIENCE", 0.2)
    monkeypatch.setattr("engine.cni.verbs.PATIENCE", 0.5)
    done = home.folder / "given-back"
    plugin(home.folder, "sleep 60" if hangs == "always" else f"[ $CNI_COMMAND = DEL ] || sleep 60; touch {done}")
    running = begin_delegated(home, runtime, sandbox)
    stop(home)
    assert finished(running, 5).code == 11
    assert done.exists() is (hangs != "always")
    assert home.node.residents.pods() == ()
    left = [attachment.container for attachment in home.node.residents.leaving]
    assert left == (["c1"] if hangs == "always" else []), "the next daemon tells the plugin"
    assert device(sandbox) is None


def test_an_answer_that_nobody_takes_is_taken_back(home, sandbox, monkeypatch):
    monkeypatch.setattr(server, "PATIENCE", 0.2)
    variables = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": path_of(sandbox), "CNI_IFNAME": "eth0"}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as caller:
        caller.connect(str(home.folder / "cni.sock"))
        caller.send(pack(variables, b'{"cniVersion":"1.1.0","name":"pods"}'))
        home.turn_until(lambda: device(sandbox) is not None)
        stop(home)
        assert caller.recv(MESSAGE_LIMIT).startswith(b"0\n")
        assert caller.recv(MESSAGE_LIMIT) == b""
    assert home.node.residents.attachments == []
    assert home.given() == []
    assert device(sandbox) is None


def test_a_deletion_in_its_thread_is_completed(home, runtime, sandbox, slow_kernel):
    assert home.add("c1", sandbox)["ips"]
    begun, finish = slow_kernel
    running = runtime.start("DEL", "c1", interface="eth0")
    home.turn_until(begun.is_set)
    threading.Timer(0.2, finish.set).start()
    stop(home)
    assert finished(running).status == 0
    assert list(home.spool.iterdir()) == []
    assert home.node.residents.attachments == []
    assert home.given() == []
    assert device(sandbox) is None


def test_an_addition_whose_caller_went_away_before_its_turn_is_not_begun(home, sandbox, slow_kernel, monkeypatch):
    assert home.add("c1", sandbox)["ips"]
    begun, finish = slow_kernel
    deleted = home.begin("DEL", "c1")
    home.turn_until(begun.is_set)
    variables = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": path_of(sandbox), "CNI_IFNAME": "eth0"}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as caller:
        caller.connect(str(home.folder / "cni.sock"))
        caller.send(pack(variables, b'{"cniVersion":"1.1.0","name":"pods"}'))
        home.turn_until(lambda: len(home.verbs._tasks) == 3)  # the deletion, its device, and this
    home.turn_until(lambda: not home.server._clients)
    looked = []
    monkeypatch.setattr("engine.cni.addition.sandbox.look", looked.append)
    finish.set()
    home.settle()
    assert deleted == [None]
    assert looked == []
    assert device(sandbox) is None
    home.server.close()


def test_an_addition_whose_caller_went_away_before_anybody_read_it_is_not_begun(home, sandbox, monkeypatch, caplog):
    """As at a socket that a service manager held while no daemon could start."""
    variables = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": path_of(sandbox), "CNI_IFNAME": "eth0"}
    looked = []
    monkeypatch.setattr("engine.cni.addition.sandbox.look", looked.append)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as caller:
        caller.connect(str(home.folder / "cni.sock"))
        caller.send(pack(variables, b'{"cniVersion":"1.1.0","name":"pods"}'))
    home.turn_until(lambda: "went away before its turn" in caplog.text or looked)
    home.turn_until(lambda: home.server.idle)
    assert looked == []
    home.server.close()


def test_a_plugin_is_not_asked_for_a_caller_that_went_away_before_its_turn(home, sandbox, monkeypatch):
    """Sixteen hanging ones are before it."""
    awaited, begun, asked = [True], [], []
    hold, enough = threading.Event(), threading.Event()

    def wait(number):
        begun.append(number)
        if len(begun) == 16:
            enough.set()
        assert hold.wait(10)

    for number in range(16):
        home.verbs._programs._threads.submit(wait, number)
    assert enough.wait(10)
    monkeypatch.setattr(home.verbs._plugins, "add", lambda *arguments: asked.append(arguments))
    variables = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": path_of(sandbox), "CNI_IFNAME": "eth0"}
    text = json.dumps({"cniVersion": "1.1.0", "name": "pods", "ipam": {"type": "lazy"}}).encode()
    said = []
    home.verbs.serve(checked(variables, text), lambda reply, _: said.append(reply.status), lambda: awaited[0])
    assert [attachment.container for attachment in home.node.residents.leaving] == ["c1"]
    awaited[0] = False
    hold.set()
    home.settle()
    assert (said, asked) == ([1], [])
    assert home.node.residents.attachments == []
    home.server.close()


def test_whoever_has_not_said_anything_is_not_waited_for(home, monkeypatch):
    monkeypatch.setattr(home.node.loop, "turn", None)  # no turn is needed
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as caller:
        caller.connect(str(home.folder / "cni.sock"))
        home.server._acceptor._accept(0)
        stop(home)
        assert caller.recv(10) == b""


def test_a_socket_whose_path_somebody_removed_is_made_anew(home):
    path = home.folder / "inherited.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(path))
        listening.listen()
        inherited = listening.dup()
    path.unlink()
    made = Server(home.node.loop, path, home.verbs, listening=inherited)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.connect(str(path))
    made.close()
    home.server.close()
    assert not path.exists()
