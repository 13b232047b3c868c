"""Policies from files and folders: YAML and JSON, each file read whole, watched.

Owns: finding the files, the bounds on their number and size, noticing that
they changed, and what holds while one of them is wrong.
Never: interprets a document; follows a link out of a folder; blocks on what is no file.
Invariant: a file that cannot be read is a problem in the reading, never an
exception and never silently left out. What a file said when it was last
without a mistake stays until it is without one again, or gone.
"""

from __future__ import annotations

import os
import select
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.desired.policy.document import LIMITS, Limits, Origin, PolicyError, parse
from engine.desired.policy.reader import Reading
from engine.errors import KernelError
from engine.source.inotify import FolderWatch, PathWatch

SUFFIXES = (".yaml", ".yml", ".json")
MAX_FILES = 20_000
SETTLE_SECONDS = 0.05  # a file younger than this may be in the middle of a change

Stamp = tuple[int, int, int, int]  # inode, size, mtime and ctime in ns


def read_files(paths: Iterable[str | Path], limits: Limits = LIMITS) -> Reading:
    """All documents of the files, and of the policy files directly inside the folders."""
    reading = Reading()
    for path in expand(paths, reading.problems):
        found = _read(path, limits)
        reading.objects += found.reading.objects
        reading.problems += found.reading.problems
    return reading


def expand(paths: Iterable[str | Path], problems: list[PolicyError]) -> Iterator[Path]:
    """The files that are meant."""
    count = 0
    for path in map(Path, paths):
        for found in _files(path, problems) if path.is_dir() else [path]:
            count += 1
            if count > MAX_FILES:
                problems.append(_problem(path, f"more than {MAX_FILES} files", "put several documents in a file"))
                return
            yield found


def _files(folder: Path, problems: list[PolicyError]) -> list[Path]:
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        problems.append(_problem(folder, error.strerror or str(error), "make the folder readable"))
        return []
    return [folder / name for name in names if name.endswith(SUFFIXES) and not name.startswith(".")]


@dataclass(frozen=True, slots=True)
class _File:
    """One file as it was read: `whole` when all of its text could be."""

    reading: Reading
    whole: bool


def _read(path: Path, limits: Limits) -> _File:
    reading = Reading()
    try:
        documents = list(parse(_text(path, limits), str(path), limits))
    except PolicyError as error:
        reading.problems.append(error)
        return _File(reading, whole=False)
    for origin, value in documents:
        reading.document(value, origin)
    return _File(reading, whole=True)


def _text(path: Path, limits: Limits) -> bytes:
    """The content of a regular file; a FIFO or device would block or never end."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise _problem(path, "not a regular file", "remove it from the folder")
            return file.read(limits.size + 1)
    except OSError as error:
        raise _problem(path, error.strerror or str(error), "make the file readable") from None


def _problem(path: Path, what: str, remedy: str) -> PolicyError:
    return PolicyError(what, origin=Origin(str(path), 0), remedy=remedy)


# -- read again and again ------------------------------------------------------
@dataclass(slots=True)
class _Known:
    stamp: Stamp | None
    reading: Reading  # of the last time without a mistake; else of the first
    good: bool  # it was without a mistake once
    whole: bool
    problems: list[PolicyError]  # of the present text


class PolicyFiles:
    """Files and folders that are read again when they change; only those that did."""

    def __init__(self, paths: Iterable[str | Path], limits: Limits = LIMITS) -> None:
        self.paths = [Path(path) for path in paths]
        self._limits = limits
        self._known: dict[Path, _Known] = {}
        self._elsewhere: list[PolicyError] = []  # problems of folders and paths
        self._listed: set[Path] = set()  # paths whose files were known once
        self.unsettled = False  # some file may have been read in the middle of a change: refresh again soon

    @property
    def closed(self) -> bool:
        """Whether what some file says has never been known."""
        return not self._listed.issuperset(self.paths) or any(not known.whole for known in self._known.values())

    def reading(self) -> Reading:
        """What holds now, and what is wrong."""
        reading = Reading()
        reading.problems += self._elsewhere
        for known in self._known.values():
            reading.objects += known.reading.objects
            reading.problems += known.problems
        return reading

    def refresh(self) -> bool:
        """Read what is new or changed; whether anything was."""
        self.unsettled = False
        problems: list[PolicyError] = []
        before, self._known = self._known, {}
        changed = False
        for path in self._expand(before, problems):
            stamp = self._stamp(path)
            known = before.get(path)
            if known is None or stamp is None or stamp != known.stamp:
                known = _renewed(known, _read(path, self._limits), stamp)
                changed = True
            self._known[path] = known
        changed |= before.keys() != self._known.keys() or list(map(str, problems)) != list(map(str, self._elsewhere))
        self._elsewhere = problems
        return changed

    def _expand(self, before: dict[Path, _Known], problems: list[PolicyError]) -> list[Path]:
        """The files there are. A folder that cannot be listed any more keeps those it had, none of which was deleted."""
        found: list[Path] = []
        for path in self.paths:
            mistakes = len(problems)
            listed = list(expand([path], problems))
            lost = [known for known in before if known.parent == path]
            if listed == [path] and lost:  # a folder until now
                problems.append(_problem(path, "the folder is gone", "create it; an empty folder means no policies"))
            if len(problems) > mistakes and lost:
                self._known |= {known: before[known] for known in lost if known not in listed}
                listed = []
            elif len(problems) == mistakes:
                self._listed.add(path)
            found += listed
        return found

    def _stamp(self, path: Path) -> Stamp | None:
        try:
            status = path.stat()
        except OSError:
            return None
        self.unsettled |= 0 <= time.time() - status.st_mtime < SETTLE_SECONDS
        return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _renewed(known: _Known | None, found: _File, stamp: Stamp | None) -> _Known:
    reading = found.reading
    if not reading.problems:
        return _Known(stamp, reading, good=True, whole=True, problems=[])
    if known is not None and known.good:
        return _Known(stamp, known.reading, good=True, whole=True, problems=reading.problems)
    return _Known(stamp, reading, good=False, whole=found.whole, problems=reading.problems)


class PolicyWatch:
    """`fileno()` is readable when `files` should be refreshed."""

    def __init__(self, files: PolicyFiles) -> None:
        self.files = files
        try:
            self._inside = FolderWatch()
            self._ways = [PathWatch(str(path)) for path in files.paths]
        except OSError as error:
            remedy = "raise fs.inotify.max_user_instances and fs.inotify.max_user_watches with sysctl"
            raise KernelError(f"cannot watch policy files: {error.strerror}", remedy=remedy) from error
        self._poll = select.epoll()
        self._watches: tuple[FolderWatch | PathWatch, ...] = (self._inside, *self._ways)
        for watch in self._watches:
            self._poll.register(watch.fileno(), select.EPOLLIN)
        self._follow()

    def fileno(self) -> int:
        return self._poll.fileno()

    def drain(self) -> bool:
        """Take up what happened; whether anything did that concerns the files."""
        found = [way.drain() for way in self._ways]
        found.append(self._inside.drain())
        self._follow()
        return any(found)

    def close(self) -> None:
        self._poll.close()
        for watch in self._watches:
            watch.close()

    def _follow(self) -> None:
        self._inside.follow(str(path) for path in self.files.paths if path.is_dir())
