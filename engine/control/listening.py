"""A unix socket that listens: made with the rights it is to have, in the place of a dead one.

Owns: the socket's file, its folder when there is none, and the sentences for when it cannot be had.
Never: accepts anybody, or takes the place of a socket that somebody serves.
Invariant: at no moment is the socket open to more than its owner and group.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from pathlib import Path

from engine.errors import KernelError


def listen(
    path: Path, kind: socket.SocketKind, *, backlog: int, what: str, remedy: str, group: int | None = None, mode: int
) -> socket.socket:
    """A listening socket for `what`, of rights `mode`. KernelError with `remedy` when it cannot be had."""
    _remove_dead(path, kind, what)
    listening = socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _bind(listening, path)
        if group is not None:
            os.chown(path, -1, group)
        os.chmod(path, mode)
        listening.listen(backlog)
    except OSError as error:
        listening.close()
        refused = f"cannot listen on the {what}: {error.strerror or error}"
        raise KernelError(refused, where=str(path), remedy=remedy) from error
    return listening


def leave(path: str | Path, inode: int) -> None:
    """Unlink the socket that was made there, unless another took its place."""
    with contextlib.suppress(OSError):
        if os.stat(path).st_ino == inode:
            os.unlink(path)


def _bind(listening: socket.socket, path: Path) -> None:
    before = os.umask(0o177)  # nobody else between bind and chmod
    try:
        listening.bind(str(path))
    finally:
        os.umask(before)


def _remove_dead(path: Path, kind: socket.SocketKind, what: str) -> None:
    """Unlink a socket of this kind nobody listens on; refuse to take one that is alive, or a file that is no socket."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise KernelError("it is not a socket", where=str(path), remedy="choose another path for the socket")
    except OSError:
        return
    with socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError:
            pass
    raise KernelError(f"another program serves this {what}", where=str(path), remedy="stop it, or choose another path")
