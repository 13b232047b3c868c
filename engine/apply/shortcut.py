"""Which peers are reached past the sockets, and on whose account the others are not.

A shortcut leads from a VXLAN tunnel straight to the device by which the kernel
would send to a peer: TCP in whole super-packets, which that device cuts itself,
or, where it does nothing itself, everything in trains of datagrams.

Owns: the redirections, one a device, and what is known of routes and neighbours.
Never: sends, or asks a neighbour for its address itself: the kernel does.
Invariant: a shortcut exists only while the kernel would put the same datagrams
on the same device to the same Ethernet address, as large as the device may send:
what IPsec, a learned path MTU or a route with settings of its own changes stays
with the sockets, and so does every peer of which something is not known.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field

from engine.apply import neighbour_message
from engine.apply.egress import Egress, look_at
from engine.apply.neighbour_message import DELETE_NEIGHBOUR, NEW_NEIGHBOUR, Neighbour, Way
from engine.apply.plane import Forwarding, Link, OpenTap
from engine.apply.redirection import TRAFFIC_CONTROL_GROUP, Redirection, disturbance
from engine.apply.route_message import NEW_ROUTE, messages
from engine.apply.route_socket import RouteSocket
from engine.apply.underlay import path_mtu
from engine.errors import TowpathError
from engine.model import Address, TunnelPort

log = logging.getLogger(__name__)

_NEIGHBOUR_GROUP = 0x4
_AT_ONCE = 1000  # announcements; the rest rings again
_DISTURBANCES = 5  # after so many somebody else is at work, and the sockets carry the packets


@dataclass(frozen=True, slots=True)
class Target:
    """A peer's address, and the tunnel that leads there."""

    tunnel: TunnelPort
    remote: Address


