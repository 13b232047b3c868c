"""One daemon for each state directory.

Owns: the lock, held by an open file for as long as the process lives.
Never: trusts the process number in the file; only the kernel's lock counts.
Invariant: nobody else can open the file, since whoever reads it can hold the lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

from engine.errors import KernelError

_LOOK_PAUSE = 0.05  # seconds between two looks at whether the lock is free
_PATIENCE, _PAUSE = 2.0, 0.002  # seconds while those who only look are in the way, and between two tries


class LockFile:
    """`directory` is made when it does not exist. KernelError while another process holds the lock."""

    def __init__(self, directory: Path, shared: int | None = None) -> None:
        """`shared`: the descriptor of the one who holds the lock and shares it with us: the kernel ties it to
        the open file, not to a process."""
        self.path = directory / "lock"
        if shared is None:
            self._file = _acquire(self.path)
            self.claim()
        else:
            _check_shared(self.path, shared)
            self._file = shared

    def fileno(self) -> int:
        return self._file

    def claim(self) -> None:
        """Write our process number into the file, for messages."""
        with contextlib.suppress(OSError):  # on a full disk the next daemon is refused without our number
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def share(self) -> None:
        """Close it and leave the lock to the process that shares it."""
        os.close(self._file)

    def release(self) -> None:
        """Let go. The file stays: removing it would let two daemons lock two files of one name."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, 0)
        os.close(self._file)


def is_held(directory: Path) -> bool:
    """Whether a daemon uses this state directory, as far as one can see who may not use it."""
    try:
        file = os.open(directory / "lock", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # which ends with the file
    except BlockingIOError:
        return True
    except OSError as error:
        raise _not_lockable(directory, error) from error
    finally:
        os.close(file)
    return False


def is_free_in_time(directory: Path, seconds: float) -> bool:
    """Wait until no daemon uses this state directory; False when one still does after that long."""
    deadline = time.monotonic() + seconds
    while is_held(directory):
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_PAUSE)
    return True


def _acquire(path: Path) -> int:
    directory = path.parent
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        what = f"cannot use the state directory: {error.strerror}"
        raise KernelError(what, where=str(directory), remedy="run as root, or set state.directory") from error
    with contextlib.suppress(OSError):  # it is somebody else's, who can read it anyway
        os.fchmod(file, 0o600)
    try:
        _lock(file)
    except BlockingIOError:
        holder = os.pread(file, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(file)
        raise KernelError(
            f"another daemon (process {holder}) uses this state directory",
            where=str(directory),
            remedy="stop it, or give this one a state.directory of its own",
        ) from None
    except OSError as error:
        os.close(file)
        raise _not_lockable(directory, error) from error
    return file


def _lock(file: int) -> None:
    """BlockingIOError while a daemon holds the lock. Whoever only looks shares it for a moment, and is waited for."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
        else:
            return
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # refused by a daemon's alone
        fcntl.flock(file, fcntl.LOCK_UN)
        time.sleep(_PAUSE)


def _not_lockable(directory: Path, error: OSError) -> KernelError:
    remedy = "set state.directory to a folder of a local file system"
    return KernelError(f"cannot lock the state directory: {error.strerror}", where=str(directory), remedy=remedy)


def _check_shared(path: Path, descriptor: int) -> None:
    """The lock is on the file that we would have locked."""
    here = os.fstat(descriptor)
    try:
        there = os.stat(path)
        same = (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
    except OSError:
        same = False
    if not same:
        what = "the running daemon has another state directory"
        raise KernelError(what, where=str(path.parent), remedy="restart it instead")
