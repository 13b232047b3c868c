"""Towpath as a library: `from engine import Config, Node, parse` runs a node inside a program.

    config = parse(text, file="towpath.toml", hostname="node-a")
    with Node(config) as node:
        print(node.status())

Owns: the names of the face. Never: imports a part before it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.config import Config, parse
    from engine.errors import ConfigError, KernelError, TowpathError, UnreachableDaemonError
    from engine.node import Node

_HOMES = {
    "Config": "engine.config",
    "ConfigError": "engine.errors",
    "KernelError": "engine.errors",
    "Node": "engine.node",
    "TowpathError": "engine.errors",
    "UnreachableDaemonError": "engine.errors",
    "parse": "engine.config",
}
__all__ = ["Config", "ConfigError", "KernelError", "Node", "TowpathError", "UnreachableDaemonError", "parse"]


def __getattr__(name: str) -> object:
    """Load a name of the face from its module when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'engine' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
