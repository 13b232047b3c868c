"""Finds the daemon whose place is to be taken, also where its socket is ours as well.

Owns: who is asked, and for how long nobody's answer is waited for.
Never: takes anything over; `taker` does.
Invariant: nobody starts as usual beside a daemon that answers.
"""

from __future__ import annotations

import logging
from pathlib import Path

from engine.errors import UnreachableDaemonError
from engine.handover.line import HandoverError
from engine.handover.taker import Takeover, ask
from engine.lockfile import is_free_in_time, is_held

log = logging.getLogger(__name__)

END_PATIENCE = 20.0  # seconds for a daemon that ends: it completes the calls of runtimes first
STRANGER_PATIENCE = 1.0  # seconds for an answer where probably nobody is


def predecessor_at_our_socket(path: Path, directory: Path, *, insist: bool) -> Takeover | None:
    """The daemon that uses `directory`, once it has made its offer; None when none does, or it ends meanwhile.

    We hold the socket at `path`: everybody can connect to it, and maybe nobody answers. Those who
    `insist` on taking over do not start beside a daemon of another directory that does.
    """
    if not is_held(directory):
        return _stranger(path) if insist else None

    def look() -> None:
        if not is_held(directory):
            raise UnreachableDaemonError("the daemon before us has ended", where=str(path))

    try:
        return ask(path, check=look)
    except (UnreachableDaemonError, HandoverError) as error:
        if isinstance(error.__cause__, PermissionError) or not is_free_in_time(directory, END_PATIENCE):
            raise
        log.info("nobody is left to take over from: %s", error)
        return None


def _stranger(path: Path) -> Takeover | None:
    """Whoever answers there, of whatever directory: what it offers tells."""
    try:
        return ask(path, patience=STRANGER_PATIENCE)
    except UnreachableDaemonError as error:
        if isinstance(error.__cause__, TimeoutError):
            return None
        raise
