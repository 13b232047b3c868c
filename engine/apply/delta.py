"""The difference between what should be and what is, as an ordered list of operations.

Owns: the split of `Desired` into objects that can be set and removed one by
one, and the order in which that happens.
Never: does I/O, reads a clock, or keeps anything between calls.
Invariant: `plan(x, x)` is empty; objects are set links first, then tables,
then kernel routes, and removed in the reverse order, after everything is set.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum

from engine.model import Desired


class Kind(IntEnum):
    """What an object is; the numbers are the order in which kinds are set."""

    TUNNEL = 1
    POD = 2
    HOST = 3
    GATEWAY = 4
    PEERS = 5
    ROUTE = 6
    KERNEL_ROUTE = 7

    @property
    def words(self) -> str:
        return self.name.lower().replace("_", " ")


Objects = Mapping[Kind, Mapping[Hashable, object]]


@dataclass(frozen=True, slots=True)
class Operation:
    """Make object `key` be `value`, or be gone when `value` is None."""

    kind: Kind
    key: Hashable
    value: object | None

    def __str__(self) -> str:
        verb = "remove" if self.value is None else "set"
        return f"{verb} {self.kind.words} {self.key}"


def objects(desired: Desired) -> dict[Kind, dict[Hashable, object]]:
    """Every object of the desired state under a key that outlives a change of its settings.

    A kernel route's value is its next hops in the order of their text; none
    means into the host port.
    """
    host = desired.host
    kernel_routes: dict[Hashable, object] = {}
    if host is not None:
        kernel_routes.update((prefix, ()) for prefix in host.routes)
    kernel_routes.update((route.prefix, tuple(sorted(route.via, key=str))) for route in desired.kernel_routes)
    gateways = (desired.gateway4, desired.gateway6)
    return {
        Kind.TUNNEL: {tunnel.key: tunnel for tunnel in desired.tunnels},
        Kind.POD: {device.pod.name: device for device in desired.pods},
        Kind.HOST: {} if host is None else {"host": replace(host, routes=())},
        Kind.GATEWAY: {"gateway": gateways} if any(gateways) else {},
        Kind.PEERS: {"peers": desired.peers} if desired.peers else {},
        Kind.ROUTE: dict(desired.routes.items()),
        Kind.KERNEL_ROUTE: kernel_routes,
    }


def plan(desired: Objects, actual: Objects) -> list[Operation]:
    """The operations that lead from `actual` to `desired`, in the order to do them in."""
    return [*_settings(desired, actual), *_removals(desired, actual)]


def _settings(desired: Objects, actual: Objects) -> Iterator[Operation]:
    for kind in Kind:
        present, wanted = actual.get(kind, {}), desired.get(kind, {})
        different = [key for key, value in wanted.items() if key not in present or present[key] != value]
        for key in sorted(different, key=str):  # the same difference is always worked off in the same order
            yield Operation(kind, key, wanted[key])


def _removals(desired: Objects, actual: Objects) -> Iterator[Operation]:
    for kind in reversed(Kind):
        wanted = desired.get(kind, {})
        for key in sorted((key for key in actual.get(kind, {}) if key not in wanted), key=str):
            yield Operation(kind, key, None)
