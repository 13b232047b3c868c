"""What a service manager is told, and that one who does not listen holds nobody up."""

from __future__ import annotations

import socket
import time

import pytest

from engine import notify


@pytest.fixture
def manager(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify.sock"))
        listening.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify.sock"))
        yield listening


def test_lines_arrive_as_one_message(manager):
    assert notify.notify("READY=1", "STATUS=fine")
    assert manager.recv(100) == b"READY=1\nSTATUS=fine"


def test_signs_of_life_wait_for_nobody(manager):
    began = time.monotonic()
    for _ in range(10_000):
        notify.alive()
    assert time.monotonic() - began < notify._PATIENCE * 5
    assert manager.recv(100) == b"WATCHDOG=1"


def test_what_matters_waits_a_moment_and_no_longer(manager):
    while notify.notify("STATUS=full", patience=0.0):
        pass
    began = time.monotonic()
    assert not notify.notify("READY=1", patience=0.1)
    assert 0.1 <= time.monotonic() - began < 5
    assert manager.recv(100) == b"STATUS=full"


@pytest.mark.parametrize("address", ["", "relative", "/nowhere/notify.sock"])
def test_nobody_to_be_told(monkeypatch, address):
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not notify.notify("READY=1")
