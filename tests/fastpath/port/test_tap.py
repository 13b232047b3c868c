"""The shortcut: frames as the underlay's device gets them, seen at the other end of a socket pair."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any, NamedTuple

import pytest

from fastpath import reference
from fastpath.plane import Plane
from fastpath.port.memory import MemoryPort, Super
from fastpath.port.tap import Tap
from fastpath.port.udp import UdpPort
from fastpath.values import Address, Deliver, Encapsulate, Shortcut, Tunnel
from tests.fastpath.network import KEY, mac
from tests.fastpath.packets import ipv4, ipv6, tcp, udp
from tests.fastpath.port.test_udp import free_port, listener, loopback

MTU, MSS = 1450, 1000
PODS: dict[int, tuple[Address, Address]] = {
    4: (IPv4Address("10.0.1.2"), IPv4Address("10.0.2.2")),
    6: (IPv6Address("fd00:1::2"), IPv6Address("fd00:2::2")),
}
FAR_LINK, OWN_LINK = mac(0x22), mac(0x11)
FAMILIES = [(outer, inner) for outer in (4, 6) for inner in (4, 6)]


class Frame(NamedTuple):
    """What was written to the device, taken apart."""

    flags: int
    gso_type: int
    header_bytes: int
    gso_size: int
    checksum_start: int
    checksum_offset: int
    outer_transport: int
    inner_network: int
    ethernet: bytes
    ip: bytes
    udp: bytes
    vxlan: bytes
    inner: bytes


def taken_apart(data: bytes) -> Frame:
    flags, kind, length, size, start, offset = struct.unpack_from("<BBHHHH", data)
    outer_transport, inner_network = struct.unpack_from("<HH", data, 20)
    assert not any(data[10:20])
    frame = data[24:]
    ip = 20 if frame[14] >> 4 == 4 else 40
    udp_at = 14 + ip
    parts = frame[:14], frame[14:udp_at], frame[udp_at : udp_at + 8], frame[udp_at + 8 : udp_at + 30], frame[udp_at + 30 :]
    return Frame(flags, kind, length, size, start, offset, outer_transport, inner_network, *parts)


class Node:
    """A pod in memory, a vxlan port on loopback with peer `remote_port`, and a shortcut into `tap`."""

    def __init__(self, outer: int, remote_port: int, tap: int | None, **kind: Any) -> None:
        self.here = loopback(outer)
        self.plane = Plane(hash_key=KEY)
        self.pod = MemoryPort("pod", addresses=[own for own, _ in PODS.values()], mtu=MTU, super_packets=True)
        self.tunnel = Tunnel("vxlan", self.here, free_port(outer), 42, mac=mac(1))
        self.udp = UdpPort.open(self.tunnel)
        pod, tunnel = self.plane.attach(self.pod), self.plane.attach(self.udp)
        shortcut = None if tap is None else Shortcut(tap, FAR_LINK, OWN_LINK, **kind)
        out = self.plane.set_adjacency(Encapsulate(tunnel, 7, self.here, MTU, remote_port, mac(2), shortcut))
        back = self.plane.set_adjacency(Deliver(pod, MTU))
        for own, far in PODS.values():
            self.plane.set_route(ip_network(own), back)
            self.plane.set_route(ip_network(far), out)

    def send(self, *packets: bytes | Super) -> None:
        self.pod.inject(packets)
        while self.plane.turn():
            pass

    @property
    def events(self) -> Any:
        return self.plane.counters().events


@contextmanager
def node(
    outer: int, *, shortcut: bool = True, tap: int | None = None, **kind: Any
) -> Iterator[tuple[Node, socket.socket, socket.socket]]:
    """The node, what comes out of its device, and what comes to its peer's socket. Packets are accounted for."""
    ours, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    with ours, device, listener(outer) as far:
        far.setblocking(False)
        for end in (ours, device):
            end.setsockopt(socket.SOL_SOCKET, 32, 1 << 20)  # SO_SNDBUFFORCE needs root, a frame of 64 kB needs it
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        fd = tap if tap is not None else ours.fileno()
        one = Node(outer, far.getsockname()[1], fd if shortcut else None, **kind)
        try:
            yield one, device, far
            counters = one.plane.counters()
            assert counters.received + counters.created == counters.sent + sum(counters.drops.values())
        finally:
            one.udp.close()


