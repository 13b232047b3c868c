"""What a network device does by itself: its offloads, by the kernel's names.

Owns: the ethtool ioctl.
Never: needs the ethtool program, or lets an error of pyroute2 out.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import Any

from engine.errors import KernelError


def read_features(device: str) -> dict[str, bool]:
    """Every offload of `device` in the calling thread's namespace, by the kernel's name."""
    with ethtool(device) as asked:
        features = asked.get_features()
        return {name: bool(features.is_active(name)) for name in list(features.keys()) if name}


@contextlib.contextmanager
def ethtool(device: str) -> Iterator[Any]:
    """What is refused in it is a KernelError about the device: pyroute2's own errors have no base but Exception."""
    from pyroute2.ethtool import ioctl

    opened: Any = ioctl.IoctlEthtool()  # type: ignore[no-untyped-call]
    try:
        opened.change_ifname(device)
        yield opened
    except (ioctl.EthtoolError, OSError) as error:
        numbers = {ioctl.NoSuchDevice: errno.ENODEV, ioctl.NotSupportedError: errno.EOPNOTSUPP}
        number = error.errno if isinstance(error, OSError) else numbers.get(type(error))
        what = f"does not tell its offloads: {os.strerror(number).lower() if number else error}"
        remedy = "set network.offload to udp, or use another device"
        raise KernelError(what, where=f"device {device}", remedy=remedy) from error
    finally:
        opened.close()
