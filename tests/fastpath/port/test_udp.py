"""The UDP tunnel port on real sockets over loopback."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address, ip_address, ip_network
from typing import Self

import pytest

from fastpath import reference
from fastpath.plane import Plane
from fastpath.port.memory import MemoryPort
from fastpath.port.udp import SOURCES, UdpPort, bind_beside
from fastpath.values import Address, Deliver, Encapsulate, Tunnel
from tests.fastpath.network import KEY, mac
from tests.fastpath.packets import ipv4, udp

POD, FAR = IPv4Address("10.0.1.2"), IPv4Address("10.0.2.2")


def loopback(family: int) -> Address:
    return ip_address("127.0.0.1" if family == 4 else "::1")


@contextmanager
def listener(family: int) -> Iterator[socket.socket]:
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    with socket.socket(kind, socket.SOCK_DGRAM) as opened:
        opened.bind((str(loopback(family)), 0))
        opened.settimeout(5)
        opened.setsockopt(socket.IPPROTO_IP if family == 4 else socket.IPPROTO_IPV6, 13 if family == 4 else 66, 1)
        yield opened


def free_port(family: int) -> int:
    with listener(family) as opened:
        return int(opened.getsockname()[1])


class Node:
    """A pod in memory and a vxlan port on loopback whose peer is `remote_port`."""

    def __init__(self, family: int, remote_port: int, *, mtu: int = 1450, source_ports: str = "hashed") -> None:
        here = loopback(family)
        self.plane = Plane(hash_key=KEY)
        self.pod = MemoryPort("pod", addresses=[POD], mtu=mtu)
        self.tunnel = Tunnel("vxlan", here, free_port(family), 42, mac=mac(1), source_ports=source_ports)  # type: ignore[arg-type]
        self.udp = UdpPort.open(self.tunnel)
        pod, tunnel = self.plane.attach(self.pod), self.plane.attach(self.udp)
        self.plane.set_route(ip_network(f"{POD}/32"), self.plane.set_adjacency(Deliver(pod, mtu)))
        out = Encapsulate(tunnel, 7, here, mtu, remote_port, mac(2))
        self.plane.set_route(ip_network("10.0.2.0/24"), self.plane.set_adjacency(out))
        self.plane.set_peers({here: 7})

    def send(self, *packets: bytes) -> None:
        self.pod.inject(packets)
        while self.plane.turn():
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        counters = self.plane.counters()
        self.udp.close()
        assert counters.received + counters.created == counters.sent + sum(counters.drops.values())


def packet(number: int, size: int = 50, sport: int = 40000) -> bytes:
    return ipv4(udp(POD, FAR, number.to_bytes(2) + bytes(size), sport=sport), source=POD, destination=FAR)


@pytest.mark.parametrize("family", [4, 6])
def test_a_run_leaves_in_one_send_and_arrives_as_single_datagrams(family: int) -> None:
    with listener(family) as far, Node(family, far.getsockname()[1]) as node:
        node.send(*[packet(i) for i in range(100)])
        got = [far.recv(65535) for _ in range(100)]
        assert [data[22 + 28 : 22 + 30] for data in got] == [i.to_bytes(2) for i in range(100)]
        assert node.plane.counters().events["train_sent"] == 1


@pytest.mark.parametrize("family", [4, 6])
def test_flows_leave_from_several_source_ports_and_each_from_one(family: int) -> None:
    with listener(family) as far, Node(family, far.getsockname()[1]) as node:
        seen: dict[bytes, set[int]] = {}
        for sport in range(1000, 1100):
            for number in range(2):
                node.send(packet(number, sport=sport))
                data, source = far.recvfrom(65535)
                seen.setdefault(data[42:44], set()).add(source[1])
        assert len(seen) == 100
        assert all(len(ports) == 1 for ports in seen.values())
        assert len(set.union(*seen.values())) == SOURCES


@pytest.mark.parametrize("family", [4, 6])
def test_what_one_source_port_sends_arrives_at_one_receiving_socket_and_all_are_used(family: int) -> None:
    """Each is some worker's, so that flows are spread over workers and none is reordered."""
    tunnel = Tunnel("vxlan", loopback(family), free_port(family), 42, mac=mac(1))
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    with UdpPort.open(tunnel, receivers=4) as port:
        for _ in range(64):
            with socket.socket(kind, socket.SOCK_DGRAM) as peer:
                peer.bind((str(loopback(family)), 0))
                for number in range(3):
                    peer.sendto(peer.getsockname()[1].to_bytes(2) + bytes([number]), (str(loopback(family)), tunnel.port))
        assert len(port.inputs) == 4
        got = [list(datagrams_at(fd)) for fd in port.inputs]
    assert sum(map(len, got)) == 64 * 3
    assert all(got), "a socket got nothing of 64 flows"
    for each in got:
        assert [data[2] for data in each] == [0, 1, 2] * (len(each) // 3)
        assert [data[:2] for data in each[::3]] == [data[:2] for data in each[2::3]]


def datagrams_at(descriptor: int) -> Iterator[bytes]:
    """What waits in a socket."""
    with suppress(BlockingIOError):
        while True:
            yield os.read(descriptor, 65535)


def test_nothing_waits_in_a_socket_before_all_are_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """What came before would be another worker's than what comes after: a flow in two queues."""
    tunnel = Tunnel("vxlan", loopback(4), free_port(4), 42, mac=mac(1))

    def bind_and_send(others, another, address):  # type: ignore[no-untyped-def]
        bind_beside(others, another, address)
        send_from_many_ports(b"early", address)

    monkeypatch.setattr("fastpath.port.udp.bind_beside", bind_and_send)
    with UdpPort.open(tunnel, receivers=3) as port:
        assert [data for fd in port.inputs for data in datagrams_at(fd)] == []
        send_from_many_ports(b"late", (str(tunnel.local), tunnel.port))
        assert [data for fd in port.inputs for data in datagrams_at(fd)] == [b"late"] * 64


def test_nobody_to_receive_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one socket"):
        UdpPort.open(Tunnel("vxlan", loopback(4), free_port(4), 42, mac=mac(1)), receivers=0)


@pytest.mark.parametrize("receivers", [1, 2])
def test_nobody_is_let_beside_the_receiving_sockets_unasked(receivers: int) -> None:
    tunnel = Tunnel("vxlan", loopback(4), free_port(4), 42, mac=mac(1))
    with UdpPort.open(tunnel, receivers=receivers):
        for others in (1, 2):
            with pytest.raises(OSError, match="in use") as raised:
                UdpPort.open(tunnel, receivers=others)
            assert raised.value.errno == errno.EADDRINUSE


def test_every_worker_receives_from_a_tunnel_and_none_once_it_is_detached() -> None:
    here = loopback(4)
    tunnel = Tunnel("vxlan", here, free_port(4), 42, mac=mac(1))
    plane = Plane(hash_key=KEY, workers=3)
    with UdpPort.open(tunnel, receivers=3) as port:
        number = plane.attach(port)
        plane.set_peers({here: 7})
        frame = reference.vxlan_frame(ipv4(udp(FAR, POD, bytes(60)), source=FAR, destination=POD), 42, mac(1), mac(2))
        send_from_many_ports(frame, (str(here), tunnel.port))
        plane.turn()
        assert plane.counters().events["wake"] == 3, "not every worker had something to receive"
        while plane.turn():
            pass
        assert plane.counters().received == 64
        plane.detach(number)
        send_from_many_ports(frame, (str(here), tunnel.port))
        assert plane.turn() == 0


def send_from_many_ports(data: bytes, address: tuple[str, int]) -> None:
    for _ in range(64):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.sendto(data, address)


def test_fixed_source_port_is_the_tunnels_own() -> None:
    with listener(4) as far, Node(4, far.getsockname()[1], source_ports="fixed") as node:
        node.send(packet(0))
        assert far.recvfrom(65535)[1][1] == node.tunnel.port


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("traffic_class", [0, 2, 0xB8])
def test_outer_class_is_on_the_wire(family: int, traffic_class: int) -> None:
    with listener(family) as far, Node(family, far.getsockname()[1]) as node:
        node.send(*[reference.set_class(packet(i), traffic_class) for i in range(3)])
        for _ in range(3):
            _, control, _, _ = far.recvmsg(65535, 128)
            assert [data[0] for _, _, data in control] == [traffic_class]


@pytest.mark.parametrize("family", [4, 6])
def test_what_a_peer_sends_reaches_the_pod_singly_or_merged(family: int) -> None:
    with listener(family) as far, Node(family, far.getsockname()[1]) as node:
        frames = [
            reference.vxlan_frame(ipv4(udp(FAR, POD, bytes([i]) * 60), source=FAR, destination=POD), 42, mac(1), mac(2))
            for i in range(20)
        ]
        far.setsockopt(17, 103, len(frames[0]))  # UDP_SEGMENT: one send, twenty datagrams
        far.sendto(b"".join(frames), (str(loopback(family)), node.tunnel.port))
        got: list[bytes] = []
        while len(got) < 20:
            assert node.plane.turn(), "the datagrams did not arrive"
            got += node.pod.drain()
        assert [data[28] for data in got] == list(range(20))


def test_sending_sockets_hear_nothing() -> None:
    with listener(4) as far, Node(4, far.getsockname()[1]) as node:
        node.send(packet(0))
        source = far.recvfrom(65535)[1]
        far.sendto(b"x" * 100, source)
        sender = socket.socket(fileno=os.dup(node.udp.senders[0]))
        with sender, pytest.raises(BlockingIOError):
            sender.recv(100)


def test_too_long_a_datagram_is_counted_and_reported() -> None:
    with listener(4) as far, Node(4, far.getsockname()[1], mtu=65535) as node:
        node.send(packet(0, size=65535 - 31))  # 22 more bytes of header do not fit a UDP datagram
        assert node.plane.counters().drops == {"tx_too_big": 1}
        assert node.plane.take_events() == [("path-mtu", 2)]
        assert node.plane.take_events() == []


def test_a_taken_port_is_an_error_and_nothing_stays_open() -> None:
    with listener(4) as taken:
        tunnel = Tunnel("vxlan", loopback(4), taken.getsockname()[1], 1)
        with pytest.raises(OSError, match="in use") as raised:
            UdpPort.open(tunnel)
        assert raised.value.errno == errno.EADDRINUSE
    with pytest.raises(OSError, match=r"[Cc]annot assign"):
        UdpPort.open(Tunnel("vxlan", ip_address("192.0.2.77"), 4789, 1))
