"""Collects the mistakes of one text and makes one error of them.

Owns: how a place is written (`towpath.toml:12: peers[2].prefixes[0]`) and the order of mistakes.
Never: decides what a mistake is.
Invariant: the mistakes are told in the order of their lines.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches

from engine.config.document import Document, Path
from engine.errors import ConfigError


def key_text(path: Path) -> str:
    """`("peers", 2, "prefixes", 0)` -> `peers[2].prefixes[0]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else f'"{part}"')
    return text


def nearest(word: str, known: Sequence[str]) -> str | None:
    """The known word that was probably meant."""
    return next(iter(get_close_matches(word.lower(), known, n=1, cutoff=0.6)), None)


class Report:
    """`overrides` names what a key was set by, where that was not the file."""

    def __init__(self, document: Document, file: str, overrides: Mapping[Path, str]) -> None:
        self._document = document
        self._file = file
        self._overrides = overrides
        self._mistakes: list[ConfigError] = []

    def origin(self, path: Path) -> str:
        """What set the key: `file:line`, a variable, a flag; "default" when nothing did."""
        for length in range(len(path), 0, -1):
            if path[:length] in self._overrides:
                return self._overrides[path[:length]]
        return f"{self._file}:{self._document.lines[path]}" if path in self._document.lines else "default"

    def add(self, path: Path, what: str, remedy: str) -> None:
        key = key_text(path)
        place = self.origin(path)
        line = 0
        if place == "default" or place.startswith(f"{self._file}:"):
            line = self._document.line(path)
            place = f"{self._file}:{line}" if line else self._file
        where = f"{place}: {key}" if key else place
        self._mistakes.append(ConfigError(what, where=where, remedy=remedy, key=key, line=line))

    def check(self, *rules: Callable[[], None]) -> None:
        """Run the rules, then raise what they and earlier ones found."""
        for rule in rules:
            rule()
        if self._mistakes:
            first, *others = sorted(self._mistakes, key=lambda mistake: mistake.line)
            raise ConfigError(
                first.what, where=first.where, remedy=first.remedy, key=first.key, line=first.line, also=tuple(others)
            )