def inner_tcp(inner: int, payload: bytes, *, pending: bool, flags: int = 0x10, sport: int = 40000, seq: int = 1) -> bytes:
    own, far = PODS[inner]
    body = tcp(own, far, payload, flags=flags, sport=sport, seq=seq)
    if pending:
        pseudo = reference.ones_sum(reference.pseudo_header(own, far, reference.TCP, len(body)))
        body = body[:16] + pseudo.to_bytes(2) + body[18:]
    if inner == 4:
        return ipv4(body, reference.TCP, source=own, destination=far, fragment=0x4000)
    return ipv6(body, reference.TCP, source=own, destination=far)


def super_tcp(inner: int, payload: bytes, **fields: Any) -> Super:
    data = inner_tcp(inner, payload, pending=True, **fields)
    return Super(data, 1 if inner == 4 else 4, MSS, 20 if inner == 4 else 40, 16, needs_checksum=True)


def drained(opened: socket.socket) -> list[bytes]:
    found = []
    while True:
        try:
            found.append(opened.recv(70_000))
        except BlockingIOError:
            return found


@pytest.mark.parametrize(("outer", "inner"), FAMILIES)
def test_a_super_packet_is_one_frame_that_says_how_to_cut_it(outer: int, inner: int) -> None:
    payload = bytes(range(256)) * 100
    whole = super_tcp(inner, payload)
    with node(outer) as (one, device, far):
        one.send(whole)
        (data,) = drained(device)
        assert drained(far) == []
        remote_port = far.getsockname()[1]
        assert one.events["shortcut_sent"] == 1
        assert "super_split" not in one.events
    frame = taken_apart(data)
    ip, network = (20, 40)[outer == 6], (20, 40)[inner == 6]
    assert frame.flags == (1 if outer == 4 else 9)
    assert frame.gso_type == (1 if inner == 4 else 4) | (0x20 if outer == 4 else 0x40)
    assert frame.outer_transport == 14 + ip
    assert frame.inner_network == 14 + ip + 8 + 22
    assert frame.header_bytes == frame.inner_network + network + 20
    assert (frame.gso_size, frame.checksum_start, frame.checksum_offset) == (MSS, frame.inner_network + network, 16)
    assert frame.ethernet == FAR_LINK + OWN_LINK + (b"\x08\x00" if outer == 4 else b"\x86\xdd")
    assert frame.inner[network:] == whole.data[network:]
    assert len(frame.inner) == len(whole.data)
    source, destination, length, check = struct.unpack("!HHHH", frame.udp)
    assert (source in one.udp.source_ports, destination, length) == (True, remote_port, 8 + 22 + len(whole.data))
    if outer == 4:
        assert reference.ones_sum(frame.ip) == 0xFFFF
        assert (int.from_bytes(frame.ip[2:4]), frame.ip[6:8], check) == (20 + length, b"\x40\x00", 0)
    else:
        pseudo = reference.pseudo_header(one.here, one.here, reference.UDP, length)
        assert (int.from_bytes(frame.ip[4:6]), check) == (length, reference.ones_sum(pseudo))


@pytest.mark.parametrize(("outer", "inner"), FAMILIES)
def test_cut_as_it_says_a_frame_is_what_the_sockets_send(outer: int, inner: int) -> None:
    """Byte for byte, from the VXLAN header on, and by the same source port."""
    whole = super_tcp(inner, os.urandom(25_700))
    with node(outer, shortcut=False) as (one, _, far):
        one.send(whole)
        first, source = far.recvfrom(70_000)
        datagrams = [first, *drained(far)]
        sender, expected = one.udp.source_ports.index(source[1]), one.plane.counters()
    with node(outer) as (two, device, _):
        two.send(whole)
        (data,) = drained(device)
        frame, found = taken_apart(data), two.plane.counters()
        assert int.from_bytes(frame.udp[:2]) == two.udp.source_ports[sender]
    assert found.sent == expected.sent == len(datagrams)
    assert found.ports[1].sent_bytes == expected.ports[1].sent_bytes == sum(map(len, datagrams))
    offload = reference.Offload(frame.gso_type & 7, MSS, (frame.checksum_start - frame.inner_network, 16))
    assert [frame.vxlan + piece for piece in reference.split(reference.parse(frame.inner, offload))] == datagrams


