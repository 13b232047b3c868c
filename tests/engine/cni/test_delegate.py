"""Delegated plugins end within their time, and with the daemon."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from engine.cni import delegate
from engine.cni.answer import CniError
from engine.cni.call import Call
from engine.cni.orphans import Orphans
from tests.engine.namespaces import wait_for


@pytest.fixture
def sleeper(tmp_path):
    """A plugin that starts another program, writes down its number, and waits for a minute."""
    program = tmp_path / "sleeper"
    program.write_text(f"#!/bin/sh\nsleep 60 &\necho $! > {tmp_path}/pid\nwait\n")
    program.chmod(0o755)
    return Call("ADD", "c1", "/x", "eth0", search_path=str(tmp_path), input=b"{}")


def plugins_of(folder):
    return delegate.Plugins(Orphans(folder / "plugins.lock"))


def started(folder):
    wait_for(lambda: (folder / "pid").exists() and (folder / "pid").read_text().strip())
    return Path("/proc", (folder / "pid").read_text().strip())


def ended(process):
    """Gone, or dead and not yet waited for by its new parent."""
    try:
        return process.joinpath("stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_closing_ends_what_runs_and_lets_nothing_begin(sleeper, tmp_path):
    plugins, refused = plugins_of(tmp_path), []

    def ask():
        try:
            plugins.run("sleeper", sleeper, "ADD")
        except CniError as error:
            refused.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    child = started(tmp_path)
    began = time.monotonic()
    plugins.close()
    thread.join(5)
    assert not thread.is_alive()
    assert time.monotonic() - began < 5
    assert [error.code for error in refused] == [105]
    wait_for(lambda: ended(child))
    with pytest.raises(CniError, match="the daemon stops"):
        plugins.run("sleeper", sleeper, "DEL")


def test_one_that_takes_too_long_is_ended_with_all_it_started(sleeper, tmp_path, monkeypatch):
    monkeypatch.setattr(delegate, "DEADLINE", 0.3)
    with pytest.raises(CniError, match="did not answer") as caught:
        plugins_of(tmp_path).run("sleeper", sleeper, "ADD")
    assert caught.value.code == 11
    child = started(tmp_path)
    wait_for(lambda: ended(child))


@pytest.mark.parametrize("said", ["", "nonsense", "[]", '{"supportedVersions":7}'])
def test_one_that_does_not_tell_its_versions(tmp_path, said):
    program = tmp_path / "mute"
    program.write_text(f"#!/bin/sh\necho '{said}'\n")
    program.chmod(0o755)
    call = Call("GC", search_path=str(tmp_path), input=b"{}")
    with pytest.raises(CniError, match="does not tell its versions"):
        plugins_of(tmp_path).knows("mute", call, "1.1.0")


@pytest.mark.parametrize("code", ["0", "-7", "1e300", "4294967296", '"x"'])
def test_one_that_fails_with_a_code_that_is_none(tmp_path, code):
    program = tmp_path / "odd"
    program.write_text(f"#!/bin/sh\necho '{{\"code\": {code}, \"msg\": \"no\"}}'\nexit 1\n")
    program.chmod(0o755)
    with pytest.raises(CniError, match="IPAM plugin odd failed") as caught:
        plugins_of(tmp_path).run("odd", Call("ADD", search_path=str(tmp_path), input=b"{}"), "ADD")
    assert caught.value.code == 105
