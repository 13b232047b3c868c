"""The control socket under friendly and hostile clients."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time

import msgspec
import pytest

from engine import views
from engine.control import server as module
from engine.control.client import Client
from engine.control.messages import PARAMETERS, READING, REQUEST_LIMIT, RESULTS
from engine.control.server import Server
from engine.errors import ConfigError, KernelError, TowpathError, UnreachableDaemonError
from engine.loop import Loop

BIG = 8 << 20


def refuse(parameters):
    raise ConfigError("no such thing", where="here", remedy="look there")


def break_down(parameters):
    raise ZeroDivisionError


HANDLERS = {
    "version": lambda _: views.Version("1", 1, os.getpid(), "3"),
    "routes": lambda p: views.Routes([views.Route(p.within or "all", [])], p.limit),
    "route_get": lambda p: views.RouteGet(p.address, None),
    "counters": lambda _: views.Counters(0, 0, 0, 0, [], {"x" * BIG: 1}),
    "reload": refuse,
    "drops": break_down,
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "t.sock"


@pytest.fixture
def loop():
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def served(loop, path):
    """A server in a thread of its own."""
    server = Server(loop, path, HANDLERS)
    thread = threading.Thread(target=loop.run)
    thread.start()
    yield server
    loop.stop()
    thread.join()
    server.close()


def raw(path, timeout=10.0):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(path))
    connection.settimeout(timeout)
    return connection


def line_of(connection):
    with connection.makefile("rb") as stream:
        return json.loads(stream.readline())


def is_alive(path):
    with Client(path) as client:
        return client.ask("version", views.Version).version == "1"


def test_a_question_gets_its_typed_answer(served, path):
    with Client(path) as client:
        assert client.ask("version", views.Version).pid == os.getpid()
        assert client.ask("routes", views.Routes, within="10.0.0.0/8", limit=7).routes[0].prefix == "10.0.0.0/8"
        assert client.ask("route_get", views.RouteGet, address="10.0.0.1").route is None


def test_every_method_has_parameters_and_a_result():
    assert set(PARAMETERS) == set(RESULTS)
    assert set(PARAMETERS) > READING


def test_the_socket_is_for_owner_and_group_only(served, path):
    assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_the_folder_that_is_made_for_it_can_be_entered(loop, path):
    before = os.umask(0o022)
    try:
        Server(loop, path, HANDLERS).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755, "or its group could not reach the socket"


def test_an_error_arrives_as_it_was_raised(served, path):
    with Client(path) as client:
        with pytest.raises(ConfigError, match=r"^here: no such thing \(look there\)$"):
            client.ask("reload", views.Reload)
        with pytest.raises(TowpathError, match="internal error"):
            client.ask("drops", views.Drops)
        with pytest.raises(TowpathError, match="unknown method"):
            client.ask("destroy", views.Drops)
        with pytest.raises(TowpathError, match="parameters of routes"):
            client.ask("routes", views.Routes, offset="x")
        with pytest.raises(TowpathError, match="parameters of version"):
            client.ask("version", views.Version, extra=1)


def test_a_large_answer_arrives_whole(served, path):
    with Client(path) as client:
        assert list(client.ask("counters", views.Counters).events) == ["x" * BIG]


def test_byte_by_byte_is_the_same_as_whole(served, path):
    with raw(path) as connection:
        for byte in b'{"method":"version","id":5}\n':
            connection.send(bytes([byte]))
        assert line_of(connection)["id"] == 5


def test_several_requests_in_one_piece_are_answered_in_order(served, path):
    with raw(path) as connection:
        connection.send(b"".join(b'{"method":"version","id":%d}\n' % number for number in range(50)))
        with connection.makefile("rb") as stream:
            ids = [json.loads(stream.readline()).get("id", 0) for _ in range(50)]
        assert ids == list(range(50))


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"garbage",
        b"\x00\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        b'{"method":1}',
        b'{"method":"version","params":[]}',
        b'{"method":"version","params":null}',
        b'{"method":"version","id":"x"}',
        b'{"method":"version","unknown":1}',
        b'{"method":"__class__"}',
        b'{"method":"' + b"m" * 10_000 + b'"}',
        b"[" * 30_000,
        b'{"method":"routes","params":' + b"[" * 30_000 + b"}",
        b'{"method":"routes","params":{"limit":1e999}}',
        b'{"method":"routes","params":{"limit":-1}}',
        b'{"method":"routes","params":{"limit":99999999999999999999999999}}',
    ],
)
def test_garbage_gets_one_error_line_and_harms_nobody(served, path, line):
    with raw(path) as connection:
        connection.send(line + b"\n")
        answer = line_of(connection)
        assert answer["error"]["what"]
        assert len(json.dumps(answer)) < 2000
        connection.send(b'{"method":"version"}\n')
        assert line_of(connection)["result"]["version"] == "1"


def test_a_line_without_end_is_cut_off_and_its_memory_bounded(served, path):
    """A gigabyte is offered; the server takes little more than its limit."""
    piece = b"x" * (1 << 20)
    sent = 0
    with raw(path) as connection:
        while sent < 1 << 30:
            try:
                sent += connection.send(piece)
            except OSError:
                break
        assert sent < 16 * (1 << 20)
        try:
            assert "at most" in line_of(connection)["error"]["what"]
        except ConnectionResetError:
            pass  # it closed with our bytes unread
    assert is_alive(path)


def test_a_line_of_exactly_the_limit_is_read(served, path):
    with raw(path) as connection:
        request = b'{"method":"version"' + b" " * (REQUEST_LIMIT - 21) + b"}"
        assert len(request) + 1 == REQUEST_LIMIT
        connection.sendall(request + b"\n")
        assert line_of(connection)["result"]


def test_a_line_that_does_not_end_in_time_is_closed(served, path, monkeypatch):
    monkeypatch.setattr(module, "REQUEST_DEADLINE", 0.1)
    with raw(path) as connection:
        connection.send(b'{"method":')
        assert connection.recv(1) == b""


def test_a_reader_that_does_not_read_is_dropped(served, path, monkeypatch):
    monkeypatch.setattr(module, "ANSWER_DEADLINE", 0.2)
    with raw(path) as connection:
        connection.send(b'{"method":"counters"}\n')
        end = time.monotonic() + 10
        while not any(client._output for client in list(served._clients.values())):
            assert time.monotonic() < end
        while served._clients:
            assert time.monotonic() < end
            assert is_alive(path), "others are served meanwhile"
        received = 0
        while piece := connection.recv(1 << 16):
            received += len(piece)
        assert 0 < received < BIG


def test_a_thousand_clients_are_answered_or_turned_away(served, path):
    connections = []
    try:
        connections.extend(raw(path) for _ in range(1000))
        turned_away = sum(
            1 for connection in connections[module.CLIENTS_LIMIT :] if "too many" in str(line_of(connection))
        )
        assert turned_away == 1000 - module.CLIENTS_LIMIT
        connections[0].send(b'{"method":"version"}\n')
        assert line_of(connections[0])["result"]
    finally:
        for connection in connections:
            connection.close()
    end = time.monotonic() + 10
    while served._clients:
        assert time.monotonic() < end
    assert is_alive(path)


def test_a_turned_away_client_says_so(served, path, monkeypatch):
    monkeypatch.setattr(module, "CLIENTS_LIMIT", 0)
    with pytest.raises(TowpathError, match="too many clients"), Client(path) as client:
        client.ask("version", views.Version)


def test_a_client_that_vanishes_leaves_nothing(served, path):
    for _ in range(20):
        connection = raw(path)
        connection.send(b'{"method":"counters"}\n{"method":')
        connection.close()
    end = time.monotonic() + 10
    while served._clients:
        assert time.monotonic() < end
    assert is_alive(path)


# -- who may ask --------------------------------------------------------------
ASK = """
import sys
from pathlib import Path
from engine import views
from engine.control.client import Client
from engine.errors import TowpathError
try:
    with Client(Path(sys.argv[1])) as client:
        print(client.ask("version", views.Version).version)
