"""Runs a function inside another network namespace.

Owns: the thread that enters the namespace and ends there.
Never: moves a thread that goes on to do something else, and never forks.
Invariant: the caller's thread stays in its own namespace, whatever happens.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from engine.errors import KernelError
from engine.netns import setns

_DEADLINE = 15.0  # seconds; netlink answers in milliseconds or not at all

T = TypeVar("T")
Identity = tuple[int, int]


def identity(path: str) -> Identity | None:
    """What tells one namespace from another that took its path; None when there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def run_inside(path: str, function: Callable[[], T], *, where: str) -> T:
    """The result of `function()` in a thread inside the network namespace at `path`."""
    future: Future[T] = Future()

    def enter_and_run() -> None:
        try:
            _enter(path, where)
            future.set_result(function())
        except BaseException as error:  # noqa: BLE001 - it is raised in the caller's thread
            future.set_exception(error)

    thread = threading.Thread(target=enter_and_run, name="towpath-netns", daemon=True)
    thread.start()
    thread.join(_DEADLINE)
    if thread.is_alive():
        what = f"no answer from inside namespace {path} within {_DEADLINE:.0f} s"
        raise KernelError(what, where=where, remedy="it is tried again")
    return future.result()


def _enter(path: str, where: str) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise KernelError(
            f"network namespace {path} does not exist",
            where=where,
            remedy="create it (ip netns add) or correct the pod's namespace",
        ) from None
    except OSError as error:
        raise KernelError(f"cannot open network namespace {path}: {error.strerror}", where=where) from error
    try:
        setns(descriptor)
    except OSError as error:
        raise _entry_refused(path, where, error.errno or 0) from error
    finally:
        os.close(descriptor)


def _entry_refused(path: str, where: str, number: int) -> KernelError:
    if number == errno.EPERM:
        return KernelError(
            f"not permitted to enter network namespace {path}", where=where, remedy="run as root or with CAP_SYS_ADMIN"
        )
    if number == errno.EINVAL:
        return KernelError(
            f"{path} is not a network namespace", where=where, remedy="correct the pod's namespace in the configuration"
        )
    return KernelError(f"cannot enter network namespace {path}: {os.strerror(number)}", where=where)
