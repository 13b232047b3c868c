"""What is known of attachments whose addresses a delegated plugin has still to take back.

Owns: which of them have no device any more, and which of an earlier daemon's may be given addresses yet.
Never: ends anything, or writes anything down.
Invariant: a plugin that an earlier daemon started may run on without it; what it gives is asked for after its time.
"""

from __future__ import annotations

from collections.abc import Iterable

from engine.cni.delegate import DEADLINE
from engine.loop import Loop
from engine.pod.residents import Attachment, Key

_One = tuple[Key, float]  # the same interface that was added again is another one


class Owed:
    """`leaving`: what an earlier daemon left."""

    def __init__(self, leaving: Iterable[Attachment], loop: Loop) -> None:
        self._loop = loop
        self._until = loop.clock() + DEADLINE
        self._begun = {_one(attachment) for attachment in leaving if not attachment.addresses}
        self._detached: dict[Key, float] = {}

    def may_grow(self, attachment: Attachment) -> bool:
        """Its plugin was asked for addresses by a daemon that did not hear the answer, and may still give some."""
        return _one(attachment) in self._begun and self._loop.clock() < self._until

    def say_detached(self, attachment: Attachment) -> None:
        self._detached[attachment.key] = attachment.since

    def is_detached(self, attachment: Attachment) -> bool:
        """Its device is known to be gone."""
        return self._detached.get(attachment.key) == attachment.since

    def forget(self, attachment: Attachment) -> None:
        self._detached.pop(attachment.key, None)


def _one(attachment: Attachment) -> _One:
    return attachment.key, attachment.since
