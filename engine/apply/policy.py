"""Puts a compiled policy in force on the plane.

Owns: the data plane's form of a program, and whether the policy that is wanted is in force.
Never: compiles, or decides who is judged.
Invariant: while another policy is wanted than the one in force, `Forwarding.unjudged` says why. Whom the one in
force does not know must not come in then, and where none is in force whoever is in has to go. Addresses of
Services pass while no route leads them to a peer, and only then.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

from engine.apply.delta import POLICY, Kind
from engine.apply.plane import Forwarding
from engine.apply.reconcile import tried
from engine.apply.service_ranges import led_away, meeting, without
from engine.errors import TowpathError
from engine.model import Unenforceable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from engine.desired.policy.enforced import Enforced
    from engine.desired.policy.program import Program
    from engine.model import Prefix
    from fastpath.table.policy import PolicyImage


@dataclass(slots=True)
class PolicyDriver:
    """The policy as a whole: one that is refused leaves the last in force. `unguarded` is called when there is none.

    Where routes still lead to a peer what are Services' addresses from now on, all is in force at first but that
    these pass. `waits_no_more` says when to set it again.
    """

    forwarding: Forwarding
    unguarded: Callable[[], None]
    kind: Kind = Kind.POLICY
    drifts: bool = False
    _in_force: Enforced | None = None
    _waiting: TowpathError | None = None  # why no address of a Service passes yet

    def actual(self) -> Mapping[Hashable, object]:
        shown = self.forwarding.unjudged or self._waiting or self._in_force  # an error is no policy that is wanted
        return {} if shown is None else {POLICY: shown}

    def set(self, key: Hashable, value: object) -> None:
        self._put(cast("Enforced | Unenforceable", value))

    def remove(self, key: Hashable) -> None:
        self._put(None)

    @property
    def waits_no_more(self) -> bool:
        """Whether nothing is wrong any more with the routes that were waited for."""
        if self._waiting is None or self._in_force is None or self.forwarding.unjudged is not None:
            return False
        return self._why_wait(self._in_force) is None

    def _put(self, wanted: Enforced | Unenforceable | None) -> None:
        error = tried(partial(self._put_in_force, wanted), POLICY)
        if error is not None:
            what = f"cannot be put in force: {error.what}"
            self.forwarding.unjudged = TowpathError(what, where=POLICY, remedy=error.remedy or "it is tried again")
            if self._in_force is None:
                self.unguarded()
            raise self.forwarding.unjudged
        self.forwarding.unjudged = None
        if self._waiting is not None:
            raise self._waiting

    def _put_in_force(self, wanted: Enforced | Unenforceable | None) -> None:
        if isinstance(wanted, Unenforceable):
            raise TowpathError(wanted.reason, where=POLICY, remedy="please report this")
        forwarding, services = self.forwarding, () if wanted is None else wanted.services
        waiting = None if wanted is None else self._why_wait(wanted)
        passing = services if waiting is None else ()
        forwarding.open_ranges = (*passing, *without(forwarding.open_ranges, passing))
        forwarding.plane.set_policy(None if wanted is None else policy_image(wanted, services=waiting is None))
        self._in_force, self._waiting = wanted, waiting
        self._forget_flows_outside(services)

    def _forget_flows_outside(self, services: tuple[Prefix, ...]) -> None:
        """Of ranges that are none any more: nobody has judged where their flows may lead to next."""
        gone = without(self.forwarding.open_ranges, services)
        for one in gone:
            self.forwarding.plane.forget_flows(one)
        self.forwarding.open_ranges = tuple(without(self.forwarding.open_ranges, gone))

    def _why_wait(self, wanted: Enforced) -> TowpathError | None:
        """What would be reached unjudged. Of open ranges `RouteDriver` keeps routes right."""
        new = [prefix for prefix in wanted.services if prefix not in self.forwarding.open_ranges]
        route = led_away(meeting(self.forwarding.routes, new), new)
        if route is None:
            return None
        what = f"what goes to policy.services is judged as any while route {route} leads there to a peer"
        return TowpathError(what, where=POLICY, remedy="see why the routes are not as they are configured")


def policy_image(enforced: Enforced, *, services: bool = True, few: int = 48) -> PolicyImage:
    """The data plane's form of a program. Endpoints that are judged elsewhere are known, but have no group.

    Without `services` their addresses do not pass, but are judged as any.
    """
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
    group_offset, group_blocks = (
        (program.group_offset, program.group_blocks) if services else _without_services(program)
    )
    return PolicyImage(
        rows=program.rows,
        block_start=program.block_start,
        block_end=program.block_end,
        block_tier=program.block_tier,
        group_offset=group_offset,
        group_blocks=group_blocks,
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


def _without_services(program: Program) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Offsets and blocks of the groups, but for the blocks by which addresses of Services pass."""
    import numpy as np

    passing = [number for number, source in enumerate(program.sources) if source.why == "service"]
    kept = ~np.isin(program.group_blocks, np.array(passing, np.uint32))
    before = np.concatenate([[0], np.cumsum(kept)]).astype(np.uint32)
    return before[program.group_offset], program.group_blocks[kept]
