"""Serves the control socket from the node's poll loop.

Owns: the socket's path, its clients, and who may ask for what.
Never: blocks, trusts a length, or keeps more than a bounded number of bytes
for a client.
Invariant: a client can only harm itself: what is too long, too slow, not
understood or not permitted ends in one error line and, where needed, a close.
"""

from __future__ import annotations

import contextlib
import grp
import logging
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import msgspec

from engine.control.accepting import Acceptor
from engine.control.listening import leave, listen
from engine.control.messages import (
    ANSWER_LIMIT,
    CHANGING,
    PARAMETERS,
    READING,
    REQUEST_LIMIT,
    SUCCEEDING,
    Answer,
    Fault,
    Request,
)
from engine.errors import KernelError, TowpathError
from engine.loop import READ, WRITE, Loop, Timer

log = logging.getLogger(__name__)

CLIENTS_LIMIT = 128
REQUEST_DEADLINE = 5.0  # seconds from the first byte of a line to its end
ANSWER_DEADLINE = 5.0  # seconds for a client to take an answer
IDLE_DEADLINE = 60.0  # seconds between two requests
_BACKLOG = 256
_SO_PEERGROUPS = 59
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid of SO_PEERCRED

Handler = Callable[[msgspec.Struct], msgspec.Struct]


class Server:
    """Answers `handlers[method](parameters)`; `group` may read and change as root and our own user may."""

    def __init__(
        self,
        loop: Loop,
        path: Path,
        handlers: dict[str, Handler],
        *,
        group: str = "",
        listening: socket.socket | None = None,
        successor: Callable[[socket.socket], None] | None = None,
    ) -> None:
        """`listening`: the socket of a predecessor, which stays its own until `own` is set.

        `successor` is given the connection of a client whose request "takeover" was answered.
        """
        self.own = listening is None  # whether the path goes with us
        self._successor = successor
        self._loop = loop
        self._handlers = handlers
        self._path = path
        self._group = _group_id(group)
        self._clients: dict[int, _Client] = {}
        opened = _listen(path, self._group) if listening is None else listening
        self._inode = os.stat(path).st_ino
        self._acceptor = Acceptor(loop, opened, self._welcome, at_once=_BACKLOG)

    def fileno(self) -> int:
        return self._acceptor.fileno()

    def close(self) -> None:
        for client in list(self._clients.values()):
            client.close()
        self._acceptor.close()
        if self.own:
            leave(self._path, self._inode)

    def permits(self, peer: socket.socket) -> bool:
        """Root, our own user, or a member of the configured group."""
        if self.owns(peer):
            return True
        _, _, group = _credentials(peer)
        return self._group is not None and (group == self._group or self._group in _groups_of(peer))

    def owns(self, peer: socket.socket) -> bool:
        """Root or our own user: who may take our place."""
        return _credentials(peer)[1] in (0, os.geteuid())

    def hand_on(self, connection: socket.socket) -> None:
        """A client's connection becomes the conversation with a successor."""
        if self._successor is None:
            connection.close()
        else:
            self._successor(connection)

    def answer(self, line: bytes, peer: socket.socket | None = None) -> Answer:
        """The answer to one request line, whatever is in it."""
        try:
            request = msgspec.json.decode(line, type=Request)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            return Answer(error=Fault(f"not a request: {error}", remedy="send one JSON object a line"))
        try:
            if request.method in SUCCEEDING and not (peer is not None and self.owns(peer)):
                raise TowpathError("not permitted", remedy="run the command as root")
            return Answer(request.id, result=msgspec.Raw(msgspec.json.encode(self._perform(request))))
        except TowpathError as error:
            return Answer(request.id, error=Fault(error.what, error.where, error.remedy, error.exit_code))
        except Exception as error:
            log.exception("request %s failed", request.method)
            return Answer(request.id, error=Fault(f"internal error: {error!r}", remedy="see the daemon's log"))

    def _perform(self, request: Request) -> msgspec.Struct:
        handler = self._handlers.get(request.method)
        if handler is None or request.method not in READING | CHANGING | SUCCEEDING:
            raise TowpathError(f"unknown method {request.method[:40]!r}", remedy="use a client of this version")
        try:
            parameters = msgspec.json.decode(request.params, type=PARAMETERS[request.method])
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise TowpathError(str(error), where=f"parameters of {request.method}") from error
        return handler(parameters)

    def _welcome(self, connection: socket.socket) -> None:
        if len(self._clients) >= CLIENTS_LIMIT:
            _refuse(connection, Fault("too many clients", where=str(self._path), remedy="try again later"))
        elif not self.permits(connection):
            remedy = "run the command as root, or set the control socket's group in the configuration"
            _refuse(connection, Fault("not permitted", where=str(self._path), remedy=remedy, exit_code=4))
        else:
            self._clients[connection.fileno()] = _Client(self, self._loop, connection)

    def forget(self, file: int) -> None:
        self._clients.pop(file, None)