except TowpathError as error:
    print(type(error).__name__, error)
"""


def ask_as(path, *options):
    path.parent.chmod(0o755)
    for parent in path.parents:
        if str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    command = ["setpriv", *options, sys.executable, "-c", ASK, str(path)]
    environment = {"PYTHONPATH": ":".join(sys.path), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.root
@pytest.mark.needs("setpriv")
def test_strangers_are_refused_by_the_file_and_by_their_credentials(served, path):
    nobody = ["--reuid", "65534", "--regid", "65534", "--clear-groups"]
    assert "UnreachableDaemonError" in ask_as(path, *nobody).stdout
    path.chmod(0o666)
    answer = ask_as(path, *nobody)
    assert "not permitted" in answer.stdout, answer.stderr


@pytest.mark.root
@pytest.mark.needs("setpriv")
@pytest.mark.parametrize("options", [["--regid", "4242", "--clear-groups"], ["--regid", "65534", "--groups", "4242"]])
def test_members_of_the_group_are_served(loop, path, options):
    server = Server(loop, path, HANDLERS, group="4242")
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        answer = ask_as(path, "--reuid", "65534", *options)
        assert answer.stdout == "1\n", answer.stderr
    finally:
        loop.stop()
        thread.join()
        server.close()


# -- the path -------------------------------------------------------------------
def test_a_dead_socket_is_replaced_and_removed_at_the_end(loop, path):
    path.parent.mkdir()
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    Server(loop, path, HANDLERS).close()
    assert not path.exists()


def test_a_socket_that_is_alive_is_not_taken(served, path, loop):
    with pytest.raises(KernelError, match="another program serves"):
        Server(Loop(), path, HANDLERS)
    assert is_alive(path)


def test_a_file_in_the_way_is_left_alone(loop, path):
    path.parent.mkdir()
    path.write_text("precious")
    with pytest.raises(KernelError, match="not a socket"):
        Server(loop, path, HANDLERS)
    assert path.read_text() == "precious"


def test_an_unknown_group_is_said(loop, path):
    with pytest.raises(KernelError, match="no group"):
        Server(loop, path, HANDLERS, group="no-such-group-here")


# -- the client -----------------------------------------------------------------
def test_without_a_daemon_the_client_says_what_to_do(tmp_path):
    with pytest.raises(UnreachableDaemonError, match=r"no daemon answers \(start one with 'towpath run'"):
        Client(tmp_path / "none.sock")


def test_a_daemon_that_hangs_is_unreachable(tmp_path):
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "s"))
        silent.listen()
        with Client(tmp_path / "s", timeout=0.1) as client, pytest.raises(UnreachableDaemonError, match="not answer"):
            client.ask("version", views.Version)


@pytest.mark.parametrize("answer", [b"junk\n", b"{}\n", b'{"result":{}}\n', b'{"result":[1]}\n', b""])
def test_an_answer_that_is_none_is_an_error(tmp_path, answer):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()

        def serve():
            connection, _ = listening.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with Client(tmp_path / "s") as client, pytest.raises(TowpathError):
            client.ask("version", views.Version)
        thread.join()


def test_a_newer_daemon_may_say_more():
    text = b'{"version":"2","protocol":1,"pid":1,"python":"3","new":[1]}'
    assert msgspec.json.decode(text, type=views.Version).version == "2"
