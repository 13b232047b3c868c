"""UDP conversations in a kernel: those with a port that leads elsewhere now are forgotten, and no others."""

from __future__ import annotations

import socket
from ipaddress import ip_address

import pytest

from engine.apply import conversations
from engine.apply.host_rules import nft
from engine.model import PortForward
from engine.pod.namespace import run_inside
from tests.engine.namespaces import ip, namespaces, path_of

pytestmark = [pytest.mark.root, pytest.mark.needs("ip", "nft")]

POD = {4: ip_address("10.1.0.5"), 6: ip_address("fd00:1::5")}
PLACES = {4: ("127.0.0.1", "127.0.0.2"), 6: ("::1", "fd00:2::1")}


def forward(version, port, address=None, protocol="udp"):
    return PortForward(protocol, port, None if address is None else ip_address(address), POD[version], 53)


def known(version):
    """Ports and addresses of the conversations that the kernel remembers."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as kernel:
        return {
            (port, address)
            for port in (53, 5353)
            for address in PLACES[version]
            if list(conversations._listed(kernel, version, port, ip_address(address).packed))
        }


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("filtered", [True, False], ids=["listed by the kernel", "by one that lists all"])
def test_only_what_is_meant_is_forgotten(monkeypatch, version, filtered):
    if not filtered:
        monkeypatch.setattr(conversations, "_FILTER", 1000)
    here, there = PLACES[version]

    def work():
        nft("table inet t { chain c { type filter hook output priority 0; ct state new accept; }; }\n")
        family = socket.AF_INET6 if version == 6 else socket.AF_INET
        for port in (53, 5353):
            for address in (here, there):
                with socket.socket(family, socket.SOCK_DGRAM) as client:
                    client.sendto(b"x", (address, port))
        every = {(port, address) for port in (53, 5353) for address in (here, there)}
        assert known(version) == every
        conversations.forget([])
        conversations.forget([forward(version, 53, protocol="tcp"), forward(10 - version, 53), forward(version, 54)])
        assert known(version) == every
        conversations.forget([forward(version, 53, there)])
        assert known(version) == every - {(53, there)}
        conversations.forget([forward(version, 5353), forward(version, 53, there)])
        assert known(version) == {(53, here)}

    with namespaces(1) as (name,):
        ip("link", "set", "lo", "up", namespace=name)
        ip("addr", "add", "fd00:2::1/128", "dev", "lo", "nodad", namespace=name)
        run_inside(path_of(name), work, where="test")