@pytest.mark.parametrize(("outer", "inner"), FAMILIES)
@pytest.mark.parametrize("pending", [True, False])
def test_a_small_packet_has_at_most_one_pending_checksum(outer: int, inner: int, pending: bool) -> None:
    data = inner_tcp(inner, b"hello", pending=pending)
    network = 20 if inner == 4 else 40
    with node(outer) as (one, device, far):
        one.send(Super(data, 0, 0, network, 16, needs_checksum=True) if pending else data)
        (got,) = drained(device)
        assert drained(far) == []
    frame = taken_apart(got)
    right = inner_tcp(inner, b"hello", pending=False)[network:]
    assert (frame.gso_type, frame.gso_size) == (0, 0)
    if outer == 4:
        assert frame.flags == (1 if pending else 0)
        assert frame.inner[network:] == data[network:]
        assert frame.checksum_start == (14 + 20 + 8 + 22 + network if pending else 0)
    else:
        assert (frame.flags, frame.checksum_start, frame.checksum_offset) == (1, 54, 6)
        assert frame.inner[network:] == right
        finished = frame.udp[:6] + b"\0\0" + frame.vxlan + frame.inner
        assert int.from_bytes(frame.udp[6:]) == reference.ones_sum(
            reference.pseudo_header(one.here, one.here, reference.UDP, len(finished))
        )


@pytest.mark.parametrize("outer", [4, 6])
def test_the_outer_class_is_the_inner_one(outer: int) -> None:
    with node(outer) as (one, device, _):
        one.send(reference.set_class(inner_tcp(4, b"x", pending=False), 0xB9))
        ip = taken_apart(drained(device)[0]).ip
    assert (ip[1] if outer == 4 else int.from_bytes(ip[:2]) >> 4 & 0xFF) == 0xB9


def test_all_of_a_connection_goes_one_way_and_in_order() -> None:
    """Openings, data of every size, acknowledgements and the end: nothing of it can overtake by the sockets."""
    sizes = [0, 30_000, 0, 17, 1390, 0, 52_000, 0]
    flags = [0x02, 0x10, 0x10, 0x18, 0x10, 0x10, 0x18, 0x11]
    packets: list[bytes | Super] = []
    for number, (size, flag) in enumerate(zip(sizes, flags, strict=True)):
        make = super_tcp if size > MSS + 400 else lambda *a, **k: inner_tcp(*a, pending=False, **k)
        packets.append(make(4, bytes(size), flags=flag, seq=number + 1))
    with node(4) as (one, device, far):
        one.send(*packets)
        frames = [taken_apart(data) for data in drained(device)]
        assert drained(far) == []
    assert [int.from_bytes(frame.inner[24:28]) for frame in frames] == list(range(1, len(sizes) + 1))
    assert len({frame.udp[:2] for frame in frames}) == 1


def test_what_is_no_tcp_stays_with_the_sockets() -> None:
    own, far_pod = PODS[4]
    datagram = ipv4(udp(own, far_pod, b"x" * 50), source=own, destination=far_pod)
    whole = inner_tcp(4, bytes(4000), pending=False)
    fragments = reference.fragments(whole[:6] + b"\0\0" + whole[8:], MTU)
    fragments = [reference.seal_ipv4(piece) for piece in fragments]
    with node(4) as (one, device, far):
        one.send(datagram, *fragments)
        assert drained(device) == []
        assert sorted(data[22 + 9] for data in drained(far)) == [6, 6, 6, 17]


def test_a_super_packet_too_long_for_its_headers_is_cut() -> None:
    with node(4) as (one, device, far):
        one.send(super_tcp(4, bytes(65_535 - 40)))
        assert drained(device) == []
        assert sum(len(data) - 22 - 40 for data in drained(far)) == 65_535 - 40


