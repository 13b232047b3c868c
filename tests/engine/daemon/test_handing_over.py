"""What a daemon does with a successor that does not come about, without processes."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import pytest

from engine import daemon


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
