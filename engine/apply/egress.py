"""The devices by which peers are reached, as ends of a shortcut.

Owns: what makes a device one: that it is an Ethernet, what it cuts itself, and whether it sums.
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
CHECKSUMS = ("tx-checksum-ip-generic", "tx-checksum-ipv4", "tx-checksum-ipv6")
_ETHERNET = 1  # ARPHRD_ETHER


@dataclass(frozen=True, slots=True)
class Egress:
    """`segments`: it takes tunnelled super-packets whole; `sums`: it computes checksums; `objection`: why no frame of
    ours can go to it at all."""

    name: str
    mtu: int
    mac: bytes
    segments: bool = False
    sums: bool = True
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
        features = read_features(name)
        sums = any(features.get(checksum, False) for checksum in CHECKSUMS)
        return Egress(name, mtu, mac, features.get(SEGMENTATION, False), sums)
    except KernelError as error:
        return Egress(name, mtu, mac, objection=f"{name} {error.what} ({error.remedy})")
