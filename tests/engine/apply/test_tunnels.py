"""Sockets of tunnels: opened anew when they must be, and what is said when they cannot."""

from dataclasses import replace

import pytest

from engine.apply.tunnels import TunnelDriver
from engine.errors import KernelError
from tests.engine.apply.hops import P1, TO_B, TUNNEL
from tests.engine.fakes import REJECTED, FakeKernel


def test_a_tunnel_that_changes_is_opened_anew_and_its_routes_follow(forwarding, plane):
    kernel = FakeKernel()
    driver = TunnelDriver(forwarding, kernel.openers.tunnel)
    driver.set(TUNNEL.key, TUNNEL)
    forwarding.set_route(P1, (TO_B,))
    driver.set(TUNNEL.key, replace(TUNNEL, vni=7))
    assert kernel.log == [f"open {TUNNEL.key}", f"close {TUNNEL.key}", f"open {TUNNEL.key}"]
    assert plane.meaning(P1).port == forwarding.ports["tunnel", TUNNEL.key]
    driver.remove(TUNNEL.key)
    assert plane.meaning(P1) == REJECTED
    assert driver.actual() == {}


def test_a_port_in_use_is_said_with_place_and_remedy(forwarding):
    kernel = FakeKernel()
    kernel.refuse[TUNNEL.key] = OSError(98, "Address already in use")
    with pytest.raises(KernelError, match=r"tunnel vxlan/192.0.2.1:4789: .*port is in use \(.*choose another"):
        TunnelDriver(forwarding, kernel.openers.tunnel).set(TUNNEL.key, TUNNEL)
    assert forwarding.ports == {}
