"""Takes the callers of a listening socket, from the poll loop.

Owns: the listening socket, and when the loop watches it.
Never: decides who may call; `welcome` gets every connection, and owns it.
Invariant: while nobody can be taken, for want of descriptors or memory, the
socket is not watched, since it stays ready and would turn the loop for
nothing; nor after `rest`, until `resume`; nor once it is closed, whatever is asked for.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

from engine.loop import READ, Loop, Timer

PAUSE = 1.0  # seconds until callers are taken again

_OF_THE_CALLER = {  # accept(2): this one is gone, and the next may be taken
    errno.ECONNABORTED,
    errno.EINTR,
    errno.EPERM,
    errno.EPROTO,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENONET,
    errno.ENOPROTOOPT,
}


class Acceptor:
    """Hands each caller to `welcome`, at most `at_once` of them before others have their turn in the loop."""

    def __init__(
        self, loop: Loop, listening: socket.socket, welcome: Callable[[socket.socket], None], *, at_once: int
    ) -> None:
        self._loop = loop
        self._socket = listening
        self._welcome = welcome
        self._at_once = at_once
        self._pause: Timer | None = None
        self.resume()

    def fileno(self) -> int:
        return self._socket.fileno()

    def rest(self) -> None:
        """Leave new callers waiting."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._socket.fileno() >= 0:
            self._loop.forget(self._socket.fileno())

    def resume(self) -> None:
        self._pause = None
        if self._socket.fileno() >= 0:
            self._loop.watch(self._socket.fileno(), READ, self._accept)

    def close(self) -> None:
        self.rest()
        self._socket.close()

    def _accept(self, events: int) -> None:
        for _ in range(self._at_once):
            try:
                connection, _ = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in _OF_THE_CALLER:
                    self.rest()
                    self._pause = self._loop.after(PAUSE, self.resume)
                return
            connection.setblocking(False)
            self._welcome(connection)
