"""Health over HTTP for those who cannot use the control socket: /healthz and /readyz.

Owns: its few short connections, in the node's poll loop.
Never: reads more than one small request, or says anything but yes, no, and why.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from functools import partial

import msgspec

from engine.control.accepting import Acceptor
from engine.errors import KernelError
from engine.loop import READ, Loop
from engine.views import Health

_REQUEST_LIMIT = 4096  # bytes
_DEADLINE = 5.0  # seconds
_CONNECTIONS_LIMIT = 32


class HealthServer:
    def __init__(
        self,
        loop: Loop,
        host: str,
        port: int,
        health: Callable[[], Health],
        *,
        listening: socket.socket | None = None,
    ) -> None:
        self._loop = loop
        self._health = health
        self._connections: set[socket.socket] = set()
        self._socket = _listen(host, port) if listening is None else listening
        self._acceptor = Acceptor(loop, self._socket, self._welcome, at_once=1)

    def fileno(self) -> int:
        return self._acceptor.fileno()

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._socket.getsockname()[:2]
        return host, port

    def close(self) -> None:
        for connection in list(self._connections):
            self._drop(connection)
        self._acceptor.close()

    def _welcome(self, connection: socket.socket) -> None:
        if len(self._connections) >= _CONNECTIONS_LIMIT:
            connection.close()
            return
        self._connections.add(connection)
        self._loop.watch(connection.fileno(), READ, partial(self._serve, connection, bytearray()))
        self._loop.after(_DEADLINE, partial(self._drop, connection))

    def _serve(self, connection: socket.socket, request: bytearray, events: int) -> None:
        try:
            piece = connection.recv(_REQUEST_LIMIT)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        request += piece
        if piece and b"\r\n\r\n" not in request and len(request) < _REQUEST_LIMIT:
            return
        if piece:
            with contextlib.suppress(OSError):
                connection.send(self._answer(bytes(request)))
        self._drop(connection)

    def _answer(self, request: bytes) -> bytes:
        line = request.split(b"\r\n", 1)[0].split(b" ")
        if len(line) != 3 or not line[2].startswith(b"HTTP/1."):
            return _response("400 Bad Request", b"")
        if line[0] not in (b"GET", b"HEAD"):
            return _response("405 Method Not Allowed", b"")
        health = self._health()
        if line[1] == b"/healthz":
            good = health.live
        elif line[1] == b"/readyz":
            good = health.ready
        else:
            return _response("404 Not Found", b"")
        body = msgspec.json.encode(health) if line[0] == b"GET" else b""
        return _response("200 OK" if good else "503 Service Unavailable", body)

    def _drop(self, connection: socket.socket) -> None:
        if connection in self._connections:
            self._connections.discard(connection)
            self._loop.forget(connection.fileno())
            connection.close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(_CONNECTIONS_LIMIT)
    except OSError as error:
        listening.close()
        what = f"cannot listen for health checks: {error.strerror}"
        raise KernelError(what, where=f"{host}:{port}", remedy="choose another address for health.listen") from error
    return listening


def _response(status: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body
