"""Which tables of nftables this state directory's daemons made, written down before they are made if there is room.

Owns: one small file, and the mark by which a table tells who made it.
Never: is the truth: a table is ours by its mark; the record only says where to look for one that is no longer wanted.
Invariant: the file is replaced whole, so a kill at any moment leaves the old or the new one; the mark is no other
directory's, but that of a copy.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import msgspec

from engine.recordfile import read_record, write_record

_SIZE_LIMIT = 1 << 16
_MARK_BYTES = 8
_Mark = Annotated[str, msgspec.Meta(pattern=rf"^[0-9a-f]{{{2 * _MARK_BYTES}}}\Z")]  # written into a program of nft's


class _Content(msgspec.Struct, frozen=True):
    """`devices`: the host ports that the tables are named by."""

    mark: _Mark
    devices: tuple[str, ...] = ()


class TableRecord:
    def __init__(self, file: Path) -> None:
        self._file = file
        standing = read_record(file, _Content, of="tables", limit=_SIZE_LIMIT)
        self._content = standing or _Content(os.urandom(_MARK_BYTES).hex())

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
        content = _Content(self.mark, devices)
        write_record(self._file, content, what="which tables are ours")
        self._content = content
