"""The version of the installed distribution."""

from __future__ import annotations

from functools import cache


@cache
def version() -> str:
    """As in pyproject.toml; "unknown" when Towpath runs from a source tree that was not installed."""
    from importlib import metadata  # which takes as long as much of a start

    try:
        return metadata.version("towpath")
    except metadata.PackageNotFoundError:
        return "unknown"