@dataclass(slots=True)
class Shortcuts:
    forwarding: Forwarding
    open_tap: OpenTap | None
    _bell: socket.socket = field(init=False)
    _tunnels: Mapping[str, TunnelPort] = field(default_factory=dict)
    _ways: dict[Target, Way] = field(default_factory=dict)
    _narrow: set[tuple[Target, Way]] = field(default_factory=set)  # once carried less than their device
    _egress: dict[int, Egress] = field(default_factory=dict)
    _neighbours: dict[Way, Neighbour] = field(default_factory=dict)
    _redirections: dict[int, Redirection] = field(default_factory=dict)
    _refused: dict[int, str] = field(default_factory=dict)  # device -> why it has no redirection
    _disturbed: Counter[int] = field(default_factory=Counter)  # device -> how often its redirection lost its filter
    _settled: tuple[object, int] = (None, -1)
    _sent: dict[int, int] = field(default_factory=dict)  # adjacency -> packets, at the last `check`

    def __post_init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._bell = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        self._bell.bind((0, _NEIGHBOUR_GROUP | TRAFFIC_CONTROL_GROUP))

    def fileno(self) -> int:
        """Readable when neighbours or filters have changed."""
        return self._bell.fileno()

    # -- when to look ------------------------------------------------------------
    def settle(self, tunnels: Iterable[TunnelPort]) -> None:
        """Tunnels or peers may be others."""
        wanted = {tunnel.key: tunnel for tunnel in tunnels if _may_have(tunnel)}
        state = (wanted, self.forwarding.tunnel_changes)
        if state != self._settled:
            if wanted != self._tunnels:
                self._refused.clear()
                self._disturbed.clear()
            self._tunnels = wanted
            if self.refresh():
                self._settled = state

    def refresh(self, *, announced: bool = True) -> bool:
        """Links, addresses or routes may be others: ask about everything. `announced`: some are, so that a path
        that carried less may carry more; what the kernel learns of one by itself, and forgets, it does not announce.
        False when the kernel could not be asked: then there is no shortcut."""
        if self.open_tap is None or not (self._tunnels or self._redirections):
            return True
        asked = self._ask_about_everything(announced=announced)
        self._publish()
        return asked

    def _ask_about_everything(self, *, announced: bool) -> bool:
        try:
            with closing(RouteSocket()) as ip:
                self._ways = dict(self._find_ways(ip))
                self._narrow.intersection_update(() if announced else self._ways.items())
                self._neighbours = {each.way: each for each in _list_neighbours(ip)}
            self._egress = look_at(way.device for way in self._ways.values())
        except (OSError, TowpathError) as error:
            log.warning("cannot look for shortcuts: %s", error)
            self._ways = {}
            return False
        return True

    def attend(self) -> None:
        """Take up what was announced of neighbours, and of the filters of our own devices."""
        concerned = {(way.device, way.hop) for way in self._ways.values()}
        changed = False
        for found in self._announced():
            if found is None:
                for redirection in self._redirections.values():  # whose filter may be gone, too
                    redirection.disturbed()
                self.refresh()
                return
            if not isinstance(found, Neighbour):
                self._lost_filter(found)
                changed = True
            elif (found.way.device, found.way.hop) in concerned:
                before = self._neighbours.get(found.way)
                changed |= before is None or before.mac != found.mac
                self._neighbours[found.way] = found
        if changed:
            self._publish()

    def _lost_filter(self, redirection: Redirection) -> None:
        redirection.disturbed()
        self._disturbed[redirection.device] += 1
        if self._disturbed[redirection.device] > _DISTURBANCES:
            self._refused[redirection.device] = "somebody keeps removing the filter of the shortcut's device"

    def check(self) -> None:
        """What nobody announces, of the peers that were sent to: a path that carries less, an address nobody confirms."""
        busy = [(target, self._ways[target]) for target in self._busy() if target in self._ways]
        narrow = [target for target, way in busy if self._is_narrow(target, way)]
        stale = [way for _, way in busy if way in self._neighbours and self._neighbours[way].is_stale]
        try:
            self._use(stale)
        except OSError as error:
            log.warning("cannot ask for the Ethernet addresses of peers: %s", error)
        if narrow:
            self._publish()

    def _use(self, ways: list[Way]) -> None:
        if not ways:
            return
        with closing(RouteSocket()) as ip:
            for way in ways:
                with contextlib.suppress(OSError):  # it is gone, which is announced
                    ip.answers(neighbour_message.use(ip.next_sequence(), way))

    def mend(self) -> None:
        """A worker's frames were refused: where the device is gone or down, have another one, or none."""
        if not all(redirection.stands for redirection in self._redirections.values()):
            self._publish()

    def close(self) -> None:
        """After the workers ended, or the plane let go of all shortcuts."""
        for redirection in self._redirections.values():
            redirection.close()
        self._redirections.clear()
        self._bell.close()

    # -- what is told --------------------------------------------------------------
    def report(self) -> dict[str, str]:
        """Tunnel -> how packets leave it, in words."""
        return {tunnel.key: self._words(tunnel) for tunnel in self._tunnels.values()}

    def complaint(self) -> str:
        """What keeps a shortcut away that was asked for by name; empty: nothing."""
        asked = [tunnel for tunnel in self._tunnels.values() if tunnel.offload == "tap"]
        objections = [text for tunnel in asked for text in self._objections(tunnel)]
        return objections[0] if objections else ""

    def _words(self, tunnel: TunnelPort) -> str:
        targets = [target for target in self._ways if target.tunnel == tunnel]
        given = [target for target in targets if (tunnel.key, target.remote) in self.forwarding.shortcuts]
        if given:
            devices = [self._egress[self._ways[target].device] for target in given]
            through = [_through(devices, segments=segments) for segments in (True, False)]
            return f"{'; '.join(filter(None, through))} to {len(given)} of {len(targets)} peers"
        if objections := self._objections(tunnel):
            return f"through sockets: {objections[0]}"
        narrow = any((target, self._ways[target]) in self._narrow for target in targets)
        why = "paths carry less than their device" if narrow else "no Ethernet address of a peer is known"
        return f"through sockets: {why}"

    def _objections(self, tunnel: TunnelPort) -> list[str]:
        if self.open_tap is None:
            return ["this node has no TAP"]
        devices = {way.device for target, way in self._ways.items() if target.tunnel == tunnel}
        found = [self._objection(tunnel, device) for device in sorted(devices)]
        return [text for text in found if text]

    # -- finding out -------------------------------------------------------------
    def _find_ways(self, ip: RouteSocket) -> Iterator[tuple[Target, Way]]:
        for target in self._targets():
            request = neighbour_message.way_of_datagrams(
                ip.next_sequence(), target.tunnel.local, target.remote, target.tunnel.port
            )
            with contextlib.suppress(OSError):  # no route
                for kind, data in ip.answers(request):
                    way = neighbour_message.way(data, 0, len(data), target.remote) if kind == NEW_ROUTE else None
                    if way is not None:
                        yield target, way

    def _targets(self) -> set[Target]:
        return {
            Target(self._tunnels[via.target], via.remote)
            for slot in self.forwarding.slots.values()
            for via in slot.vias
            if via.kind == "tunnel" and via.remote is not None and via.target in self._tunnels
        }

    def _busy(self) -> list[Target]:
        """Those with a shortcut to whom something was sent since the last time."""
        if not self.forwarding.shortcuts:
            self._sent = {}
            return []
        counters = self.forwarding.plane.counters().adjacencies
        before, self._sent = self._sent, {}
        found = []
        for slot in self.forwarding.slots.values():
            via = slot.vias[0]
            if slot.members or via.remote is None or (via.target, via.remote) not in self.forwarding.shortcuts:
                continue
            sent = self._sent[slot.number] = counters.get(slot.number, (0, 0))[0]
            if sent != before.get(slot.number) and via.target in self._tunnels:
                found.append(Target(self._tunnels[via.target], via.remote))
        return found

    def _announced(self) -> Iterator[Neighbour | Redirection | None]:
        """What was announced: a neighbour, or who lost its filter; None when something was lost."""
        for _ in range(_AT_ONCE):
            try:
                data = self._bell.recv(65536)
            except BlockingIOError:
                return
            except OSError:  # more than the socket holds
                yield None
                continue
            for kind, _, _, start, end in messages(data):
                if kind in (NEW_NEIGHBOUR, DELETE_NEIGHBOUR):
                    found = neighbour_message.neighbour(data, start, end)
                    if found is not None:
                        yield found
                index = disturbance(kind, data, start, end)
                yield from (each for each in self._redirections.values() if each.index == index)

    # -- deciding ------------------------------------------------------------------
    def _publish(self) -> None:
        """Open what is missing or broken, tell the plane, then close what it uses no more."""
        broken = [device for device, redirection in self._redirections.items() if not redirection.stands]
        leaving = [self._redirections.pop(device) for device in broken]
        for redirection in leaving:
            name = redirection.tap.name
            log.warning("%s, by which packets left, is gone, down or leads nowhere: another is made", name)
        used = {way.device for target, way in self._ways.items() if not self._objection(target.tunnel, way.device)}
        for device in used - set(self._redirections):
            self._redirect(device)
        self.forwarding.set_shortcuts(dict(self._links()))
        leaving += [self._redirections.pop(device) for device in set(self._redirections) - used]
        if leaving:
            self.forwarding.plane.reclaimer.synchronize()  # no worker writes to their descriptors any more
        for redirection in leaving:
            redirection.close()

    def _links(self) -> Iterator[tuple[tuple[str, Address], Link]]:
        for target, way in self._ways.items():
            neighbour, redirection = self._neighbours.get(way), self._redirections.get(way.device)
            if neighbour is None or not neighbour.mac or redirection is None:
                continue
            if not self._objection(target.tunnel, way.device) and not self._is_narrow(target, way):
                egress = self._egress[way.device]
                link = Link(redirection.tap.fd, neighbour.mac, egress.mac, egress.segments, egress.mtu)
                yield (target.tunnel.key, target.remote), link

    def _objection(self, tunnel: TunnelPort, device: int) -> str:
        """Why no frame of the tunnel may go straight to the device."""
        egress = self._egress.get(device)
        if egress is None:
            return "the device to the peers is gone"
        if egress.objection:
            return egress.objection
        if tunnel.offload == "auto" and egress.sums and not egress.segments:
            return f"{egress.name} does not segment tunnels"  # but trains, and sums: then sockets are faster
        return self._refused.get(device, "")

    def _is_narrow(self, target: Target, way: Way) -> bool:
        """Whether the path carries, or once carried, less than its device: ask the kernel, which knows of IPsec too."""
        egress = self._egress.get(way.device)
        if (target, way) not in self._narrow:
            if egress is not None and path_mtu(target.tunnel.local, target.remote, target.tunnel.port) == egress.mtu:
                return False
            self._narrow.add((target, way))
        return True

    def _redirect(self, device: int) -> None:
        """A refusal is remembered until the configuration is another: each try makes a device and removes it."""
        try:
            if self.open_tap is not None:
                self._redirections[device] = Redirection.open(self.open_tap, device)
        except TowpathError as error:
            self._refused[device] = str(error)
            log.debug("no shortcut through %s: %s", self._egress[device].name, error)  # status tells it


def _through(devices: Iterable[Egress], *, segments: bool) -> str:
    """What goes straight through those of the devices that segment tunnels, or that do not; empty: there is none."""
    names = sorted({egress.name for egress in devices if egress.segments is segments})
    what = "TCP whole" if segments else "trains of datagrams straight"
    return f"{what} through {', '.join(names)}" if names else ""


def _may_have(tunnel: TunnelPort) -> bool:
    return tunnel.encapsulation == "vxlan" and tunnel.offload != "udp"


def _list_neighbours(ip: RouteSocket) -> Iterator[Neighbour]:
    for kind, data in ip.answers(neighbour_message.all_neighbours(ip.next_sequence())):
        found = neighbour_message.neighbour(data, 0, len(data)) if kind == NEW_NEIGHBOUR else None
        if found is not None:
            yield found
