"""Bare travel: who is reached without encapsulation, and what the host's kernel must know for it.

Owns: the choice between tunnel and bare, the kernel's routes to bare peers, and
which prefixes the kernel sends into the host port.
Never: writes a route.
Invariant: no prefix is sent into the host port that leads back to the host or
that holds an end of a tunnel: a packet would come around again.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence

from engine.desired.addressing import address_order, prefix_order, shares_subnet
from engine.model import Address, EncapsulationName, Interface, KernelRoute, Overlay, Peer, Prefix, Via

Routes = Mapping[Prefix, tuple[Via, ...]]


def encapsulation_for(
    peer: Peer, remote: Address, inner: int, local: Iterable[Interface], overlay: Overlay
) -> EncapsulationName | None:
    """How packets of IP version `inner` travel to `remote`, an underlay address of `peer`.

    Bare packets need an underlay of their own version. None: they cannot travel.
    """
    encapsulation = peer.encapsulation or overlay.encapsulation
    if remote.version != inner:
        return None if encapsulation == "none" else encapsulation
    return "none" if overlay.when == "cross-subnet" and shares_subnet(local, remote) else encapsulation


def kernel_routes(routes: Routes, local: Iterable[Interface]) -> frozenset[KernelRoute]:
    """Routes to bare peers in our subnets. To bare peers elsewhere the underlay's own routers know the way."""
    ends = tuple(local)
    found = set()
    for prefix, vias in routes.items():
        remotes = {via.remote for via in vias if via.kind == "host" and via.remote is not None}
        near = sorted((remote for remote in remotes if shares_subnet(ends, remote)), key=address_order)
        if near:
            found.add(KernelRoute(prefix, tuple(near)))
    return frozenset(found)


def host_port_routes(own: Iterable[Prefix], routes: Routes, ends: Iterable[Address]) -> tuple[Prefix, ...]:
    """What the kernel sends into the host port: our own prefixes, and all that leaves by tunnels only."""
    numbers: dict[int, list[int]] = {4: [], 6: []}
    for address in ends:
        numbers[address.version].append(int(address))
    for addresses in numbers.values():
        addresses.sort()
    tunnelled = {prefix for prefix, vias in routes.items() if all(via.kind == "tunnel" for via in vias)}
    safe = {prefix for prefix in tunnelled if not _holds_one(prefix, numbers[prefix.version])}
    return tuple(sorted({*own, *safe}, key=prefix_order))


def _holds_one(prefix: Prefix, ascending: Sequence[int]) -> bool:
    """Whether one of the addresses lies in the prefix."""
    next_one = bisect_left(ascending, int(prefix.network_address))
    return next_one < len(ascending) and ascending[next_one] <= int(prefix.broadcast_address)
