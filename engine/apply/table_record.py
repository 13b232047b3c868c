"""Which tables of nftables this state directory's daemons made, written down before they are made if there is room.

Owns: one small file, and the mark by which a table tells who made it.
Never: is the truth: a table is ours by its mark; the record only says where to look for one that is no longer wanted.
Invariant: the file is replaced whole, so a kill at any moment leaves the old or the new one; the mark is no other
directory's, but that of a copy.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from pathlib import Path

import msgspec

from engine.errors import KernelError

log = logging.getLogger(__name__)

_SIZE_LIMIT = 1 << 16
_MARK_BYTES = 8
_MARK = re.compile(f"[0-9a-f]{{{2 * _MARK_BYTES}}}")


class _Content(msgspec.Struct, frozen=True):
    """`devices`: the host ports that the tables are named by."""

    mark: str
    devices: tuple[str, ...] = ()


class TableRecord:
    def __init__(self, file: Path) -> None:
        self._file = file
        self._content = _load(file) or _Content(os.urandom(_MARK_BYTES).hex())

    @property
    def mark(self) -> str:
        return self._content.mark

    @property
    def devices(self) -> tuple[str, ...]:
        return self._content.devices

    def add(self, device: str) -> None:
        if device not in self.devices:
            self._replace((*self.devices, device))

    def discard(self, device: str) -> None:
        if device in self.devices:
            self._replace(tuple(other for other in self.devices if other != device))

    def _replace(self, devices: tuple[str, ...]) -> None:
        """On a full disk the old file and the old content stay."""
        content = _Content(self.mark, devices)
        aside = self._file.with_suffix(".new")
        try:
            descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(msgspec.json.encode(content))
            os.replace(aside, self._file)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(aside)
            what = f"cannot write down which tables are ours: {error.strerror}"
            raise KernelError(what, where=str(self._file), remedy="make room there, or set state.directory") from error
        self._content = content


def _load(file: Path) -> _Content | None:
    try:
        if file.stat().st_size > _SIZE_LIMIT:
            raise ValueError("too large")
        content = msgspec.json.decode(file.read_bytes(), type=_Content)
        if not _MARK.fullmatch(content.mark):  # which is written into a program of nft's
            raise ValueError("its mark is none")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        log.warning("ignoring the record of tables %s: %s", file, error)
        return None
    return content
