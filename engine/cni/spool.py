"""Deletions that were asked for while no daemon answered: the shim writes each into a file, the daemon carries it out.

Owns: the folder, who may write into it, the names in it, and the bounds.
Never: follows a link, or believes a file of somebody else's or under another name than its deletion has.
Invariant: a file is removed only after its deletion was done, and what is not believed is kept aside; doing one twice
is harmless.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

from engine.cni.answer import CniError
from engine.cni.call import MESSAGE_LIMIT, Call, unpack
from engine.errors import KernelError

log = logging.getLogger(__name__)

FILES_LIMIT = 4096  # as in the shim
_NETWORK_LIMIT = 100  # characters of a network's name in that of a file, as in the shim
_SUFFIX = ".del"
_REFUSED = "refused"  # the folder in the folder for what is not believed


class RefusedError(Exception):
    """A file that is not believed, or that nobody can understand, now or later."""


def open_spool(folder: Path) -> Path:
    """Make the folder, closed to everybody else. KernelError when it cannot be had."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = folder.lstat()
        if not stat.S_ISDIR(about.st_mode) or not _is_trusted(about):
            raise PermissionError(errno.EPERM, "it is no folder of ours")
        if stat.S_IMODE(about.st_mode) & 0o077:
            folder.chmod(0o700)
    except OSError as error:
        what = f"cannot use the folder of deletions: {error.strerror}"
        raise KernelError(what, where=str(folder), remedy="remove it, or set another state.directory") from error
    return folder


def name_of(network: str, container: str, interface: str) -> str:
    """The name of its file: the key of the attachment. The network is empty where the shim found none."""
    return f"{network[:_NETWORK_LIMIT]}@{_of_any_network(container, interface)}"


def _of_any_network(container: str, interface: str) -> str:
    return f"{container}@{interface}{_SUFFIX}"


def _is_of(name: str, container: str, interface: str) -> bool:
    """By the file's name, which had no network in it once: a plugin that was not replaced yet still writes that."""
    return _of_any_network(container, interface) in (name, name.partition("@")[2])


def pending(folder: Path) -> list[Path]:
    """The files in the order in which they were written. OSError when nobody can tell."""
    return _pending(folder, lambda _: True)[:FILES_LIMIT]


def pending_of(folder: Path, container: str, interface: str) -> list[Path]:
    """As `pending`, for one interface of one container in whatever network. Of the others no more than the name is read."""
    return _pending(folder, lambda name: _is_of(name, container, interface))


def _pending(folder: Path, is_wanted: Callable[[str], bool]) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            found = [
                (entry.stat(follow_symlinks=False).st_mtime_ns, entry.path)
                for entry in entries
                if is_wanted(entry.name) and _is_ours(entry)
            ]
    except FileNotFoundError:
        return []
    return [Path(path) for _, path in sorted(found)]


async def carry_out(path: Path, delete: Callable[[Call], Awaitable[None]]) -> Exception | None:
    """Do the deletion in this file, if there is one. The file goes when that is done, and stays when it fails: why."""
    try:
        try:
            call = read(path)
            if call is None:
                return None
            await delete(call)
            if read(path) == call:  # and not one that was asked for meanwhile
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
        except RefusedError as reason:
            put_aside(path, reason)
    except Exception as error:  # noqa: BLE001 - whatever it was, the next try may have more luck
        return error
    return None


def _is_ours(entry: os.DirEntry[str]) -> bool:
    return entry.name.endswith(_SUFFIX) and entry.is_file(follow_symlinks=False)


def put_aside(path: Path, reason: RefusedError) -> None:
    """Out of the way, where somebody can look at it. OSError when it stays where it is."""
    aside = path.parent / _REFUSED
    aside.mkdir(mode=0o700, exist_ok=True)
    path.replace(aside / path.name)
    log.warning("deletion %s is not done, and kept in %s: %s", path.name, aside, reason)


def read(path: Path) -> Call | None:
    """The call in the file; None when there is no file. RefusedError when it holds no deletion of ours, OSError when
    nobody can tell."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as stream:
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode) or not _is_trusted(about):
                raise RefusedError("it is no file of ours")
            call = unpack(stream.read(MESSAGE_LIMIT + 1))
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise RefusedError("it is a link") from error
    except (CniError, ValueError) as error:
        raise RefusedError(str(error)) from error
    if call.verb != "DEL" or not _is_of(path.name, call.container, call.interface):
        raise RefusedError("it holds something else")
    return call


def _is_trusted(about: os.stat_result) -> bool:
    """Of those who may also call by the socket."""
    return about.st_uid in (0, os.geteuid())
