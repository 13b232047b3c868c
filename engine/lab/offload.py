"""What a link's two ends are told to leave to the (virtual) hardware.

Owns: the underlay's profiles and how they are set through the ethtool ioctl.
Never: needs the ethtool program.
Invariant: a profile that the kernel did not take is an error, not a slower test.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

from engine.errors import KernelError

_TUNNEL = ("tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation")
_SEGMENTATION = (
    "tx-tcp-segmentation",
    "tx-tcp-ecn-segmentation",
    "tx-tcp-mangleid-segmentation",
    "tx-tcp6-segmentation",
    "tx-udp-segmentation",
    "tx-generic-segmentation",
)
_CHECKSUM = ("tx-checksum-ip-generic", "tx-checksum-ipv4", "tx-checksum-ipv6", "tx-checksum-sctp")


class Profile(Enum):
    """How capable the underlay's devices are."""

    DEFAULT = "default"  # as the kernel makes a veth: super-packets and pending checksums cross it whole
    NO_TUNNEL = "no-tunnel"  # no segmentation of tunnelled packets: the kernel does it before the device
    DUMB = "dumb"  # no transmit offload at all, receive merging on: an old network card
    BARE = "bare"  # nothing in either direction: a capture shows frames as on a cable

    @property
    def features(self) -> Mapping[str, bool]:
        """Kernel feature names and the value each gets."""
        if self is Profile.DEFAULT:
            return {}
        if self is Profile.NO_TUNNEL:
            return dict.fromkeys(_TUNNEL, False)
        return dict.fromkeys((*_CHECKSUM, *_SEGMENTATION, *_TUNNEL), False) | {"rx-gro": self is Profile.DUMB}


def read_features(device: str) -> dict[str, bool]:
    """Every offload of `device` in the calling thread's namespace, by the kernel's name."""
    with _ethtool(device) as ethtool:
        features = ethtool.get_features()
        return {name: bool(features.is_active(name)) for name in list(features.keys()) if name}


def set_features(device: str, wanted: Mapping[str, bool]) -> None:
    """Set offloads of `device`; those the device does not have count as off."""
    if not wanted:
        return
    with _ethtool(device) as ethtool:
        features = ethtool.get_features()
        for name, value in wanted.items():
            if name in features and features.is_available(name):
                features.set_value(name, value)
        ethtool.set_features(features)
    now = read_features(device)
    refused = sorted(name for name, value in wanted.items() if now.get(name, False) != value)
    if refused:
        raise KernelError(f"the device kept its offloads {', '.join(refused)}", where=device)


@contextlib.contextmanager
def _ethtool(device: str) -> Iterator[Any]:
    from pyroute2.ethtool import ioctl

    ethtool: Any = ioctl.IoctlEthtool(device)  # type: ignore[no-untyped-call]
    try:
        yield ethtool
    finally:
        ethtool.close()
