"""A running node, as any program or the daemon holds it: `engine.Node`.

Owns: the thread in which a node runs, and what it tells whoever asks.
Never: reads a file, handles a signal, or listens on a socket; puts nothing in force itself (`keeper` does).
Invariant: everything happens in the thread that runs `loop`; the public
methods may be called from any thread.
"""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Self

from engine import views
from engine.apply.links import DeviceState
from engine.apply.plane import Openers
from engine.config import Config
from engine.datapath import Datapath
from engine.errors import ConfigError, TowpathError
from engine.handover.giver import Estate
from engine.keeper import Detachment, Keeper
from engine.loop import Loop
from engine.model import Address
from engine.observe import state
from engine.observe.placement import placement
from engine.pod import accounts
from engine.pod.addresses import Addresses
from engine.pod.residents import Attachment, Key, Residents
from engine.version import version

if TYPE_CHECKING:
    from engine.apply.plane import Plane
    from engine.handover.taker import Takeover


class Node:
    """Runs `config` from `start` to `stop`, or as a context manager with a thread of its own.

    `start` raises the first thing that cannot be had and undoes the rest; with
    `keep_going` it serves what it can, and tries the rest again and again.
    """

    def __init__(
        self,
        config: Config,
        *,
        keep_going: bool = False,
        openers: Openers | None = None,
        plane: Plane | None = None,
    ) -> None:
        self.loop = Loop()
        self._keeper = Keeper(self.loop, config, keep_going=keep_going, openers=openers, plane=plane)
        self._thread: threading.Thread | None = None

    @property
    def config(self) -> Config:
        return self._keeper.config

    @property
    def ready(self) -> bool:
        return self._keeper.ready

    @property
    def _datapath(self) -> Datapath:
        return self._keeper.datapath

    # -- life ----------------------------------------------------------------
    def claim(self) -> None:
        """Hold the state directory, which `start` does otherwise. KernelError when another daemon does."""
        self._keeper.claim()

    def start(self) -> None:
        """Put the configuration in force and begin to forward. TowpathError: nothing was changed."""
        self._keeper.start()

    def take_over(self, takeover: Takeover) -> None:
        """As `start`, in the place of the daemon at the other end. TowpathError: nothing was changed, it goes on."""
        self._keeper.take_over(takeover)

    def estate(self) -> Estate:
        """What a successor needs of this node."""
        return self._keeper.estate()

    def leave(self) -> None:
        """Let go of everything and remove nothing: another process forwards."""
        self._keeper.leave()

    def stop(self) -> None:
        """End forwarding; pods keep their devices, everything else of ours goes. Idempotent."""
        self._keeper.stop()

    def halt(self) -> None:
        """As `stop`, but go on holding the state directory, until that."""
        self._keeper.halt()

    def __enter__(self) -> Self:
        self.start()
        self._thread = threading.Thread(target=self.loop.run, name="towpath-control", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.stop()
        if self._thread is not None:
            self._thread.join()
        self.stop()
        self.loop.close()

    def reload(self, config: Config) -> views.Reload:
        """Put another configuration in force: only what differs is touched."""

        def enforce() -> views.Reload:
            outcome = self._keeper.reload(config)
            return views.Reload(len(outcome.done), self.problems())

        return self.loop.call(enforce)

    def complain(self, about: str, error: TowpathError | None) -> None:
        """Show `error` among the problems until None settles it."""
        self._keeper.complaints.say(about, error)

    # -- pods that a runtime attaches -------------------------------------------
    @property
    def residents(self) -> Residents:
        return self._keeper.residents

    @property
    def addresses(self) -> Addresses:
        return self._keeper.addresses

    def attach(self, *attachments: Attachment) -> list[int | TowpathError]:
        """Make the pods' devices now and keep them until `detach`: of each its MTU, or why nothing is left of it."""
        return self.loop.call(lambda: self._keeper.attach(attachments))

    def detach(self, keys: Iterable[Key]) -> list[Attachment]:
        """Remove the devices and forget the attachments; those that there were. TowpathError: a device still stands."""
        return self.loop.call(lambda: self._keeper.detach(list(keys)))

    def begin_to_detach(self, keys: Iterable[Key]) -> Detachment:
        """The first half of `detach`, in the loop: no packet comes any more. Then `delete`, in any thread."""
        return self._keeper.begin_to_detach(keys)

    def end_detaching(self, detachment: Detachment) -> dict[Key, TowpathError]:
        """The last half, in the loop: the attachments are forgotten, but for those whose device still stands.

        Those whose addresses a plugin gave are `leaving` until somebody discards them.
        """
        return self._keeper.end_detaching(detachment)

    def pod_device(self, name: str) -> DeviceState | None:
        """How the pod's device is; None: gone. KernelError when the pod is not attached."""
        return self.loop.call(lambda: self._datapath.pods.look(name))

    # -- views ---------------------------------------------------------------
    def version(self) -> views.Version:
        from engine.control.messages import PROTOCOL

        return views.Version(version(), PROTOCOL, os.getpid(), platform.python_version(), state.build())

    def health(self) -> views.Health:
        return self.loop.call(lambda: views.Health(live=True, ready=self.ready, problems=self.problems()))

    def status(self, config_file: str = "") -> views.Status:
        return self.loop.call(lambda: self._status(config_file))

    def routes(self, within: str = "", offset: int = 0, limit: int = 10_000) -> views.Routes:
        """Routes inside the prefix `within` (all when empty), sorted, from the `offset`-th on."""
        try:
            prefix = ip_network(within) if within else None
        except ValueError as error:
            raise ConfigError(str(error), where="within", remedy='write a prefix such as "10.0.0.0/8"') from None
        return self.loop.call(lambda: state.routes(self._datapath.forwarding, prefix, offset, limit))

    def route_get(self, address: str) -> views.RouteGet:
        """The route that a packet to `address` takes."""
        parsed = _address(address)
        return self.loop.call(lambda: state.route_get(self._datapath.forwarding, parsed))

    def peers(self) -> views.Peers:
        def look() -> views.Peers:
            running = self._datapath
            return state.peers(running.forwarding, self._keeper.desired, running.plane.counters())

        return self.loop.call(look)

    def pods(self) -> views.Pods:
        def look() -> views.Pods:
            running = self._datapath
            return state.pods(
                running.forwarding, self._keeper.desired, running.reconciler.failures, running.plane.counters()
            )

        return self.loop.call(look)

    def counters(self) -> views.Counters:
        return self.loop.call(lambda: state.counts(self._datapath.forwarding, self._datapath.plane.counters()))

    def drops(self) -> views.Drops:
        return self.loop.call(lambda: state.drops(self._datapath.plane.counters()))

    def ipam(self) -> views.Ipam:
        return self.loop.call(lambda: accounts.show(self.addresses, self.residents))

    def ipam_check(self) -> views.IpamCheck:
        return self.loop.call(lambda: accounts.check(self.addresses, self.residents, self.config))

    def ipam_release(self, address: str) -> views.IpamReleased:
        """Also of a pod that is gone but for its plugin, which may be told by the pod's name: nobody asks the plugin again."""

        def release() -> views.IpamReleased:
            owed = self._keeper.write_off(_address_or_name(address))
            if owed is not None:
                return views.IpamReleased(address, owed.handle)
            return accounts.release(self.addresses, self.residents, _address(address))

        return self.loop.call(release)

    # -- policy ------------------------------------------------------------------
    def explain(self, source: str, destination: str, service: str = "", source_port: int = 49_152) -> views.Explanation:
        """Who decides on a connection, by the plane's own lookup. Both sides are `namespace/pod` or an address."""
        return self.loop.call(lambda: self._keeper.policing.inquiry.explain(source, destination, service, source_port))

    def policy_rules(
        self, policy: str = "", offset: int = 0, limit: int = 10_000, *, counted: bool = False
    ) -> views.Rules:
        """The rules in force in the order of judgement, and what each did."""
        return self.loop.call(lambda: self._keeper.policing.inquiry.rules(policy, offset, limit, counted=counted))

    def flows(
        self,
        within: Iterable[str] = (),
        protocol: str = "",
        port: int = -1,
        cursor: int = 0,
        limit: int = 1000,
        *,
        denied: bool = False,
    ) -> views.Flows:
        """A page of the live flows, those at `within` (pods, addresses, prefixes) when any are named."""
        return self.loop.call(
            lambda: self._keeper.policing.inquiry.flows(within, protocol, port, cursor, limit, denied=denied)
        )

    def apply_policy(self, text: str) -> views.PolicyDocuments:
        """Take documents (YAML or JSON), put them in force, and keep them over a restart."""
        return self.loop.call(lambda: self._keeper.policing.apply(text))

    def delete_policy(self, kind: str, name: str, namespace: str = "default") -> views.PolicyDocuments:
        return self.loop.call(lambda: self._keeper.policing.delete(kind, name, namespace))

    def applied_policies(self) -> views.PolicyDocuments:
        return self.loop.call(self._keeper.policing.applied)

    def problems(self) -> list[views.Problem]:
        keeper = self._keeper
        found = [views.Problem(str(error)) for error in keeper.complaints]
        if keeper.runs:
            found += keeper.policing.problems()
            found += state.problems(keeper.datapath.reconciler.failures, time.monotonic())
        return found

    def _status(self, config_file: str) -> views.Status:
        keeper = self._keeper
        running = keeper.datapath
        counters = running.plane.counters()
        facts = keeper.facts(keeper.config)
        return views.Status(
            node=facts.node.name,
            version=version(),
            pid=os.getpid(),
            uptime=round(time.monotonic() - keeper.started, 3),
            mode=facts.overlay.mode,
            encapsulation=facts.overlay.encapsulation,
            config=config_file,
            ready=keeper.ready,
            workers=keeper.config.workers_count,
            pods=len(keeper.desired.pods),
            peers=len(facts.peers),
            routes=len(running.forwarding.routes),
            policies=keeper.policing.policies,
            policy_generation=getattr(running.plane, "policy_generation", 0),
            received=counters.received,
            sent=counters.sent,
            dropped=sum(counters.drops.values()),
            applied=keeper.applied,
            problems=self.problems(),
            placement=placement(running.worker_threads),
            ports=state.ports(running.forwarding, running.shortcuts.report()),
        )


def _address(text: str) -> Address:
    try:
        return ip_address(text)
    except ValueError:
        remedy = 'write an address such as "10.0.0.1" or "fd00::1"'
        raise ConfigError(f"{text[:80]!r} is no IP address", where="address", remedy=remedy) from None


def _address_or_name(text: str) -> Address | str:
    try:
        return ip_address(text)
    except ValueError:
        return text
