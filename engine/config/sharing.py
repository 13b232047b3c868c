"""Pods of the file that share a namespace: which routes each one's device has there.

Owns: the rule, the same as for the interfaces that a container runtime adds.
Never: looks at what is in a namespace.
Invariant: of the pods of one namespace each prefix has one device.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from ipaddress import ip_network

from engine.model import Pod, Prefix

_EVERYTHING: dict[int, Prefix] = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}


def share_routes(pods: Iterable[Pod], network: Iterable[Prefix]) -> tuple[Pod, ...]:
    """The pods; who comes after another in its namespace has what that leaves of the routes to the pods' `network`."""
    known = tuple(network)
    taken: dict[str, set[Prefix]] = {}
    return tuple(_beside(pod, taken.setdefault(pod.namespace, set()), known) for pod in pods)


def _beside(pod: Pod, taken: set[Prefix], network: tuple[Prefix, ...]) -> Pod:
    """The pod where others have the routes `taken` already; its own are added."""
    versions = sorted({address.version for address in pod.addresses})
    alone = taken.isdisjoint(_EVERYTHING[version] for version in versions)
    routes = tuple(prefix for version in versions for prefix in _left(version, taken, network))
    taken.update(routes)
    return pod if alone else replace(pod, routes=routes)


def _left(version: int, taken: set[Prefix], network: tuple[Prefix, ...]) -> Iterator[Prefix]:
    """Everything of a family, or where another has that, as much of the network as nobody leads to."""
    if _EVERYTHING[version] not in taken:
        yield _EVERYTHING[version]
    else:
        yield from (prefix for prefix in network if prefix.version == version and prefix not in taken)
