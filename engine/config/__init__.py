"""The configuration: one TOML text, the environment and flags in, one frozen Config out.

Owns: the file format, its defaults, and every check that needs no kernel.
Never: opens a file, reads the environment by itself, or changes anything.
Invariant: a Config that exists is consistent; every mistake is a ConfigError
that names the place, the value and the remedy.
"""

from __future__ import annotations

from engine.config.load import Loaded, load, parse
from engine.config.schema import Config

__all__ = ["Config", "Loaded", "load", "parse"]
