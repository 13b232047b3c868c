"""The golden twin's way of one packet through a MemoryNode: what should come out where, or why nothing does.

Owns: the order of the twin's steps, for a node as network.py builds it.
Invariant: computed from fastpath.reference alone; nothing is asked of the compiled plane.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_network

from fastpath import reference
from fastpath.reference import PLAIN, Drop, Offload, Parsed, Prefix
from tests.fastpath.network import PEER, MemoryNode, mac

REPLIES_WRITTEN = {"ttl_expired": "time_exceeded", "no_route": "no_route", "too_big": "too_big"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a packet becomes: tunnel payloads, packets to the pod, and the reason when it was dropped."""

    to_tunnel: tuple[bytes, ...] = ()
    to_pod: tuple[bytes, ...] = ()
    reason: str | None = None
    n_segments: int = 1


def owners(node: MemoryNode) -> dict[Prefix, int | None]:
    """Each prefix of the node's routes, with the peer it leads to; None: the node's own pod."""
    return {
        ip_network(node.pod4): None,
        ip_network(node.pod6): None,
        ip_network(f"10.0.{node.other}.0/24"): PEER,
        ip_network(f"fd00:0:0:{node.other}::/64"): PEER,
    }


def wrapped(node: MemoryNode, inner: bytes) -> bytes:
    """A tunnel payload from `node` to its peer."""
    if node.encapsulation == "vxlan":
        return reference.vxlan_frame(inner, node.vni, mac(node.other), mac(node.number))
    return inner


def answered(node: MemoryNode, p: Parsed, drop: Drop) -> bytes | None:
    if drop.reply is None:
        return None
    return reference.reply(p, drop.reply, drop.mtu, node.gateway4 if p.family == 4 else node.gateway6)


def untracked(p: Parsed) -> None:
    """Nobody is judged."""


def outbound(
    node: MemoryNode, data: bytes, offload: Offload = PLAIN, track: Callable[[Parsed], None] = untracked
) -> Outcome:
    """Written by the pod. `track` raises Drop for what policy keeps out."""
    try:
        p = reference.parse(data, offload, link_local=True)
    except Drop as drop:
        return Outcome(reason=drop.reason)
    try:
        reference.guard_pod(p, [node.pod4, node.pod6])
        track(p)
        target = reference.route(owners(node), p.destination)
        if reference.within(p.destination, reference.LINK_LOCAL):
            raise Drop("martian")  # there is no host port
        if target is None:
            raise Drop("no_route", "no_route")
        hopped = reference.parse(reference.hop(p, node.mtu), p.offload)
    except Drop as drop:
        answer = answered(node, p, drop)
        return Outcome(to_pod=(answer,) if answer else (), reason=drop.reason, n_segments=p.n_segments)
    segments = reference.split(hopped)
    if target[1] is None:
        return Outcome(to_pod=tuple(segments), n_segments=p.n_segments)
    return Outcome(to_tunnel=tuple(wrapped(node, segment) for segment in segments), n_segments=p.n_segments)


def inbound(
    node: MemoryNode, payload: bytes, outer_class: int = 0, track: Callable[[Parsed], None] = untracked
) -> Outcome:
    """Received from the peer."""
    try:
        p = reference.parse(stripped(node, payload))
    except Drop as drop:
        return Outcome(reason=drop.reason)
    try:
        target = admitted(node, p, track)
        if target is not None:
            raise Drop("guard_not_local")
        data = reference.hop(p, 65535)
        data = reference.set_class(data, reference.ecn_decapsulate(p.traffic_class, outer_class))
        reference.hop(p, node.mtu)
    except Drop as drop:
        answer = answered(node, p, drop)
        return Outcome(to_tunnel=(wrapped(node, answer),) if answer else (), reason=drop.reason)
    return Outcome(to_pod=(data,))


def stripped(node: MemoryNode, payload: bytes) -> bytes:
    if node.encapsulation == "vxlan":
        return reference.decapsulate_vxlan(payload, reference.VxlanTunnel(node.vni, mac(node.number)))
    if len(payload) < 20:
        raise Drop("truncated")
    return payload


def admitted(node: MemoryNode, p: Parsed, track: Callable[[Parsed], None]) -> int | None:
    """The peer behind which the destination lies, None for the pod; the source is the sending peer's."""
    table = owners(node)
    source = reference.route(table, p.source)
    if source is None or source[1] != PEER:
        raise Drop("guard_own_source" if source is not None else "guard_peer_source")
    track(p)
    target = reference.route(table, p.destination)
    if target is None:
        raise Drop("no_route", "no_route")
    return target[1]
