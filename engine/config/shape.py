"""The tree of a TOML text -> the structs of the schema.

Owns: unknown keys, missing keys, wrong types, and the hand-over of texts to their leaf parsers.
Never: compares two values.
Invariant: a struct is built only from values that all passed; every mistake of
the tree is reported, not only the first.
"""

from __future__ import annotations

import types
import typing
from dataclasses import dataclass
from functools import cache, reduce
from operator import or_
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import NODEFAULT, Struct

from engine.config.document import Path
from engine.config.leaf import LEAVES, Labels, Leaf, Mistake, label, quote
from engine.config.report import Report, nearest

S = TypeVar("S", bound=Struct)

LARGEST_LIST = 131072  # elements of one list; beyond, the file is not a configuration
_BAD: Any = object()  # what a key holds whose value was reported


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a table: what its value is made of."""

    name: str
    meta: msgspec.Meta
    kind: Any  # a struct, a leaf, a Literal, int or bool
    is_list: bool
    required: bool
    default: Any


@cache
def keys(struct: type[Struct]) -> dict[str, Key]:
    return {field.name: _key(field) for field in msgspec.structs.fields(struct)}


def _key(field: msgspec.structs.FieldInfo) -> Key:
    kind, meta = typing.get_args(field.type)
    is_list = typing.get_origin(kind) is tuple
    kind = typing.get_args(kind)[0] if is_list else _without_none(kind)
    default = field.default
    return Key(field.name, meta, kind, is_list, required=default is NODEFAULT, default=default)


def _without_none(kind: Any) -> Any:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return reduce(or_, [member for member in typing.get_args(kind) if member is not type(None)])
    return kind


def is_table(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Struct)


def build(struct: type[S], tree: Any, report: Report, path: Path = ()) -> S:
    """The struct that `tree` describes; a placeholder when something was reported."""
    return typing.cast("S", _table(struct, tree, report, path))


def _table(struct: type[Struct], tree: Any, report: Report, path: Path) -> Any:
    if not isinstance(tree, dict):
        report.add(path, f"{_shown(tree)} is not a table", _remedy_for_no_table(struct, path))
        return _BAD
    known = keys(struct)
    unknown = [name for name in tree if name not in known]
    for name in unknown:
        report.add((*path, name), "is not a known key", _remedy_for_unknown(name, list(known), path))
    misspelt = {nearest(name, list(known)) for name in unknown}
    values = {}
    for key in known.values():
        if key.name in tree:
            values[key.name] = _value(key, tree[key.name], report, (*path, key.name))
        elif key.required:
            values[key.name] = _BAD
            if key.name not in misspelt:
                report.add(path, f"has no {key.name}", f"add {_example(key)}")
    return _BAD if any(value is _BAD for value in values.values()) else struct(**values)


def _value(key: Key, value: Any, report: Report, path: Path) -> Any:
    if not key.is_list:
        return _single(key, value, report, path)
    if not isinstance(value, list):
        remedy = f"open each with [[{key.name}]]" if is_table(key.kind) else f"write {key.name} = [{_shown(value)}]"
        report.add(path, f"{_shown(value)} is not a list", remedy)
        return _BAD
    if len(value) > LARGEST_LIST:
        report.add(path, f"has {len(value)} elements", f"at most {LARGEST_LIST} are allowed")
        return _BAD
    values = tuple(_single(key, element, report, (*path, index)) for index, element in enumerate(value))
    return _BAD if any(element is _BAD for element in values) else values


def _single(key: Key, value: Any, report: Report, path: Path) -> Any:
    if is_table(key.kind):
        return _table(key.kind, value, report, path)
    if key.kind is Labels:
        return _labels(value, report, path)
    leaf = LEAVES.get(key.kind)
    try:
        return _parse(leaf, value) if leaf else _plain(key, value)
    except Mistake as mistake:
        report.add(path, mistake.what, mistake.remedy)
        return _BAD


def _labels(value: Any, report: Report, path: Path) -> Any:
    if not isinstance(value, dict):
        report.add(path, f"{_shown(value)} is not a table of labels", f'write {path[-1]} = {{ app = "web" }}')
        return _BAD
    pairs = []
    for name, text in sorted(value.items()):
        try:
            pairs.append(label(name, text))
        except Mistake as mistake:
            report.add((*path, name), mistake.what, mistake.remedy)
    return Labels(tuple(pairs)) if len(pairs) == len(value) else _BAD


def _parse(leaf: Leaf, value: Any) -> Any:
    if not isinstance(value, str):
        raise Mistake(f"{_shown(value)} is not {leaf.noun}", f"write text in quotes, like {leaf.example}")
    return leaf.parse(value)


def _plain(key: Key, value: Any) -> Any:
    """A Literal, int or bool: msgspec judges, strictly."""
    annotation = key.kind if key.is_list else Annotated[key.kind, key.meta]
    try:
        return msgspec.convert(value, annotation, strict=True)
    except msgspec.ValidationError:
        raise Mistake(f"{_shown(value)} is not {noun(key)}", _remedy_for_plain(key, value)) from None


def choices(kind: Any) -> tuple[str, ...]:
    """The words of a Literal; none for any other kind."""
    return typing.get_args(kind) if typing.get_origin(kind) is Literal else ()


def noun(key: Key) -> str:
    if is_table(key.kind):
        return "a table"
    if choices(key.kind):
        return "one of " + ", ".join(map(quote, choices(key.kind)))
    if key.kind is bool:
        return "true or false"
    if key.kind is Labels:
        return "a table of labels"
    lowest, highest = key.meta.ge, key.meta.le
    return "a whole number" if lowest is None or highest is None else f"a whole number from {lowest} to {highest}"


def _remedy_for_plain(key: Key, value: Any) -> str:
    words = choices(key.kind)
    if words:
        guess = nearest(value, list(words)) if isinstance(value, str) else None
        return f"write {quote(guess)}" if guess else "choose one of these"
    if key.kind is int and isinstance(value, str) and value.strip().isdecimal():
        return f"write {value.strip()} without quotes"
    if key.kind is bool:
        return "write true or false without quotes"
    return "write a number within the bounds" if key.meta.ge is not None else "write a number without quotes"


def _remedy_for_unknown(name: str, known: list[str], path: Path) -> str:
    guess = nearest(name, known)
    if guess:
        return f"did you mean {guess}?"
    homes = [table for table, key in _top().items() if is_table(key.kind) and name in keys(key.kind)]
    if homes and (not path or path[0] not in homes):
        home = homes[0]
        return f"it belongs under {f'[[{home}]]' if _top()[home].is_list else f'[{home}]'}"
    return f"known here are {', '.join(known)}"


def _remedy_for_no_table(struct: type[Struct], path: Path) -> str:
    if len(path) == 1:
        return f"write [{path[0]}] on a line of its own, and its keys below"
    example = next(key for key in keys(struct).values())
    return f"write a table in braces, like {{ {_example(example)} }}"


def _top() -> dict[str, Key]:
    from engine.config.schema import Config

    return keys(Config)


def _example(key: Key) -> str:
    if is_table(key.kind):
        return f"[{key.name}]"
    example = LEAVES[key.kind].example if key.kind in LEAVES else str(key.meta.ge)
    return f"{key.name} = [{example}]" if key.is_list else f"{key.name} = {example}"


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "a list"
    return "a table" if isinstance(value, dict) else quote(value)
