"""The structs of the schema -> a JSON schema, for editors and for the reference.

Owns: how each kind of key is described in JSON Schema 2020-12.
Never: knows a key by name.
Invariant: what the schema forbids, the reader refuses; the reader refuses more.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from engine.config.leaf import LEAVES, PORT_PROTOCOLS, Labels
from engine.config.schema import Config
from engine.config.shape import Key, choices, is_table, keys
from engine.model import NamedPort


def json_schema() -> dict[str, Any]:
    """The schema of the whole file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Towpath configuration",
        **_table(Config),
    }


def _table(struct: type[Struct]) -> dict[str, Any]:
    known = keys(struct)
    return {
        "type": "object",
        "description": (struct.__doc__ or "").strip(),
        "properties": {name: _key(key) for name, key in known.items()},
        "required": [name for name, key in known.items() if key.required],
        "additionalProperties": False,
    }


def _key(key: Key) -> dict[str, Any]:
    single = _single(key)
    schema: dict[str, Any] = {"type": "array", "items": single} if key.is_list else single
    schema["description"] = key.meta.description
    if not key.required and not is_table(key.kind) and key.default is not None:
        schema["default"] = plain(key.default)
    return schema


def _single(key: Key) -> dict[str, Any]:
    if is_table(key.kind):
        return _table(key.kind)
    if key.kind in LEAVES:
        return {"type": "string", **LEAVES[key.kind].schema}
    if key.kind is Labels:
        return {"type": "object", "additionalProperties": {"type": "string", "maxLength": 512}}
    if choices(key.kind):
        return {"enum": list(choices(key.kind))}
    if key.kind is bool:
        return {"type": "boolean"}
    bounds = {"minimum": key.meta.ge, "maximum": key.meta.le}
    return {"type": "integer", **{name: bound for name, bound in bounds.items() if bound is not None}}


def plain(value: Any) -> Any:
    """A value of the configuration as JSON has it: as it would stand in the file."""
    if isinstance(value, tuple):
        return [plain(element) for element in value]
    if isinstance(value, Labels):
        return dict(value.pairs)
    if isinstance(value, NamedPort):
        protocol = next(name for name, number in PORT_PROTOCOLS.items() if number == value.protocol)
        return f"{value.name}:{value.port}/{protocol}"
    return value if value is None or isinstance(value, bool | int | str) else str(value)
