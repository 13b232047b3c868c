"""Messages and descriptors over one connected unix socket, each with a deadline.

Owns: the frames: length, JSON, then the descriptors in portions.
Never: knows what a message means.
Invariant: a frame is read to its last byte and no further; descriptors that
were received and not handed on are closed.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import time
from array import array
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import msgspec

from engine.errors import TowpathError
from engine.handover.messages import Message, Refusal

M = TypeVar("M", bound=msgspec.Struct)
T = TypeVar("T")

MESSAGE_LIMIT = 4 << 20  # bytes
DESCRIPTORS_LIMIT = 16384
_PORTION = 200  # descriptors of one sendmsg; the kernel takes 253
_HEADER = struct.Struct("!II")  # bytes of JSON, descriptors
_LOOK_PAUSE = 0.25  # seconds between two looks at whether to go on waiting


class HandoverError(TowpathError):
    """The conversation failed; whoever forwarded goes on."""


class LineClosedError(HandoverError):
    """The other side closed the connection, or is gone."""


class RefusedError(HandoverError):
    """The other side gave up by its own decision, and does nothing more."""


class Line:
    def __init__(self, connection: socket.socket, *, check: Callable[[], None] = lambda: None) -> None:
        """`check` is called now and then while waiting; it raises when there is no more reason to wait."""
        self._connection = connection
        self._check = check
        connection.setblocking(False)
        self.process: int | None = None  # a process descriptor of the other side, which closes with the line

    def close(self) -> None:
        self._connection.close()
        if self.process is not None:
            os.close(self.process)
            self.process = None

    # -- messages ------------------------------------------------------------
    def send(self, message: Message, descriptors: Sequence[int] = (), *, seconds: float = 5.0) -> None:
        deadline = time.monotonic() + seconds
        encoded = msgspec.json.encode(message)
        self._put(_HEADER.pack(len(encoded), len(descriptors)) + encoded, deadline)
        for first in range(0, len(descriptors), _PORTION):
            portion = list(descriptors[first : first + _PORTION])
            self._when(select.POLLOUT, deadline, partial(socket.send_fds, self._connection, [b"."], portion))

    def receive(self, kind: type[M], *, seconds: float) -> tuple[M, list[int]]:
        """The next message, which must be of `kind`, and its descriptors. HandoverError otherwise."""
        deadline = time.monotonic() + seconds
        size, count = _HEADER.unpack(self._take(_HEADER.size, deadline))
        if size > MESSAGE_LIMIT or count > DESCRIPTORS_LIMIT:
            raise HandoverError("the other daemon's message has no measure", remedy="restart instead")
        try:
            message = msgspec.json.decode(self._take(size, deadline), type=Message)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise HandoverError(f"the other daemon's message is not understood: {error}", remedy="restart") from error
        descriptors = self._take_descriptors(count, deadline)
        if isinstance(message, kind):
            return message, descriptors
        close_all(descriptors)
        if isinstance(message, Refusal):
            raise RefusedError(f"the other daemon gave up: {message.what}")
        raise HandoverError(f"the other daemon said {type(message).__name__} instead of {kind.__name__}")

    # -- the process at the other end ------------------------------------------
    def wait_for_its_end(self, seconds: float) -> bool:
        """Whether the other process has ended, or ends in time."""
        if self.process is None:
            return False
        poll = select.poll()
        poll.register(self.process, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def end_it(self) -> None:
        """Kill the other process and wait until it is gone."""
        if self.process is not None:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self.process, signal.SIGKILL)
            self.wait_for_its_end(5.0)

    # -- bytes -----------------------------------------------------------------
    def _when(self, event: int, deadline: float, action: Callable[[], T]) -> T:
        """The result of `action` once the socket lets it."""
        poll = select.poll()
        poll.register(self._connection, event)
        while True:
            try:
                return action()
            except BlockingIOError:
                pass
            except (BrokenPipeError, ConnectionResetError) as error:
                raise LineClosedError("the other daemon hung up") from error
            except OSError as error:
                raise HandoverError(f"cannot talk to the other daemon: {error.strerror}") from error
            left = deadline - time.monotonic()
            if left <= 0:
                raise HandoverError("the other daemon did not answer in time")
            self._check()
            poll.poll(min(left, _LOOK_PAUSE) * 1000)

    def _put(self, data: bytes, deadline: float) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._when(select.POLLOUT, deadline, partial(self._connection.send, rest)) :]

    def _take(self, size: int, deadline: float) -> bytes:
        pieces = bytearray()
        while len(pieces) < size:
            wanted = min(size - len(pieces), 1 << 18)
            piece = self._when(select.POLLIN, deadline, partial(self._connection.recv, wanted))
            if not piece:
                raise LineClosedError("the other daemon hung up")
            pieces += piece
        return bytes(pieces)

    def _take_descriptors(self, count: int, deadline: float) -> list[int]:
        taken: list[int] = []
        try:
            while len(taken) < count:
                mark, portion, flags = self._when(select.POLLIN, deadline, partial(_receive_portion, self._connection))
                taken += portion
                if not mark:
                    raise LineClosedError("the other daemon hung up")
                if not portion or flags & socket.MSG_CTRUNC:
                    raise HandoverError(
                        "not all descriptors came through", remedy="raise the limit of open files (LimitNOFILE)"
                    )
        except BaseException:
            close_all(taken)
            raise
        return taken


def _receive_portion(connection: socket.socket) -> tuple[bytes, list[int], int]:
    """One byte, the descriptors that came with it, and the flags. (`socket.recv_fds` would leave them inheritable.)"""
    room = socket.CMSG_SPACE(_PORTION * array("i").itemsize)
    mark, ancillary, flags, _ = connection.recvmsg(1, room, socket.MSG_CMSG_CLOEXEC)
    portion = array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            portion.frombytes(data[: len(data) - len(data) % portion.itemsize])
    return mark, list(portion), flags


def close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
