"""A small file of JSON in the state directory that says where to look for what an earlier run left.

Owns: reading it, and replacing it whole.
Never: knows what is written in it.
Invariants: a kill at any moment leaves the old or the new one, and so does a full disk; one that
cannot be read counts as none, and the log says so.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import TypeVar

import msgspec

from engine.errors import KernelError

log = logging.getLogger(__name__)

T = TypeVar("T")


def read_record(file: Path, content: type[T], *, of: str, limit: int) -> T | None:
    """What the file has, of at most `limit` bytes; None when there is none that can be read."""
    try:
        if file.stat().st_size > limit:
            raise ValueError("too large")
        return msgspec.json.decode(file.read_bytes(), type=content)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        log.warning("ignoring the record of %s %s: %s", of, file, error)
        return None


def write_record(file: Path, content: object, *, what: str) -> None:
    """Replace the file. KernelError "cannot write down `what`", and the old file stays."""
    aside = file.with_suffix(".new")
    try:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(msgspec.json.encode(content))
        os.replace(aside, file)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(aside)
        raise KernelError(
            f"cannot write down {what}: {error.strerror}",
            where=str(file),
            remedy="make room there, or set state.directory",
        ) from error
