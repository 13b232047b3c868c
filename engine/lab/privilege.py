"""Being allowed to make namespaces: as root, or as root of a user namespace of one's own.

Owns: the step into a user namespace.
Never: asks for more than this process needs, and changes nothing outside it.
Invariant: after `enter` namespaces, devices and routes can be made, or it has
raised a KernelError that says what the kernel refuses and who can change that.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Literal

from engine import netns
from engine.errors import KernelError

TUN = "/dev/net/tun"
_CAP_NET_ADMIN, _CAP_SYS_ADMIN = 12, 21
_AS_ROOT = "run it as root (sudo)"


def privileged() -> bool:
    """Whether this process may make namespaces and devices as it is."""
    status = Path("/proc/self/status").read_text().splitlines()
    effective = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff:"))
    return bool(effective >> _CAP_NET_ADMIN & 1 and effective >> _CAP_SYS_ADMIN & 1)


def in_user_namespace() -> bool:
    """Whether this process is root only in a user namespace."""
    return Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]


def enter(*, tun: bool = True) -> Literal["root", "user namespace"]:
    """Become able to make a lab; with `tun`, one with TUN devices in it. Says which way was taken.

    Without root the process must still have a single thread: the kernel moves
    no other one into a user namespace.
    """
    way: Literal["root", "user namespace"] = "root"
    if not privileged():
        _enter_user_namespace()
        way = "user namespace"
    if tun:
        _check_tun()
    return way


def _enter_user_namespace() -> None:
    if threading.active_count() > 1:
        raise KernelError("cannot enter a user namespace with threads running", remedy=_AS_ROOT)
    uid, gid = os.geteuid(), os.getegid()
    try:
        netns.unshare(netns.NEWUSER | netns.NEWNET)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    except OSError as error:
        raise KernelError(
            f"not root, and the kernel grants no user namespace ({error.strerror})",
            remedy=f"{_AS_ROOT}{_how_to_allow_user_namespaces()}",
        ) from error
    if not privileged():
        raise KernelError(
            "not root, and a user namespace gives no rights here", remedy=f"{_AS_ROOT}{_how_to_allow_user_namespaces()}"
        )


def _how_to_allow_user_namespaces() -> str:
    for setting, closed, opened in (
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
        ("kernel/unprivileged_userns_clone", "0", "1"),
        ("user/max_user_namespaces", "0", "10000"),
    ):
        path = Path("/proc/sys") / setting
        if path.exists() and path.read_text().strip() == closed:
            return f", or let root set {setting.replace('/', '.')}={opened}"
    return ", or leave the sandbox that forbids it"


def _check_tun() -> None:
    try:
        os.close(os.open(TUN, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        raise KernelError(
            "the device does not exist", where=TUN, remedy="load the module: modprobe tun; in a container pass --device"
        ) from None
    except PermissionError:
        raise KernelError(
            "this user may not open it", where=TUN, remedy=f"{_AS_ROOT}, or let root chmod 0666 {TUN}"
        ) from None
    except OSError as error:
        raise KernelError(
            f"cannot be opened: {error.strerror}", where=TUN, remedy="load the module: modprobe tun"
        ) from error
