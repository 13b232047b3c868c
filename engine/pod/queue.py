"""What becomes of the queue of a device that is not where it should be.

Owns: the one decision, whether the device goes with its queue.
Never: looks for a device by name or mark; both may be others by now.
Invariant: no device of ours is left behind that nothing but its queue tells to be ours.
"""

from __future__ import annotations

import contextlib

from engine.apply.plane import LocalPort


def let_go(port: LocalPort) -> None:
    """Close the queue of a lost device. One that still stands, under another name or elsewhere, is deleted."""
    if port.device_name():
        with contextlib.suppress(OSError):  # it went in this moment
            port.delete()
            return
    port.close()