def test_what_the_device_refuses_goes_through_a_socket() -> None:
    read_only = os.open("/dev/null", os.O_RDONLY)
    try:
        with node(4, tap=read_only) as (one, _, far):
            one.send(super_tcp(4, bytes(5000)), inner_tcp(4, b"x", pending=False, seq=5001))
            got = drained(far)
            assert [len(data) - 22 - 40 for data in got] == [1000] * 5 + [1]
            assert one.events["shortcut_refused"] == 2
            assert one.plane.take_events() == [("shortcut", 1)]
            assert "shortcut_sent" not in one.events
    finally:
        os.close(read_only)


@pytest.mark.root
@pytest.mark.parametrize("breaking", [["delete"], ["set", "down"]])
def test_a_device_that_breaks_loses_nothing_and_is_told(breaking: list[str]) -> None:
    tap = Tap.open()
    try:
        assert not tap.takes_frames, "it is not up yet"
        subprocess.run(["ip", "link", "set", tap.name, "up"], check=True)
        assert tap.takes_frames
        with node(4, tap=tap.fd) as (one, _, far):
            one.send(inner_tcp(4, b"x", pending=False, seq=1))
            assert (one.events["shortcut_sent"], drained(far), one.plane.take_events()) == (1, [], [])
            subprocess.run(["ip", "link", breaking[0], tap.name, *breaking[1:]], check=True)
            assert not tap.takes_frames
            one.send(super_tcp(4, bytes(5000)), inner_tcp(4, b"x", pending=False, seq=5001))
            assert [len(data) - 22 - 40 for data in drained(far)] == [1000] * 5 + [1]
            assert (one.events["shortcut_refused"], one.plane.counters().drops) == (2, {})
            assert one.plane.take_events() == [("shortcut", 1)], "once"
    finally:
        tap.close()


def test_a_full_device_is_a_counted_drop() -> None:
    with node(4) as (one, device, far):
        for _ in range(100):
            one.send(super_tcp(4, bytes(50_000)))
        counters = one.plane.counters()
        kept = len(drained(device))
        assert 0 < kept < 100
        assert counters.drops == {"tx_full": (100 - kept) * 50}
        assert drained(far) == []


def datagrams_of(frame: Frame) -> list[bytes]:
    """Cut as the frame of a train says, behind the outer headers."""
    whole = frame.vxlan + frame.inner
    size = frame.gso_size or len(whole)
    return [whole[at : at + size] for at in range(0, len(whole), size)]


@pytest.mark.parametrize(("outer", "inner"), FAMILIES)
@pytest.mark.parametrize("size", [25_700, 700])
def test_a_train_is_one_frame_of_the_datagrams_that_the_sockets_send(outer: int, inner: int, size: int) -> None:
    """Of a super-packet, and of one packet; the outer checksum is pending as it is for any sender of UDP."""
    payload = os.urandom(size)
    sent = super_tcp(inner, payload) if size > MSS else inner_tcp(inner, payload, pending=False)
    with node(outer, shortcut=False) as (one, _, far):
        one.send(sent)
        first, source = far.recvfrom(70_000)
        expected = [first, *drained(far)]
        sender, counted = one.udp.source_ports.index(source[1]), one.plane.counters()
    with node(outer, cuts=False) as (two, device, far):
        two.send(sent)
        (data,) = drained(device)
        assert drained(far) == []
        frame, found = taken_apart(data), two.plane.counters()
        assert (found.sent, found.ports[1].sent_bytes) == (counted.sent, counted.ports[1].sent_bytes)
        assert two.events["shortcut_sent"] == 1
    assert datagrams_of(frame) == expected
    ip, length = (20, 40)[outer == 6], 8 + sum(map(len, expected))
    assert (frame.flags, frame.checksum_start, frame.checksum_offset) == (1, 14 + ip, 6)
    assert (frame.gso_type, frame.header_bytes) == ((5, 14 + ip + 8) if size > MSS else (0, 0))
    assert frame.ethernet == FAR_LINK + OWN_LINK + (b"\x08\x00" if outer == 4 else b"\x86\xdd")
    pseudo = reference.ones_sum(reference.pseudo_header(two.here, two.here, reference.UDP, length))
    assert struct.unpack("!H2xHH", frame.udp) == (two.udp.source_ports[sender], length, pseudo)
    assert int.from_bytes(frame.ip[2:4] if outer == 4 else frame.ip[4:6]) == length + (20 if outer == 4 else 0)
    assert outer == 6 or reference.ones_sum(frame.ip) == 0xFFFF


