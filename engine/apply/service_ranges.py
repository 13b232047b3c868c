"""Whether addresses that policy lets pass unjudged, because they are those of Services, are led to no peer.

Owns: the comparison of such ranges with routes.
Never: writes anything, or keeps anything between calls.
Invariant: no answer depends on what a route that is not looked at says: of those that hold a range the
longest counts, of those inside of it each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from engine.model import Prefix, Via

Value = TypeVar("Value")
Routes = Mapping[Prefix, tuple[Via, ...]]


def around(routes: Mapping[Prefix, Value], ranges: Iterable[Prefix]) -> dict[Prefix, Value]:
    """Those that hold a whole range. It takes as long whatever the number of routes is."""
    return {prefix: routes[prefix] for prefix in _holders(ranges) if prefix in routes}


def meeting(routes: Mapping[Prefix, Value], ranges: Sequence[Prefix]) -> dict[Prefix, Value]:
    """Those that hold a range or lie in one."""
    if not ranges:
        return {}
    holders = set(_holders(ranges))
    bounds = [(r.version, r.prefixlen, int(r.network_address), int(r.broadcast_address)) for r in ranges]
    return {p: value for p, value in routes.items() if p in holders or _is_inside(p, bounds)}


def led_away(routes: Routes, ranges: Iterable[Prefix]) -> Prefix | None:
    """A route by which packets to one of the ranges go to a peer; None when there is none."""
    for one in ranges:
        holder = next((prefix for prefix in _holders([one]) if prefix in routes), None)
        inside = (prefix for prefix in routes if prefix != one and _is_part(prefix, one))
        for prefix in (*([] if holder is None else [holder]), *inside):
            if any(via.kind == "tunnel" for via in routes[prefix]):
                return prefix
    return None


def without(ranges: Iterable[Prefix], others: Iterable[Prefix]) -> list[Prefix]:
    """The ranges but for the addresses that others hold too."""
    left = list(ranges)
    for other in others:
        left = [rest for one in left for rest in _cut(one, other)]
    return left


def _cut(one: Prefix, other: Prefix) -> Iterator[Prefix]:
    if _is_part(other, one):
        yield from one.address_exclude(other)  # type: ignore[arg-type] # they are of one version
    elif not _is_part(one, other):
        yield one


def _holders(ranges: Iterable[Prefix]) -> Iterator[Prefix]:
    """Every prefix that holds one of the ranges, the longest of each first."""
    for one in ranges:
        for length in range(one.prefixlen, -1, -1):
            yield one.supernet(new_prefix=length)


def _is_part(prefix: Prefix, of: Prefix) -> bool:
    return prefix.version == of.version and prefix.subnet_of(of)  # type: ignore[arg-type] # the same


def _is_inside(prefix: Prefix, bounds: Sequence[tuple[int, int, int, int]]) -> bool:
    """As `_is_part` of any: there may be a million prefixes to be asked."""
    return any(
        prefix.version == version and prefix.prefixlen >= length and low <= int(prefix.network_address) <= high
        for version, length, low, high in bounds
    )
