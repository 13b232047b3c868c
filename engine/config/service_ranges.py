"""Where the addresses of Services may lie: egress to them is judged only when the host hands the packets back.

Owns: the check that nobody else is in `policy.services`, and that every address in it leads to the host.
Never: asks whether the host really changes these addresses.
Invariant: no pod, node or peer that the configuration knows of is in a range, and no route leads from a range to a peer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_network

from engine.config.document import Path
from engine.config.leaf import quote
from engine.config.report import Report, key_text
from engine.config.schema import Config
from engine.model import SPECIAL_NEXT_HOPS, Prefix

Place = tuple[Prefix, Path]


def service_ranges(config: Config, report: Report) -> None:
    ranges: list[Place] = [(prefix, ("policy", "services", i)) for i, prefix in enumerate(config.policy.services)]
    if not ranges:
        return
    for (prefix, path), (other, place) in _meetings(ranges, list(_taken(config))):
        what = f"{quote(str(prefix))} overlaps {key_text(place)}, {other}, so that egress to it would not be judged"
        report.add(path, what, "name the addresses of Services alone")
    to_peers, to_host = _routes(config)
    for (prefix, path), (other, place) in _meetings(ranges, to_peers):
        if not any(_holds(other, inner) and _holds(inner, prefix) for inner, _ in to_host if inner != other):
            what = f"{quote(str(prefix))} leads to a peer by {key_text(place)}, {other}, and would not be judged"
            report.add(path, what, f'add a route of {prefix} via "host", or leave the addresses out')


def _taken(config: Config) -> Iterator[Place]:
    """Addresses of pods and nodes."""
    for number, interface in enumerate(config.node.underlay):
        yield ip_network(interface.ip), ("node", "underlay", number)
    for number, prefix in enumerate(config.node.prefixes):
        yield prefix, ("node", "prefixes", number)
    for index, peer in enumerate(config.peers):
        for number, address in enumerate(peer.underlay):
            yield ip_network(address), ("peers", index, "underlay", number)
        for number, prefix in enumerate(peer.prefixes):
            yield prefix, ("peers", index, "prefixes", number)


def _routes(config: Config) -> tuple[list[Place], list[Place]]:
    """Those that lead to peers, and those that lead to the host."""
    to_peers: list[Place] = []
    to_host: list[Place] = []
    for index, route in enumerate(config.routes):
        place: Place = (route.prefix, ("routes", index, "prefix"))
        if "host" in route.via:
            to_host.append(place)
        elif not set(route.via).intersection(SPECIAL_NEXT_HOPS):
            to_peers.append(place)
    return to_peers, to_host


def _meetings(ones: Sequence[Place], others: Sequence[Place]) -> Iterator[tuple[Place, Place]]:
    """The pairs that overlap, without comparing each with each."""
    for one, other in _nested(ones, others):
        yield one, other
    for other, one in _nested(others, ones):
        if other[0] != one[0]:
            yield one, other


def _nested(inner: Iterable[Place], outer: Iterable[Place]) -> Iterator[tuple[Place, Place]]:
    """The pairs of which the second holds the first."""
    homes: defaultdict[Prefix, list[Place]] = defaultdict(list)
    for place in outer:
        homes[place[0]].append(place)
    lengths = {(prefix.version, prefix.prefixlen) for prefix in homes}
    for place in inner:
        prefix = place[0]
        for version, length in sorted(lengths):
            if version == prefix.version and length <= prefix.prefixlen:
                for home in homes.get(prefix.supernet(new_prefix=length), ()):
                    yield place, home


def _holds(outer: Prefix, inner: Prefix) -> bool:
    return bool(list(_nested([(inner, ())], [(outer, ())])))
