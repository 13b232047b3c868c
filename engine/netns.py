"""The two system calls on namespaces that Python offers only since 3.12: unshare and setns.

Owns: the calls, and nothing that lives longer than a call.
Never: changes the namespace of a thread it was not called in.
Invariant: a failure raises OSError with the kernel's errno.
"""

from __future__ import annotations

import ctypes
import os

NEWUSER = 0x10000000
NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, call: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{call}: {os.strerror(code)}")


def unshare(flags: int) -> None:
    """Give the calling thread new namespaces of the kinds in `flags`."""
    _checked(_libc.unshare(ctypes.c_int(flags)), "unshare")


def setns(descriptor: int, kind: int = NEWNET) -> None:
    """Move the calling thread into the namespace behind `descriptor`."""
    _checked(_libc.setns(ctypes.c_int(descriptor), ctypes.c_int(kind)), "setns")


def current() -> int:
    """A close-on-exec descriptor of the calling thread's network namespace."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
