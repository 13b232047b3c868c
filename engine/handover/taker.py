"""The successor's side: it receives everything, gets ready, and begins when the other has stopped.

Owns: the conversation, and the descriptors until somebody takes them.
Never: changes the kernel before the other has stopped.
Invariant: until `begin` has returned, `give_up` (or our death) leaves the
other daemon as it was.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from engine.apply.inheritance import Heirloom, Inheritance
from engine.control.activation import listens_on
from engine.control.client import Client
from engine.errors import UnreachableDaemonError
from engine.handover.line import HandoverError, Line, LineClosedError, close_all
from engine.handover.messages import FORMAT, OLDEST_FORMAT, Go, Hello, Offer, PortItem, Ready, Refusal, Running
from engine.lockfile import LockFile
from engine.version import version
from engine.views import Takeover as Terms

log = logging.getLogger(__name__)

OFFER_SECONDS = 30.0  # the other ends what is under way first
GO_SECONDS = 10.0
END_SECONDS = 10.0  # for the other to be gone after we have begun
MEMORY_LIMIT = 4 << 30  # bytes
_TRIES = 5  # to find somebody who does not end meanwhile
_RETRY_PAUSE = 0.2  # seconds


class Takeover:
    """A conversation with the daemon that runs, from its offer on. See `ask`."""

    def __init__(self, line: Line, pid: int, offer: Offer, descriptors: list[int]) -> None:
        self._line = line
        self._pid = pid
        rest = iter(descriptors)
        self.inheritance = Inheritance(
            _heirloom(item, [next(rest) for _ in range(item.descriptors)]) for item in offer.ports
        )
        self._others = dict(zip(offer.others, rest, strict=True))
        self.lent = frozenset(offer.lent)  # the listeners whose files are a service manager's
        line.process = self._others.pop("process", None)
        self._stopped_ns = 0

    # -- what was left to us -----------------------------------------------------
    def listener(self, name: str, kind: socket.SocketKind, address: object) -> socket.socket | None:
        """The listening socket called `name`, if it listens on `address`; whoever gets it closes it."""
        descriptor = self._others.pop(name, None)
        if descriptor is None:
            return None
        listening = socket.socket(fileno=descriptor)
        if not listens_on(listening, kind, address):
            listening.close()
            return None
        return listening

    def lock(self, directory: Path) -> LockFile:
        """The lock on the state directory. HandoverError when none came."""
        if "lock" not in self._others:
            raise HandoverError("the running daemon holds no lock", remedy="restart it instead")
        lock = LockFile(directory, shared=self._others["lock"])
        del self._others["lock"]
        return lock

    # -- the steps ---------------------------------------------------------------
    def ready(self) -> dict[str, bytes]:
        """Say so, and wait until the other has stopped. What it knows of connections.

        When the other dies instead, nobody forwards, and we have all that is needed to begin.
        """
        self._line.send(Ready())
        try:
            go, descriptors = self._line.receive(Go, seconds=GO_SECONDS)
        except LineClosedError:
            if not self._line.wait_for_its_end(1.0):
                raise
            log.warning("the daemon before us died; going on without what it knew of connections")
            self._stopped_ns = time.monotonic_ns()
            return {}
        self._stopped_ns = go.stopped_ns
        try:
            return {name: _content(memory) for name, memory in zip(go.known, descriptors, strict=False)}
        finally:
            close_all(descriptors)

    def begin(self) -> None:
        """The workers run: tell the other to end."""
        pause = (time.monotonic_ns() - self._stopped_ns) / 1e6
        try:
            self._line.send(Running())
        except LineClosedError:
            if not self._line.wait_for_its_end(1.0):
                raise  # it goes on, and is about to kill us
        log.info("took over from process %d; nobody forwarded for %.1f ms", self._pid, pause)

    def finish(self) -> None:
        """Let go of what nobody claimed, and wait until the other is gone with its copies of that."""
        self.inheritance.close()
        close_all(list(self._others.values()))
        if not self._line.wait_for_its_end(END_SECONDS):
            log.warning("process %d has not ended", self._pid)
        self._line.close()

    def give_up(self, why: BaseException) -> None:
        """Tell the other, which goes on, and let go of everything."""
        with suppress(HandoverError):
            self._line.send(Refusal(str(why)), seconds=1.0)
        self.inheritance.close()
        close_all(list(self._others.values()))
        self._others.clear()
        self._line.close()


def ask(path: Path, *, patience: float = 10.0, check: Callable[[], None] = lambda: None) -> Takeover | None:
    """Begin to take over from the daemon that answers at `path`, in `patience` seconds; None when none does.

    HandoverError when it cannot or will not. One that ends before it has made an offer may have
    given way to another successor; that one is asked then. `check` is called while waiting for an
    answer, and raises when nobody is there to give one.
    """
    begin = partial(_ask, path, patience, check)
    for _ in range(_TRIES - 1):
        try:
            return begin()
        except LineClosedError:
            pass
        except UnreachableDaemonError as error:
            if not isinstance(error.__cause__, ConnectionResetError):
                raise
        time.sleep(_RETRY_PAUSE)
    return begin()


def _ask(path: Path, patience: float, check: Callable[[], None]) -> Takeover | None:
    try:
        client = Client(path, timeout=patience, check=check)
    except UnreachableDaemonError as error:
        if isinstance(error.__cause__, PermissionError):
            raise
        return None
    with client:
        terms = client.ask("takeover", Terms, newest=FORMAT, oldest=OLDEST_FORMAT, version=version())
        connection = client.detach()
    line = Line(connection)
    try:
        line.send(Hello(min(terms.format, FORMAT)))
        offer, descriptors = line.receive(Offer, seconds=OFFER_SECONDS)
        if sum(item.descriptors for item in offer.ports) + len(offer.others) != len(descriptors):
            close_all(descriptors)
            raise HandoverError("the offer does not match its descriptors", remedy="restart instead")
        return Takeover(line, terms.pid, offer, descriptors)
    except BaseException:
        line.close()
        raise


def _heirloom(item: PortItem, descriptors: list[int]) -> Heirloom:
    return Heirloom((item.kind, item.name), tuple(descriptors), item.granted, item.namespace)


def _content(memory: int) -> bytes:
    size = os.fstat(memory).st_size
    if size > MEMORY_LIMIT:
        log.warning("leaving %d bytes behind", size)
        return b""
    with open(memory, "rb", closefd=False) as stream:
        return stream.read()
