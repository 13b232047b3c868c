"""Whose turn it is, when several processes share the tests out among themselves.

Owns: the meaning of the mark `alone`, and a folder with two locks for each run of pytest that has several processes.
Never: outlives its process: the kernel gives up what a dead one held. Waits for ever.
Invariant: while a test that is to be alone runs, no other does. Whoever came before has ended, who comes after waits,
and nobody is overtaken: one that waits to be alone keeps all who come later behind it. What fixtures of a module or of
the session keep running between its tests goes on.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

PATIENCE = 600.0  # seconds for a lock: no test takes as long, but one that hangs


class Turns:
    def __init__(self, folder: Path) -> None:
        """`folder` is the same for all who are to know of one another."""
        self._queue, self._running = (os.open(folder / name, os.O_RDWR | os.O_CREAT) for name in ("queue", "running"))

    @contextmanager
    def take(self, *, alone: bool):
        _lock(self._queue, fcntl.LOCK_EX)
        try:
            _lock(self._running, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        finally:
            fcntl.flock(self._queue, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(self._running, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._queue)
        os.close(self._running)


def _lock(file: int, kind: int) -> None:
    """As flock does, in its order, but not for ever: a thread waits that may be left behind."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        waiting = threading.Thread(target=fcntl.flock, args=(file, kind), daemon=True)
        waiting.start()
        waiting.join(PATIENCE)
        if waiting.is_alive():
            what = (
                f"no turn within {PATIENCE:.0f} s: a test in another process hangs, or left a process that has its lock"
            )
            raise TimeoutError(what) from None


# -- as a plugin of pytest -------------------------------------------------------
FOLDER = pytest.StashKey[str]()
TURNS = pytest.StashKey[Turns]()


def pytest_configure(config: pytest.Config) -> None:
    """In one of several processes: its end of the locks."""
    if folder := getattr(config, "workerinput", {}).get("turns"):
        config.stash[TURNS] = turns = Turns(Path(folder))
        config.add_cleanup(turns.close)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node) -> None:
    """In the process that starts the others, once for each of them."""
    if FOLDER not in node.config.stash:
        folder = tempfile.TemporaryDirectory(prefix="turns-")
        node.config.add_cleanup(folder.cleanup)
        node.config.stash[FOLDER] = folder.name
    node.workerinput["turns"] = node.config.stash[FOLDER]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item):
    """Around everything else, so that no deadline of a test counts what it waits for its turn."""
    turns = item.config.stash.get(TURNS, None)
    alone = item.get_closest_marker("alone") is not None
    with turns.take(alone=alone) if turns else contextlib.nullcontext():
        return (yield)
