"""The only writer of the data plane's ports and tables.

Owns: which port, peer and adjacency number stands for which name, and how ports
come to be.
Never: decides what should be; never sees a packet.
Invariant: a route is published even when its port is missing; its adjacency
then rejects, so that no wider route takes the packets, and it is pointed to
the port the moment the port is there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol, cast

from engine.apply.route_change import RouteChange
from engine.config.schema import FlowsSection
from engine.errors import TowpathError
from engine.model import Address, Bandwidth, Prefix, TunnelPort, Via

if TYPE_CHECKING:
    from fastpath.plane import Plane as Plane  # noqa: PLC0414 - for those above us, who may not name fastpath
    from fastpath.port.port import Port as Port  # noqa: PLC0414 - the same
    from fastpath.port.raw import RawPort
    from fastpath.port.udp import UdpPort
    from fastpath.values import Adjacency, FlowSettings, Tunnel
    from fastpath.values import Bandwidth as Pace

Owner = tuple[Literal["tunnel", "pod", "host"], str]
AdjacencyKey = tuple[Hashable, ...]
RoutesWanted = Mapping[Prefix, tuple[Via, ...] | None]
Refuse = Callable[[RoutesWanted], dict[Prefix, TowpathError]]


class LocalPort(Protocol):
    """What the engine needs of a TUN port beside attaching it."""

    name: str
    granted: object

    def close(self) -> None: ...
    def delete(self) -> None: ...
    def device_name(self) -> str: ...


class Tap(Protocol):
    """A device that is there while its descriptor is open: frames written to it are received by the kernel, unless
    somebody deleted it or took it down."""

    name: str
    fd: int

    @property
    def takes_frames(self) -> bool: ...

    def close(self) -> None: ...


OpenTap = Callable[[], Tap]


class OpenTun(Protocol):
    def __call__(
        self, name: str, *, role: Literal["pod", "host"], addresses: Iterable[Address], mtu: int
    ) -> LocalPort: ...


@dataclass(frozen=True, slots=True)
class Openers:
    """How ports come to be; tests and embedding programs put their own here."""

    tun: OpenTun
    tunnel: Callable[[TunnelPort], Port]
    tap: OpenTap | None = None  # None: no shortcuts


def kernel_openers(workers: int = 1) -> Openers:
    """Ports of the kernel: TUN devices, UDP (a receiving socket for each of `workers`) and raw sockets."""
    return Openers(_open_tun, partial(_open_tunnel, workers), _open_tap)


def _open_tun(name: str, *, role: Literal["pod", "host"], addresses: Iterable[Address], mtu: int) -> LocalPort:
    from fastpath.port.tun import TunPort

    return cast(LocalPort, TunPort.open(name, role=role, addresses=tuple(addresses), mtu=mtu, persist=True))


def _open_tap() -> Tap:
    from fastpath.port.tap import Tap

    return Tap.open()


def _open_tunnel(workers: int, wanted: TunnelPort) -> Port:
    from fastpath.port.udp import UdpPort

    kind, tunnel = _tunnel_port(wanted)
    return UdpPort.open(tunnel, receivers=workers) if kind is UdpPort else kind.open(tunnel)


def adopt_tun(
    descriptors: Sequence[int], *, role: Literal["pod", "host"], addresses: Iterable[Address], mtu: int, granted: int
) -> LocalPort:
    """The queue of a device that another process opened. ValueError when it is none."""
    from fastpath.port.tun import TunPort

    return cast(LocalPort, TunPort.adopt(descriptors, role=role, addresses=addresses, mtu=mtu, granted=granted))


def adopt_tunnel(wanted: TunnelPort, descriptors: Sequence[int]) -> Port:
    """The sockets of a tunnel that another process opened. ValueError when they are not those of `wanted`."""
    kind, tunnel = _tunnel_port(wanted)
    return kind.adopt(tunnel, descriptors)


def _tunnel_port(wanted: TunnelPort) -> tuple[type[UdpPort | RawPort], Tunnel]:
    from fastpath.port.raw import RawPort
    from fastpath.port.udp import UdpPort
    from fastpath.values import Tunnel

    tunnel = Tunnel(
        encapsulation=wanted.encapsulation,
        local=wanted.local,
        port=wanted.port,
        vni=wanted.vni,
        mac=wanted.mac,
        source_ports=wanted.source_ports,
        copy_dscp=wanted.copy_dscp,
    )
    return (RawPort if wanted.encapsulation == "ipip" else UdpPort), tunnel


def make_plane(workers: int, flows: FlowsSection | None = None, busy_poll: int = 0) -> Plane:
    from fastpath.plane import Plane

    settings = None if flows is None else _flow_settings(flows)
    return Plane(workers=workers, flows=settings, busy_poll=busy_poll)


def _flow_settings(flows: FlowsSection) -> FlowSettings:
    from msgspec.structs import asdict

    from fastpath.values import FlowSettings

    return FlowSettings(
        capacity=flows.capacity,
        quota=flows.quota,
        timeouts={} if flows.timeouts is None else asdict(flows.timeouts),
        pickup=flows.pickup,
        on_policy_change=flows.on_policy_change,
        track=flows.track,
        events=frozenset(flows.log_events if flows.log is not None else ()),
        events_per_second=flows.log_rate,
    )


@dataclass(frozen=True, slots=True)
class Link:
    """The end of a shortcut: frames between two Ethernet addresses, written to a TAP's descriptor. The device behind
    it sends `mtu` bytes at most, and maybe `cuts` tunnelled super-packets."""

    tap: int
    destination: bytes
    source: bytes
    cuts: bool
    mtu: int


@dataclass(slots=True)
class Slot:
    """One adjacency of the plane and what it stands for."""

    number: int
    vias: tuple[Via, ...]
    value: Adjacency
    users: int = 1
    members: tuple[AdjacencyKey, ...] = ()  # of a spread
    prefixes: set[Prefix] | None = None  # of the routes by it; None where no pod is, and where there may be millions


def _key(vias: tuple[Via, ...]) -> AdjacencyKey:
    """What makes two next hops the same: everything but the MTU, which may change under way."""
    if len(vias) == 1:
        via = vias[0]
        return (via.kind, via.target, via.peer, via.remote, via.remote_port, via.mac, via.transit)
    return tuple(_key((via,)) for via in vias)


def _owners(vias: tuple[Via, ...]) -> set[Owner]:
    """The ports that these next hops lead through."""
    return {(via.kind, via.target) for via in vias if via.kind != "reject"}


def _renamed(vias: tuple[Via, ...], pod: str, another: str) -> tuple[Via, ...]:
    return tuple(replace(via, target=another) if (via.kind, via.target) == ("pod", pod) else via for via in vias)


class Forwarding:
    """The plane's tables as last written, by name."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        self.ports: dict[Owner, int] = {}
        self.attached: dict[Owner, Port] = {}
        self.slots: dict[AdjacencyKey, Slot] = {}
        self._through: defaultdict[Owner, dict[AdjacencyKey, Slot]] = defaultdict(
            dict
        )  # slots by what they lead through
        self.routes: dict[Prefix, tuple[Via, ...]] = {}
        self.shortcuts: Mapping[tuple[str, Address], Link] = {}  # by tunnel and remote address
        self.unjudged: TowpathError | None = None  # why the policy that is wanted is not in force; None: it is
        self.open_ranges: tuple[Prefix, ...] = ()  # where flows may be that nobody judged, for only the host gets them
        self.tunnel_changes = 0  # how often a next hop through a tunnel came or went
        self._peer_numbers: dict[str, int] = {}
        self._last_peer_number = 0

    # -- ports ---------------------------------------------------------------
    def attach(self, owner: Owner, port: Port | LocalPort, bandwidth: Bandwidth | None = None) -> int:
        opened = cast("Port", port)
        if bandwidth is not None:
            opened.bandwidth = _pace(bandwidth)
        number = self.plane.attach(opened)
        self.ports[owner] = number
        self.attached[owner] = opened
        try:
            self._point(owner)
        except BaseException:
            self.detach(owner)
            raise
        return number

    def update(self, owner: Owner, addresses: Iterable[Address], mtu: int, bandwidth: Bandwidth | None = None) -> None:
        """Change what the port's owner may use as source, its MTU, and how fast it may be."""
        pace = None if bandwidth is None else _pace(bandwidth)
        self.plane.update_port(self.ports[owner], addresses=addresses, mtu=mtu, bandwidth=pace)

    def detach(self, owner: Owner) -> None:
        """Take the port from every adjacency, then from the plane. Does not close it."""
        number = self.ports.pop(owner, None)
        if number is None:
            return
        try:
            self._point(owner)
            self.plane.detach(number)
        except BaseException:
            self.ports[owner] = number  # so that it can be tried again
            raise
        del self.attached[owner]

    def rename_pod(self, name: str, another: str) -> None:
        """What was the pod's port, and what leads through it, is another's: in the plane nothing changes."""
        before: Owner = ("pod", name)
        after: Owner = ("pod", another)
        slots = self._through.get(before, {})
        keys = {key: _key(_renamed(slot.vias, name, another)) for key, slot in slots.items()}
        if after in self.ports or any(key in self.slots for key in keys.values()):
            raise TowpathError(f"something else is called {another}", where=f"pod {name}")
        for key, slot in list(slots.items()):
            self._forget(key, slot)
            slot.vias = _renamed(slot.vias, name, another)
            slot.members = tuple(_key((via,)) for via in slot.vias) if slot.members else ()
            self._remember(keys[key], slot)
            for prefix in slot.prefixes or ():
                self.routes[prefix] = _renamed(self.routes[prefix], name, another)
        self.ports[after], self.attached[after] = self.ports.pop(before), self.attached.pop(before)

    def owner_of(self, number: int) -> Owner | None:
        return next((owner for owner, candidate in self.ports.items() if candidate == number), None)

    def _point(self, owner: Owner) -> None:
        """Resolve again what leads through `owner`: single next hops first, then the spreads over them."""
        for spreads in (False, True):
            for slot in self._through.get(owner, {}).values():
                if bool(slot.members) is spreads:
                    self._update(slot, slot.vias)

    # -- adjacencies ---------------------------------------------------------
    def slot_of(self, vias: tuple[Via, ...]) -> Slot | None:
        return self.slots.get(_key(vias))

    def acquire(self, vias: tuple[Via, ...]) -> Slot:
        """The slot that means `vias`, used once more."""
        key = _key(vias)
        slot = self.slots.get(key)
        if slot is not None:
            if slot.vias != vias:
                for via in vias if slot.members else ():
                    self._update(self.slots[_key((via,))], (via,))
                self._update(slot, vias)
            slot.users += 1
            return slot
        members = vias if len(vias) > 1 else ()
        for via in members:
            self.acquire((via,))
        try:
            value = self._resolve(vias)
            slot = Slot(self.plane.set_adjacency(value), vias, value, 1, tuple(_key((via,)) for via in members))
            slot.prefixes = set() if any(via.kind == "pod" for via in vias) else None
        except BaseException:
            for via in members:
                self.release((via,))
            raise
        self._remember(key, slot)
        self.tunnel_changes += vias[0].kind == "tunnel"
        return slot

    def _remember(self, key: AdjacencyKey, slot: Slot) -> None:
        self.slots[key] = slot
        for owner in _owners(slot.vias):
            self._through[owner][key] = slot

    def _forget(self, key: AdjacencyKey, slot: Slot) -> None:
        del self.slots[key]
        for owner in _owners(slot.vias):
            self._through[owner].pop(key, None)
            if not self._through[owner]:
                del self._through[owner]

    def release(self, vias: tuple[Via, ...], times: int = 1) -> None:
        key = _key(vias)
        slot = self.slots[key]
        slot.users -= times
        if slot.users == 0:
            self.plane.remove_adjacency(slot.number)
            self._forget(key, slot)
            self.tunnel_changes += vias[0].kind == "tunnel"
            for via in vias if slot.members else ():
                self.release((via,))

    def _update(self, slot: Slot, vias: tuple[Via, ...]) -> None:
        value = self._resolve(vias)
        if value != slot.value:
            self.plane.set_adjacency(value, slot.number)
        slot.vias, slot.value = vias, value

    def _resolve(self, vias: tuple[Via, ...]) -> Adjacency:
        from fastpath.values import Deliver, Encapsulate, Reject, Shortcut, Spread

        if len(vias) > 1:
            slots = [self.slots[_key((via,))] for via in vias]
            usable = tuple(slot.number for slot in slots if not isinstance(slot.value, Reject))
            return Spread(usable) if usable else Reject("unreachable")
        via = vias[0]
        if via.kind == "reject":
            return Reject(cast(Literal["blackhole", "unreachable", "prohibited"], via.target))
        port = self.ports.get((via.kind, via.target))
        if port is None:
            return Reject("unreachable")
        if via.kind != "tunnel":
            return Deliver(port, via.mtu, via.transit)
        if via.remote is None:
            raise TowpathError("a tunnel next hop needs a remote address", where=f"peer {via.peer}")
        peer = self.peer_number(via.peer)
        link = self.shortcuts.get((via.target, via.remote))
        shortcut = None if link is None else Shortcut(link.tap, link.destination, link.source, link.cuts, link.mtu)
        return Encapsulate(port, peer, via.remote, via.mtu, via.remote_port, via.mac, shortcut)

    def set_shortcuts(self, wanted: Mapping[tuple[str, Address], Link]) -> None:
        """These next hops have a shortcut, and no others."""
        before, self.shortcuts = self.shortcuts, wanted
        changed = {key for key in {**before, **wanted} if before.get(key) != wanted.get(key)}
        for slot in self.slots.values() if changed else ():
            via = slot.vias[0]
            if not slot.members and via.remote is not None and (via.target, via.remote) in changed:
                self._update(slot, slot.vias)

    # -- routes and peers ----------------------------------------------------
    def set_route(self, prefix: Prefix, vias: tuple[Via, ...]) -> None:
        for error in self.change_routes({prefix: vias}).values():
            raise error

    def remove_route(self, prefix: Prefix) -> None:
        self.change_routes({prefix: None})

    def change_routes(self, wanted: RoutesWanted, refuse: Refuse | None = None) -> dict[Prefix, TowpathError]:
        """Set these routes, or remove them where there is no next hop, as one change; those that were refused.

        `refuse` is asked about those that can be changed, before any is: what it names stays as it was.
        """
        change = RouteChange(self)
        try:
            for prefix, vias in wanted.items():
                change.add(prefix, vias, self.routes.get(prefix))
            refused = refuse({prefix: vias for prefix, vias, *_ in change.done}) if refuse is not None else {}
            if not refused:
                change.publish()
        except BaseException:
            change.undo()
            raise
        if refused:
            change.undo()
            refused |= change.refused
            rest = {prefix: vias for prefix, vias in wanted.items() if prefix not in refused}
            return {**refused, **self.change_routes(rest, refuse)}
        for prefix, vias, old, new in change.done:
            if old is not None and old.prefixes is not None:
                old.prefixes.discard(prefix)
            if new is not None and new.prefixes is not None:
                new.prefixes.add(prefix)
            if vias is None:
                self.routes.pop(prefix, None)
            else:
                self.routes[prefix] = vias
        change.release_what_was()
        return change.refused

    def peer_number(self, name: str) -> int:
        """The number guard knows the peer by; never given to another peer."""
        if name not in self._peer_numbers:
            self._last_peer_number += 1
            self._peer_numbers[name] = self._last_peer_number
        return self._peer_numbers[name]

    def set_detour(self, *, allowed: bool) -> None:
        """Whether the host may hand back what pods sent it, so that their replies go through its port."""
        from fastpath.values import Deliver

        slot = self.slots.get(_key((Via("host", "host"),)))
        wanted = allowed and slot is not None and not slot.vias[0].transit
        if wanted and slot is not None and not isinstance(slot.value, Deliver):
            raise TowpathError("the host port is not there yet", where="host rules", remedy="it is tried again")
        self.plane.set_detour(slot.number if wanted and slot is not None else None)

    def set_peers(self, peers: Mapping[Address, str]) -> None:
        self.plane.set_peers({address: self.peer_number(name) for address, name in peers.items()})
        wanted = {*peers.values(), *(via.peer for slot in self.slots.values() for via in slot.vias)}
        for name in [name for name in self._peer_numbers if name not in wanted]:
            del self._peer_numbers[name]


def _pace(bandwidth: Bandwidth) -> Pace:
    from fastpath.values import Bandwidth as Pace

    return Pace(bandwidth.ingress, bandwidth.egress, bandwidth.ingress_burst, bandwidth.egress_burst)
