"""What a device says of its offloads, and what becomes of a device that says nothing."""

from __future__ import annotations

import errno

import pytest
from pyroute2.ethtool import ioctl

from engine.apply import egress
from engine.apply.device_message import Link
from engine.apply.features import read_features
from engine.errors import KernelError
from tests.engine.apply.test_neighbour_message import MAC


def link(name):
    return Link(7, 1, MAC, name, "veth", "", 1500, up=True, queue_length=1000, gso_max_size=65536)


def test_the_loopback_tells_its_offloads():
    assert read_features("lo")["tx-tcp-segmentation"] in (True, False)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ioctl.NotSupportedError("eth7"), "does not tell its offloads: operation not supported"),
        (ioctl.NoSuchDevice("eth7"), "does not tell its offloads: no such device"),
        (OSError(errno.EPERM, "no"), "does not tell its offloads: operation not permitted"),
    ],
)
def test_a_refusal_is_said_and_stops_nothing(monkeypatch, error, said):
    def refuse(_):
        raise error

    monkeypatch.setattr(ioctl.IoctlEthtool, "get_features", refuse)
    with pytest.raises(KernelError, match=rf"device eth7: {said} \(set network.offload to udp"):
        read_features("eth7")
    found = egress._egress(link("eth7"))
    assert found.objection.startswith(f"eth7 {said} (set network.offload")
    assert not found.segments


def test_a_device_that_is_gone_is_said():
    with pytest.raises(KernelError, match="device towpath-none: .*no such device"):
        read_features("towpath-none")
