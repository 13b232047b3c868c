"""A TAP device every frame of which leaves by another device: a clsact qdisc and one redirecting filter.

Owns: that device and what hangs on it; all of it is gone with its descriptor, however the process ends.
Never: chooses the other device, or gives the TAP an address.
Invariant: nothing reaches the TAP's queue: it has no address, no IPv6 and no ARP, and its own filter drops
what is sent to it. While no redirection is set, what is written to it ends at the host's door, for it bears
another station's address.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from engine.apply.links import ALIAS_PREFIX
from engine.apply.plane import OpenTap, Tap
from engine.apply.refusal import refusal
from engine.apply.route_message import HEADER

ALIAS = f"{ALIAS_PREFIX}shortcut"
_UP, _NO_ARP = 0x1, 0x80
_CLSACT, _INGRESS = 0xFFFFFFF1, 0xFFFFFFF2  # where the qdisc hangs, and its filters on the way in
_ALL_PROTOCOLS = 0x0003
_OURS = {37: _CLSACT, 45: _INGRESS}  # RTM_DELQDISC, RTM_DELTFILTER
_ABOUT = struct.Struct("=4xiII")  # family and padding; device, handle, parent
TRAFFIC_CONTROL_GROUP = 0x8  # of announcements: RTNLGRP_TC


class Redirection:
    def __init__(self, tap: Tap, device: int, index: int) -> None:
        self.tap = tap
        self.device = device
        self.index = index
        self._leads = True

    @classmethod
    def open(cls, open_tap: OpenTap, device: int) -> Self:
        """KernelError when the kernel lacks a part of it."""
        where = "shortcut"
        try:
            tap = open_tap()
        except OSError as error:
            doing = "the kernel makes no TAP with offloads for tunnels (Linux 6.17)"
            raise refusal(error, where=where, doing=doing, tun=True) from error
        try:
            with _traffic_control() as tc:
                index = _lead(tc, tap.name, device)
        except Exception as error:  # pyroute2's errors have no base but this
            tap.close()
            raise refusal(error, where=where, doing="the kernel does not redirect frames (u32, mirred)") from error
        return cls(tap, device, index)

    @property
    def stands(self) -> bool:
        """Whether what is written to it can leave."""
        return self._leads and self.tap.takes_frames

    def disturbed(self) -> None:
        """Somebody took its filter away: the device takes frames still, and they lead nowhere."""
        self._leads = False

    def close(self) -> None:
        """Not before the plane knows the descriptor no more."""
        self.tap.close()


@contextmanager
def _traffic_control() -> Iterator[Any]:
    """In the calling thread's namespace. Late: a daemon without a shortcut starts without pyroute2."""
    from pyroute2.iproute.linux import IPRoute

    opened: Any = IPRoute  # untyped
    with opened(groups=0, strict_check=True, ext_ack=True) as route:
        yield route


def disturbance(kind: int, data: bytes, start: int, end: int) -> int | None:
    """The device that an announcement of the kernel says to have lost its filter on the way in."""
    if kind not in _OURS or end - start < HEADER.size + _ABOUT.size:
        return None
    index, _, parent = _ABOUT.unpack_from(data, start + HEADER.size)
    return int(index) if parent == _OURS[kind] else None


def _lead(tc: Any, name: str, device: int) -> int:
    (index,) = tc.link_lookup(ifname=name)
    _write_off_ipv6(name)
    tc.tc("add", "clsact", index)
    tc.tc(
        "add-filter",
        "u32",
        index,
        parent=_INGRESS,
        prio=1,
        protocol=_ALL_PROTOCOLS,
        keys=["0x0/0x0+0"],
        target=0x10000,
        action=[{"kind": "mirred", "direction": "egress", "action": "redirect", "ifindex": device}],
    )
    tc.link("set", index=index, ifalias=ALIAS, flags=_UP | _NO_ARP, change=_UP | _NO_ARP)
    return int(index)


def _write_off_ipv6(name: str) -> None:
    """Before it is up: it would get an address, and speak."""
    file = Path("/proc/sys/net/ipv6/conf") / name / "disable_ipv6"
    if file.exists():
        file.write_text("1")
