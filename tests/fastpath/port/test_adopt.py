"""A port goes on with the descriptors of another process: of every kind, and of nothing else."""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import replace
from ipaddress import ip_address

import pytest

from fastpath.port.raw import RawPort
from fastpath.port.tun import TunPort
from fastpath.port.udp import SOURCES, UdpPort
from fastpath.values import Tunnel

VXLAN4 = Tunnel(encapsulation="vxlan", local=ip_address("127.0.0.1"), vni=1)
VXLAN6 = Tunnel(encapsulation="vxlan", local=ip_address("::1"), vni=1)
FIXED = Tunnel(encapsulation="udp", local=ip_address("127.0.0.1"), source_ports="fixed")
IPIP4 = Tunnel(encapsulation="ipip", local=ip_address("127.0.0.1"))
IPIP6 = Tunnel(encapsulation="ipip", local=ip_address("::1"))


@pytest.fixture
def free_port():
    """One that nobody has in either family."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.bind(("::", 0))
        return probe.getsockname()[1]


def copies(port):
    """The descriptors as another process would get them."""
    return [os.dup(descriptor) for descriptor in port.descriptors]


@pytest.mark.parametrize(("kind", "tunnel"), [(UdpPort, VXLAN4), (UdpPort, VXLAN6), (UdpPort, FIXED)])
def test_sockets_of_a_tunnel(kind, tunnel, free_port):
    fixed = tunnel is FIXED
    tunnel = replace(tunnel, port=free_port)
    first = kind.open(tunnel)
    second = kind.adopt(tunnel, copies(first))
    first.close()
    assert (len(second.inputs), len(second.senders)) == (1, 1 if fixed else SOURCES)
    assert (second.name, second.segments_max, second.gro) == (first.name, first.segments_max, first.gro)
    with socket.socket(socket.AF_INET if tunnel.local.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as client:
        client.sendto(b"still here", (str(tunnel.local), free_port))
    assert os.read(second.inputs[0], 99) == b"still here"
    with pytest.raises(BlockingIOError):
        os.read(second.inputs[0], 99)
    second.close()


@pytest.mark.parametrize("tunnel", [VXLAN4, VXLAN6, FIXED])
def test_as_many_receiving_sockets_as_there_were(tunnel, free_port):
    fixed = tunnel is FIXED
    tunnel = replace(tunnel, port=free_port)
    first = UdpPort.open(tunnel, receivers=5)
    with UdpPort.adopt(tunnel, copies(first)) as second:
        first.close()
        assert (len(second.inputs), len(second.senders)) == (5, 1 if fixed else SOURCES)
        assert set(second.inputs).isdisjoint(second.senders) is not fixed


def test_more_sockets_than_a_port_has_are_left_to_the_caller(free_port):
    tunnel = replace(VXLAN4, port=free_port)
    with UdpPort.open(tunnel, receivers=2) as other:
        descriptors = [os.dup(other.inputs[0]) for _ in range(65)] + [os.dup(fd) for fd in other.senders]
        with pytest.raises(ValueError, match="65 inputs"):
            UdpPort.adopt(tunnel, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


@pytest.mark.root
@pytest.mark.parametrize("tunnel", [IPIP4, IPIP6])
def test_raw_sockets(tunnel):
    first = RawPort.open(tunnel)
    second = RawPort.adopt(tunnel, copies(first))
    first.close()
    assert len(second.inputs) == 2
    with pytest.raises(ValueError, match="not those of IP in IP"):
        RawPort.adopt(tunnel, copies(second)[::-1])
    second.close()


def test_what_is_no_socket_of_the_tunnel_is_left_to_the_caller(free_port):
    tunnel = replace(VXLAN4, port=free_port)
    with UdpPort.open(tunnel) as other:
        for descriptors in ([os.memfd_create("x")] * 9, [os.dup(other.inputs[0])] * 9, [os.dup(other.inputs[0])]):
            with pytest.raises(ValueError):
                UdpPort.adopt(replace(VXLAN6, port=free_port), descriptors)
            os.fstat(descriptors[0])
            os.close(descriptors[0])
        descriptors = copies(other)
        with pytest.raises(ValueError, match="no socket inherited"):
            UdpPort.adopt(replace(tunnel, port=free_port - 1), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


@pytest.mark.root
def test_queue_of_a_device():
    first = TunPort.open(f"adopt{secrets.token_hex(4)}", role="pod", persist=False)
    (descriptor,) = copies(first)
    with pytest.raises(ValueError, match="opened in another way"):
        TunPort.adopt([descriptor], role="pod", granted=0 if first.granted else 1)
    second = TunPort.adopt([descriptor], role="pod", granted=first.granted, mtu=1400)
    first.close()
    assert (second.name, second.vnet_header, second.takes_super) == (first.name, first.vnet_header, first.takes_super)
    assert os.path.exists(f"/sys/class/net/{second.name}")
    second.delete()
    assert not os.path.exists(f"/sys/class/net/{second.name}")
    with pytest.raises(ValueError, match="no TUN queue"):
        TunPort.adopt([os.memfd_create("x")], role="pod")
