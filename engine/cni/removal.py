"""How attachments end: devices, then the attachments, then their addresses.

Owns: that order, and the putting together of what is asked for in one turn of the loop.
Never: answers a runtime.
Invariant: `then` is called once, in the loop, with what went wrong or None;
nobody else waits for the kernel to delete a device.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from engine.cni.answer import CniError, Code
from engine.cni.aside import Aside
from engine.cni.call import Call
from engine.cni.delegate import Plugins
from engine.keeper import Detachment
from engine.node import Node
from engine.pod.residents import Attachment

log = logging.getLogger(__name__)

Then = Callable[[Exception | None], None]


class Removal:
    def __init__(self, node: Node, aside: Aside, plugins: Plugins) -> None:
        self._node = node
        self._aside = aside
        self._plugins = plugins
        self._leaving: list[tuple[Attachment, Then]] = []

    def detach_soon(self, attachment: Attachment, then: Then) -> None:
        """As `detach`; those of one turn go together, since what a pass costs beside its pods is paid once."""
        self._leaving.append((attachment, then))
        if len(self._leaving) == 1:
            self._node.loop.call_soon(self._detach_leaving)

    def _detach_leaving(self) -> None:
        leaving, self._leaving = self._leaving, []

        def ended(error: Exception | None) -> None:
            for _, then in leaving:
                then(error)

        self.detach([attachment for attachment, _ in leaving], ended)

    def detach(self, attachments: Iterable[Attachment], then: Then) -> None:
        """Without telling the plugins that gave the addresses."""
        try:
            detachment = self._node.begin_to_detach(attachment.key for attachment in attachments)
        except Exception as error:
            log.exception("pods could not be detached")
            then(error)
            return
        if detachment.departure is None:
            then(self._finished(detachment))
        else:
            self._aside.run(detachment.delete, lambda _: then(self._finished(detachment)), then)

    def _finished(self, detachment: Detachment) -> Exception | None:
        try:
            self._node.end_detaching(detachment)
            for attachment in detachment.attachments:
                if not attachment.ipam:
                    self._node.addresses.release(attachment.handle, attachment.ip_addresses())
        except Exception as error:
            log.exception("pods were detached, but not all that belonged to them is gone")
            return error
        return None

    def forget(self, attachments: list[Attachment], then: Then) -> None:
        """As `detach`, and the plugins that gave addresses are told after that."""

        def detached(error: Exception | None) -> None:
            if error is None:
                self.take_back([attachment for attachment in attachments if attachment.ipam], then)
            else:
                then(error)

        self.detach(attachments, detached)

    def take_back(self, attachments: list[Attachment], then: Then) -> None:
        """Tell the plugins that gave them addresses."""
        if attachments:
            self._aside.run(lambda: _take_back(self._plugins, attachments), lambda _: then(None), then)
        else:
            then(None)


def _take_back(plugins: Plugins, attachments: list[Attachment]) -> None:
    problems = []
    for attachment in attachments:
        try:
            plugins.run(attachment.ipam, _deletion_of(attachment), "DEL")
        except CniError as error:
            problems.append(f"{attachment.pod}: {error}")
    if problems:
        raise CniError(Code.DELEGATE_FAILED, "addresses could not be given back", "; ".join(problems))


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


def ignored(error: Exception | None) -> None:
    """Of what nobody waits for."""
    if error is not None:
        log.warning("%s", error)
