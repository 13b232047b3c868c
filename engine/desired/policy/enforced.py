"""What one node puts in force: a program, and which endpoints it judges.

Owns: the value that passes from the compiler to the data plane.
Never: compiles.
Invariant: two are equal only when they are the same object; a program's
arrays are not compared.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.desired.policy.classes import key_of
from engine.desired.policy.program import Program
from engine.model import Address, Prefix


@dataclass(frozen=True, slots=True, eq=False)
class Enforced:
    """`judged`: numbers of the endpoints this node judges, None for all. `counters`: see PolicyImage.

    `services`: the ranges to which egress passes before anything else is asked, each by its row of the program's
    block "service", in their order.
    """

    program: Program
    judged: frozenset[int] | None = None
    counters: NDArray[np.uint32] | None = None
    services: tuple[Prefix, ...] = ()


def judged_here(program: Program, addresses: Iterable[Address]) -> frozenset[int]:
    """The endpoints that own one of these addresses."""
    owners: set[int] = set()
    for address in addresses:
        table = program.tables[address.version]
        at = table.entry(key_of(address))
        if at >= 0:
            owners.add(int(table.entry_owner[at]))
    return frozenset(owners)
