"""Who reaches whom: the whole matrix of a program at once.

Owns: the vectorised form of `Program.judge` for many pairs.
Never: judges differently from it.
Invariant: work is done once for each group and class, not for each pair.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.desired.policy.classes import keys
from engine.desired.policy.lower import ACTION
from engine.desired.policy.model import Action, Direction
from engine.desired.policy.program import Program
from engine.model import Address

Bools = NDArray[np.bool_]


def reachability(program: Program, addresses: Sequence[Address], key: int, source_port: int = 0) -> tuple[Bools, Bools]:
    """Egress and ingress: entry [i, j] is what the side of i, or of j, says to a connection from i to j.

    All addresses are of one family. `key` is protocol * 65536 + destination port.
    """
    if not addresses:
        return np.zeros((0, 0), bool), np.zeros((0, 0), bool)
    egress = _direction(program, addresses, key, source_port, "egress")
    return egress, _direction(program, addresses, key, source_port, "ingress").T


def _direction(
    program: Program, addresses: Sequence[Address], key: int, source_port: int, direction: Direction
) -> Bools:
    """Entry [local, remote]."""
    version = addresses[0].version
    table = program.tables[version]
    wanted = keys(version, [int(address) for address in addresses])
    entries = np.array([table.entry(wanted[i : i + 1]) for i in range(len(wanted))], np.int64)
    labels, column = np.unique(table.classes_of(wanted), return_inverse=True)
    allowed = np.ones((len(addresses), len(addresses)), bool)
    locals_ = np.flatnonzero(entries >= 0)
    for group, label in sorted({(int(table.entry_group[e]), int(table.entry_class[e])) for e in entries[locals_]}):
        rows = program.first_rows(group, direction, label, labels, key, source_port, version)
        verdicts = program.rows[rows, ACTION] == Action.ALLOW
        at = entries[locals_]
        mine = locals_[(table.entry_group[at] == group) & (table.entry_class[at] == label)]
        allowed[mine] = verdicts[column]
    _except(program, addresses, entries, direction, allowed)
    return allowed


def _except(
    program: Program, addresses: Sequence[Address], entries: NDArray[np.int64], direction: Direction, allowed: Bools
) -> None:
    """Nobody is cut off from itself, no pod from its own node."""
    table = program.tables[addresses[0].version]
    owner = np.where(
        entries >= 0, table.entry_owner[entries] if len(table.entry_owner) else 0, -1 - np.arange(len(entries))
    )
    allowed |= owner[:, None] == owner[None, :]
    if direction == "ingress":
        for i, number in enumerate(owner.tolist()):
            nodes = program.own_nodes.get(number)
            if nodes:
                allowed[i, [j for j, address in enumerate(addresses) if address in nodes]] = True
