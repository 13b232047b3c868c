"""How attachments begin: addresses, then the attachment, then its device.

Owns: that order, the putting together of what is asked for in one turn of the loop, and what is undone when a step fails.
Never: answers a runtime.
Invariant: an addition that fails leaves nothing, and neither does one whose answer the runtime did not get;
what cannot be undone at once is written down as leaving, and what a plugin gives before it is asked for it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple

from msgspec.structs import replace

from engine.cni import planning, sandbox
from engine.cni.answer import CniError, Code, Reply, Result, success
from engine.cni.aside import Aside
from engine.cni.call import Call, arguments_of
from engine.cni.configuration import OURS, Configuration
from engine.cni.delegate import Delegated, NotBegunError, Plugins
from engine.cni.owed import Owed
from engine.cni.removal import Removal
from engine.cni.task import Outcome
from engine.errors import TowpathError
from engine.model import Address, Prefix
from engine.node import Node
from engine.pod.attach import routes_of
from engine.pod.namespace import Identity
from engine.pod.residents import Attachment, handle

log = logging.getLogger(__name__)

Awaited = Callable[[], bool]  # whether somebody still waits for the answer; to be called from any thread

_NOTHING = Delegated((), (), {})


class Addition:
    """`programs` is where `plugins` run."""

    def __init__(self, node: Node, programs: Aside, plugins: Plugins, removal: Removal, owed: Owed) -> None:
        self._node = node
        self._programs = programs
        self._plugins = plugins
        self._removal = removal
        self._owed = owed
        self._arriving: list[tuple[Attachment, Outcome[int]]] = []

    async def make(self, call: Call, configuration: Configuration, is_awaited: Awaited) -> tuple[Attachment, Reply]:
        """Nothing of ours is in the way: the new attachment, not yet confirmed, and what to answer."""
        seen = sandbox.look(call.namespace)
        if call.interface in seen.devices:
            what = f"interface {call.interface} exists in the container already"
            raise CniError(Code.INTERFACE_EXISTS, what, call.namespace)
        given = await self._addresses(call, configuration, seen, is_awaited)
        try:
            attachment = self._plan(call, configuration, seen, given)
            self._node.residents.put(attachment)
            mtu = await self._attach(attachment)
            return attachment, success(_result(attachment, mtu, given, configuration), configuration.version)
        except Exception:
            await self._undo(call, configuration, given)
            raise

    async def conclude(self, attachment: Attachment, *, acknowledged: bool) -> None:
        """The runtime has the answer, or went away without it."""
        if self._node.residents.get(attachment.key) != attachment:
            return
        try:
            if acknowledged:
                self._node.residents.put(replace(attachment, confirmed=True))
                log.info("pod %s attached: %s", attachment.pod, ", ".join(attachment.addresses))
            else:
                log.warning("the runtime did not take the answer: pod %s is removed", attachment.pod)
                await self._removal.forget(attachment)
        except (CniError, TowpathError) as error:  # a full disk: what is written down is less than what is
            log.warning("pod %s: %s", attachment.pod, error)

    # -- addresses ----------------------------------------------------------------
    async def _addresses(
        self, call: Call, configuration: Configuration, seen: sandbox.Sandbox, is_awaited: Awaited
    ) -> Delegated:
        if configuration.ipam == OURS:
            return self._assign(call, configuration)
        residents = self._node.residents
        draft = replace(self._draft(call, configuration, seen, _NOTHING), leaving=True)
        residents.put(draft)  # whatever ends us now, the plugin is told to take back what it may have given

        def ask() -> Delegated:
            if not is_awaited():  # others may have been before it for long
                raise NotBegunError(Code.TRY_AGAIN_LATER, "the caller went away before its plugin was asked")
            return self._plugins.add(configuration.ipam, call)

        try:
            return await self._programs.run(ask)
        except NotBegunError:
            residents.discard(draft.key)
            raise
        except Exception:
            await self._undo(call, configuration, _NOTHING)
            raise

    def _assign(self, call: Call, configuration: Configuration) -> Delegated:
        addresses = self._node.addresses
        namespace, name = planning.kubernetes_name(arguments_of(call.arguments))
        given = addresses.assign(
            handle((configuration.name, call.container, call.interface)),
            planning.families(configuration, (pool.prefix for pool in addresses.settings.pools)),
            wanted=configuration.wanted,
            sticky=planning.sticky_identity(configuration, call, namespace, name),
            within=configuration.pools,
        )
        if not given:
            raise CniError(Code.INVALID_CONFIGURATION, "no address is asked for", "see ipam.families and ipam.pools")
        return Delegated(given, configuration.routes, {})

    async def _undo(self, call: Call, configuration: Configuration, given: Delegated) -> None:
        """Undo what was done. The error that led here is the one to tell, so others are only logged."""
        key = (configuration.name, call.container, call.interface)
        try:
            attachment = self._node.residents.get(key)
            if attachment is None:  # and so its addresses are ours
                self._node.addresses.release(handle(key), given.addresses)
            else:
                await self._removal.forget(attachment)
        except Exception as error:  # noqa: BLE001 - it is not what the runtime is to hear
            log.warning("what was begun for container %s could not be undone: %s", call.container, error)

    # -- the attachment -------------------------------------------------------------
    def _plan(self, call: Call, configuration: Configuration, seen: sandbox.Sandbox, given: Delegated) -> Attachment:
        node = self._node
        used: set[Address] = set()
        if configuration.ipam != OURS:  # ours gives nothing twice
            others = [other for other in node.residents.attachments if not self._has_left(other)]
            used = {address for other in others for address in other.ip_addresses()}
            used |= {address for pod in node.config.pods for address in pod.addresses}
        planning.check_addresses(given.addresses, node.config, used)
        if configuration.ports:
            planning.check_ports(configuration.ports, (*node.config.facts().pods, *node.residents.pods()))
        present = seen.routes.union(self._routes_in(seen.namespace_id))
        routes = planning.routes(configuration, given.routes, given.addresses, present, node.config.network_of_pods)
        return replace(
            self._draft(call, configuration, seen, given),
            routes=None if routes is None else tuple(map(str, routes)),
            labels=configuration.labels,
            ports=tuple(planning.wish(port) for port in configuration.ports),
            bandwidth=astuple(configuration.bandwidth),
        )

    def _has_left(self, other: Attachment) -> bool:
        """Its device is gone, and whose its addresses are is for the plugin to say, which they are still owed to."""
        residents = self._node.residents
        return residents.is_leaving(other.key) and (residents.is_gone(other.key) or self._owed.is_detached(other))

    def _routes_in(self, namespace: Identity) -> Iterator[Prefix]:
        """Those of attachments, which may have come since somebody looked, and whose devices may be still to be made."""
        residents = self._node.residents
        for other in residents.attachments:
            if other.namespace_id == namespace and not other.leaving:
                yield from routes_of(residents.pod(other.key))

    def _draft(self, call: Call, configuration: Configuration, seen: sandbox.Sandbox, given: Delegated) -> Attachment:
        """Where it is, whose it is, and who gave what: what does not follow from our own configuration."""
        delegated, residents = configuration.ipam != OURS, self._node.residents
        present = residents.get((configuration.name, call.container, call.interface))  # an earlier draft
        namespace, name = planning.kubernetes_name(arguments_of(call.arguments))
        label = planning.label(configuration, namespace, name)
        return Attachment(
            network=configuration.name,
            container=call.container,
            interface=call.interface,
            pod=present.pod if present else residents.name_for(label, call.container, call.interface, ()),
            namespace=call.namespace,
            namespace_id=seen.namespace_id,
            addresses=tuple(map(str, given.addresses)),
            orchestrator=(namespace, name),
            ipam=configuration.ipam if delegated else "",
            configuration=call.input.decode() if delegated else "",
            arguments=call.arguments,
            search_path=call.search_path,
            since=round(time.time(), 3),
            asked=call.asked,
        )

    # -- the device -------------------------------------------------------------------
    async def _attach(self, attachment: Attachment) -> int:
        """Its MTU. What came in one turn is done in one pass."""
        outcome: Outcome[int] = Outcome()
        self._arriving.append((attachment, outcome))
        if len(self._arriving) == 1:
            self._node.loop.call_soon(self._attach_arriving)
        return await outcome

    def _attach_arriving(self) -> None:
        arriving, self._arriving = self._arriving, []
        found: Sequence[int | Exception]
        try:
            found = self._node.attach(*(attachment for attachment, _ in arriving))
        except Exception as error:  # noqa: BLE001 - it is raised where each is waited for
            found = [error] * len(arriving)
        for (_, outcome), mtu in zip(arriving, found, strict=True):
            if isinstance(mtu, Exception):
                outcome.fail(mtu)
            else:
                outcome.settle(mtu)


def _result(attachment: Attachment, mtu: int, given: Delegated, configuration: Configuration) -> Result:
    dns = {**given.dns, **configuration.dns}
    through = routes_of(attachment.as_pod())
    return Result(attachment.interface, attachment.namespace, mtu, given.addresses, through, dns)
