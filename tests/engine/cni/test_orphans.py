"""Plugins that outlive a daemon, each part by itself: who is known, who is ended, and who is not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from engine.cni import orphans as module
from engine.cni.answer import CniError
from engine.cni.call import Call
from engine.cni.delegate import NotBegunError, Plugins
from engine.cni.orphans import Orphans
from tests.engine.cni.test_delegate import ended, started
from tests.engine.namespaces import wait_for
from tests.engine.nodes import ROOT

ASKING = """
import sys
from pathlib import Path
from engine.cni.call import Call
from engine.cni.delegate import Plugins
from engine.cni.orphans import Orphans

folder = Path(sys.argv[1])
Plugins(Orphans(folder / "plugins.lock")).run("slow", Call("ADD", search_path=str(folder), input=b"{}"), "ADD")
print("through", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def file(tmp_path):
    return tmp_path / "plugins.lock"


@pytest.fixture
def asking(tmp_path):
    """Starts a process that asks the plugin, which is this script."""
    begun = []

    def ask(script):
        program = tmp_path / "slow"
        program.write_text("#!/bin/sh\n" + script)
        program.chmod(0o755)
        pipe = subprocess.PIPE
        process = subprocess.Popen([sys.executable, "-c", ASKING, tmp_path], cwd=ROOT, stdin=pipe, stdout=pipe)
        begun.append(process)
        return process

    yield ask
    for process in begun:
        process.kill()
        process.communicate()
    with suppress(FileNotFoundError, ProcessLookupError, ValueError):
        os.kill(int((tmp_path / "pid").read_text()), 9)


SLEEPERS = {
    "itself": "echo $$ > {pid}; exec sleep 60",
    "a child": "sleep 60 & echo $! > {pid}; wait",
    "a session of its own": "setsid sh -c 'echo $$ > {pid}; exec sleep 60' & wait",
    "one whose parent is gone": "setsid sh -c 'echo $$ > {pid}; exec sleep 60' & sleep 60",
}


@pytest.mark.parametrize("sleeper", SLEEPERS)
def test_what_a_killed_daemon_asked_is_ended(tmp_path, file, asking, sleeper):
    daemon = asking(SLEEPERS[sleeper].format(pid=tmp_path / "pid"))
    process = started(tmp_path)
    daemon.kill()
    daemon.wait()
    assert not ended(process)
    assert Orphans(file).end()
    assert ended(process)


def test_what_is_left_by_a_call_that_is_over_stays(tmp_path, file, asking):
    """A plugin may start what serves it longer."""
    daemon = asking(f"setsid sleep 60 > /dev/null 2>&1 < /dev/null & echo $! > {tmp_path}/pid")
    process = started(tmp_path)
    assert daemon.stdout.readline() == b"through\n"
    daemon.kill()
    daemon.wait()
    assert Orphans(file).end()
    assert not ended(process)


@pytest.mark.parametrize("end", [Plugins.interrupt, Plugins.close])
def test_what_is_left_by_a_call_that_was_ended_does_not(tmp_path, file, end):
    """The call is not over: this may be the part of it that still gives, or takes back, an address."""
    quiet = "> /dev/null 2>&1 < /dev/null"
    (tmp_path / "slow").write_text(
        f"#!/bin/sh\nsetsid sh -c 'echo $$ > {tmp_path}/pid; exec sleep 60' {quiet} & wait\n"
    )
    (tmp_path / "slow").chmod(0o755)
    plugins, call = Plugins(Orphans(file)), Call("ADD", search_path=str(tmp_path), input=b"{}")
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(plugins.run, "slow", call, "ADD")
        process = started(tmp_path)
        end(plugins)
        with pytest.raises(CniError):
            asked.result(10)
    assert not ended(process)
    try:
        assert Orphans(file).end()
        assert ended(process)
    finally:
        with suppress(ProcessLookupError):
            os.kill(int(process.name), 9)


def test_a_descriptor_that_is_closed_meanwhile_hides_no_other(tmp_path, file, asking, monkeypatch):
    daemon = asking(SLEEPERS["itself"].format(pid=tmp_path / "pid"))
    process = started(tmp_path)
    daemon.kill()
    daemon.wait()
    listed = os.listdir
    monkeypatch.setattr(module, "PATIENCE", 0.5)
    monkeypatch.setattr(os, "listdir", lambda path: ["99999", *listed(path)] if path.endswith("/fd") else listed(path))
    assert Orphans(file).end()
    assert ended(process)


@pytest.fixture
def holder(file):
    """A process, in a session of its own, that holds the lock."""
    with Orphans(file).call() as mark:
        process = subprocess.Popen(["sleep", "60"], pass_fds=(mark,), start_new_session=True)
        yield process
        process.kill()
        process.wait()


@pytest.fixture
def groups_killed(monkeypatch):
    killed = []
    monkeypatch.setattr(os, "killpg", lambda group, _: killed.append(group))
    return killed


@pytest.mark.parametrize("group", [0, 1])
def test_a_group_that_means_others_is_not_ended(file, holder, groups_killed, monkeypatch, group):
    monkeypatch.setattr(os, "getpgid", lambda _: group)
    monkeypatch.setattr(os, "getsid", lambda process: group if process else 7)
    module._kill(holder.pid, file)
    assert holder.wait(10) == -9
    assert groups_killed == []


def test_the_group_of_one_that_goes_meanwhile_is_not_ended(file, holder, groups_killed, monkeypatch):
    """Its number may be another's by then, and so is what was asked of it."""

    def too_late(_):
        holder.kill()
        holder.wait()
        return 4711

    monkeypatch.setattr(os, "getpgid", too_late)
    monkeypatch.setattr(os, "getsid", lambda process: 4711 if process else 7)
    module._kill(holder.pid, file)
    assert groups_killed == []


def test_no_plugin_begins_before_those_have_ended(tmp_path, file, asking, monkeypatch):
    daemon = asking(SLEEPERS["itself"].format(pid=tmp_path / "pid"))
    process = started(tmp_path)
    daemon.kill()
    daemon.wait()
    (tmp_path / "quick").write_text("#!/bin/sh\necho done\n")
    (tmp_path / "quick").chmod(0o755)
    plugins, call = Plugins(Orphans(file)), Call("DEL", search_path=str(tmp_path), input=b"{}")
    with monkeypatch.context() as patched:
        patched.setattr(module, "PATIENCE", 0.1)
        patched.setattr(module, "REST", 0.0)
        patched.setattr(module, "_kill", lambda *_: None)
        with pytest.raises(NotBegunError, match="does not end") as caught:
            plugins.run("quick", call, "DEL")
    assert caught.value.code == 11
    assert plugins.run("quick", call, "DEL") == b"done\n"
    wait_for(lambda: ended(process))


def test_one_that_cannot_be_ended_is_not_sought_all_the_time(file, holder, monkeypatch):
    looks = []
    orphans = Orphans(file)
    monkeypatch.setattr(module, "PATIENCE", 0.02)
    with monkeypatch.context() as patched:
        patched.setattr(module, "_kill", lambda process, _: looks.append(process))
        assert not orphans.end()
        assert looks
        looks.clear()
        assert not orphans.end()
        assert looks == []
        now = time.monotonic()
        patched.setattr(time, "monotonic", lambda: now + module.REST + 1)
        patched.setattr(module, "_is_free", lambda _: True)
        assert orphans.end()


def test_many_threads_that_ask_first_end_none_of_each_other(tmp_path, file):
    (tmp_path / "quick").write_text("#!/bin/sh\nsleep 0.1\necho done\n")
    (tmp_path / "quick").chmod(0o755)
    plugins, call = Plugins(Orphans(file)), Call("DEL", search_path=str(tmp_path), input=b"{}")
    with ThreadPoolExecutor(16) as threads:
        assert set(threads.map(lambda _: plugins.run("quick", call, "DEL"), range(32))) == {b"done\n"}


def test_a_plugin_that_could_not_be_known_later_is_not_asked(tmp_path):
    (tmp_path / "quick").write_text("#!/bin/sh\necho done\n")
    (tmp_path / "quick").chmod(0o755)
    plugins = Plugins(Orphans(tmp_path / "nowhere" / "plugins.lock"))
    with pytest.raises(CniError, match="is not asked") as caught:
        plugins.run("quick", Call("DEL", search_path=str(tmp_path), input=b"{}"), "DEL")
    assert caught.value.code == 5
    assert isinstance(caught.value, NotBegunError)
