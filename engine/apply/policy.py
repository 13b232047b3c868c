"""Puts a compiled policy in force on the plane.

Owns: the data plane's form of a program, and whether the policy that is wanted is in force.
Never: compiles, or decides who is judged.
Invariant: while another policy is wanted than the one in force, `Forwarding.unjudged` says why. Whom the one in
force does not know must not come in then, and where none is in force whoever is in has to go. Addresses of
Services pass while no route leads them to a peer, and only then.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, cast

from engine.apply.delta import POLICY, Kind
from engine.apply.plane import Forwarding
from engine.apply.reconcile import tried
from engine.apply.service_ranges import led_away, meeting, without
from engine.errors import TowpathError
from engine.model import Unenforceable

if TYPE_CHECKING:
    from engine.desired.policy.enforced import Enforced
    from engine.desired.policy.lower import Rows
    from engine.model import Prefix
    from fastpath.table.policy import PolicyImage


@dataclass(slots=True)
class PolicyDriver:
    """The policy as a whole: one that is refused leaves the last in force. `unguarded` is called when there is none.

    Where a route still leads to a peer what are Services' addresses from now on, all is in force at first but that
    their range passes; the other ranges do. `can_open_more` says when to set it again.
    """

    forwarding: Forwarding
    unguarded: Callable[[], None]
    kind: Kind = Kind.POLICY
    drifts: bool = False
    _in_force: Enforced | None = None
    _withheld: Mapping[Prefix, Prefix] = field(default_factory=dict)  # of its ranges, and what leads them to a peer
    _stands: bool = True  # no attempt to change that in the plane is unfinished

    def actual(self) -> Mapping[Hashable, object]:
        shown = self.forwarding.unjudged or self._withheld or self._in_force  # the former are no policy that is wanted
        return {} if shown is None else {POLICY: shown}

    def set(self, key: Hashable, value: object) -> None:
        self._put(cast("Enforced | Unenforceable", value))

    def remove(self, key: Hashable) -> None:
        self._put(None)

    @property
    def can_open_more(self) -> bool:
        """Whether of the ranges that wait one need not any more."""
        if not self._withheld or self._in_force is None or self.forwarding.unjudged is not None:
            return False
        return self._led_away(self._in_force).keys() != self._withheld.keys()

    def _put(self, wanted: Enforced | Unenforceable | None) -> None:
        error = tried(partial(self._put_in_force, wanted), POLICY)
        if error is not None:
            what = f"cannot be put in force: {error.what}"
            self.forwarding.unjudged = TowpathError(what, where=POLICY, remedy=error.remedy or "it is tried again")
            if self._in_force is None:
                self.unguarded()
            raise self.forwarding.unjudged
        self.forwarding.unjudged = None
        if self._withheld:
            raise _waiting(self._withheld)

    def _put_in_force(self, wanted: Enforced | Unenforceable | None) -> None:
        if isinstance(wanted, Unenforceable):
            raise TowpathError(wanted.reason, where=POLICY, remedy="please report this")
        services = () if wanted is None else wanted.services
        withheld = {} if wanted is None else self._led_away(wanted)
        passing = tuple(one for one in services if one not in withheld)
        self.forwarding.open_ranges = (*passing, *without(self.forwarding.open_ranges, passing))
        if not self._stands or wanted is not self._in_force or withheld.keys() != self._withheld.keys():
            self._stands = False
            self.forwarding.plane.set_policy(None if wanted is None else policy_image(wanted, withheld=withheld))
        self._in_force, self._withheld, self._stands = wanted, withheld, True
        self._forget_flows_outside(services)

    def _forget_flows_outside(self, services: tuple[Prefix, ...]) -> None:
        """Of ranges that are none any more: nobody has judged where their flows may lead to next."""
        gone = without(self.forwarding.open_ranges, services)
        for one in gone:
            self.forwarding.plane.forget_flows(one)
        self.forwarding.open_ranges = tuple(without(self.forwarding.open_ranges, gone))

    def _led_away(self, wanted: Enforced) -> dict[Prefix, Prefix]:
        """Ranges that would be reached unjudged, and by which route. Of open ones `RouteDriver` keeps routes right."""
        new = [one for one in wanted.services if one not in self.forwarding.open_ranges]
        routes = meeting(self.forwarding.routes, new)
        return {one: route for one in new if (route := led_away(routes, [one])) is not None}


def _waiting(withheld: Mapping[Prefix, Prefix]) -> TowpathError:
    ranges, route = ", ".join(map(str, withheld)), next(iter(withheld.values()))
    what = f"what goes to {ranges} of policy.services is judged as any while route {route} leads there to a peer"
    return TowpathError(what, where=POLICY, remedy="see why the routes are not as they are configured")


def policy_image(enforced: Enforced, *, withheld: Collection[Prefix] = (), few: int = 48) -> PolicyImage:
    """The data plane's form of a program. Endpoints that are judged elsewhere are known, but have no group.

    What goes to ranges of Services that are `withheld` is judged as any.
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
    return PolicyImage(
        rows=_rows_without(enforced, withheld) if withheld else program.rows,
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


def _rows_without(enforced: Enforced, withheld: Collection[Prefix]) -> Rows:
    """The program's rows, but that those by which these ranges pass hold for no address."""
    from engine.desired.policy.lower import DESTINATION
    from engine.desired.policy.sets import NOTHING

    program = enforced.program
    (block,) = (number for number, source in enumerate(program.sources) if source.why == "service")
    rows = program.rows.copy()
    passing = rows[program.block_start[block] : program.block_end[block]]
    for one, row in zip(enforced.services, passing, strict=True):
        if one in withheld:
            row[DESTINATION] = NOTHING << 1
    return rows