def test_everything_goes_past_the_sockets_in_trains() -> None:
    """Datagrams, fragments and TCP, the outer class with them: nothing of a flow can overtake by a socket."""
    own, far_pod = PODS[4]
    datagram = ipv4(udp(own, far_pod, b"x" * 50), source=own, destination=far_pod)
    marked = reference.set_class(inner_tcp(4, b"x", pending=False), 0xB9)
    with node(4, cuts=False) as (one, device, far):
        one.send(datagram, datagram, marked, *reference.fragments(inner_tcp(4, bytes(4000), pending=False), MTU))
        frames = [taken_apart(data) for data in drained(device)]
        assert drained(far) == []
    carried = [data[22:] for frame in frames for data in datagrams_of(frame)]
    assert sorted(data[9] for data in carried) == [6, 6, 6, 6, 17, 17]
    assert sorted({frame.ip[1] for frame in frames}) == [0, 0xB9]


def test_a_train_that_the_device_refuses_goes_through_a_socket() -> None:
    read_only = os.open("/dev/null", os.O_RDONLY)
    try:
        with node(4, tap=read_only, cuts=False) as (one, _, far):
            one.send(super_tcp(4, bytes(5000)), inner_tcp(4, b"x", pending=False, seq=5001))
            assert [len(data) - 22 - 40 for data in drained(far)] == [1000] * 5 + [1]
            assert (one.events["shortcut_refused"], one.plane.counters().drops) == (2, {})
            assert one.plane.take_events() == [("shortcut", 1)]
    finally:
        os.close(read_only)


def test_trains_into_a_full_device_are_counted_drops() -> None:
    with node(4, cuts=False) as (one, device, far):
        for _ in range(100):
            one.send(super_tcp(4, bytes(50_000)))
        kept = len(drained(device))
        assert 0 < kept < 100
        assert one.plane.counters().drops == {"tx_full": (100 - kept) * 50}
        assert drained(far) == []


@pytest.mark.parametrize("cuts", [True, False])
@pytest.mark.parametrize("outer", [4, 6])
def test_what_is_longer_than_the_device_sends_goes_through_a_socket(outer: int, cuts: bool) -> None:
    """A socket says that it does not fit; the device would drop it, or each segment, and say nothing."""
    headers = (20 if outer == 4 else 40) + 8 + 22 + 40
    single, segments = inner_tcp(4, bytes(1001), pending=False), super_tcp(4, bytes(5000), seq=1002)
    with node(outer, cuts=cuts, mtu=headers + MSS) as (one, device, far):
        one.send(segments)
        assert (len(drained(device)), drained(far)) == (1, [])
        one.send(single)
        assert ([len(data) for data in drained(far)], drained(device)) == ([22 + 40 + 1001], [])
    with node(outer, cuts=cuts, mtu=headers + MSS - 1) as (one, device, far):
        one.send(segments)
        assert (len(drained(far)), drained(device)) == (5, [])


def test_a_shortcut_that_cannot_be_is_refused() -> None:
    with node(4) as (one, _, _):
        for wrong in (
            Shortcut(-1, FAR_LINK, OWN_LINK),
            Shortcut(3, b"12345", OWN_LINK),
            Shortcut(3, FAR_LINK, b""),
            Shortcut(3, FAR_LINK, OWN_LINK, mtu=67),
        ):
            with pytest.raises(ValueError, match="descriptor|MAC|mtu"):
                one.plane.set_adjacency(Encapsulate(1, 7, one.here, MTU, 4789, mac(2), wrong))
        other = UdpPort.open(Tunnel("udp", one.here, free_port(4)))
        with other, pytest.raises(ValueError, match="VXLAN"):
            number = one.plane.attach(other)
            one.plane.set_adjacency(
                Encapsulate(number, 7, one.here, MTU, 4789, mac(2), Shortcut(3, FAR_LINK, OWN_LINK))
            )
