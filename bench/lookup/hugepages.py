"""Huge pages for a peer that wants them reserved.

Owns: reserving them for a while, and giving them back.
Never: takes any away that somebody else had reserved.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

RESERVED = Path("/proc/sys/vm/nr_hugepages")


@contextmanager
def hugepages(mebibytes: int) -> Iterator[bool]:
    """Whether so much more memory is reserved in pages of 2 MiB meanwhile; root alone may, and there may be no room."""
    before = int(RESERVED.read_text())
    wanted = before + mebibytes // 2
    try:
        with suppress(OSError):
            RESERVED.write_text(str(wanted))
        yield int(RESERVED.read_text()) >= wanted
    finally:
        with suppress(OSError):
            RESERVED.write_text(str(before))
