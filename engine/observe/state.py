"""The views of a running node, made of the tables as written and the plane's counters.

Owns: how numbers are joined with names.
Never: changes anything; a view is made when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING

from engine import views
from engine.apply.plane import Forwarding
from engine.apply.reconcile import Failure
from engine.model import Address, Desired, Prefix, Via

if TYPE_CHECKING:
    from fastpath.port.port import Port
    from fastpath.tally import Counters


def build() -> str:
    """The kind of the compiled data plane: "release", "debug", ..."""
    from fastpath import BUILD

    return BUILD


def problems(failures: Iterable[Failure], now: float) -> list[views.Problem]:
    return [
        views.Problem(str(failure), failure.attempts, round(max(0.0, failure.retry_at - now), 1))
        for failure in failures
    ]


def routes(forwarding: Forwarding, within: Prefix | None, offset: int, limit: int) -> views.Routes:
    """The routes inside `within` in the order of their prefixes, from the `offset`-th on."""
    chosen = [prefix for prefix in forwarding.routes if within is None or _is_within(prefix, within)]
    chosen.sort(key=lambda prefix: (prefix.version, prefix.network_address, prefix.prefixlen))
    part = islice(chosen, offset, offset + limit)
    return views.Routes([_route(forwarding, prefix) for prefix in part], len(chosen))


def route_get(forwarding: Forwarding, address: Address) -> views.RouteGet:
    """Where a packet to `address` goes, as the workers see it."""
    found = forwarding.plane.lookup(address)
    return views.RouteGet(str(address), None if found is None else _route(forwarding, found[0]))


def peers(forwarding: Forwarding, desired: Desired, counters: Counters) -> views.Peers:
    named: dict[str, views.Peer] = {}
    for address, name in desired.peers.items():
        named.setdefault(name, views.Peer(name, [], [])).addresses.append(str(address))
    for prefix, vias in desired.routes.items():
        for via in vias:
            if via.peer:
                peer = named.setdefault(via.peer, views.Peer(via.peer, [], []))
                peer.prefixes.append(str(prefix))
                peer.mtu = min(peer.mtu or via.mtu, via.mtu)
    for slot in forwarding.slots.values():
        if slot.vias[0].peer and not slot.members:
            packets, size = counters.adjacencies.get(slot.number, (0, 0))
            peer = named.setdefault(slot.vias[0].peer, views.Peer(slot.vias[0].peer, [], []))
            peer.sent_packets += packets
            peer.sent_bytes += size
    return views.Peers(sorted(named.values(), key=lambda peer: peer.name))


def pods(forwarding: Forwarding, desired: Desired, failures: Iterable[Failure], counters: Counters) -> views.Pods:
    why = {failure.operation.key: str(failure.error) for failure in failures}
    found = []
    for device in sorted(desired.pods, key=lambda device: device.pod.name):
        pod = device.pod
        number = forwarding.ports.get(("pod", pod.name))
        view = views.Pod(
            name=pod.name,
            namespace=pod.namespace,
            interface=pod.interface,
            addresses=[str(address) for address in pod.addresses],
            mtu=device.mtu,
            state="attached" if number is not None else why.get(pod.name, "waiting"),
        )
        if number is not None and number in counters.ports:
            port = counters.ports[number]
            view.received_packets = port.received_packets
            view.sent_packets = port.sent_packets
            view.dropped_packets = port.dropped_packets
        found.append(view)
    return views.Pods(found)


def ports(forwarding: Forwarding, shortcuts: Mapping[str, str]) -> list[views.PortStatus]:
    """`shortcuts`: of each tunnel that may have some, what became of it."""
    return [
        views.PortStatus(
            name,
            kind,
            number,
            _granted(forwarding.attached[kind, name]),
            shortcuts.get(name, "") if kind == "tunnel" else "",
        )
        for (kind, name), number in sorted(forwarding.ports.items())
    ]


def counts(forwarding: Forwarding, counters: Counters) -> views.Counters:
    names = {number: f"{kind} {name}" for (kind, name), number in forwarding.ports.items()}
    return views.Counters(
        received=counters.received,
        created=counters.created,
        sent=counters.sent,
        dropped=sum(counters.drops.values()),
        ports=[
            views.PortCount(
                names.get(number, f"port {number}"),
                port.received_packets,
                port.received_bytes,
                port.sent_packets,
                port.sent_bytes,
                port.dropped_packets,
            )
            for number, port in sorted(counters.ports.items())
        ],
        events=dict(counters.events),
    )


def drops(counters: Counters) -> views.Drops:
    """Every reason that has dropped something, most first."""
    happened = [(reason, packets) for reason, packets in counters.drops.items() if packets]
    happened.sort(key=lambda drop: (-drop[1], drop[0]))
    return views.Drops([views.Drop(name, packets, *_words(name)) for name, packets in happened])


def _words(name: str) -> tuple[str, str]:
    """Severity and text of a drop reason."""
    from fastpath.reasons import REASONS

    return next(((reason.severity, reason.text) for reason in REASONS if reason.name == name), ("", ""))


def _granted(port: Port) -> str:
    """What the kernel gave the port, in words: what may cross it as one super-packet or one send."""
    if port.kind == "tun":
        kinds = (("TCP", port.takes_super), ("UDP", port.takes_super_udp))
        given = [name for name, granted in kinds if granted]
        return f"super-packets: {' and '.join(given) or 'none'}"
    return f"datagrams a send: {port.segments_max}"


def _route(forwarding: Forwarding, prefix: Prefix) -> views.Route:
    vias = forwarding.routes[prefix]
    slot = forwarding.slot_of(vias)
    wanted = any(via.kind != "reject" for via in vias)
    lost = wanted and (slot is None or type(slot.value).__name__ == "Reject")
    return views.Route(str(prefix), [_hop(via) for via in vias], "unreachable" if lost else "active")


def _hop(via: Via) -> views.Hop:
    remote = "" if via.remote is None else str(via.remote)
    return views.Hop(via.kind, via.target, via.peer, remote, via.mtu)


def _is_within(prefix: Prefix, within: Prefix) -> bool:
    return prefix.version == within.version and prefix.subnet_of(within)  # type: ignore[arg-type]
