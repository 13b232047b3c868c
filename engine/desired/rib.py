"""The routing information base: of all routes offered, the best for each prefix.

Owns: the preference of sources and the merging of equal ones into ECMP.
Never: knows how an offer came about.
Invariant: the result depends on the set of offers alone, not on their order or
repetition; every next-hop group has 1 to 16 members, no two alike.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from engine.desired.addressing import address_order
from engine.model import Prefix, Via

MAX_NEXT_HOPS = 16


class Preference(IntEnum):
    """Where an offer comes from. The lowest number wins."""

    LOCAL = 0  # a pod of ours, an address of the host port
    STATIC = 10
    PEER = 20  # a prefix that a node owns
    FALLBACK = 90  # what becomes of packets nobody claims


@dataclass(frozen=True, slots=True)
class Offer:
    """A source's say about one prefix. Several vias, or several offers of one preference: equal cost."""

    prefix: Prefix
    preference: Preference
    vias: tuple[Via, ...]


def best(offers: Iterable[Offer]) -> dict[Prefix, tuple[Via, ...]]:
    """For each prefix the next hops of the preferred source.

    A next hop that rejects gives way to one of the same source that does not.
    """
    by_prefix: defaultdict[Prefix, list[Offer]] = defaultdict(list)
    for offer in offers:
        by_prefix[offer.prefix].append(offer)
    return {prefix: _chosen(group) for prefix, group in by_prefix.items()}


def _chosen(offers: list[Offer]) -> tuple[Via, ...]:
    alone = len(offers) == 1 and len(offers[0].vias) == 1  # the usual case, and nothing to choose
    return offers[0].vias if alone else _merge(_preferred(offers))


def _preferred(offers: list[Offer]) -> set[Via]:
    preference = min(offer.preference for offer in offers)
    return {via for offer in offers if offer.preference == preference for via in offer.vias}


def _merge(vias: set[Via]) -> tuple[Via, ...]:
    usable = {via for via in vias if via.kind != "reject"}
    ordered = sorted(usable or vias, key=_order)
    return tuple(ordered[:MAX_NEXT_HOPS] if usable else ordered[:1])


def _order(via: Via) -> tuple[str, str, str, tuple[int, int], int, bytes, int]:
    remote = (0, 0) if via.remote is None else address_order(via.remote)
    return via.kind, via.target, via.peer, remote, via.remote_port, via.mac, via.mtu
