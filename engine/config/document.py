"""TOML text -> its tree and the line on which every key stands.

Owns: the two readings of the text: tomllib for the values, and a scanner for the lines.
Never: judges a key or a value.
Invariant: the scanner sees only text that tomllib has accepted, so it may be
simple; a path it did not record falls back to the nearest one above.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from engine.errors import ConfigError

Path = tuple[str | int, ...]

_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY = re.compile(r"""[ \t]*(?:"(?P<basic>(?:[^"\\\n]|\\.)*)"|'(?P<literal>[^'\n]*)'|(?P<bare>[A-Za-z0-9_-]+))[ \t]*""")
_STRING = re.compile(r'''"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'''', re.DOTALL)
_SCALAR = re.compile(r"[^,\]}#\n]*")
_REMEDIES = {
    "Invalid value": "put text in double quotes",
    "Cannot overwrite a value": "a key may stand only once in a table",
    "Cannot declare": "a table may be opened only once; a list of tables is opened with [[name]]",
    "Expected '=' after a key": 'write key = "value"',
    "Unclosed array": "close the list with ]",
}


@dataclass
class Document:
    """What a text says. Where it says it is found out when somebody asks, which a good text gives no reason for."""

    tree: dict[str, Any]
    text: str

    @cached_property
    def lines(self) -> dict[Path, int]:
        try:
            return _Scanner(self.text.replace("\r\n", "\n")).scan()
        except RecursionError:
            return {}

    def line(self, path: Path) -> int:
        """The line of the key at `path`, or of the nearest key or table above it; 0 when there is none."""
        while path not in self.lines and path:
            path = path[:-1]
        return self.lines.get(path, 0)


def read(text: str, file: str) -> Document:
    """ConfigError, with the line, when `text` is not TOML."""
    text = text.removeprefix("\ufeff")
    try:
        text.encode()  # half of a surrogate pair is no text, and could not be printed in any message
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(str(error), text, file) from error
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        raise ConfigError("is not UTF-8 text", where=f"{file}:{line}", remedy="save it as UTF-8", line=line) from error
    except RecursionError as error:
        raise ConfigError("values are nested too deeply", where=file, remedy="remove the inner lists") from error
    except ValueError as error:
        raise ConfigError(f"a value cannot be read: {error}", where=file, remedy="correct the value") from error
    return Document(tree, text)


def _syntax_error(message: str, text: str, file: str) -> ConfigError:
    place = _PLACE.search(message)
    line, column = (int(place[1]), int(place[2])) if place and place[1] else (text.count("\n") + 1, 0)
    words = _PLACE.sub("", message)
    remedy = next((remedy for start, remedy in _REMEDIES.items() if words.startswith(start)), "correct the line")
    at = f" at column {column}" if column else " at the end"
    what = f"is not valid TOML{at}: {words[:1].lower()}{words[1:]}"
    return ConfigError(what, where=f"{file}:{line}", remedy=remedy, line=line)


class _Scanner:
    """One pass over valid TOML, noting the line on which each key, table and list element begins."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Path, int] = {}
        self._ends = [match.start() for match in re.finditer("\n", text)]
        self._counts: dict[Path, int] = {}  # tables opened so far in each [[list]]

    def scan(self) -> dict[Path, int]:
        table: Path = ()
        self._skip(_BLANK)
        while self.at < len(self.text):
            if self._next("["):
                table = self._header()
            else:
                self._assignment(table)
            self._skip(_BLANK)
        return self.lines

    def _note(self, path: Path) -> None:
        line = bisect_right(self._ends, self.at - 1) + 1
        for length in range(1, len(path) + 1):
            self.lines.setdefault(path[:length], line)

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self.text, self.at)
        assert match is not None
        self.at = match.end()

    def _next(self, sign: str) -> bool:
        return self.text.startswith(sign, self.at)

    def _header(self) -> Path:
        is_list = self._next("[[")
        self.at += 2 if is_list else 1
        *parents, last = self._dotted()
        path: Path = ()
        for part in parents:
            path = self._inside((*path, part))
        path = (*path, last)
        if is_list:
            self._counts[path] = self._counts.get(path, 0) + 1
        path = self._inside(path)
        self._note(path)
        self.at += 2 if is_list else 1
        return path

    def _inside(self, path: Path) -> Path:
        """The last table opened so far, where `path` names a list of tables."""
        return (*path, self._counts[path] - 1) if path in self._counts else path

    def _dotted(self) -> list[str]:
        parts = [self._key()]
        while self._next("."):
            self.at += 1
            parts.append(self._key())
        return parts

    def _key(self) -> str:
        match = _KEY.match(self.text, self.at)
        assert match is not None
        self.at = match.end()
        if match["basic"] is not None and "\\" in match["basic"]:
            return str(tomllib.loads(f'k = "{match["basic"]}"')["k"])
        return str(next(text for text in match.group("basic", "literal", "bare") if text is not None))

    def _assignment(self, table: Path) -> None:
        start = self.at
        path = (*table, *self._dotted())
        end, self.at = self.at, start
        self._note(path)
        self.at = end + 1  # past the "="
        self._value(path)

    def _value(self, path: Path) -> None:
        while self._next(" ") or self._next("\t"):
            self.at += 1
        if self._next("["):
            self._array(path)
        elif self._next("{"):
            self._inline_table(path)
        elif self._next('"') or self._next("'"):
            self._skip(_STRING)
        else:
            self._skip(_SCALAR)

    def _array(self, path: Path) -> None:
        index = 0
        self.at += 1
        self._skip(_BLANK)
        while not self._next("]"):
            self._note((*path, index))
            self._value((*path, index))
            index += 1
            self._comma()
        self.at += 1

    def _inline_table(self, path: Path) -> None:
        self.at += 1
        self._skip(_BLANK)
        while not self._next("}"):
            self._assignment(path)
            self._comma()
        self.at += 1

    def _comma(self) -> None:
        self._skip(_BLANK)
        if self._next(","):
            self.at += 1
            self._skip(_BLANK)
