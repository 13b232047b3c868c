"""Which process a lab belongs to, and what to do with what a dead one left behind.

Owns: the run directory of a lab (configuration, logs, sockets) and the lock in it.
Never: touches the directory or a process of a lab whose owner lives.
Invariant: the lock is held for as long as the owning process lives and no longer,
so a lock that can be had belongs to the dead.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.lab.waiting import wait_until

PREFIX = "towpath-lab-"
MARK = "TOWPATH_LAB"  # environment of every process of a lab: its run directory
_OWNER = "owner"


class RunDirectory:
    """A directory that says by a lock that its maker is alive."""

    def __init__(self, kind: str) -> None:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
        try:
            self.path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{kind}-"))
            _held.add(self)
            self._lock = os.open(self.path / _OWNER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            os.write(self._lock, f"{os.getpid()}\n".encode())
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def remove(self) -> None:
        """Delete the directory and give up the lock. Idempotent."""
        if self._lock < 0:
            return
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)
        self._lock = -1
        _held.discard(self)


_held: set[RunDirectory] = set()


def remove_all() -> None:
    """Delete every run directory of this process: the last act of one that was interrupted at any point."""
    for directory in list(_held):
        directory.remove()


@dataclass(frozen=True, slots=True)
class Found:
    """A run directory met on this machine; `owner` is None when its process is gone."""

    path: Path
    owner: int | None


def find(kind: str = "") -> list[Found]:
    """The run directories of this user, of one kind or of all."""
    candidates = Path(tempfile.gettempdir()).glob(f"{PREFIX}{kind}*")
    return [Found(path, _owner(path)) for path in sorted(candidates) if _ours(path)]


def sweep() -> list[Path]:
    """Remove what crashed labs left: their processes, then their directories. What was removed."""
    dead = [found.path for found in find() if found.owner is None]
    for path in dead:
        for pid in _processes_of(path):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(path, ignore_errors=True)
    return dead


def dismiss(found: Found, *, seconds: float = 20.0) -> None:
    """Ask the living owner of a lab to take it down, and wait until it has."""
    if not found.owner:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(found.owner, signal.SIGTERM)
    wait_until(lambda: not found.path.exists() or _owner(found.path) is None, f"{found.path} to go", seconds=seconds)


def _ours(path: Path) -> bool:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    return path.is_dir() and not path.is_symlink() and status.st_uid == os.geteuid()


def _owner(path: Path) -> int | None:
    """The living owner, None when there is none. 0 stands for one that is just being born."""
    try:
        descriptor = os.open(path / _OWNER, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0 if _young(path) else None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(os.read(descriptor, 32) or b"0")
    else:
        unwritten = not os.read(descriptor, 32)
        return 0 if unwritten and _young(path) else None
    finally:
        os.close(descriptor)


def _young(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime < 60
    return False


def _processes_of(path: Path) -> Iterator[int]:
    mark = f"{MARK}={path}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    yield int(entry.name)
