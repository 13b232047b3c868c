"""The version of the installed distribution."""

from __future__ import annotations

from importlib import metadata


def version() -> str:
    """As in pyproject.toml; "unknown" when Towpath runs from a source tree that was not installed."""
    try:
        return metadata.version("towpath")
    except metadata.PackageNotFoundError:
        return "unknown"
