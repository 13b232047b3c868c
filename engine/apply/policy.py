"""Puts a compiled policy in force on the plane.

Owns: the data plane's form of a program, and whether the policy that is wanted is in force.
Never: compiles, or decides who is judged.
Invariant: while another policy is wanted than the one in force, `Forwarding.unjudged` says why. Whom the one in
force does not know must not come in then, and where none is in force whoever is in has to go.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

from engine.apply.delta import Kind
from engine.apply.plane import Forwarding
from engine.apply.reconcile import tried
from engine.errors import TowpathError
from engine.model import Unenforceable

if TYPE_CHECKING:
    from engine.desired.policy.enforced import Enforced
    from fastpath.table.policy import PolicyImage

_WHERE = "policy"


@dataclass(slots=True)
class PolicyDriver:
    """The policy as a whole: one that is refused leaves the last in force. `unguarded` is called when there is none."""

    forwarding: Forwarding
    unguarded: Callable[[], None]
    kind: Kind = Kind.POLICY
    drifts: bool = False
    _in_force: Enforced | None = None

    def actual(self) -> Mapping[Hashable, object]:
        shown = self.forwarding.unjudged or self._in_force  # an error is no policy that is wanted
        return {} if shown is None else {"policy": shown}

    def set(self, key: Hashable, value: object) -> None:
        self._put(cast("Enforced | Unenforceable", value))

    def remove(self, key: Hashable) -> None:
        self._put(None)

    def _put(self, wanted: Enforced | Unenforceable | None) -> None:
        error = tried(partial(self._put_in_force, wanted), _WHERE)
        if error is not None:
            what = f"cannot be put in force: {error.what}"
            self.forwarding.unjudged = TowpathError(what, where=_WHERE, remedy=error.remedy or "it is tried again")
            if self._in_force is None:
                self.unguarded()
            raise self.forwarding.unjudged
        self.forwarding.unjudged = None

    def _put_in_force(self, wanted: Enforced | Unenforceable | None) -> None:
        if isinstance(wanted, Unenforceable):
            raise TowpathError(wanted.reason, where=_WHERE, remedy="please report this")
        self.forwarding.plane.set_policy(None if wanted is None else policy_image(wanted))
        self._in_force = wanted


def policy_image(enforced: Enforced, *, few: int = 48) -> PolicyImage:
    """The data plane's form of a program. Endpoints that are judged elsewhere are known, but have no group."""
    import numpy as np

    from fastpath.table.policy import PolicyImage
    from fastpath.values import NO_GROUP

    program, entries = enforced.program, {}
    for version, table in program.tables.items():
        groups = table.entry_group
        if enforced.judged is not None:
            here = np.isin(table.entry_owner, np.fromiter(enforced.judged, np.uint32, len(enforced.judged)))
            groups = np.where(here, groups, np.uint32(NO_GROUP))
        entries[version] = (table.entry_key, table.entry_class, groups, table.entry_owner)
    return PolicyImage(
        rows=program.rows,
        block_start=program.block_start,
        block_end=program.block_end,
        block_tier=program.block_tier,
        group_offset=program.group_offset,
        group_blocks=program.group_blocks,
        group_node=program.group_node,
        class_offset=program.class_offset,
        class_sets=program.class_sets,
        entries=entries,
        ranges={version: (table.range_start, table.range_class) for version, table in program.tables.items()},
        l4_slot=program.l4.slot,
        l4_table=program.l4.table,
        source_l4=program.source_l4,
        counters=enforced.counters,
        few=few,
    )
