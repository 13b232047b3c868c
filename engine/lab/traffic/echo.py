"""TCP and UDP echo: every byte that comes back is compared with what was sent.

Owns: the responder of a host (both protocols, both families, one port) and the questions to it.
Never: takes a missing or wrong byte for success.
Invariant: a question returns a time, or raises TrafficError saying what went wrong.
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
import time
from collections.abc import Iterable

from engine.lab.host import Host
from engine.lab.traffic.errors import PMTUDISC_DO, TrafficError, family_of, report_errors, set_discovery, take_error

PORT = 7
_BLOCK = 1 << 15


class Responder:
    """Echoes whatever comes to `port` of `host`, until the host closes."""

    def __init__(self, host: Host, port: int = PORT) -> None:
        self.port = port
        self._selector = selectors.DefaultSelector()
        self._wake, self._waker = socket.socketpair()
        datagrams = _bound(host, socket.SOCK_DGRAM, port)
        listener = _bound(host, socket.SOCK_STREAM, port)
        listener.listen(64)
        self._register(self._wake, None)
        self._register(datagrams, _echo_datagrams)
        self._register(listener, self._accept)
        self._thread = threading.Thread(target=self._serve, name=f"echo-{host.name}", daemon=True)
        self._thread.start()
        host.on_close(self.close)

    def close(self) -> None:
        """Stop echoing. Idempotent."""
        if self._thread.is_alive():
            self._waker.send(b"x")
            self._thread.join()
            for key in list(self._selector.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]
            self._waker.close()
            self._selector.close()

    def _register(self, sock: socket.socket, action: object) -> None:
        sock.settimeout(0)
        self._selector.register(sock, selectors.EVENT_READ, action)

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                sock = key.fileobj
                if key.data is None:
                    return
                try:
                    alive = key.data(sock)
                except OSError:  # a reset connection, an ICMP error: the client will know
                    alive = key.data is not _echo_stream
                if not alive:
                    self._selector.unregister(sock)
                    sock.close()  # type: ignore[union-attr]

    def _accept(self, listener: socket.socket) -> bool:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._register(connection, _echo_stream)
        return True


def _bound(host: Host, kind: int, port: int) -> socket.socket:
    sock = host.socket(socket.AF_INET6, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind(("::", port))
    return sock


def _echo_datagrams(sock: socket.socket) -> bool:
    data, sender = sock.recvfrom(1 << 16)
    sock.sendto(data, sender)
    return True


def _echo_stream(sock: socket.socket) -> bool:
    data = sock.recv(_BLOCK)
    sock.settimeout(None)  # a block fits the socket buffers: the client reads it before it sends the next
    sock.sendall(data)
    sock.settimeout(0)
    return bool(data)


def tcp_echo(
    source: Host, address: str, *, sizes: Iterable[int] = (1, 1 << 16), port: int = PORT, seconds: float = 3.0
) -> float:
    """Connect, send messages of `sizes` bytes, compare what comes back. The connect time in ms."""
    with source.socket(family_of(address), socket.SOCK_STREAM) as sock:
        sock.settimeout(seconds)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        began = time.perf_counter()
        try:
            sock.connect((address, port))
            connected = time.perf_counter()
            for size in sizes:
                _exchange(sock, os.urandom(size))
        except OSError as error:
            raise TrafficError(f"tcp {address}: {error}") from error
    return (connected - began) * 1e3


def _exchange(sock: socket.socket, message: bytes) -> None:
    for start in range(0, len(message), _BLOCK):
        block = message[start : start + _BLOCK]
        sock.sendall(block)
        answer = bytearray()
        while len(answer) < len(block):
            part = sock.recv(len(block) - len(answer))
            if not part:
                raise TrafficError(f"tcp: the connection ended after {len(answer)} of {len(block)} bytes")
            answer += part
        if answer != block:
            raise TrafficError(f"tcp: {len(block)} bytes came back changed")


def udp_echo(
    source: Host, address: str, *, size: int = 64, port: int = PORT, seconds: float = 1.0, fragment: bool = False
) -> float:
    """Send one datagram of `size` payload bytes and compare the answer. The round trip in ms."""
    with source.socket(family_of(address), socket.SOCK_DGRAM) as sock:
        sock.settimeout(seconds)
        report_errors(sock)
        if not fragment:
            set_discovery(sock, PMTUDISC_DO)
        message = os.urandom(size)
        try:
            sock.connect((address, port))
            began = time.perf_counter()
            sock.send(message)
            answer = sock.recv(1 << 16)
        except OSError as error:
            said = take_error(sock)
            by = f" (by {said.offender}, mtu {said.mtu})" if said and said.offender else ""
            raise TrafficError(f"udp {address}, {size} bytes: {error}{by}") from error
        if answer != message:
            raise TrafficError(f"udp {address}: {size} bytes came back changed")
    return (time.perf_counter() - began) * 1e3
