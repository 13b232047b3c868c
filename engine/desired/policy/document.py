"""From bytes to plain values, bounded, and from plain values to checked fields.

Owns: reading YAML and JSON text safely, and the cursor with which every
reader of policy walks a document.
Never: knows a kind of document; opens a file.
Invariant: whatever the input, the work done and the memory used are bounded
by `Limits`, and every refusal names file, document, path, value and remedy.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any, Final, NoReturn

import yaml

from engine.errors import ConfigError
from engine.model import Address, Prefix

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # by libyaml where PyYAML was built with it
_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_PRINTABLE: Final = re.compile(r"[ -~]{0,512}")
_NULL: Final = re.compile(r"~|null|Null|NULL|")
_BOOLEAN: Final = re.compile(r"true|True|TRUE|false|False|FALSE")
_INTEGER: Final = re.compile(r"[-+]?[0-9]{1,19}")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]{1,19}|[0-9]{1,19}(\.[0-9]{0,19})?)([eE][-+]?[0-9]{1,3})?")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one text may hold. The defaults leave room for 10,000 policies in a file."""

    size: int = 64 * 2**20
    values: int = 4_000_000
    depth: int = 64


LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a document came from: file name, and its number in that file from 1."""

    file: str = ""
    document: int = 1

    def __str__(self) -> str:
        return f"{self.file}#{self.document}" if self.file else f"document {self.document}"


class PolicyError(ConfigError):
    """A document cannot be accepted: `origin`, `path` and `value` say what is meant."""

    def __init__(self, what: str, *, origin: Origin, path: str = "", value: object = None, remedy: str = "") -> None:
        super().__init__(what, where=f"{origin}: {path}" if path else str(origin), remedy=remedy)
        self.origin = origin
        self.path = path
        self.value = value


# -- text to values ----------------------------------------------------------
def parse(text: str | bytes, file: str = "", limits: Limits = LIMITS) -> Iterator[tuple[Origin, Any]]:
    """Every document of a YAML or JSON text, as dicts, lists, strings, numbers, booleans and None."""
    if len(text) > limits.size:
        raise PolicyError(
            f"{len(text)} bytes of policy text",
            origin=Origin(file, 0),
            remedy=f"split it into files below {limits.size}",
        )
    if file.endswith(".json"):
        yield Origin(file), _parse_json(text, Origin(file), limits)
        return
    builder = _Builder(file, limits)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            if builder.feed(event):
                yield builder.origin, builder.value
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise PolicyError(f"not YAML: {problem}", origin=builder.origin, path=place) from None
    except UnicodeDecodeError as error:
        raise PolicyError(f"not UTF-8 at byte {error.start}", origin=builder.origin) from None


class _Builder:
    """Makes values of YAML events, without recursion and without aliases."""

    def __init__(self, file: str, limits: Limits) -> None:
        self.limits = limits
        self.origin = Origin(file, 0)
        self.value: Any = None
        self.count = 0
        self.stack: list[tuple[Any, list[Any]]] = []  # container, pending key

    def feed(self, event: Any) -> bool:
        """True when a document is complete and lies in `value`."""
        match event:
            case yaml.DocumentStartEvent():
                self.origin = Origin(self.origin.file, self.origin.document + 1)
                self.value = None
            case yaml.DocumentEndEvent():
                return True
            case yaml.AliasEvent():
                self._fail(event, "an alias", "write the value out; anchors and aliases are not accepted")
            case yaml.ScalarEvent():
                self._add(event, _scalar(event))
            case yaml.MappingStartEvent():
                self._open(event, {})
            case yaml.SequenceStartEvent():
                self._open(event, [])
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self.stack.pop()
        return False

    def _open(self, event: Any, container: Any) -> None:
        if len(self.stack) >= self.limits.depth:
            self._fail(event, f"more than {self.limits.depth} levels of nesting", "flatten the document")
        self._add(event, container)
        self.stack.append((container, []))

    def _add(self, event: Any, value: Any) -> None:
        self.count += 1
        if self.count > self.limits.values:
            self._fail(event, f"more than {self.limits.values} values", "split the file")
        if not self.stack:
            self.value = value
            return
        container, pending = self.stack[-1]
        if isinstance(container, list):
            container.append(value)
        elif pending:
            container[pending.pop()] = value
        else:
            self._key(event, container, pending, value)

    def _key(self, event: Any, container: dict[Any, Any], pending: list[Any], key: Any) -> None:
        if not isinstance(key, str):
            self._fail(event, f"the key {key!r} is no string", "quote it")
        if key in container:
            self._fail(event, f"the key {key!r} stands twice", "keep one of them")
        pending.append(key)

    def _fail(self, event: Any, what: str, remedy: str) -> NoReturn:
        mark = event.start_mark
        raise PolicyError(
            what, origin=self.origin, path=f"line {mark.line + 1}, column {mark.column + 1}", remedy=remedy
        )


def _scalar(event: Any) -> Any:
    """The JSON types only: dates, octal numbers and `yes` stay the strings they look like."""
    text: str = event.value
    if not event.implicit[0]:
        return text
    if _NULL.fullmatch(text):
        return None
    if _BOOLEAN.fullmatch(text):
        return text[0] in "tT"
    if _INTEGER.fullmatch(text) and not (text[0] == "0" and len(text) > 1):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) and not text.isdigit() else text


def _parse_json(text: str | bytes, origin: Origin, limits: Limits) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise PolicyError("a key stands twice in one object", origin=origin, remedy="keep one of them")
        return found

    try:
        value = json.loads(text, object_pairs_hook=unique)
    except RecursionError:
        raise PolicyError("too many levels of nesting", origin=origin, remedy="flatten the document") from None
    except UnicodeDecodeError as error:
        raise PolicyError(f"not UTF-8 at byte {error.start}", origin=origin) from None
    except ValueError as error:
        raise PolicyError(f"not JSON: {error}", origin=origin) from None
    _check_depth(value, origin, limits)
    return value


def _check_depth(value: Any, origin: Origin, limits: Limits) -> None:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > limits.depth + 1:
            raise PolicyError(
                f"more than {limits.depth} levels of nesting", origin=origin, remedy="flatten the document"
            )
        containers = [v for v in level if isinstance(v, dict | list)]
        level = [v for c in containers for v in (c.values() if isinstance(c, dict) else c)]


# -- values to checked fields ------------------------------------------------
@dataclass(frozen=True, slots=True)
class Field:
    """A value, and the path that leads to it."""

    value: Any
    path: str
    origin: Origin

    def fail(self, what: str, remedy: str = "") -> NoReturn:
        raise PolicyError(what, origin=self.origin, path=self.path, value=self.value, remedy=remedy)

    def get(self, key: str) -> Field | None:
        """The entry of a mapping, None when missing or null."""
        value = self.any_mapping().get(key)
        return None if value is None else Field(value, f"{self.path}.{key}" if self.path else key, self.origin)

    def need(self, key: str) -> Field:
        return self.get(key) or self.fail(f"{key} is missing", f"add {key}")

    def any_mapping(self) -> dict[str, Any]:
        if not isinstance(self.value, dict):
            self.fail(f"{_shown(self.value)} is no mapping")
        return self.value

    def mapping(self, *known: str) -> Field:
        """Checked to have no other keys than `known`."""
        for key in self.any_mapping():
            if key not in known:
                near = get_close_matches(key, known, 1)
                hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
                Field(self.value[key], f"{self.path}.{key}" if self.path else key, self.origin).fail(
                    "unknown field", hint
                )
        return self

    def items(self, limit: int | None = None) -> list[Field]:
        if not isinstance(self.value, list):
            self.fail(f"{_shown(self.value)} is no list")
        if limit is not None and len(self.value) > limit:
            self.fail(f"{len(self.value)} entries", f"at most {limit} are allowed")
        return [Field(value, f"{self.path}[{i}]", self.origin) for i, value in enumerate(self.value)]

    def text(self) -> str:
        if not isinstance(self.value, str):
            self.fail(f"{_shown(self.value)} is no string", "quote it")
        return self.value

    def name(self) -> str:
        text = self.text()
        return text if _NAME.fullmatch(text) else self.fail(f"{_shown(text)} is no name", "letters, digits, . _ and -")

    def one_of(self, *allowed: str) -> str:
        text = self.text()
        return text if text in allowed else self.fail(f"{_shown(text)} is not allowed", f"one of {', '.join(allowed)}")

    def integer(self, low: int, high: int) -> int:
        if not isinstance(self.value, int) or isinstance(self.value, bool):
            self.fail(f"{_shown(self.value)} is no whole number")
        if not low <= self.value <= high:
            self.fail(f"{self.value} is out of range", f"{low} to {high}")
        return self.value

    def number(self) -> float:
        if not isinstance(self.value, int | float) or isinstance(self.value, bool):
            self.fail(f"{_shown(self.value)} is no number")
        return float(self.value)

    def boolean(self) -> bool:
        if not isinstance(self.value, bool):
            self.fail(f"{_shown(self.value)} is neither true nor false")
        return self.value

    def labels(self) -> dict[str, str]:
        for key, value in self.any_mapping().items():
            place = Field(value, f"{self.path}[{key}]", self.origin)
            if not isinstance(value, str):
                place.fail(f"{_shown(value)} is no string", "quote it")
            if not key or not _PRINTABLE.fullmatch(key) or not _PRINTABLE.fullmatch(value):
                place.fail("no label", "printable ASCII, at most 512 characters")
        return dict(self.value)

    def address(self) -> Address:
        try:
            return ip_address(self.text())
        except ValueError:
            return self.fail(f"{_shown(self.value)} is no address", "like 192.0.2.1 or 2001:db8::1")

    def prefix(self, *, strict: bool = True, bare: bool = False) -> Prefix:
        """`strict`: bits below the prefix length must be zero; `bare`: a lone address is a whole prefix."""
        text = self.text()
        try:
            if not bare and "/" not in text:
                raise ValueError
            return ip_network(text) if strict else ip_interface(text).network
        except ValueError:
            return self.fail(f"{_shown(text)} is no prefix", "like 192.0.2.0/24 or 2001:db8::/64, host bits zero")


def _shown(value: object) -> str:
    """A short, printable form of what may be hostile."""
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."
