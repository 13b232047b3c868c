"""What a daemon does with a successor that does not come about, without processes."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from engine import daemon
from engine.control.activation import PassedSockets
from engine.control.messages import TakeoverParameters
from engine.errors import KernelError, UnreachableDaemonError


@pytest.mark.parametrize("step", ["estate", "hand_over"])
def test_a_handover_that_fails_in_a_way_nobody_foresaw_leaves_runtimes_served(monkeypatch, step):
    served = []

    def fail(*_, **__):
        raise MemoryError(step)

    estate = SimpleNamespace(others={}, lent=set())
    monkeypatch.setattr(daemon, "hand_over", fail)
    running = SimpleNamespace(
        _node=SimpleNamespace(estate=fail if step == "estate" else lambda: estate),
        _listeners={},
        _found=SimpleNamespace(lent=set()),
        _runtimes=SimpleNamespace(resume=lambda: served.append("again")),
        _check_handover=None,
    )
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with pytest.raises(MemoryError, match=step):
            daemon.Daemon._give(running, ours)
        assert theirs.recv(1) == b"", "the successor is told"
    assert served == ["again"]


@pytest.mark.parametrize("step", ["_hand_over", "_hand_over_when_idle"])
def test_who_is_stopping_hands_nothing_over(step):
    """The listener of runtimes is closed by then, or about to be: it neither rests nor takes calls again."""
    running = SimpleNamespace(
        _node=SimpleNamespace(loop=SimpleNamespace(stopping=True, clock=lambda: 0.0)),
        _runtimes=SimpleNamespace(idle=True),
    )
    ours, theirs = socket.socketpair()
    with ours, theirs:
        getattr(daemon.Daemon, step)(running, ours, *([1.0] if step == "_hand_over_when_idle" else []))
        assert theirs.recv(1) == b"", "the successor is told"


def test_who_is_stopping_says_so():
    running = SimpleNamespace(_node=SimpleNamespace(loop=SimpleNamespace(stopping=True)))
    with pytest.raises(UnreachableDaemonError, match=r"is stopping \(start another once it has ended\)"):
        daemon.Daemon._agree(running, TakeoverParameters(1, 1))


def refuse(*_):
    raise KernelError("not here")


def test_a_successor_that_cannot_listen_gives_up_and_says_why():
    said = []
    ours, theirs = socket.socketpair()
    takeover = SimpleNamespace(listener=lambda *_: ours, lent=frozenset(), give_up=lambda why: said.append(str(why)))
    starting = SimpleNamespace(_listen=refuse)
    with theirs:
        with pytest.raises(KernelError), ExitStack() as parts:
            config, passed = SimpleNamespace(cni_socket=""), PassedSockets([])
            daemon.Daemon._claim_sockets(starting, config, passed, takeover, parts)
        assert said == ["not here"]
        assert theirs.recv(1) == b"", "the socket of runtimes is not left open"


def test_nobody_is_asked_to_give_way_while_the_spool_cannot_be_had(monkeypatch):
    monkeypatch.setattr(daemon, "open_spool", refuse)
    starting = SimpleNamespace(_node=SimpleNamespace(loop=None), _predecessor=lambda *_: pytest.fail("was asked"))
    config = SimpleNamespace(state=SimpleNamespace(directory=""))
    with pytest.raises(KernelError):
        daemon.Daemon._start(starting, config, PassedSockets([]), ExitStack())
