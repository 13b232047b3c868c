"""The flow log: JSON lines appended to a file that somebody else may move away.

Owns: the open file.
Never: decides what is logged, rotates, or stops the node: what cannot be written is counted and said.
Invariant: a line is written whole, in one call.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from engine.errors import KernelError


class FlowLog:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.lost = 0  # lines that could not be written
        self._file = -1
        self._inode = (0, 0)

    def write(self, lines: Iterable[Mapping[str, object]]) -> None:
        """KernelError when they cannot be written; they are lost then, and the next ones are tried again."""
        encoded = [msgspec.json.encode(line) + b"\n" for line in lines]
        if not encoded:
            return
        try:
            self._open()
            data = memoryview(b"".join(encoded))
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as error:
            self.lost += len(encoded)
            self.close()
            what = f"the flow log cannot be written: {error.strerror}"
            raise KernelError(what, where=str(self.path), remedy="make room, or change flows.log") from error

    def close(self) -> None:
        """Also to have the file opened again by the next line."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _open(self) -> None:
        """Follow the path: whoever rotates need only move the file away."""
        if self._file >= 0:
            try:
                status = os.stat(self.path)
                if (status.st_dev, status.st_ino) == self._inode:
                    return
            except FileNotFoundError:
                pass
            self.close()
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        status = os.fstat(self._file)
        self._inode = (status.st_dev, status.st_ino)
