"""Pods and what is outside of the cluster: by whose address they speak there, and by which ports they are reached.

Owns: what is the cluster, so that nothing inside it is masqueraded, and which
pod a port of the host leads to.
Never: knows how the kernel is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from engine.desired.addressing import prefix_order
from engine.model import Facts, HostRules, Pod, PortForward


def host_rules(facts: Facts) -> HostRules | None:
    """All but the pods' ports; None without a host port."""
    if not facts.host.enabled:
        return None
    peers = (prefix for peer in facts.peers for prefix in peer.prefixes)
    own = sorted(set(facts.node.prefixes), key=prefix_order)
    cluster = sorted({*own, *peers}, key=prefix_order) if facts.host.masquerade else []
    return HostRules(facts.host.name, tuple(own), tuple(cluster), masquerade=facts.host.masquerade)


def port_forwards(pods: Iterable[Pod]) -> tuple[PortForward, ...]:
    """Where the ports of the host lead. Of two pods that claim one port, the first by name has it."""
    taken: set[tuple[object, ...]] = set()
    found = []
    for pod in sorted((pod for pod in pods if pod.ports), key=lambda pod: pod.name):
        for forward in _forwards(pod):
            place = (forward.protocol, forward.host_port, forward.host_address, forward.pod_address.version)
            if place not in taken:
                taken.add(place)
                found.append(forward)
    return tuple(sorted(found, key=_narrow_first))


def _forwards(pod: Pod) -> Iterator[PortForward]:
    """A port without an address leads to the pod's first address of each family."""
    for mapping in pod.ports:
        versions = (4, 6) if mapping.host_address is None else (mapping.host_address.version,)
        for version in versions:
            address = next((address for address in pod.addresses if address.version == version), None)
            if address is not None:
                yield PortForward(mapping.protocol, mapping.host_port, mapping.host_address, address, mapping.pod_port)


def _narrow_first(forward: PortForward) -> tuple[bool, str, int, int, str]:
    """One address of the host before all of them: the first rule that fits counts."""
    at = forward.host_address
    return (at is None, forward.protocol, forward.host_port, forward.pod_address.version, str(at))
