"""One text, the environment and flags -> a checked Config, its facts, and what set each value.

Owns: the order of the steps: read, override, shape, rules.
Never: does I/O; the caller hands in the text, the host name and the environment.
Invariant: the same input gives an equal Config; where a value came from is no part of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from engine.config import document, overrides, rules
from engine.config.document import Path
from engine.config.leaf import Mistake
from engine.config.leaf import name as parse_name
from engine.config.report import Report, key_text
from engine.config.schema import Config
from engine.config.shape import build
from engine.errors import ConfigError


@dataclass(frozen=True)
class Loaded:
    """A Config, and what set each of its keys."""

    config: Config
    report: Report = field(repr=False, compare=False)

    @cached_property
    def origins(self) -> Mapping[str, str]:
        """`network.mtu` -> "towpath.toml:3", "flag network.mtu", "default" ..."""
        return {key_text(path): self.report.origin(path) for path, _ in values(self.config)}


def parse(
    text: str,
    *,
    file: str = "towpath.toml",
    hostname: str = "",
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, str] | None = None,
) -> Config:
    """The configuration in `text`; ConfigError with every mistake of it.

    `file` is only what errors call the text. `hostname` is the name of a node
    that the text does not name. `flags` are keys (`network.mtu`) and texts.
    """
    return load(text, file=file, hostname=hostname, environment=environment, flags=flags).config


def load(
    text: str,
    *,
    file: str = "towpath.toml",
    hostname: str = "",
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, str] | None = None,
) -> Loaded:
    """As `parse`, with the origin of every value."""
    read = document.read(text, file)
    origins = overrides.apply(read.tree, environment or {}, flags or {})
    report = Report(read, file, origins)
    config = build(Config, read.tree, report)
    report.check()
    if config.node.name is None:
        config = replace(config, node=replace(config.node, name=_from_hostname(hostname, file)))
        origins["node", "name"] = "host name"
    report.check(*rules.all_rules(config, report))
    return Loaded(config, report)


def _from_hostname(hostname: str, file: str) -> str:
    try:
        return parse_name(hostname)
    except Mistake as mistake:
        what = f"the node has no name, and the host name {mistake.what}"
        raise ConfigError(what, where=file, remedy='add name = "node-a" under [node]', key="node.name") from None


def values(config: Struct, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every key of the configuration with its value; a list of values is one, a table is not."""
    for name in config.__struct_fields__:
        value = getattr(config, name)
        elements = value if isinstance(value, tuple) else ()
        if isinstance(value, Struct):
            yield from values(value, (*path, name))
        elif elements and all(isinstance(element, Struct) for element in elements):
            for index, element in enumerate(elements):
                yield from values(element, (*path, name, index))
        else:
            yield (*path, name), value
