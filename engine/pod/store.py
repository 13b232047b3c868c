"""Small values under keys, changed by compare and swap: what addresses and attachments are written down in.

Owns: the contract of a store, the store in memory, and the one in a journal file.
Never: knows what a value means.
Invariant: a `put` or `delete` that returned is found again after a crash of the
process; one that was cut short, at whatever byte, has happened or has not.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from zlib import crc32

import msgspec

from engine.errors import KernelError, TowpathError

log = logging.getLogger(__name__)

LARGEST_FILE = 64 << 20  # bytes
_HEADER = b"towpath store 1\n"
_SLACK = 256 << 10  # bytes of history before the journal is written anew


class ConflictError(TowpathError):
    """Somebody else changed the key since it was read."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A value (JSON text) and the revision that a change of it must name."""

    value: bytes
    revision: int


class Store(Protocol):
    """Revision 0 stands for a key that does not exist; every `put` gives a larger one."""

    def get(self, key: str) -> Stored | None: ...

    def items(self, prefix: str) -> Iterator[tuple[str, Stored]]:
        """All keys that begin with `prefix`, in order."""

    def put(self, key: str, value: bytes, revision: int) -> Stored:
        """Write `value` if the key still has `revision`; ConflictError otherwise."""

    def delete(self, key: str, revision: int) -> None:
        """Remove the key if it still has `revision`; ConflictError otherwise."""


class MemoryStore:
    """Lives as long as the process."""

    def __init__(self) -> None:
        self._entries: dict[str, Stored] = {}
        self._revision = 0

    def get(self, key: str) -> Stored | None:
        return self._entries.get(key)

    def items(self, prefix: str) -> Iterator[tuple[str, Stored]]:
        return iter(sorted(entry for entry in self._entries.items() if entry[0].startswith(prefix)))

    def put(self, key: str, value: bytes, revision: int) -> Stored:
        self._expect(key, revision)
        stored = Stored(value, self._revision + 1)
        self._written(key, stored)
        self._revision += 1
        self._entries[key] = stored
        return stored

    def delete(self, key: str, revision: int) -> None:
        self._expect(key, revision)
        if revision:
            self._written(key, None)
            del self._entries[key]

    def _expect(self, key: str, revision: int) -> None:
        present = self._entries.get(key)
        if (present.revision if present else 0) != revision:
            raise ConflictError("was changed by somebody else", where=key, remedy="read it again")

    def _written(self, key: str, stored: Stored | None) -> None:
        """Called before the change takes effect; what it raises prevents the change."""


class _Line(msgspec.Struct, array_like=True):
    """One line of the journal: value null means removed."""

    key: str
    revision: int
    value: msgspec.Raw


class FileStore(MemoryStore):
    """A journal of one line a change: a checksum, then [key, revision, value].

    Writes are not synchronised with the disk: what a power failure takes away
    belonged to pods that are gone too. A file is held open by one daemon, which
    the lock of the state directory sees to; opening it changes nothing, so that
    a successor may look before it is certain to succeed.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file
        self._descriptor = -1
        self._size = 0
        self._live_size = 0  # bytes that the present entries would take, about
        self._is_whole = True  # nothing is torn or damaged: a line can be added
        with self._refusing("cannot be opened"):
            self._open()

    def close(self) -> None:
        """Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(self._file, flags, 0o600)
        size = os.fstat(self._descriptor).st_size
        if size > LARGEST_FILE:
            raise KernelError(f"has {size} bytes", where=str(self._file), remedy="move it away, and start again")
        data = os.pread(self._descriptor, size, 0)
        self._size, damaged = self._take(data)
        self._live_size = sum(_weight(key, stored) for key, stored in self._entries.items())
        self._is_whole = not damaged and self._size == size >= len(_HEADER)
        if damaged:
            log.warning("%s: left out %d damaged lines", self._file, damaged)

    def _take(self, data: bytes) -> tuple[int, int]:
        """Take the lines into memory: how many bytes are whole lines, and how many of the lines are damaged."""
        whole = data.rfind(b"\n") + 1
        lines = data[:whole].splitlines()
        damaged = int(bool(lines) and lines[0] + b"\n" != _HEADER)
        for line in lines[1 - damaged :]:
            entry = _entry(line)
            if entry is None:
                damaged += 1
            elif bytes(entry.value) == b"null":
                self._entries.pop(entry.key, None)
            else:
                self._entries[entry.key] = Stored(bytes(entry.value), entry.revision)
            self._revision = max(self._revision, entry.revision if entry else 0)
        return whole, damaged

    def _written(self, key: str, stored: Stored | None) -> None:
        with self._refusing("cannot be written"):
            if not self._is_whole or self._size > _SLACK + 2 * self._live_size:
                self._compact()
            self._append(_line(key, stored or Stored(b"null", self._revision)))
        self._live_size += _weight(key, stored) - _weight(key, self._entries.get(key))

    def _append(self, line: bytes) -> None:
        try:
            written = os.write(self._descriptor, line)
            if written != len(line):
                raise OSError(28, "no space left on device")
        except OSError:
            os.ftruncate(self._descriptor, self._size)
            raise
        self._size += written

    def _compact(self) -> None:
        """Write the present entries to a new file that takes the place of the old one."""
        aside = self._file.with_suffix(".new")
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(aside, flags, 0o600)
        try:
            text = _HEADER + b"".join(_line(key, stored) for key, stored in sorted(self._entries.items()))
            if os.write(descriptor, text) != len(text):
                raise OSError(28, "no space left on device")
            os.fsync(descriptor)
            os.replace(aside, self._file)
        except OSError:
            os.close(descriptor)
            raise
        os.close(self._descriptor)
        self._descriptor, self._size, self._is_whole = descriptor, len(text), True

    def _refusing(self, what: str) -> _Refusing:
        return _Refusing(what, self._file)


class _Refusing:
    """Turns an OSError of the block into a KernelError about the file."""

    def __init__(self, what: str, file: Path) -> None:
        self._what = what
        self._file = file

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            remedy = "make room, or let the daemon write to its state directory"
            raise KernelError(f"{self._what}: {error.strerror}", where=str(self._file), remedy=remedy) from error


def _line(key: str, stored: Stored) -> bytes:
    text = msgspec.json.encode(_Line(key, stored.revision, msgspec.Raw(stored.value)))
    return b"%08x %b\n" % (crc32(text), text)


def _weight(key: str, stored: Stored | None) -> int:
    return 0 if stored is None else len(key) + len(stored.value) + 32


def _entry(line: bytes) -> _Line | None:
    """The line's content, or None when it is damaged."""
    head, _, text = line.partition(b" ")
    try:
        return msgspec.json.decode(text, type=_Line) if head == b"%08x" % crc32(text) else None
    except (msgspec.MsgspecError, ValueError):
        return None


def change(store: Store, key: str, rewrite: Callable[[bytes | None], bytes | None], tries: int = 100) -> None:
    """Replace the value of `key` by `rewrite(value)`, again while others change it; None stands for no value."""
    for _ in range(tries):
        present = store.get(key)
        wanted = rewrite(present.value if present else None)
        revision = present.revision if present else 0
        try:
            if wanted is None:
                store.delete(key, revision)
            elif present is None or wanted != present.value:
                store.put(key, wanted, revision)
        except ConflictError:
            continue
        return
    raise ConflictError(f"was changed by others {tries} times in a row", where=key, remedy="try again later")