class _Client:
    """One connection: a line in, a line out, one at a time."""

    def __init__(self, server: Server, loop: Loop, connection: socket.socket) -> None:
        self._server = server
        self._loop = loop
        self._connection = connection
        self._file = connection.fileno()
        self._input = bytearray()
        self._output = memoryview(b"")
        self._ends = False  # close once the output is out
        self._succeeds = False  # the connection becomes a conversation with a successor once the output is out
        self._deadline: Timer = loop.after(IDLE_DEADLINE, self.close)
        loop.watch(self._file, READ, self._ready)

    def close(self) -> None:
        if self._file >= 0:
            self._deadline.cancel()
            self._loop.forget(self._file)
            self._server.forget(self._file)
            self._connection.close()
            self._file = -1

    def _ready(self, events: int) -> None:
        try:
            if events & WRITE:
                self._flush()
            elif events & READ:
                self._receive()
        except OSError:
            self.close()

    def _receive(self) -> None:
        started = bool(self._input)
        try:
            piece = self._connection.recv(REQUEST_LIMIT)
        except BlockingIOError:
            return
        if not piece:
            self.close()
            return
        self._input += piece
        if not started:
            self._set_deadline(REQUEST_DEADLINE)
        self._serve_next()

    def _serve_next(self) -> None:
        """Answer the next whole line; the rest waits until the answer is out."""
        end = self._input.find(b"\n")
        if end < 0 and len(self._input) < REQUEST_LIMIT:
            return
        if end < 0 or end >= REQUEST_LIMIT:
            self._ends = True
            self._input.clear()
            self._send(Answer(error=Fault(f"a request has at most {REQUEST_LIMIT} bytes")))
            return
        line = bytes(self._input[:end])
        del self._input[: end + 1]
        answer = self._server.answer(line, self._connection)
        self._succeeds = answer.error is None and is_takeover(line)
        self._send(answer)

    def _send(self, answer: Answer) -> None:
        encoded = msgspec.json.encode(answer) + b"\n"
        if len(encoded) > ANSWER_LIMIT:
            fault = Fault(f"the answer has {len(encoded)} bytes", remedy="ask for a part of it (offset and limit)")
            encoded = msgspec.json.encode(Answer(answer.id, error=fault)) + b"\n"
        self._output = memoryview(encoded)
        self._set_deadline(ANSWER_DEADLINE)
        self._loop.watch(self._file, WRITE, self._ready)
        self._flush()

    def _flush(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._output:
                self._output = self._output[self._connection.send(self._output) :]
        if self._output:
            return
        if self._succeeds:
            connection = self._connection.dup()
            self.close()
            self._loop.call_soon(lambda: self._server.hand_on(connection))
            return
        if self._ends:
            self.close()
            return
        self._loop.watch(self._file, READ, self._ready)
        self._set_deadline(REQUEST_DEADLINE if self._input else IDLE_DEADLINE)
        if b"\n" in self._input:
            self._loop.call_soon(self._serve_waiting)  # others first

    def _serve_waiting(self) -> None:
        if self._file >= 0 and not self._output:
            try:
                self._serve_next()
            except OSError:
                self.close()

    def _set_deadline(self, seconds: float) -> None:
        self._deadline.cancel()
        self._deadline = self._loop.after(seconds, self.close)


def is_takeover(line: bytes) -> bool:
    """Whether an answered request was a successor's."""
    return msgspec.json.decode(line, type=Request).method == "takeover"


def _credentials(peer: socket.socket) -> tuple[int, int, int]:
    """Process, user and group at the other end, as of when it connected."""
    pid, user, group = _CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return pid, user, group


def _listen(path: Path, group: int | None) -> socket.socket:
    return listen(
        path,
        socket.SOCK_STREAM,
        backlog=_BACKLOG,
        what="control socket",
        remedy="choose another path, or run as root",
        group=group,
        mode=0o660,
    )


def _refuse(connection: socket.socket, fault: Fault) -> None:
    with contextlib.suppress(OSError), connection:
        connection.send(msgspec.json.encode(Answer(error=fault)) + b"\n")


def _group_id(name: str) -> int | None:
    if not name:
        return None
    try:
        return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise KernelError(f"there is no group {name!r}", where="control socket", remedy="create it") from None


def _groups_of(peer: socket.socket) -> tuple[int, ...]:
    """The supplementary groups of the process at the other end (Linux >= 4.13)."""
    with contextlib.suppress(OSError):
        raw = peer.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 1024)  # as much as Python allows: 256 groups
        return struct.unpack(f"{len(raw) // 4}I", raw)
    return ()
