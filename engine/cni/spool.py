"""Deletions that were asked for while no daemon answered: the shim writes each into a file, the daemon carries it out.

Owns: the folder, the names in it, and the bounds.
Never: follows a link, or believes a file's name.
Invariant: a file is removed only after its deletion was done; doing one twice is harmless.
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

log = logging.getLogger(__name__)

FILES_LIMIT = 4096  # as in the shim
_SUFFIX = ".del"


def open_spool(folder: Path) -> Path:
    """Make the folder, closed to everybody else."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def name_of(container: str, interface: str) -> str:
    return f"{container}@{interface}{_SUFFIX}"


def pending(folder: Path) -> list[Path]:
    """The files in the order in which they were written."""
    try:
        with os.scandir(folder) as entries:
            found = [
                (entry.stat(follow_symlinks=False).st_mtime_ns, entry.path) for entry in entries if _is_ours(entry)
            ]
    except OSError:
        return []
    return [Path(path) for _, path in sorted(found)[:FILES_LIMIT]]


async def carry_out(path: Path, delete: Callable[[Call], Awaitable[None]]) -> Exception | None:
    """Do the deletion in this file, if there is one. The file goes when that is done, and stays when it fails."""
    try:
        call = read(path)
        if call is not None:
            await delete(call)
        if read(path) == call:  # and not one that was asked for meanwhile
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
    except Exception as error:  # noqa: BLE001 - whatever it was, the next try may have more luck
        log.warning("deletion %s fails, and is tried again: %s", path.name, error)
        return error
    return None


def _is_ours(entry: os.DirEntry[str]) -> bool:
    return entry.name.endswith(_SUFFIX) and entry.is_file(follow_symlinks=False)


def read(path: Path) -> Call | None:
    """The call in the file; None when there is none, or what it holds is no deletion. OSError when nobody can tell."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            call = unpack(stream.read(MESSAGE_LIMIT + 1))
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno != errno.ELOOP:  # a link
            raise
        return None
    except (CniError, ValueError) as error:
        log.warning("ignoring %s: %s", path, error)
        return None
    return call if call.verb == "DEL" else None
