"""Asks a running node over its control socket.

Owns: one connection for one or several requests.
Never: starts a daemon or retries.
Invariant: whatever goes wrong on the way is an UnreachableDaemonError with a
remedy; what the daemon refuses is raised as it said it.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec

from engine.control.messages import ANSWER_LIMIT, Answer, Fault, Request
from engine.errors import ConfigError, KernelError, TowpathError, UnreachableDaemonError

_ERRORS = {error.exit_code: error for error in (TowpathError, ConfigError, KernelError, UnreachableDaemonError)}

R = TypeVar("R", bound=msgspec.Struct)


_LOOK_PAUSE = 0.1  # seconds between two looks at whether to go on waiting


class Client:
    def __init__(self, path: Path, *, timeout: float = 10.0, check: Callable[[], None] = lambda: None) -> None:
        """`check` is called now and then while waiting; it raises when nobody is there who could answer."""
        self._path = path
        self._timeout = timeout
        self._check = check
        self._rest = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        # With a plain timeout, connecting fails at once while the daemon's queue of new clients is full.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(timeout), 0))
        try:
            self._socket.connect(str(path))
            self._socket.settimeout(timeout)
        except OSError as error:
            self._socket.close()
            raise self._unreachable(error) from error

    def ask(self, method: str, result: type[R], **parameters: Any) -> R:
        """The daemon's answer to `method`, as the message type `result`."""
        request = Request(method, msgspec.Raw(msgspec.json.encode(parameters)))
        try:
            self._socket.sendall(msgspec.json.encode(request) + b"\n")
            line = self._line()
        except (BrokenPipeError, ConnectionResetError):
            line = self._last_words()
        except OSError as error:
            raise self._unreachable(error) from error
        try:
            answer = msgspec.json.decode(line, type=Answer)
            if answer.error is None:
                return msgspec.json.decode(answer.result, type=result)
        except msgspec.MsgspecError as error:
            remedy = "use the towpath command of the daemon's version"
            raise UnreachableDaemonError(f"unexpected answer: {error}", where=str(self._path), remedy=remedy) from error
        raise _as_error(answer.error)

    def detach(self) -> socket.socket:
        """The connection itself, for another conversation; this client is at its end."""
        return socket.socket(fileno=self._socket.detach())

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _line(self) -> bytes:
        pieces = [self._rest]
        size = len(self._rest)
        while b"\n" not in pieces[-1]:
            piece = self._receive()
            if not piece:
                raise ConnectionResetError
            pieces.append(piece)
            size += len(piece)
            if size > ANSWER_LIMIT + (1 << 18):
                raise OSError("the answer has no end")
        line, self._rest = b"".join(pieces).split(b"\n", 1)
        return line

    def _receive(self) -> bytes:
        deadline = time.monotonic() + self._timeout
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        while not poll.poll(_LOOK_PAUSE * 1000):
            self._check()
            if time.monotonic() > deadline:
                raise TimeoutError
        return self._socket.recv(1 << 18)

    def _last_words(self) -> bytes:
        """The line a daemon sends before it turns a client away."""
        try:
            return self._line()
        except OSError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: OSError) -> UnreachableDaemonError:
        where = str(self._path)
        if isinstance(error, PermissionError):
            remedy = "run the command as root, or as a member of the control socket's group"
            return UnreachableDaemonError("not permitted to talk to the daemon", where=where, remedy=remedy)
        if isinstance(error, (TimeoutError, BlockingIOError)):
            return UnreachableDaemonError("the daemon does not answer", where=where, remedy="see its log")
        return UnreachableDaemonError(
            "no daemon answers", where=where, remedy="start one with 'towpath run', or name its socket with --socket"
        )


def _as_error(fault: Fault) -> TowpathError:
    kind = _ERRORS.get(fault.exit_code, TowpathError)
    return kind(fault.what, where=fault.where, remedy=fault.remedy)
