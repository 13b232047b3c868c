"""Huge pages for a peer that wants them reserved.

Owns: reserving them for a while, and giving them back.
Never: takes any away that somebody else had reserved, before or meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

RESERVED = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")  # pages of 2 MiB, whatever the default is


@contextmanager
def hugepages(mebibytes: int) -> Iterator[bool]:
    """Whether so much more memory is reserved in pages of 2 MiB meanwhile.

    Root alone may, there may be no room, and a kernel without such pages has none.
    """
    wanted = mebibytes // 2
    added = add(wanted)
    if added < wanted:
        add(-added)
        added = 0
    try:
        yield added == wanted
    finally:
        add(-added)


def add(pages: int) -> int:
    """Reserve so many more, or fewer; by how many there are more now."""
    if pages == 0:
        return 0
    before = after = 0
    with suppress(OSError):
        before = after = int(RESERVED.read_text())
        RESERVED.write_text(str(max(before + pages, 0)))
        after = int(RESERVED.read_text())
    return after - before
