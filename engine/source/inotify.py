"""Tells when the file behind a path may be another one, by inotify.

Owns: an inotify descriptor and the watches on every directory that the path
leads through, symbolic links included.
Never: reads the file, starts a thread, or waits unless asked to.
Invariant: each directory is watched before the name in it is looked up, so no
change between looking and watching is missed. Watching directories, not the
file, is what survives editors that rename and volumes that swap a link.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
from collections.abc import Iterable

IN_ATTRIB = 0x004
IN_CLOSE_WRITE = 0x008
IN_MOVED = 0x0C0  # from and to
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_UNMOUNT = 0x2000
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
IN_ONLYDIR = 0x01000000
IN_MASK_ADD = 0x20000000

_NAMES = IN_MOVED | IN_CREATE | IN_DELETE | IN_ONLYDIR  # a name may mean something else
_CONTENT = IN_CLOSE_WRITE | IN_ATTRIB | IN_ONLYDIR | IN_MASK_ADD  # the file itself may have changed
_INSIDE = IN_MOVED | IN_CREATE | IN_DELETE | IN_CLOSE_WRITE | IN_ATTRIB | IN_ONLYDIR  # anything in a directory
_ALWAYS = IN_UNMOUNT | IN_Q_OVERFLOW | IN_IGNORED

_EVENT = struct.Struct("iIII")  # watch, mask, cookie, length of the name that follows
_BUFFER = 64 * 1024
_MAX_LINKS = 40  # as the kernel

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: int | bytes) -> int:
    result = int(getattr(_libc, name)(*arguments))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


class FolderWatch:
    """Tells when something in some directories may have changed. As PathWatch, OSError when there is no inotify."""

    def __init__(self) -> None:
        self._file = _call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
        self._watches: dict[int, str] = {}

    def fileno(self) -> int:
        return self._file

    def follow(self, folders: Iterable[str]) -> None:
        """Watch these and no others. One that is not there, or may not be read, is left out."""
        before, self._watches = self._watches, {}
        for folder in folders:
            try:
                self._watches[_call("inotify_add_watch", self._file, os.fsencode(folder), _INSIDE)] = folder
            except OSError as error:
                if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.EACCES}:
                    raise
        for watch in before.keys() - self._watches.keys():
            _libc.inotify_rm_watch(self._file, watch)

    def drain(self) -> bool:
        """Take up all events; whether there were any."""
        found = False
        while True:
            try:
                found |= bool(os.read(self._file, _BUFFER))
            except BlockingIOError:
                return found

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class PathWatch:
    """OSError from the constructor when the kernel grants no inotify."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self._file = _call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
        self._names: dict[int, set[bytes]] = {}  # watch -> the names in that directory which concern us
        try:
            self.refresh()
        except OSError:
            self.close()
            raise

    def fileno(self) -> int:
        return self._file

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def wait(self, seconds: float) -> bool:
        """Whether anything happened within so many seconds."""
        poll = select.poll()
        poll.register(self._file, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def drain(self) -> bool:
        """Take up all events. True when one of them concerns the path; then the watches are renewed as well."""
        concerned = False
        while True:
            try:
                data = os.read(self._file, _BUFFER)
            except BlockingIOError:
                break
            concerned |= self._concerns(data)
        if concerned:
            self.refresh()
        return concerned

    def _concerns(self, data: bytes) -> bool:
        at, concerned = 0, False
        while at < len(data):
            watch, mask, _, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size + length
            name = data[at - length : at].rstrip(b"\0")
            concerned |= bool(mask & _ALWAYS) or name in self._names.get(watch, ())
            if mask & IN_IGNORED:
                self._names.pop(watch, None)
        return concerned

    def refresh(self) -> None:
        """Watch the directories that the path leads through now, and no others."""
        before = self._names
        self._names = {}
        self._follow()
        for watch in before.keys() - self._names.keys():
            _libc.inotify_rm_watch(self._file, watch)  # fails when the directory is gone, which is as good

    def _follow(self) -> None:
        """Walk the path as the kernel does, watching each directory before looking a name up in it."""
        directory, rest, links = "/", self.path.split("/")[::-1], 0
        while rest:
            part = rest.pop()
            if part in {"", "."}:
                continue
            if part == "..":
                directory = os.path.dirname(directory)
                continue
            if not self._watch(directory, part, _NAMES):
                return
            place = os.path.join(directory, part)
            try:
                target = os.readlink(place)
            except OSError as error:
                if error.errno != errno.EINVAL:  # not there; EINVAL: there, and no link
                    return
                directory = place
                continue
            links += 1
            if links > _MAX_LINKS:
                return
            rest += target.split("/")[::-1]
            directory = "/" if target.startswith("/") else directory
        self._watch(os.path.dirname(directory), os.path.basename(directory), _CONTENT)

    def _watch(self, directory: str, name: str, mask: int) -> bool:
        """False when the directory is not there any more."""
        try:
            watch = _call("inotify_add_watch", self._file, os.fsencode(directory), mask)
        except PermissionError:
            return True  # it may be passed through, though not be read
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENOTDIR}:
                return False
            raise
        self._names.setdefault(watch, set()).add(os.fsencode(name))
        return True
