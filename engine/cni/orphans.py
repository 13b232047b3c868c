"""Plugins that a killed daemon started, and that run on without it.

Owns: the file by which they are known, and their end.
Never: ends what a plugin left behind whose call was over, or what this daemon started.
Invariant: once `end` has said so, nothing that an earlier daemon asked of a plugin is under way any more.

A plugin holds a lock on the file as long as its call lasts, by a descriptor that it inherits, and whatever it starts
does. So no number is to be written down, and there is no moment between its start and that. Only a process that closes
descriptors which it does not know escapes, unless it is in a group with one that does not.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE, PAUSE = 1.0, 0.01  # seconds for those that were killed to be gone, and between two looks
REST = 2.0  # seconds after a failure in which nobody looks again: callers ask anew, and a look is at all processes


class Orphans:
    """To be used from any thread. `file` is made when it does not exist."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._turn = threading.Lock()
        self._over = threading.Event()
        self._rests_until = 0.0

    def end(self) -> bool:
        """Kill them; whether all are gone, which for a while nobody looks at after a failure. OSError when nobody can tell."""
        if not self._over.is_set() and self._turn.acquire(timeout=PATIENCE):
            try:
                if not self._over.is_set() and self._end():  # another thread may have been before us, and begun
                    self._over.set()
            finally:
                self._turn.release()
        return self._over.is_set()

    @contextmanager
    def call(self) -> Iterator[int]:
        """A descriptor for a plugin to inherit, which makes it known until the block is left. OSError when there is none.

        What overran its time or was ended, so that the block raises, stays known.
        """
        descriptor = self._open()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            yield descriptor
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # for whoever else has it
        finally:
            os.close(descriptor)

    def _open(self) -> int:
        return os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def _end(self) -> bool:
        if time.monotonic() < self._rests_until:
            return False
        deadline = time.monotonic() + PATIENCE
        with open(self._open(), "rb") as opened:
            while not _is_free(opened.fileno()):
                if time.monotonic() > deadline:
                    self._rests_until = time.monotonic() + REST
                    return False
                for process in _holders(self._file):
                    _kill(process, self._file)
                time.sleep(PAUSE)
        return True


def _is_free(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holders(file: Path) -> Iterator[int]:
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) != os.getpid() and _holds(int(name), file):
            yield int(name)


def _holds(process: int, file: Path) -> bool:
    """Whether it has a descriptor by which the file is locked."""
    try:
        about, names = file.stat(), os.listdir(f"/proc/{process}/fd")
    except OSError:  # it is gone, or somebody else's
        return False
    return any(_locks(process, name, file, about) for name in names)


def _locks(process: int, name: str, file: Path, about: os.stat_result) -> bool:
    """Whether this descriptor locks the file. What the process has open besides is not touched."""
    opened = f"/proc/{process}/fd/{name}"
    try:
        is_it = os.readlink(opened).endswith(f"/{file.name}") and os.path.samestat(os.stat(opened), about)
        return is_it and "FLOCK" in Path(f"/proc/{process}/fdinfo/{name}").read_text()
    except OSError:  # it was closed meanwhile
        return False


def _kill(process: int, file: Path) -> None:
    """It, and its group, which is that of the plugin where it has made none of its own."""
    with contextlib.suppress(OSError):
        one = os.pidfd_open(process)
        try:
            if _holds(process, file):  # and is not another by the same number
                group = os.getpgid(process)
                session = os.getsid(process)
                signal.pidfd_send_signal(one, 0)  # both are of this process, unless it is gone
                # never 0 and 1, which mean ourselves and everybody; nor that of whoever started the daemon
                if 1 < group == session != os.getsid(0):
                    os.killpg(group, signal.SIGKILL)
                signal.pidfd_send_signal(one, signal.SIGKILL)
        finally:
            os.close(one)
