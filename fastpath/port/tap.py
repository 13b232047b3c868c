"""The TAP device through which encapsulated packets reach the underlay past the sockets (Linux >= 6.17).

Owns: the device, which lives as long as its descriptor, if nobody deletes it.
Never: says where its frames go, or reads: nothing that the kernel sends to it is even queued.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from typing import Self

import pytun

from fastpath.port.sockets import BUFFER_BYTES, RECEIVE_NOTHING
from fastpath.port.tuntap import (
    CSUM,
    TSO4,
    TSO6,
    TSO_ECN,
    TUNATTACHFILTER,
    TUNGETIFF,
    TUNSETOFFLOAD,
    TUNSETSNDBUF,
    TUNSETVNETHDRSZ,
    TUNSETVNETLE,
    UDP_TUNNEL_GSO,
    UDP_TUNNEL_GSO_CSUM,
    USO4,
    USO6,
)

OFFLOADS = CSUM | TSO4 | TSO6 | TSO_ECN | USO4 | USO6 | UDP_TUNNEL_GSO | UDP_TUNNEL_GSO_CSUM
VNET_HEADER = 24  # bytes, with the fields of a tunnelled super-packet
NAME = "towpath-to%d"  # the kernel puts the first free number

_SIOCGIFFLAGS, _IFF_UP = 0x8913, 0x1
_IFREQ = struct.Struct("16sh22x")


class Tap:
    """An open device, down and without anything that leads its frames away."""

    def __init__(self, device: pytun.TunTapDevice) -> None:
        self._device = device
        self.name: str = device.name
        self.fd: int = device.fileno()

    @classmethod
    def open(cls) -> Self:
        """Make the device in this thread's namespace.

        OSError as the kernel says it: EINVAL before Linux 6.17, EPERM without CAP_NET_ADMIN, ENOENT without
        /dev/net/tun.
        """
        device = pytun.TunTapDevice(name=NAME, flags=pytun.IFF_TAP | pytun.IFF_NO_PI | pytun.IFF_VNET_HDR)
        try:
            fd = device.fileno()
            os.set_blocking(fd, False)
            os.set_inheritable(fd, False)
            fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", VNET_HEADER))
            fcntl.ioctl(fd, TUNSETOFFLOAD, OFFLOADS)
            fcntl.ioctl(fd, TUNSETVNETLE, struct.pack("i", 1))
            fcntl.ioctl(fd, TUNSETSNDBUF, struct.pack("i", BUFFER_BYTES))
            fcntl.ioctl(fd, TUNATTACHFILTER, RECEIVE_NOTHING)  # nobody can fill its queue
        except BaseException:
            device.close()
            raise
        return cls(device)

    @property
    def takes_frames(self) -> bool:
        """Whether the device still exists, in this thread's namespace, and is up."""
        request = bytes(_IFREQ.size)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asking:
                name, _ = _IFREQ.unpack(fcntl.ioctl(self.fd, TUNGETIFF, request))
                _, flags = _IFREQ.unpack(fcntl.ioctl(asking, _SIOCGIFFLAGS, _IFREQ.pack(name, 0)))
        except OSError:
            return False
        return bool(flags & _IFF_UP)

    def close(self) -> None:
        """The device is gone with this."""
        self._device.close()
