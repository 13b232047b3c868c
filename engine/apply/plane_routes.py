"""The routes of the plane, changed as they are wanted.

Owns: which changes of routes are refused because of flows that nobody judged.
Never: chooses a next hop; keeps a route itself (`Forwarding` does).
Invariant: while a range of services may have flows that nobody judged, no change
made here leads it to a peer.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import cast

from engine.apply.delta import Kind
from engine.apply.plane import Forwarding, RoutesWanted
from engine.apply.service_ranges import around, led_away, meeting
from engine.errors import TowpathError
from engine.model import Prefix


@dataclass(slots=True)
class RouteDriver:
    forwarding: Forwarding
    kind: Kind = Kind.ROUTE
    drifts: bool = False

    def actual(self) -> Mapping[Hashable, object]:
        return cast("Mapping[Hashable, object]", self.forwarding.routes)

    def set(self, key: Hashable, value: object) -> None:
        self._insist({key: value})

    def remove(self, key: Hashable) -> None:
        self._insist({key: None})

    def _insist(self, wanted: Mapping[Hashable, object | None]) -> None:
        for error in self.change(wanted).values():
            raise error

    def change(self, wanted: Mapping[Hashable, object | None]) -> Mapping[Hashable, TowpathError]:
        refuse = self._refused if self.forwarding.open_ranges else None
        refused = self.forwarding.change_routes(cast("RoutesWanted", wanted), refuse)
        return cast("Mapping[Hashable, TowpathError]", refused)

    def _refused(self, wanted: RoutesWanted) -> dict[Prefix, TowpathError]:
        """While there may be flows to open ranges, nothing there is changed if they came to a peer then."""
        ranges = self.forwarding.open_ranges
        changed = meeting(wanted, ranges)
        if not changed:
            return {}
        after = {**around(self.forwarding.routes, ranges), **changed}
        peers = led_away({prefix: vias for prefix, vias in after.items() if vias is not None}, ranges)
        if peers is None:
            return {}
        what = f"stays as it was: by {peers} a peer would get what passes unjudged to policy.services"
        return {prefix: TowpathError(what, where=f"route {prefix}", remedy="it is tried again") for prefix in changed}
