"""What a link's two ends are told to leave to the (virtual) hardware.

Owns: the underlay's profiles and how they are set through the ethtool ioctl.
Never: needs the ethtool program.
Invariant: a profile that the kernel did not take is an error, not a slower test.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from engine.apply.features import ethtool, read_features
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


def set_features(device: str, wanted: Mapping[str, bool]) -> None:
    """Set offloads of `device`; those the device does not have count as off."""
    if not wanted:
        return
    with ethtool(device) as asked:
        features = asked.get_features()
        for name, value in wanted.items():
            if name in features and features.is_available(name):
                features.set_value(name, value)
        asked.set_features(features)
    now = read_features(device)
    refused = sorted(name for name, value in wanted.items() if now.get(name, False) != value)
    if refused:
        raise KernelError(f"the device kept its offloads {', '.join(refused)}", where=device)
