"""One daemon for each state directory.

Owns: the lock, held by an open file for as long as the process lives.
Never: trusts the process number in the file; only the kernel's lock counts.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from engine.errors import KernelError


class LockFile:
    """`directory` is made when it does not exist. KernelError while another process holds the lock."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "lock"
        try:
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            what = f"cannot use the state directory: {error.strerror}"
            raise KernelError(what, where=str(directory), remedy="run as root, or set state.directory") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._file, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._file)
            raise KernelError(
                f"another daemon (process {holder}) uses this state directory",
                where=str(directory),
                remedy="stop it, or give this one a state.directory of its own",
            ) from None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let go. The file stays: removing it would let two daemons lock two files of one name."""
        os.ftruncate(self._file, 0)
        os.close(self._file)
