"""Policies from files and folders: YAML and JSON, read whole, watched by their stat.

Owns: finding the files, the bounds on their number and size, and noticing
that they changed.
Never: interprets a document; follows a link out of a folder; blocks.
Invariant: a file that cannot be read is a problem in the reading, never an
exception and never silently left out.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from engine.desired.policy.document import LIMITS, Limits, Origin, PolicyError
from engine.desired.policy.reader import Reading

SUFFIXES = (".yaml", ".yml", ".json")
MAX_FILES = 20_000

Stamp = tuple[tuple[str, int, int, int], ...]  # path, inode, size, mtime in ns


def read_files(paths: Iterable[str | Path], limits: Limits = LIMITS) -> Reading:
    """All documents of the files, and of the policy files directly inside the folders."""
    reading = Reading()
    for path in _expand(paths, reading):
        text = _read(path, limits, reading)
        if text is not None:
            reading.text(text, str(path), limits)
    return reading


def _expand(paths: Iterable[str | Path], reading: Reading) -> Iterator[Path]:
    count = 0
    for path in map(Path, paths):
        for found in _files(path, reading) if path.is_dir() else [path]:
            count += 1
            if count > MAX_FILES:
                reading.problems.append(
                    _problem(path, f"more than {MAX_FILES} files", "put several documents in a file")
                )
                return
            yield found


def _files(folder: Path, reading: Reading) -> list[Path]:
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        reading.problems.append(_problem(folder, error.strerror or str(error), "make the folder readable"))
        return []
    return [folder / name for name in names if name.endswith(SUFFIXES) and not name.startswith(".")]


def _read(path: Path, limits: Limits, reading: Reading) -> bytes | None:
    """The content of a regular file; a FIFO or device would block or never end."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                reading.problems.append(_problem(path, "not a regular file", "remove it from the folder"))
                return None
            return file.read(limits.size + 1)
    except OSError as error:
        reading.problems.append(_problem(path, error.strerror or str(error), "make the file readable"))
        return None


def _problem(path: Path, what: str, remedy: str) -> PolicyError:
    return PolicyError(what, origin=Origin(str(path), 0), remedy=remedy)


@dataclass(slots=True)
class PolicyFolder:
    """A folder asked again and again; reads only when something in it changed."""

    path: Path
    limits: Limits = field(default_factory=Limits)
    _stamp: Stamp | None = None

    def poll(self) -> Reading | None:
        """The whole reading when anything changed since the last one, else None."""
        stamp = self._look()
        if stamp == self._stamp:
            return None
        self._stamp = stamp
        return read_files([self.path], self.limits)

    def _look(self) -> Stamp:
        found = []
        for path in _files(self.path, Reading()):
            try:
                status = path.stat()
            except OSError:
                found.append((str(path), 0, 0, 0))
            else:
                found.append((str(path), status.st_ino, status.st_size, status.st_mtime_ns))
        return tuple(found)
