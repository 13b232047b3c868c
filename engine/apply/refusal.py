"""Turns what the kernel refuses into a sentence with a remedy.

Owns: the words for the error numbers that a user can do something about.
Never: decides whether to try again.
"""

from __future__ import annotations

import errno
import os

from engine.errors import KernelError

_WORDS: dict[int, tuple[str, str]] = {
    errno.EPERM: ("not permitted", "run as root, or grant CAP_NET_ADMIN, CAP_NET_RAW and CAP_SYS_ADMIN"),
    errno.EACCES: ("not permitted", "run as root, or grant CAP_NET_ADMIN, CAP_NET_RAW and CAP_SYS_ADMIN"),
    errno.EADDRINUSE: ("the port is in use", "stop the program that listens on it, or choose another port"),
    errno.EADDRNOTAVAIL: ("the address is not on this host", "correct the node's underlay address"),
    errno.EBUSY: ("the device is in use by another program", "stop the other program, or choose another name"),
    errno.ENODEV: ("the device is gone", "it is made again at the next try"),
    errno.ENETUNREACH: ("the next hop is not reachable", "routes without encapsulation need peers on the same subnet"),
    errno.EHOSTUNREACH: ("the next hop is not reachable", "check the host's routes to the peer"),
    errno.EEXIST: ("it exists already and is not Towpath's", "remove it, or choose another name or prefix"),
    errno.EMFILE: ("too many open files", "raise the limit (LimitNOFILE= of the service)"),
    errno.ENFILE: ("too many open files on this system", "raise fs.file-max"),
    errno.EAFNOSUPPORT: ("the kernel lacks this address family", "enable IPv6, or use IPv4 addresses only"),
}
_NO_DRIVER = {errno.ENOENT, errno.ENXIO, errno.ENODEV}


def refusal(error: Exception, *, where: str, doing: str = "", tun: bool = False) -> KernelError:
    """`error` (an OSError or a netlink error) as a KernelError about `where`; `tun`: it came of making a TUN device."""
    number = getattr(error, "errno", None) or getattr(error, "code", None) or 0
    words, remedy = _WORDS.get(number, ("", ""))
    if tun and number in _NO_DRIVER:
        words = "there is no /dev/net/tun"
        remedy = "load the driver (modprobe tun), or pass the device into the container"
    if not words:
        words = os.strerror(number).lower() if number else str(error)
    return KernelError(f"{doing}: {words}" if doing else words, where=where, remedy=remedy)
