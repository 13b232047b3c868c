"""How attachments end: devices, then their addresses, then the attachments.

Owns: that order, and the putting together of what is asked for in one turn of the loop.
Never: answers a runtime.
Invariant: what fails is raised where it was asked for, and can be asked for
again: the attachment is written down as leaving until its device is gone and its
addresses are given back. Nobody else waits for the kernel to delete a device.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from engine.cni import spool
from engine.cni.answer import CniError
from engine.cni.aside import Aside
from engine.cni.call import Call, is_later
from engine.cni.configuration import OURS, Configuration, read_for_removal
from engine.cni.delegate import MissingPluginError, Plugins
from engine.cni.owed import Owed
from engine.cni.task import Outcome, Tasks
from engine.errors import TowpathError
from engine.node import Node
from engine.pod.residents import Attachment, Key, handle

log = logging.getLogger(__name__)


class Removal:
    """`deletions` and `programs` are where devices are deleted, and where `plugins` run."""

    def __init__(
        self, node: Node, tasks: Tasks, deletions: Aside, programs: Aside, plugins: Plugins, owed: Owed
    ) -> None:
        self._node = node
        self._tasks = tasks
        self._deletions = deletions
        self._programs = programs
        self._plugins = plugins
        self._owed = owed
        self._leaving: list[tuple[Attachment, Outcome[None]]] = []

    # -- what a DEL asks for ----------------------------------------------------------
    async def delete(self, call: Call, configuration: Configuration) -> None:
        key = key_of(call, configuration)
        attachment = self._node.residents.get(key)
        if attachment is not None and attachment.ipam == configuration.ipam:
            await self.detach(attachment)
            await self.take_back(attachment, call)
            return
        if attachment is None:
            self._release(handle(key))
        else:  # of ours, or the configuration was changed since
            await self.forget(attachment)
        if configuration.ipam != OURS:
            await self._tell(call, configuration.ipam, known=attachment is not None)

    async def _tell(self, call: Call, plugin: str, *, known: bool) -> None:
        """A plugin of whose addresses nothing is written down. One that was uninstalled has taken them along."""
        try:
            await self._programs.run(lambda: self._plugins.run(plugin, call, "DEL"))
        except MissingPluginError as error:
            if known:
                raise
            log.warning("a deletion of container %s goes without its plugin: %s", call.container, error)

    async def delete_remembered(self, call: Call) -> None:
        """Unless the container was added anew since it was asked for. RefusedError when it makes no sense."""
        try:
            configuration = read_for_removal(call.input)
        except CniError as error:  # as it will be at every further try
            raise spool.RefusedError(str(error)) from error
        attachment = self._node.residents.get(key_of(call, configuration))
        if attachment is not None and is_later(attachment.asked, call.asked):
            log.info("pod %s was added after a deletion that waited; it stays", attachment.pod)
        else:
            await self.delete(call, configuration)

    def _release(self, handle: str) -> None:
        """What an earlier removal could not give back when everything else was gone."""
        addresses = self._node.addresses
        addresses.release(handle, addresses.given_to(handle))

    # -- devices ----------------------------------------------------------------------
    async def detach(self, attachment: Attachment) -> None:
        """Without telling a plugin that gave the addresses. Those of one turn go together: a pass has its price."""
        outcome: Outcome[None] = Outcome()
        self._leaving.append((attachment, outcome))
        if len(self._leaving) == 1:
            self._node.loop.call_soon(self._begin_to_detach)
        await outcome

    def _begin_to_detach(self) -> None:
        self._tasks.begin(self._detach_leaving())

    async def _detach_leaving(self) -> None:
        leaving, self._leaving = self._leaving, []
        try:
            refused: Mapping[Key, Exception] = await self._detach_together([attachment for attachment, _ in leaving])
        except Exception as error:  # noqa: BLE001 - it is raised where each is waited for
            refused = {attachment.key: error for attachment, _ in leaving}
        for attachment, outcome in leaving:
            refusal = refused.get(attachment.key)
            if refusal is not None:
                outcome.fail(refusal)
            else:
                if attachment.ipam:
                    self._owed.say_detached(attachment)
                outcome.settle(None)

    async def _detach_together(self, attachments: list[Attachment]) -> Mapping[Key, Exception]:
        """Those that could not be removed, and why."""
        detachment = self._node.begin_to_detach(attachment.key for attachment in attachments)
        try:
            await self._deletions.run(detachment.delete)
        except Exception:  # what stands then is seen, and said, by the last half
            log.exception("devices could not be deleted aside")
        return self._node.end_detaching(detachment)

    # -- all of it --------------------------------------------------------------------
    async def forget(self, attachment: Attachment) -> None:
        """As `detach`, and a plugin that gave addresses takes them back after that."""
        await self.detach(attachment)
        if attachment.ipam:
            await self.take_back(attachment, _deletion_of(attachment))

    async def take_back(self, attachment: Attachment, call: Call) -> None:
        """Its device is gone: have the plugin that gave its addresses do its part of `call`, and forget it."""
        where = f"pod {attachment.pod}"
        try:
            await self._programs.run(lambda: self._plugins.run(attachment.ipam, call, "DEL"))
            self._node.residents.discard(attachment.key)
            self._owed.forget(attachment)
        except Exception as error:
            if self._node.residents.get(attachment.key) is not None:  # otherwise it was written off meanwhile
                what = f"its addresses are not given back: {error}"
                remedy = f"it is tried again; to give up: towpath ipam release {attachment.pod}"
                self._node.complain(where, TowpathError(what, where=where, remedy=remedy))
            raise
        self._node.complain(where, None)


def key_of(call: Call, configuration: Configuration) -> Key:
    return configuration.name, call.container, call.interface


def _deletion_of(attachment: Attachment) -> Call:
    return Call(
        verb="DEL",
        container=attachment.container,
        namespace=attachment.namespace,
        interface=attachment.interface,
        arguments=attachment.arguments,
        search_path=attachment.search_path,
        input=attachment.configuration.encode(),
    )
