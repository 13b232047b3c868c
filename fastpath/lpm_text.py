"""Routes from text: the common one-line formats of routing tables.

Owns: recognising a line's format and yielding (prefix, value).
Never: keeps a table in memory; lines are read one by one.
Invariant: a line that is neither a route, a comment nor empty is an error with its number.
"""

from __future__ import annotations

import bz2
import gzip
from collections.abc import Iterable, Iterator
from os import PathLike, fspath
from typing import IO

Route = tuple[str, str | None]


def read_routes(source: str | PathLike[str] | Iterable[str]) -> Iterator[Route]:
    r"""Yield (prefix, value) from a file's path (.gz and .bz2 too) or from lines, for `RouteTable.update`.

    Three formats, recognised line by line, `#` starting a comment:

    - ``10.0.0.0/8 some value``: what follows the prefix is the value, None when nothing does;
    - ``10.0.0.0<TAB>8<TAB>64500``: CAIDA's pfx2as, the value is the origin AS as text;
    - ``TABLE_DUMP2|time|B|peer|AS|10.0.0.0/8|path|origin|next hop|...``: MRT as
      ``bgpdump -m`` prints it, the value is the next hop.

    >>> list(read_routes(["10.0.0.0/8 core # ours", "192.0.2.0\t24\t64500"]))
    [('10.0.0.0/8', 'core'), ('192.0.2.0/24', '64500')]
    """
    if isinstance(source, (str, PathLike)):
        with _open(fspath(source)) as lines:
            yield from read_routes(lines)
        return
    for number, line in enumerate(source, 1):
        text = line.partition("#")[0].strip()
        if text:
            yield _read_line(text, number)


def _open(path: str) -> IO[str]:
    if path.endswith(".gz"):
        return gzip.open(path, "rt", encoding="ascii")
    return bz2.open(path, "rt", encoding="ascii") if path.endswith(".bz2") else open(path, encoding="ascii")


def _read_line(text: str, number: int) -> Route:
    if text.startswith("TABLE_DUMP"):
        fields = text.split("|")
        if len(fields) < 9 or "/" not in fields[5]:
            raise ValueError(f"line {number}: not a TABLE_DUMP record of a route: {text!r}")
        return fields[5], fields[8]
    words = text.split("\t")
    if len(words) == 3 and "/" not in words[0] and words[1].isdecimal():
        return f"{words[0]}/{words[1]}", words[2]
    prefix, _, value = text.partition(" ") if " " in text else text.partition("\t")
    if "/" not in prefix:
        raise ValueError(f"line {number}: does not start with a prefix: {text!r}")
    return prefix, value.strip() or None
