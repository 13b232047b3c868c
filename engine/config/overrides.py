"""The environment and flags -> values that take the place of those in the file.

Owns: their names (`TOWPATH_NETWORK_MTU`, `network.mtu`) and how their text is read.
Never: judges a value; what is read here passes the same checks as the file.
Invariant: flags win over the environment, the environment over the file. Only
single values and lists of them can be set, not peers, pods or routes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from engine.config.document import Path
from engine.config.leaf import quote
from engine.config.report import nearest
from engine.config.schema import Config
from engine.config.shape import Key, is_table, keys
from engine.errors import ConfigError

PREFIX = "TOWPATH_"
# Kubernetes and Docker set these for a service that happens to be called towpath.
_SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT)(_|$)|_PORT(_\d+_(TCP|UDP|SCTP)(_|$)|$)")


def settable() -> dict[str, Key]:
    """Every key that an override can name, as `network.mtu`."""
    return {
        f"{table.name}.{key.name}": key
        for table in keys(Config).values()
        if is_table(table.kind) and not table.is_list
        for key in keys(table.kind).values()
        if not is_table(key.kind)
    }


def apply(tree: dict[str, Any], environment: Mapping[str, str], flags: Mapping[str, str]) -> dict[Path, str]:
    """Put the overrides into `tree`; what set which key, in words. ConfigError for a name that means nothing."""
    known = settable()
    origins: dict[Path, str] = {}
    for name, text, origin in (*_from_environment(environment, known), *_from_flags(flags, known)):
        section, _, last = name.partition(".")
        table = tree.setdefault(section, {})
        if isinstance(table, dict):  # else the shape of the file is reported
            table[last] = _read(known[name], text)
            origins[section, last] = origin
    return origins


def _from_environment(environment: Mapping[str, str], known: Mapping[str, Key]) -> Iterator[tuple[str, str, str]]:
    for variable, text in sorted(environment.items()):
        name = _name_of(variable, known)
        if name is not None:
            yield name, text, f"environment variable {variable}"


def _from_flags(flags: Mapping[str, str], known: Mapping[str, Key]) -> Iterator[tuple[str, str, str]]:
    for name, text in flags.items():
        if name not in known:
            guess = nearest(name, list(known))
            remedy = f"did you mean {guess}?" if guess else "`towpath config schema` lists the keys"
            raise ConfigError(f"{quote(name)} is not a key that can be set", where="flag", remedy=remedy, key=name)
        yield name, text, f"flag {name}"


def _name_of(variable: str, known: Mapping[str, Key]) -> str | None:
    """The key that a variable names; None when it is no business of ours."""
    table, _, key = variable.removeprefix(PREFIX).lower().partition("_")
    name = f"{table}.{key}"
    if not variable.startswith(PREFIX) or not any(other.startswith(f"{table}.") for other in known):
        return None
    if name in known:
        return name
    if _SERVICE_LINK.search(variable):
        return None
    guess = nearest(name, list(known))
    remedy = f"did you mean {variable_of(guess)}?" if guess else "unset it; `towpath config schema` lists the keys"
    raise ConfigError("names no key", where=f"environment variable {variable}", remedy=remedy)


def variable_of(name: str) -> str:
    """`network.mtu` -> `TOWPATH_NETWORK_MTU`."""
    return PREFIX + name.replace(".", "_").upper()


def _read(key: Key, text: str) -> Any:
    if key.is_list:
        return [_read_single(key, part.strip()) for part in text.split(",") if part.strip()]
    return _read_single(key, text)


def _read_single(key: Key, text: str) -> Any:
    if key.kind is int and re.fullmatch(r"-?[0-9]{1,18}", text):
        return int(text)
    if key.kind is bool:
        return {"true": True, "false": False}.get(text, text)
    return text
