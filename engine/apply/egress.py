"""The devices by which peers are reached, as ends of a shortcut.

Owns: what makes a device one: that it is an Ethernet, and whether it cuts tunnelled super-packets itself.
Never: remembers anything; the kernel is asked anew each time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from engine.apply.device_message import Link
from engine.apply.features import read_features
from engine.apply.links import links, netlink
from engine.apply.neighbour_message import is_station
from engine.errors import KernelError

SEGMENTATION = "tx-udp_tnl-segmentation"
_ETHERNET = 1  # ARPHRD_ETHER


@dataclass(frozen=True, slots=True)
class Egress:
    """`segments`: it takes tunnelled super-packets whole; `objection`: why no frame of ours can go to it at all."""

    name: str
    mtu: int
    mac: bytes
    segments: bool = False
    objection: str = ""


def look_at(devices: Iterable[int]) -> dict[int, Egress]:
    """Those of the devices, by their index, that there are."""
    wanted = set(devices)
    if not wanted:
        return {}
    with netlink() as ip:
        return {link.index: _egress(link) for link in links(ip) if link.index in wanted}


def _egress(link: Link) -> Egress:
    name, mtu, mac = link.name, link.mtu, link.station
    if link.hardware != _ETHERNET or not is_station(mac):
        return Egress(name, mtu, mac, objection=f"{name} is no Ethernet")
    try:
        return Egress(name, mtu, mac, segments=read_features(name).get(SEGMENTATION, False))
    except KernelError as error:
        return Egress(name, mtu, mac, objection=f"{name} {error.what} ({error.remedy})")
