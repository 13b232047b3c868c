"""Hears of changes inside pods' namespaces, so that nobody has to look into them now and then.

Owns: one bell a pod, in its namespace, and the one descriptor that they all ring.
Never: looks at a device, or sets one right.
Invariant: a bell lives as long as the attachment it was opened for, and not longer: it holds the namespace.
"""

from __future__ import annotations

import contextlib
import logging
import select
from collections.abc import Mapping

from engine.apply.bell import Bell
from engine.errors import TowpathError
from engine.pod.attach import Attachment
from engine.pod.namespace import run_inside

log = logging.getLogger(__name__)

_AT_ONCE = 8  # pods without a bell that are looked at in one go; each costs some 2 ms


class PodWatch:
    def __init__(self) -> None:
        self._poll = select.epoll()
        self._bells: dict[str, tuple[Attachment, Bell]] = {}
        self._names: dict[int, str] = {}  # descriptor -> pod
        self._unheard: dict[str, Attachment] = {}  # where no bell could be hung, the one looked at longest ago first

    def fileno(self) -> int:
        """Readable when `rung` has something."""
        return self._poll.fileno()

    def follow(self, attachments: Mapping[str, Attachment]) -> None:
        """Hang a bell where there is a new device, and take those down whose device is gone."""
        for name, (attachment, _) in list(self._bells.items()):
            if attachments.get(name) is not attachment:
                self._close(name)
        self._unheard = {name: tried for name, tried in self._unheard.items() if attachments.get(name) is tried}
        for name, attachment in attachments.items():
            if name not in self._bells and name not in self._unheard:
                self._open(name, attachment)

    def next_unheard(self) -> list[str]:
        """A few pods that have no bell, each in its turn: somebody should look at them. Hangs bells again first."""
        names = list(self._unheard)[:_AT_ONCE]
        for name in names:
            self._open(name, self._unheard.pop(name), again=True)
        return names

    def rung(self) -> set[str]:
        """The pods in whose namespaces something changed since the last time."""
        found = set()
        with contextlib.suppress(InterruptedError):
            for descriptor, _ in self._poll.poll(0):
                name = self._names[descriptor]
                if self._bells[name][1].listen():
                    found.add(name)
        return found

    def close(self) -> None:
        for name in list(self._bells):
            self._close(name)
        self._poll.close()

    def _open(self, name: str, attachment: Attachment, *, again: bool = False) -> None:
        try:
            bell = run_inside(attachment.device.pod.namespace, Bell, where=f"pod {name}")
        except (TowpathError, OSError) as error:
            if not again:
                log.warning("changes in the namespace of pod %s are noticed late: %s", name, error)
            self._unheard[name] = attachment
            return
        self._bells[name] = attachment, bell
        self._names[bell.fileno()] = name
        self._poll.register(bell.fileno(), select.EPOLLIN)

    def _close(self, name: str) -> None:
        _, bell = self._bells.pop(name)
        del self._names[bell.fileno()]
        self._poll.unregister(bell.fileno())
        bell.close()
