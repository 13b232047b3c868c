"""Sockets of a service manager: whose they are, what is refused, and that no child hears of them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from engine.control.activation import PassedSockets, listens_on, passed_sockets
from tests.engine.nodes import child_environment, handing_over

STREAM, PACKETS = socket.SOCK_STREAM, socket.SOCK_SEQPACKET


def listening(path, kind=STREAM):
    opened = socket.socket(socket.AF_UNIX, kind)
    opened.bind(str(path))
    opened.listen()
    return opened


def handed(sockets, code):
    """What a process to which these sockets are handed prints."""
    before, descriptors = handing_over(sockets)
    command = [*before, sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=child_environment(), pass_fds=descriptors, check=False)
    return done.stdout or done.stderr


def test_a_process_is_handed_its_sockets_once(tmp_path):
    code = """
import json, os, socket
from engine.control.activation import passed_sockets
passed, again = passed_sockets(os.environ), passed_sockets(os.environ)
first = passed.claim(socket.SOCK_STREAM, "PATH")
print(json.dumps({
    "claimed": first is not None and first.getsockname(),
    "blocking": first.getblocking(),
    "inheritable": os.get_inheritable(first.fileno()),
    "twice": passed.claim(socket.SOCK_STREAM, "PATH") is not None,
    "again": bool(again),
    "left": [name for name in os.environ if name.startswith("LISTEN_")],
    "rest": str(passed.refuse_the_rest()),
    "then": bool(passed),
}))
""".replace("PATH", str(tmp_path / "a"))
    with listening(tmp_path / "a") as one, listening(tmp_path / "b", PACKETS) as other:
        said = json.loads(handed({"control": one, "strange": other}, code))
    assert said.pop("claimed") == str(tmp_path / "a")
    assert f"not used: strange at {tmp_path / 'b'}" in said.pop("rest")
    assert said == {"blocking": False, "inheritable": False, "twice": False, "again": False, "left": [], "then": False}


def test_what_does_not_listen_is_refused(tmp_path):
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "a"))
        said = handed({"a": bound}, "import os; from engine.control.activation import passed_sockets as p; p(os.environ)")
    assert "descriptor 3, which cannot be used: it does not listen (write Accept=no" in said


@pytest.mark.parametrize("process", ["", "1", "x"])
@pytest.mark.parametrize("count", ["", "1", "-1", "x"])
def test_what_is_meant_for_another_process_is_left_alone(process, count):
    environment = {"LISTEN_PID": process, "LISTEN_FDS": count, "OTHER": "stays"}
    assert not passed_sockets(environment)
    assert environment == {"OTHER": "stays"}
    assert not passed_sockets({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "0"})


def test_a_socket_is_known_by_kind_and_address(tmp_path):
    path = tmp_path / "a"
    passed = PassedSockets([("a", listening(path, PACKETS))])
    assert not passed.has(STREAM, str(path))
    assert not passed.has(PACKETS, str(tmp_path / "b"))
    assert passed.has(PACKETS, str(path))
    Path(path).unlink()
    assert passed.claim(PACKETS, str(path)) is None, "nobody can come by it any more"
    passed.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_address_of_either_family_is_known(host):
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as opened:
        port = opened.getsockname()[1]
        assert listens_on(opened, STREAM, (host, port))
        assert not listens_on(opened, STREAM, (host, port + 1))
