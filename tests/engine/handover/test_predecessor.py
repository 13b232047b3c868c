"""Who is asked to hand over where the socket is ours, too, without daemons."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import pytest

from engine.control.messages import Answer, Fault
from engine.errors import KernelError, TowpathError, UnreachableDaemonError
from engine.handover import predecessor
from engine.handover.predecessor import predecessor_at_our_socket
from engine.lockfile import LockFile


@pytest.fixture
def listening(tmp_path):
    """A socket as a service manager leaves it."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "control.sock"))
        listening.listen()
        yield listening


@pytest.fixture
def path(listening):
    return Path(listening.getsockname())


@contextmanager
def daemon(listening, behave):
    """Somebody who gets the first request, and the connection, and keeps it open."""
    with ExitStack() as stack:

        def serve():
            connection = stack.enter_context(listening.accept()[0])
            connection.recv(65536)
            behave(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join(20)


def error(what, exit_code):
    return msgspec.json.encode(Answer(error=Fault(what, exit_code=exit_code))) + b"\n"


def test_a_daemon_that_ends_without_an_answer_is_waited_for_no_longer_than_it_lives(listening, path, tmp_path):
    lock = LockFile(tmp_path)
    began = time.monotonic()
    with daemon(listening, lambda _: lock.release()):
        assert predecessor_at_our_socket(path, tmp_path, insist=False) is None
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("last_words", [error("the daemon is stopping", 4), b""])
def test_a_daemon_that_is_about_to_end_is_waited_for(listening, path, tmp_path, monkeypatch, last_words):
    """It says so, or hangs up on whoever asks, before it lets go of its directory."""
    lock = LockFile(tmp_path)
    wait = predecessor.is_free_in_time

    def end_and_wait(*arguments):
        lock.release()
        return wait(*arguments)

    def answer(connection):
        connection.sendall(last_words)
        if not last_words:
            connection.close()
            lock.release()

    monkeypatch.setattr(predecessor, "is_free_in_time", wait if not last_words else end_and_wait)
    with daemon(listening, answer):
        assert predecessor_at_our_socket(path, tmp_path, insist=False) is None


def test_a_daemon_that_cannot_be_asked_and_does_not_end_is_said(listening, path, tmp_path, monkeypatch):
    lock = LockFile(tmp_path)
    monkeypatch.setattr(predecessor, "END_PATIENCE", 0.1)
    with daemon(listening, lambda connection: connection.sendall(error("the daemon is stopping", 4))), pytest.raises(UnreachableDaemonError, match="is stopping"):
        predecessor_at_our_socket(path, tmp_path, insist=False)
    lock.release()


def test_a_refusal_ends_the_start(listening, path, tmp_path):
    lock = LockFile(tmp_path)
    with daemon(listening, lambda connection: connection.sendall(error("cannot take over", 1))), pytest.raises(TowpathError, match="cannot take over"):
        predecessor_at_our_socket(path, tmp_path, insist=False)
    lock.release()


@pytest.mark.parametrize("insist", [False, True])
def test_nobody_is_followed_by_a_usual_start(path, tmp_path, insist):
    assert predecessor_at_our_socket(path, tmp_path, insist=insist) is None


@pytest.mark.parametrize("exit_code", [1, 3, 4])
def test_who_insists_does_not_start_beside_a_daemon_of_another_directory(listening, path, tmp_path, exit_code):
    with daemon(listening, lambda connection: connection.sendall(error("not now", exit_code))), pytest.raises(TowpathError, match="not now"):
        predecessor_at_our_socket(path, tmp_path, insist=True)


def test_a_directory_that_cannot_be_locked_is_one_sentence(path, tmp_path, monkeypatch):
    LockFile(tmp_path).release()

    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    for work in (lambda: predecessor_at_our_socket(path, tmp_path, insist=False), lambda: LockFile(tmp_path)):
        with pytest.raises(KernelError, match=r"cannot lock the state directory: No locks available"):
            work()
