"""The socket on which the shim hands calls over.

Owns: the socket's path, its clients, their deadlines, and who may call.
Never: blocks, or reads more than one bounded message from a client before it
has answered.
Invariant: every call gets one answer or finds the connection closed, and every
ADD is told whether its answer arrived.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import struct
from pathlib import Path

from engine.cni.answer import NEWEST, CniError, Code, Reply, failure
from engine.cni.call import ACKNOWLEDGED, MESSAGE_LIMIT, unpack
from engine.cni.configuration import version_of
from engine.cni.verbs import Ended, Verbs
from engine.control.accepting import Acceptor
from engine.control.listening import leave, listen
from engine.loop import READ, Loop, Timer

log = logging.getLogger(__name__)

CLIENTS_LIMIT = 512
REQUEST_DEADLINE = 5.0  # seconds from the connection to the call
ANSWER_DEADLINE = 120.0  # seconds for the call and for its acknowledgement; the shim gives up before
PATIENCE = 10.0  # seconds for the calls under way when we stop
_BACKLOG = 512
_ACCEPTED_AT_ONCE = 32
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid of SO_PEERCRED


class Server:
    """Root and our own user may call: a call can name programs that the daemon runs."""

    def __init__(self, loop: Loop, path: Path, verbs: Verbs, *, listening: socket.socket | None = None) -> None:
        """`listening`: the socket of a predecessor, in which calls may wait already."""
        self.own = True  # whether the path goes with us
        self.verbs = verbs
        self._loop = loop
        self._path = path
        self._clients: set[_Client] = set()
        if listening is not None and not path.is_socket():  # somebody removed it: nobody could call by it any more
            listening.close()
            listening = None
        opened = _listen(path) if listening is None else listening
        self._inode = os.stat(path).st_ino
        self._acceptor = Acceptor(loop, opened, self._welcome, at_once=_ACCEPTED_AT_ONCE)

    def close(self) -> None:
        """Calls under way are completed first; whoever is not through by then finds the connection closed."""
        self.rest()
        for client in [client for client in self._clients if not client.called]:
            client.close()
        if not self._loop.turn_until(lambda: self.idle, PATIENCE):
            log.warning("%d calls of runtimes are given up", len(self._clients))
        for client in list(self._clients):
            client.close()
        self._acceptor.close()
        if self.own:
            leave(self._path, self._inode)

    def fileno(self) -> int:
        return self._acceptor.fileno()

    def rest(self) -> None:
        """Leave new calls waiting, and begin nothing that nobody asked for."""
        self._acceptor.rest()
        self.verbs.rest()

    def resume(self) -> None:
        self._acceptor.resume()
        self.verbs.resume()

    @property
    def idle(self) -> bool:
        """Nothing that was asked for is under way."""
        return not self._clients and not self.verbs.busy

    def forget(self, client: _Client) -> None:
        self._clients.discard(client)

    def _welcome(self, connection: socket.socket) -> None:
        if len(self._clients) >= CLIENTS_LIMIT:
            _refuse(connection, CniError(Code.TRY_AGAIN_LATER, "too many calls at once"))
        elif not _permits(connection):
            _refuse(connection, CniError(Code.FAILED, "not permitted", "run the plugin as root"))
        else:
            self._clients.add(_Client(self, self._loop, connection))


class _Client:
    """One call: a message in, a message out, and for an ADD an acknowledgement in."""

    def __init__(self, server: Server, loop: Loop, connection: socket.socket) -> None:
        self._server = server
        self._loop = loop
        self._connection = connection
        self._ended: Ended | None = None
        self._answered = False
        self.called = False
        self._deadline: Timer = loop.after(REQUEST_DEADLINE, self.close)
        loop.watch(connection.fileno(), READ, self._ready)

    def close(self) -> None:
        if self._connection.fileno() >= 0:
            self._deadline.cancel()
            self._loop.forget(self._connection.fileno())
            self._connection.close()
            self._server.forget(self)
            self._end(acknowledged=False)

    def _ready(self, events: int) -> None:
        try:
            message = self._connection.recv(MESSAGE_LIMIT + 1)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if not message:
            self.close()
        elif self.called:
            self._end(acknowledged=self._answered and message == ACKNOWLEDGED)
            self.close()
        else:
            self.called = True
            self._call(message)

    def _call(self, message: bytes) -> None:
        self._deadline.cancel()
        self._deadline = self._loop.after(ANSWER_DEADLINE, self.close)
        try:
            if len(message) > MESSAGE_LIMIT:
                raise CniError(Code.IO_FAILURE, f"the call has more than {MESSAGE_LIMIT} bytes")
            call = unpack(message)
        except CniError as error:
            text = message.partition(b"\0\0")[2]
            self._answer(failure(error, version_of(text)), None)
            return
        self._server.verbs.serve(call, self._answer, self._is_awaited)

    def _is_awaited(self) -> bool:
        """Who called while no daemon ran may have gone long ago."""
        if self._connection.fileno() < 0:
            return False
        try:
            return self._connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def _answer(self, reply: Reply, ended: Ended | None) -> None:
        self._ended, self._answered = ended, True
        try:
            if self._connection.fileno() < 0:
                raise OSError(errno.EPIPE, "the caller is gone")
            self._connection.send(b"%d\n" % reply.status + reply.body)
        except OSError:
            self._end(acknowledged=False)
            self.close()
            return
        if ended is None:
            self.close()

    def _end(self, *, acknowledged: bool) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(acknowledged)


def _permits(peer: socket.socket) -> bool:
    raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return _CREDENTIALS.unpack(raw)[1] in (0, os.geteuid())


def _refuse(connection: socket.socket, error: CniError) -> None:
    with contextlib.suppress(OSError), connection:
        reply = failure(error, NEWEST)
        connection.send(b"%d\n" % reply.status + reply.body)


def _listen(path: Path) -> socket.socket:
    return listen(
        path,
        socket.SOCK_SEQPACKET,
        backlog=_BACKLOG,
        what="socket of the CNI plugin",
        remedy="choose another cni.socket, or run as root",
        mode=0o600,
    )
