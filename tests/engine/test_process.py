"""What the daemon does as a process: lock file, service manager, logs."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import stat
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from engine import logs, notify
from engine.errors import KernelError
from engine.lockfile import LockFile
from engine.logs import RateLimit
from tests.engine.namespaces import wait_for

ROOT = Path(__file__).parents[2]


# -- lock -----------------------------------------------------------------------
def test_the_second_is_refused_and_told_who_holds_it(tmp_path):
    first = LockFile(tmp_path / "state")
    with pytest.raises(KernelError, match=rf"process {os.getpid()}\) uses this state directory \(stop it"):
        LockFile(tmp_path / "state")
    first.release()
    LockFile(tmp_path / "state").release()


def test_a_killed_holder_holds_nothing(tmp_path):
    hold = "import sys, time; from pathlib import Path; from engine.lockfile import LockFile"
    code = f"{hold}; LockFile(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, cwd=ROOT)
    with child:
        assert child.stdout.readline() == b"held\n"
        with pytest.raises(KernelError, match=f"process {child.pid}"):
            LockFile(tmp_path)
        child.kill()
        child.wait()
    LockFile(tmp_path).release()


def test_who_only_looks_is_in_nobodys_way(tmp_path):
    """Several look all the time: whoever wants the free lock gets it, every time."""
    look = "import sys; from pathlib import Path; from engine.lockfile import is_held\nwhile True: is_held(Path(sys.argv[1]))"
    LockFile(tmp_path).release()
    lookers = [subprocess.Popen([sys.executable, "-c", look, tmp_path], cwd=ROOT) for _ in range(2)]
    try:
        wait_for(lambda: _is_looked_at(tmp_path / "lock"))
        for _ in range(300):
            LockFile(tmp_path).release()
    finally:
        for looker in lookers:
            looker.kill()
            looker.wait()


def _is_looked_at(file):
    """Somebody shares the lock in this moment."""
    with file.open() as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_of_those_who_start_at_once_one_wins(tmp_path):
    """The others hear who it is, or who it was a moment ago."""
    begin = (
        "import sys; from pathlib import Path; from engine.errors import KernelError\n"
        "from engine.lockfile import LockFile, is_held\n"
        "print(flush=True); sys.stdin.readline(); is_held(Path(sys.argv[1]))\n"
        "try: LockFile(Path(sys.argv[1]))\n"
        "except KernelError as error: print(error, flush=True)\n"
        "else: print('won', flush=True)\n"
        "sys.stdin.readline()"
    )
    pipe = subprocess.PIPE
    for _ in range(5):
        with ExitStack() as stack:
            starters = [
                stack.enter_context(subprocess.Popen([sys.executable, "-c", begin, tmp_path], stdin=pipe, stdout=pipe, cwd=ROOT))
                for _ in range(4)
            ]
            for starter in starters:
                starter.stdout.readline()  # it has loaded everything
            for starter in starters:
                starter.stdin.write(b"\n")
                starter.stdin.flush()
            heard = [starter.stdout.readline() for starter in starters]
            assert heard.count(b"won\n") == 1
            assert sum(b"another daemon" in words for words in heard) == 3


@pytest.mark.parametrize("before", [None, 0o644, 0o666])
def test_nobody_else_can_hold_the_lock(tmp_path, before):
    """Whoever can read the file can."""
    file = tmp_path / "lock"
    if before is not None:
        file.touch()
        file.chmod(before)
    LockFile(tmp_path).release()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_directory_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(KernelError, match=r"cannot use the state directory.*state.directory"):
        LockFile(tmp_path / "file" / "state")


# -- service manager --------------------------------------------------------------
@pytest.mark.parametrize("abstract", [False, True])
def test_messages_reach_the_manager(tmp_path, monkeypatch, abstract):
    name = f"@towpath-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name[1:] if abstract else name)
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        assert notify.notify("READY=1", "STATUS=fine")
        assert manager.recv(100) == b"READY=1\nSTATUS=fine"


@pytest.mark.parametrize("address", [None, "", "relative", "/nowhere/at/all"])
def test_without_a_manager_nothing_happens(monkeypatch, address):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not notify.notify("READY=1")


@pytest.mark.parametrize(
    ("environment", "pause"),
    [
        ({"WATCHDOG_USEC": "3000000"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "junk"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_pause_is_half_of_what_is_allowed(monkeypatch, environment, pause):
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert notify.watchdog_pause() == pause


# -- logs -------------------------------------------------------------------------
def record(line):
    return logging.LogRecord("engine", logging.INFO, "file.py", line, "said %d", (line,), None)


def test_one_place_cannot_flood_the_log_and_the_rest_is_counted(monkeypatch):
    now = 0.0
    monkeypatch.setattr(logs.time, "monotonic", lambda: now)
    limit = RateLimit()
    assert sum(limit.filter(record(1)) for _ in range(1000)) == 20
    assert limit.filter(record(2)), "another place is not affected"
    now = 1.0
    again = record(1)
    assert limit.filter(again)
    assert again.getMessage() == "said 1 (and 980 more like it)"


def test_a_log_line_is_json_with_the_exception_in_it():
    code = (
        "import logging; from engine.logs import set_up_logs; set_up_logs('info', 'json')\n"
        "log = logging.getLogger('engine.x'); log.debug('not shown')\n"
        "try: 1 / 0\n"
        "except ZeroDivisionError: log.exception('it %s', 'failed')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    (line,) = done.stderr.splitlines()
    said = json.loads(line)
    assert (said["event"], said["level"], said["logger"]) == ("it failed", "error", "engine.x")
    assert "ZeroDivisionError" in said["exception"]


def test_text_is_for_people():
    code = "import logging; from engine.logs import set_up_logs; set_up_logs('info', 'text'); logging.warning('hello')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "hello" in done.stderr
    assert not done.stderr.startswith("{")
