"""The difference between what should be and what is, as an ordered list of operations.

Owns: the split of `Desired` into objects that can be set and removed one by
one, and the order in which that happens.
Never: does I/O, reads a clock, or keeps anything between calls.
Invariant: `plan(x, x)` is empty; objects are set links first, then tables,
then kernel routes, and removed in the reverse order, after everything is set.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from ipaddress import IPv4Network, IPv6Network
from typing import cast

from engine.model import Desired, Layered


class Kind(IntEnum):
    """What an object is; the numbers are the order in which kinds are set."""

    POLICY = 1  # before the pods it isolates
    TUNNEL = 2
    POD = 3
    HOST = 4
    GATEWAY = 5
    PEERS = 6
    ROUTE = 7
    KERNEL_ROUTE = 8
    HOST_RULES = 9

    @property
    def words(self) -> str:
        return self.name.lower().replace("_", " ")


Objects = Mapping[Kind, Mapping[Hashable, object]]


POLICY = "policy"  # the key of the only object of its kind
LISTING = "as they are"  # the key of an operation that only looks at all objects of a kind


@dataclass(frozen=True, slots=True)
class Operation:
    """Make object `key` be `value`, or be gone when `value` is None."""

    kind: Kind
    key: Hashable
    value: object | None

    def __str__(self) -> str:
        if self.key == LISTING:
            return f"list {self.kind.words}s"
        verb = "remove" if self.value is None else "set"
        return f"{verb} {self.kind.words} {self.key}"


def objects(desired: Desired, before: Desired | None = None, known: Objects | None = None) -> Objects:
    """Every object of the desired state under a key that outlives a change of its settings.

    A kernel route's value is its next hops in the order of their text; none
    means into the host port. With the state `before` and its objects `known`,
    what did not change is the same mapping again, which saves comparing it.
    """
    host = desired.host
    gateways = (desired.gateway4, desired.gateway6)
    if before is not None and known is not None and _same_kernel_routes(desired, before):
        kernel_routes = known[Kind.KERNEL_ROUTE]
    else:
        kernel_routes = _kernel_routes(desired)
    return {
        Kind.POLICY: {} if desired.policy is None else {POLICY: desired.policy},
        Kind.TUNNEL: {tunnel.key: tunnel for tunnel in desired.tunnels},
        Kind.POD: {device.pod.name: device for device in desired.pods},
        Kind.HOST: {} if host is None else {"host": replace(host, routes=())},
        Kind.GATEWAY: {"gateway": gateways} if any(gateways) else {},
        Kind.PEERS: {"peers": desired.peers} if desired.peers else {},
        Kind.ROUTE: cast("Mapping[Hashable, object]", desired.routes),
        Kind.KERNEL_ROUTE: kernel_routes,
        Kind.HOST_RULES: {} if desired.rules is None else {"host": desired.rules},
    }


def _same_kernel_routes(one: Desired, other: Desired) -> bool:
    """Whether they are the very same values; equal ones would take as long to compare as to use."""
    if one.kernel_routes is not other.kernel_routes or (one.host is None) is not (other.host is None):
        return False
    return one.host is None or other.host is None or one.host.routes is other.host.routes


def _kernel_routes(desired: Desired) -> dict[Hashable, object]:
    found: dict[Hashable, object] = {}
    if desired.host is not None:
        found.update((prefix, ()) for prefix in desired.host.routes)
    found.update((route.prefix, tuple(sorted(route.via, key=str))) for route in desired.kernel_routes)
    return found


def plan(desired: Objects, actual: Objects) -> list[Operation]:
    """The operations that lead from `actual` to `desired`, in the order to do them in."""
    return [*_settings(desired, actual), *_removals(desired, actual)]


def _settings(desired: Objects, actual: Objects) -> Iterator[Operation]:
    for kind in Kind:
        present, wanted = actual.get(kind, {}), desired.get(kind, {})
        if present is wanted:
            continue
        different = [key for key, value in _ours(wanted, present) if not _same(present, key, value)]
        for key in sorted(different, key=_order):  # the same difference is always worked off in the same order
            yield Operation(kind, key, wanted[key])


def _removals(desired: Objects, actual: Objects) -> Iterator[Operation]:
    for kind in reversed(Kind):
        present, wanted = actual.get(kind, {}), desired.get(kind, {})
        if present is wanted:
            continue
        for key in sorted((key for key, _ in _ours(present, wanted) if key not in wanted), key=_order):
            yield Operation(kind, key, None)


def _ours(mapping: Mapping[Hashable, object], other: Mapping[Hashable, object]) -> Iterable[tuple[Hashable, object]]:
    """The items in which `mapping` can differ from `other`: those that they do not share as one layer."""
    return mapping.beside(other) if isinstance(mapping, Layered) else mapping.items()


def _same(present: Mapping[Hashable, object], key: Hashable, value: object) -> bool:
    found = present.get(key)
    return found is value or (found is not None and found == value)


def _order(key: Hashable) -> tuple[int, int, int, str]:
    """Prefixes by number, which is quick; names by their text."""
    if isinstance(key, IPv4Network | IPv6Network):
        return key.version, int(key.network_address), key.prefixlen, ""
    return 0, 0, 0, str(key)
