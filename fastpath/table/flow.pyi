"""The flow table's memory, and what the control plane may do with it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastpath.values import Address, FlowSettings, Prefix

LISTING: np.dtype[Any]
"""What a row of `listing`, and an event, holds. Addresses are 16 bytes, IPv4 as ::ffff:a.b.c.d; [0] is the opener's way."""

class FlowTable:
    """Bounded; shared by the workers of one plane. Every method may be called while they run."""

    settings: FlowSettings
    n_workers: int
    def __init__(
        self, settings: FlowSettings | None = None, *, workers: int = 1, hash_key: bytes | None = None
    ) -> None: ...
    def __len__(self) -> int: ...
    @property
    def capacity(self) -> int: ...
    def listing(self, cursor: int | None = 0, limit: int = 4096) -> tuple[NDArray[Any], int | None]:
        """Up to about `limit` flows from `cursor` on, and the cursor of the rest, None at the end."""
    def live_rules(self, count: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]: ...
    def has(
        self, source: Address, destination: Address, protocol: int, source_port: int, destination_port: int
    ) -> bool: ...
    def forget(self, whom: Address | Prefix) -> int: ...
    def export(self) -> bytes: ...
    def load(self, data: bytes) -> int: ...
