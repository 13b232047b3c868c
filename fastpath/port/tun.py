"""TUN devices, made with python-pytun: opened with a virtio header and every offload the kernel grants.

Owns: the device's life cycle (create or re-attach, offload ladder, persistence).
Never: sets addresses, routes or MTU, or enters a namespace: the device is made
in the namespace of the calling thread, and links are configured elsewhere.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterable, Sequence
from typing import Literal

import pytun

from fastpath.port.port import Port
from fastpath.port.tuntap import (
    CSUM,
    TSO4,
    TSO6,
    TSO_ECN,
    TUNGETIFF,
    TUNSETOFFLOAD,
    TUNSETPERSIST,
    TUNSETVNETHDRSZ,
    USO4,
    USO6,
)
from fastpath.values import Address

IFREQ = struct.Struct("16sH22x")  # struct ifreq: name, flags
VNET_HEADER = 10  # bytes of struct virtio_net_hdr

LADDER = (
    CSUM | TSO4 | TSO6 | TSO_ECN | USO4 | USO6,  # Linux >= 6.2
    CSUM | TSO4 | TSO6 | TSO_ECN,
    CSUM,
)


class Queue:
    """A queue that another process opened: as much of pytun's device as a port uses."""

    def __init__(self, descriptor: int, name: str) -> None:
        self.name = name
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class TunPort(Port):
    """A TUN device with one queue. `granted` is the rung of the offload ladder, 0 for none."""

    kind = "tun"

    def __init__(
        self,
        device: pytun.TunTapDevice | Queue,
        role: Literal["pod", "host"],
        addresses: Iterable[Address],
        mtu: int,
        granted: int,
    ) -> None:
        fd = device.fileno()
        super().__init__(device.name, role, inputs=(fd,), senders=(fd,), addresses=addresses, mtu=mtu)
        self.fd = fd
        self.granted = granted
        self.vnet_header = VNET_HEADER if granted else 0
        self.takes_super = bool(granted & TSO4)
        self.takes_super_udp = bool(granted & USO4)
        self._device = device

    @classmethod
    def open(
        cls,
        name: str,
        *,
        role: Literal["pod", "host"],
        addresses: Iterable[Address] = (),
        mtu: int = 1500,
        persist: bool = True,
        offloads: bool = True,
    ) -> TunPort:
        """Make the device `name`, or take up the queue of a persistent one, in this thread's namespace.

        Raises `pytun.Error` (an OSError) as the kernel says it: EPERM without
        CAP_NET_ADMIN, EBUSY when another process holds the queue, ENOENT
        without /dev/net/tun.
        """
        flags = pytun.IFF_TUN | pytun.IFF_NO_PI | (pytun.IFF_VNET_HDR if offloads else 0)
        device = pytun.TunTapDevice(name=name, flags=flags)
        try:
            # pytun leaves its descriptor blocking and inheritable.
            os.set_blocking(device.fileno(), False)
            os.set_inheritable(device.fileno(), False)
            granted = negotiate(device.fileno()) if offloads else 0
            device.persist(persist)
        except BaseException:
            device.close()
            raise
        return cls(device, role, addresses, mtu, granted)

    @classmethod
    def adopt(
        cls,
        descriptors: Sequence[int],
        *,
        role: Literal["pod", "host"],
        addresses: Iterable[Address] = (),
        mtu: int = 1500,
        granted: int = 0,
    ) -> TunPort:
        """Go on with the queue of a device that another process opened, with what it was `granted`.

        ValueError for a descriptor that is no such queue. It is the caller's until this returns.
        """
        (descriptor,) = descriptors
        try:
            name, flags = IFREQ.unpack(fcntl.ioctl(descriptor, TUNGETIFF, bytes(IFREQ.size)))
        except OSError as error:
            raise ValueError(f"descriptor {descriptor} is no TUN queue: {error.strerror}") from error
        if not flags & pytun.IFF_TUN or bool(flags & pytun.IFF_VNET_HDR) != bool(granted):
            raise ValueError(
                f"the queue of {name!r} was opened in another way (flags {flags:#x}, granted {granted:#x})"
            )
        return cls(Queue(descriptor, name.rstrip(b"\0").decode()), role, addresses, mtu, granted)

    def device_name(self) -> str:
        """What the device is called now, in whatever namespace it is; "" when it is gone."""
        try:
            name, _ = IFREQ.unpack(fcntl.ioctl(self.fd, TUNGETIFF, bytes(IFREQ.size)))
        except OSError:
            return ""
        return str(name.rstrip(b"\0").decode())

    def close(self) -> None:
        """Let go of the queue. A persistent device stays, with its addresses."""
        self._device.close()

    def delete(self) -> None:
        """Let go of the queue and remove the device."""
        fcntl.ioctl(self.fd, TUNSETPERSIST, 0)
        self._device.close()


def negotiate(fd: int) -> int:
    """The first rung of the ladder the kernel accepts; CSUM alone still needs the virtio header."""
    fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", VNET_HEADER))
    for rung in LADDER:
        try:
            fcntl.ioctl(fd, TUNSETOFFLOAD, rung)
        except OSError:
            continue
        return rung
    return CSUM
