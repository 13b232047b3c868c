"""What is known of attachments whose addresses a delegated plugin has still to take back.

Owns: which of them have no device any more.
Never: ends anything, or writes anything down.
Invariant: the same interface that was added again is another one.
"""

from __future__ import annotations

from engine.pod.residents import Attachment, Key


class Owed:
    def __init__(self) -> None:
        self._detached: dict[Key, float] = {}

    def say_detached(self, attachment: Attachment) -> None:
        self._detached[attachment.key] = attachment.since

    def is_detached(self, attachment: Attachment) -> bool:
        """Its device is known to be gone."""
        return self._detached.get(attachment.key) == attachment.since

    def forget(self, attachment: Attachment) -> None:
        self._detached.pop(attachment.key, None)
