"""The open ports that a daemon leaves to its successor: by owner, each with what cannot be seen from outside.

Owns: the descriptors, until a driver has claimed them.
Never: opens, configures or judges a device; a port's own `adopt` does the last.
Invariant: a descriptor is claimed once, or closed by `close`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from engine.apply.plane import Owner

log = logging.getLogger(__name__)
P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class Heirloom:
    """One port. `granted`: the offloads of a TUN queue; `namespace`: device and inode of the one it was made in."""

    owner: Owner
    descriptors: tuple[int, ...]
    granted: int = 0
    namespace: tuple[int, int] | None = None


class Inheritance:
    def __init__(self, heirlooms: Iterable[Heirloom]) -> None:
        self._unclaimed = {heirloom.owner: heirloom for heirloom in heirlooms}

    def __len__(self) -> int:
        return len(self._unclaimed)

    def claim(self, owner: Owner, adopt: Callable[[Heirloom], P]) -> P | None:
        """The port that `adopt` makes of what was left for `owner`; None when there is nothing, or nothing usable."""
        heirloom = self._unclaimed.pop(owner, None)
        if heirloom is None:
            return None
        try:
            return adopt(heirloom)
        except (ValueError, OSError) as error:
            log.warning("cannot go on with the port of %s %s, it is opened anew: %s", *owner, error)
            _close(heirloom)
            return None

    def close(self) -> None:
        """Let go of what nobody claimed."""
        for heirloom in self._unclaimed.values():
            _close(heirloom)
        self._unclaimed.clear()


def _close(heirloom: Heirloom) -> None:
    for descriptor in heirloom.descriptors:
        os.close(descriptor)
