"""Tells the service manager how far we are (the sd_notify protocol).

Owns: one datagram a message to the socket that NOTIFY_SOCKET names.
Never: fails: without a service manager it does nothing; with one that does not read, it goes on.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time

_PATIENCE = 1.0  # seconds with a manager whose queue is full


def notify(*lines: str, patience: float = _PATIENCE) -> bool:
    """Send `lines` ("READY=1", "STATUS=...", ...); whether somebody was there to be told."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.settimeout(patience)
        sender.sendto("\n".join(lines).encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)
        return True
    return False


def reloading() -> None:
    """Type=notify-reload wants the monotonic time in microseconds with it."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def alive() -> None:
    """A sign of life, one of many: none is worth waiting for."""
    notify("WATCHDOG=1", patience=0.0)


def watchdog_pause() -> float | None:
    """Seconds between two signs of life (half of what the manager allows), or None when it wants none."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    with contextlib.suppress(ValueError):
        microseconds = int(os.environ.get("WATCHDOG_USEC", "0"))
        if microseconds > 0:
            return microseconds / 2_000_000
    return None
