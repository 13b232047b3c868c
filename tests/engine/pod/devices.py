"""Pods with devices, what a kill leaves of them, and what stands."""

from __future__ import annotations

from ipaddress import ip_address

from engine.model import Desired, Pod, PodDevice
from tests.engine.namespaces import device, path_of

A4, A6 = ip_address("10.1.0.5"), ip_address("fd00:1::5")


def pod(name, namespace, addresses=(A4, A6), mtu=1450):
    return PodDevice(Pod(name, path_of(namespace), addresses), mtu)


def pods(*devices):
    return Desired(pods=frozenset(devices))


def kill(datapath):
    """What a kill -9 leaves: queues closed by the kernel, nothing said to anybody."""
    for attachment in datapath.pods.attachments.values():
        attachment.port.close()
    datapath.pods.attachments.clear()


def standing_devices(names):
    return [found["ifalias"] for found in map(device, names) if found is not None]
