"""The policy image: an immutable compiled policy, as workers execute it."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastpath.values import Address

U32: TypeAlias = NDArray[np.uint32]
Keys: TypeAlias = NDArray[Any]

class PolicyImage:
    """Arrays of engine.desired.policy.program.Program, checked, copied, and indexed for the scan.

    `entries[4 | 6]`: (address keys, class, group, owner) of every endpoint known; group NO_GROUP for those
    that are judged elsewhere. `ranges[4 | 6]`: (start keys, class). `counters`: for each row the number of the
    counter its flows are counted under (Plane.rule_counters), the row's rule number when None; numbers that
    stay the same over several images keep their counts. `few`: when an L4 key leaves no more rows than that, they
    are looked at one by one instead of as bitmaps; 0 for tests.

    ValueError names what is wrong with the arrays. May be shared by several planes.
    """

    n_rows: int
    n_counters: int  # largest counter number + 1
    n_groups: int
    n_classes: int
    def __init__(
        self,
        *,
        rows: U32,
        block_start: U32,
        block_end: U32,
        block_tier: U32,
        group_offset: U32,
        group_blocks: U32,
        group_node: U32,
        class_offset: U32,
        class_sets: U32,
        entries: Mapping[int, tuple[Keys, U32, U32, U32]],
        ranges: Mapping[int, tuple[Keys, U32]],
        l4_slot: NDArray[np.uint8],
        l4_table: NDArray[np.uint16],
        source_l4: NDArray[np.uint16],
        counters: U32 | None = None,
        few: int = 48,
    ) -> None: ...
    @property
    def selects(self) -> bool:
        """Whether any endpoint is judged by more than one row that allows everything."""
    def judge(
        self, source: Address, destination: Address, protocol: int, source_port: int = 0, destination_port: int = 0
    ) -> tuple[int, int]:
        """The deciding rows: egress of the source, ingress of the destination, each for itself. See Plane.judge."""
    def allows(self, row: int) -> bool:
        """Whether a row, or what stands for one, lets a connection be."""
