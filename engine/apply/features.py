"""What a network device does by itself: its offloads, by the kernel's names.

Owns: the ethtool ioctl.
Never: needs the ethtool program.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


def read_features(device: str) -> dict[str, bool]:
    """Every offload of `device` in the calling thread's namespace, by the kernel's name."""
    with ethtool(device) as asked:
        features = asked.get_features()
        return {name: bool(features.is_active(name)) for name in list(features.keys()) if name}


@contextlib.contextmanager
def ethtool(device: str) -> Iterator[Any]:
    from pyroute2.ethtool import ioctl

    opened: Any = ioctl.IoctlEthtool(device)  # type: ignore[no-untyped-call]
    try:
        yield opened
    finally:
        opened.close()
