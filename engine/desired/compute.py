"""Facts in, desired state out.

Owns: the order in which the parts are put together, and what each fact offers to the RIB.
Never: does I/O or reads a clock.
Invariant: the result depends on the facts alone: neither the order nor the
repetition of pods, peers and routes, nor anything that was before, shows in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from ipaddress import ip_network

from engine.desired.addressing import (
    gateways,
    host_addresses,
    host_prefix,
    inner_mtu,
    local_addresses,
    path_mtu,
)
from engine.desired.outside import host_rules, port_forwards
from engine.desired.overlay import outer_pair, tunnel_port, tunnel_via
from engine.desired.rib import Offer, Preference, best
from engine.desired.routed import encapsulation_for, host_port_routes, kernel_routes
from engine.model import (
    SPECIAL_NEXT_HOPS,
    Address,
    Desired,
    EncapsulationName,
    Facts,
    HostDevice,
    Identity,
    Interface,
    Layered,
    Peer,
    Pod,
    PodDevice,
    Prefix,
    StaticRoute,
    TunnelPort,
    Underlay,
    Via,
)

DEFAULT_ROUTES: dict[int, Prefix] = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}
LINK_LOCAL = ip_network("169.254.0.0/16")  # services of the host: a cloud's metadata, a DNS cache
NOBODY = Identity()  # a device is the same whatever its pod's labels are
UNREACHABLE = Via("reject", "unreachable")
_PODS_REMEMBERED = 1024  # one that comes or goes must not have all others computed again


def desired_state(facts: Facts, underlay: Underlay) -> Desired:
    """Everything that should be, given what the sources say and what is seen of the underlay."""
    return Recomputation()(facts, underlay)


class Recomputation:
    """As `desired_state`, for facts that change again and again: what no pod changes is computed once.

    The results are equal to those of `desired_state`, and share what they have in common with the one
    before: what a pod costs that comes or goes does not grow with the number of those that stay.
    """

    def __init__(self) -> None:
        self._of: tuple[Facts, Underlay] | None = None
        self._shared: _Shared | None = None
        self._parts: dict[int, _PodParts] = {}  # of the pods of the last time, by the identity of the value
        self._last: Desired | None = None

    def __call__(self, facts: Facts, underlay: Underlay) -> Desired:
        without_pods = replace(facts, pods=())
        if self._shared is None or self._of != (without_pods, underlay):
            computation = _Computation(facts, underlay, local_addresses(facts.node, underlay))
            self._shared, self._of = computation.shared(), (without_pods, underlay)
            self._parts, self._last = {}, None
        known, mtu = self._parts, self._shared.mtu
        parts = {id(pod): known.get(id(pod)) or _parts_of(pod, mtu) for pod in facts.pods}
        new = [part for key, part in parts.items() if key not in known]
        gone = [part for key, part in known.items() if key not in parts]
        changed = None if self._last is None else self._shared.changed(self._last, new, gone)
        last = self._shared.with_pods(list(parts.values())) if changed is None else changed
        self._parts, self._last = parts, last  # not before all went well: the next time begins with the difference
        return last


@dataclass(frozen=True, slots=True)
class _PodParts:
    """What one pod adds. It holds the pod, so that no other value can take its identity."""

    pod: Pod
    device: PodDevice
    routes: dict[Prefix, tuple[Via, ...]]


def _parts_of(pod: Pod, mtu: int) -> _PodParts:
    return _PodParts(pod, _device(pod, mtu), best(_pod_offers([pod], mtu)))


@dataclass(frozen=True, slots=True)
class _Shared:
    """What does not depend on pods, of one set of facts."""

    computation: _Computation
    mtu: int
    routes: Mapping[Prefix, tuple[Via, ...]]
    desired: Desired

    def changed(self, before: Desired, new: list[_PodParts], gone: list[_PodParts]) -> Desired | None:
        """The state `before` with some pods more and some less; None when that is not all there is to it."""
        if not (new or gone):
            return before
        if not isinstance(before.routes, Layered) or any(part.pod.ports for part in (*new, *gone)):
            return None
        changes: dict[Prefix, tuple[Via, ...] | None] = {}
        for part in gone:
            changes |= dict.fromkeys(part.routes)
        for part in new:
            for prefix, vias in part.routes.items():
                if changes.get(prefix) is not None or (prefix in before.routes and prefix not in changes):
                    return None  # two have one address, or somebody announces that of a pod
                changes[prefix] = vias
        devices = before.pods.difference([part.device for part in gone]).union([part.device for part in new])
        return replace(before, pods=devices, routes=before.routes.changed(changes))

    def with_pods(self, parts: list[_PodParts]) -> Desired:
        devices = frozenset(part.device for part in parts)
        rules, forwards = self.desired.rules, port_forwards(part.pod for part in parts)
        if rules is not None and forwards:
            rules = replace(rules, forwards=forwards)
        local: dict[Prefix, tuple[Via, ...]] = {}
        for part in parts:
            local.update(part.routes)
        if len(local) < sum(len(part.routes) for part in parts) or any(prefix in self.routes for prefix in local):
            # Two have one address, or somebody announces that of a pod.
            offers = [*self.computation.offers(self.mtu), *_pod_offers((part.pod for part in parts), self.mtu)]
            return replace(self.computation.desired(self.mtu, best(offers)), pods=devices, rules=rules)
        return replace(self.desired, pods=devices, rules=rules, routes=Layered(self.routes, local))


def _pod_offers(pods: Iterable[Pod], mtu: int) -> Iterator[Offer]:
    for pod in pods:
        yield from _offers_of(pod, mtu)


@lru_cache(maxsize=_PODS_REMEMBERED)
def _offers_of(pod: Pod, mtu: int) -> tuple[Offer, ...]:
    via = (Via("pod", pod.name, mtu=mtu),)
    return tuple(Offer(host_prefix(address), Preference.LOCAL, via) for address in pod.addresses)


@lru_cache(maxsize=_PODS_REMEMBERED)
def _device(pod: Pod, mtu: int) -> PodDevice:
    return PodDevice(replace(pod, identity=NOBODY), mtu)


@dataclass(frozen=True, slots=True)
class _Computation:
    """The facts of one computation, so that its steps need not pass them on."""

    facts: Facts
    underlay: Underlay
    local: tuple[Interface, ...]
    known: dict[tuple[str, int], tuple[Via, ...]] = field(default_factory=dict)  # next hops by peer and IP version

    def shared(self) -> _Shared:
        mtu = self.mtu()
        desired = self.desired(mtu, best(self.offers(mtu)))
        return _Shared(self, mtu, desired.routes, desired)

    def desired(self, mtu: int, routes: dict[Prefix, tuple[Via, ...]]) -> Desired:
        """All but the pods' devices, for these routes."""
        gateway4, gateway6 = gateways(self.facts.node)
        return Desired(
            tunnels=frozenset(self.tunnels()),
            host=self.host(mtu, routes),
            rules=host_rules(self.facts),
            routes={prefix: _one_host_port(vias) for prefix, vias in routes.items()},
            peers=self.outer_sources(),
            kernel_routes=kernel_routes(routes, self.local),
            gateway4=gateway4,
            gateway6=gateway6,
        )

    # -- how a peer is reached -------------------------------------------------
    def encapsulations(self) -> set[EncapsulationName]:
        overlay = self.facts.overlay
        return {overlay.encapsulation, *(peer.encapsulation or overlay.encapsulation for peer in self.facts.peers)}

    def travel(self, peer: Peer, inner: int) -> tuple[Interface, Address, EncapsulationName] | None:
        """Between which addresses, and how, packets of IP version `inner` travel to the peer; None: not at all."""
        pair = outer_pair(self.local, peer, inner)
        if pair is None:
            return None
        encapsulation = encapsulation_for(peer, pair[1], inner, self.local, self.facts.overlay)
        return None if encapsulation is None else (*pair, encapsulation)

    def via(self, peer: Peer, inner: int, mtu: int) -> Via:
        """The next hop to the peer; a bare one is the host port, and tells the kernel's next hop as `remote`."""
        travel = self.travel(peer, inner)
        if travel is None:
            return UNREACHABLE
        local, remote, encapsulation = travel
        if encapsulation != "none":
            return tunnel_via(self.facts, peer, encapsulation, (local, remote), self.underlay)
        return replace(self.to_host(mtu), peer=peer.name, remote=remote) if self.facts.host.enabled else UNREACHABLE

    def by_peer(self, peer: Peer, inner: int, mtu: int) -> tuple[Via, ...]:
        """The next hop alone; always the same value for the same peer, however many prefixes it serves."""
        found = self.known.get((peer.name, inner))
        if found is None:
            found = self.known[peer.name, inner] = (self.via(peer, inner, mtu),)
        return found

    def to_host(self, mtu: int, *, transit: bool = True) -> Via:
        return Via("host", "host", mtu=mtu, transit=transit) if self.facts.host.enabled else UNREACHABLE

    def mtu(self) -> int:
        """Of pods and host port: what every peer's path carries; by our own settings while there is no peer."""
        facts = self.facts
        versions = {prefix.version for prefix in facts.node.prefixes}
        travels = {self.travel(peer, version) for peer in facts.peers for version in versions}
        sizes = {
            inner_mtu(path_mtu(remote, self.underlay), encapsulation, remote.version, facts)
            for _, remote, encapsulation in filter(None, travels)
        }
        version = max((end.version for end in self.local), default=4)
        return min(sizes, default=inner_mtu(self.underlay.mtu, facts.overlay.encapsulation, version, facts))

    # -- what each fact offers, pods aside -------------------------------------------------
    def offers(self, mtu: int) -> Iterator[Offer]:
        facts = self.facts
        peers = {peer.name: peer for peer in facts.peers}
        if facts.host.enabled:
            yield Offer(LINK_LOCAL, Preference.LOCAL, (self.to_host(mtu),))
        for interface in host_addresses(facts.node, facts.overlay) if facts.host.enabled else ():
            yield Offer(host_prefix(interface.ip), Preference.LOCAL, (self.to_host(mtu, transit=False),))
        for route in facts.routes:
            yield Offer(route.prefix, Preference.STATIC, self.static(route, peers, mtu))
        for peer in facts.peers:
            for prefix in peer.prefixes:
                yield Offer(prefix, Preference.PEER, self.by_peer(peer, prefix.version, mtu))
        for prefix in facts.node.prefixes:
            yield Offer(prefix, Preference.FALLBACK, (UNREACHABLE,))
            if facts.host.enabled:
                yield Offer(DEFAULT_ROUTES[prefix.version], Preference.FALLBACK, (self.to_host(mtu),))

    def static(self, route: StaticRoute, peers: dict[str, Peer], mtu: int) -> tuple[Via, ...]:
        if route.via[0] == "host":
            return (self.to_host(mtu),)
        if route.via[0] in SPECIAL_NEXT_HOPS:
            return (Via("reject", route.via[0]),)
        known = [self.by_peer(peers[name], route.prefix.version, mtu) for name in route.via if name in peers]
        if len(known) == 1:
            return known[0]
        return tuple(via for vias in known for via in vias) or (UNREACHABLE,)

    # -- the rest ----------------------------------------------------------------
    def tunnels(self) -> Iterator[TunnelPort]:
        """A socket on each of our addresses for every encapsulation in use, so that peers may choose the address."""
        for encapsulation in self.encapsulations():
            if encapsulation != "none":
                for end in self.local:
                    yield tunnel_port(self.facts, encapsulation, end.ip)

    def outer_sources(self) -> dict[Address, str]:
        """Who may send us encapsulated packets. Where two peers claim an address, the first by name has it."""
        overlay = self.facts.overlay
        owners: dict[Address, str] = {}
        for peer in sorted(self.facts.peers, key=lambda peer: peer.name, reverse=True):
            if (peer.encapsulation or overlay.encapsulation) != "none":
                owners.update(dict.fromkeys(peer.underlay, peer.name))
        return owners

    def host(self, mtu: int, routes: dict[Prefix, tuple[Via, ...]]) -> HostDevice | None:
        facts = self.facts
        if not facts.host.enabled:
            return None
        ends = {*(end.ip for end in self.local), *(address for peer in facts.peers for address in peer.underlay)}
        return HostDevice(
            addresses=host_addresses(facts.node, facts.overlay),
            mtu=mtu,
            routes=host_port_routes(facts.node.prefixes, routes, ends),
            name=facts.host.name,
        )


def _one_host_port(vias: tuple[Via, ...]) -> tuple[Via, ...]:
    """Several bare peers are one next hop to us: the host port. Which of them, the kernel chooses."""
    if len(vias) == 1:
        return vias
    bare = [via for via in vias if via.kind == "host"]
    if len(bare) < 2:
        return vias
    return (replace(bare[0], peer="", remote=None), *(via for via in vias if via.kind != "host"))
