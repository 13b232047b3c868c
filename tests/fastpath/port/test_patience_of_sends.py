"""A send that finds no room: how often it tries, and which error it tells."""

from __future__ import annotations

import errno
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.cy.probe_send import send_to_socket, write_to_tap

TRIES = 4


@pytest.fixture
def full() -> Iterator[socket.socket]:
    """A socket whose other end reads nothing."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, far:
        near.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                near.send(bytes(1000))
        yield near


@contextmanager
def interrupted() -> Iterator[None]:
    """Signals that end every wait of a millisecond."""
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_try_is_counted_again_only_when_it_is_made(full: socket.socket) -> None:
    assert send_to_socket(full.fileno(), b"x") == (errno.EAGAIN, TRIES - 1)


def test_an_error_that_waiting_does_not_mend_is_told_at_once() -> None:
    assert send_to_socket(-1, b"x") == (errno.EBADF, 0)
    assert write_to_tap(-1, b"x") == errno.EBADF


def test_the_error_is_the_sends_and_not_that_of_the_wait(full: socket.socket) -> None:
    for _ in range(20):
        with interrupted():
            found = send_to_socket(full.fileno(), b"x")[0], write_to_tap(full.fileno(), b"x")
        assert found == (errno.EAGAIN, errno.EAGAIN)
