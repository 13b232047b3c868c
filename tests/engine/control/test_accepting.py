"""Callers of a socket while the process has no descriptor for them."""

from __future__ import annotations

import errno
import os
import resource
import socket
from contextlib import contextmanager

import pytest

from engine.control.accepting import PAUSE, Acceptor
from engine.control.health import HealthServer
from engine.views import Health


@contextmanager
def no_descriptors():
    """Nothing more can be opened inside."""
    free = os.dup(0)
    os.close(free)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def is_ready(loop):
    """Whether a turn would do something without waiting."""
    return bool(loop._selector.select(0))


@pytest.fixture
def served(loop):
    """The acceptor, somebody who calls, and who was welcomed."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    welcomed = []
    acceptor = Acceptor(loop, listening, welcomed.append, at_once=4)
    with socket.create_connection(listening.getsockname()):
        yield acceptor, welcomed
    if acceptor.fileno() >= 0:
        acceptor.close()
    for connection in welcomed:
        connection.close()


def starve(loop):
    with no_descriptors():
        loop.turn(5)


def test_callers_wait_and_turn_nothing_while_there_are_no_descriptors(loop, clock, served):
    _, welcomed = served
    starve(loop)
    assert welcomed == []
    assert not is_ready(loop)
    clock.now += PAUSE
    loop.turn()
    loop.turn(5)
    assert len(welcomed) == 1


def test_a_pause_does_not_end_a_rest(loop, clock, served):
    acceptor, welcomed = served
    starve(loop)
    acceptor.rest()
    clock.now += PAUSE
    loop.turn()
    assert not is_ready(loop)
    acceptor.resume()
    loop.turn(5)
    assert len(welcomed) == 1


def test_a_pause_ends_with_the_socket(loop, clock, served, caplog):
    acceptor, _ = served
    starve(loop)
    acceptor.close()
    clock.now += PAUSE
    loop.turn()
    assert caplog.records == []
    assert not is_ready(loop)


class Refusing:
    """A listening socket at which the next call fails."""

    def __init__(self, listening, number):
        self._listening, self._number = listening, number

    def accept(self):
        number, self._number = self._number, 0
        if number:
            raise OSError(number, os.strerror(number))
        return self._listening.accept()

    def __getattr__(self, name):
        return getattr(self._listening, name)


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.ENOBUFS, errno.EINVAL, errno.ECONNABORTED, errno.EPERM])
def test_whatever_is_not_the_callers_fault_is_waited_for(loop, clock, number):
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    welcomed = []
    acceptor = Acceptor(loop, Refusing(listening, number), welcomed.append, at_once=4)
    with socket.create_connection(listening.getsockname()):
        loop.turn(5)
        assert welcomed == []
        assert is_ready(loop) == (number in (errno.ECONNABORTED, errno.EPERM))
        clock.now += PAUSE
        loop.turn()
        if not welcomed:
            loop.turn(5)
    assert len(welcomed) == 1
    acceptor.close()
    welcomed[0].close()


def test_once_it_is_closed_nothing_is_asked_of_it(loop, served):
    acceptor, welcomed = served
    acceptor.close()
    for action in (acceptor.rest, acceptor.resume, acceptor.close):
        action()
    loop.turn()
    assert welcomed == []


def test_health_checks_turn_nothing_either(loop, clock):
    server = HealthServer(loop, "127.0.0.1", 0, lambda: Health(live=True, ready=True))
    with socket.create_connection(server.address) as caller:
        starve(loop)
        assert not is_ready(loop)
        clock.now += PAUSE
        caller.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
        caller.settimeout(5)
        for _ in range(3):  # the pause ends, the connection is taken, the request is read
            loop.turn(1)
        assert b" 200 OK\r\n" in caller.recv(4096)
    server.close()
