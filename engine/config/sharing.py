"""Pods of the file that share a namespace: whose device has the default routes there.

Owns: the rule, the same as for the interfaces that a container runtime adds.
Never: looks at what is in a namespace.
Invariant: of the pods of one namespace at most one has the default route of a family.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_network

from engine.model import Pod, Prefix

_EVERYTHING: dict[int, Prefix] = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}


def share_default_routes(pods: Iterable[Pod], network: Iterable[Prefix]) -> tuple[Pod, ...]:
    """The pods; who comes after another in its namespace has routes to the pods' `network` where that has everything."""
    known = tuple(network)
    taken: dict[str, set[int]] = {}
    return tuple(_beside(pod, taken.setdefault(pod.namespace, set()), known) for pod in pods)


def _beside(pod: Pod, taken: set[int], network: tuple[Prefix, ...]) -> Pod:
    """The pod where the families `taken` have their default route already; those of its own are added."""
    versions = {address.version for address in pod.addresses}
    bound = versions & taken
    taken |= versions
    if not bound:
        return pod
    default = tuple(_EVERYTHING[version] for version in sorted(versions - bound))
    return replace(pod, routes=default + tuple(prefix for prefix in network if prefix.version in bound))
