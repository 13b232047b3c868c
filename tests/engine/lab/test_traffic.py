"""The traffic tools find what is there, and find fault where there is one."""

from __future__ import annotations

import errno
import socket
import struct
import subprocess
import threading
import time

import pytest

from engine.lab import Lab, Profile, add_pod, add_vxlan, wait_until
from engine.lab.traffic import (
    Beat,
    Responder,
    TrafficError,
    delivery,
    path_mtu,
    ping,
    tcp_echo,
    throughput,
    traceroute,
    udp_echo,
)
from engine.lab.traffic.datagrams import _judge

pytestmark = pytest.mark.root
V4, V6 = "10.2.0.5", "fd02::5"
ADDRESSES = pytest.mark.parametrize("address", [V4, V6])


SILENCE = """
table inet lab {
    chain output {
        type filter hook output priority 0
        icmp type destination-unreachable drop
    }
}
"""


@pytest.fixture(scope="module")
def overlay():
    """Two kernel nodes joined by kernel VXLAN, a pod on each; pod MTU 1500 over a path of 1450."""
    with Lab("test") as lab:
        yield build_overlay(lab)


def build_overlay(lab, profile=Profile.DEFAULT):
    switch = lab.switch()
    pods, devices = [], []
    for i in (1, 2):
        node = lab.host(f"node{i}").forward()
        switch.join(node, addresses=[f"192.0.2.{i}/24"], profile=profile)
        device = add_vxlan(
            node,
            vni=1,
            port=8472,
            local=f"192.0.2.{i}",
            mac=f"02:00:00:00:00:0{i}",
            mtu=1450,
            addresses=[f"10.{i}.0.0/32", f"fd0{i}::/128"],
        )
        devices.append(device)
        pods.append(add_pod(lab, node, f"pod{i}", [f"10.{i}.0.5", f"fd0{i}::5"], mtu=1500))
    devices[0].peer("192.0.2.2", mac="02:00:00:00:00:02", prefixes=["10.2.0.0/24", "fd02::/64"])
    devices[1].peer("192.0.2.1", mac="02:00:00:00:00:01", prefixes=["10.1.0.0/24", "fd01::/64"])
    Responder(pods[1])
    return pods[0], pods[1], lab


@ADDRESSES
def test_ping_counts_and_times(overlay, address):
    a, _, _ = overlay
    result = ping(a, address, count=5, size=1000)
    assert result.ok
    assert (result.sent, result.received, result.lost) == (5, 5, 0)
    assert 0 < result.median_ms < 1000


@pytest.mark.parametrize(("address", "silent"), [("10.2.0.9", "192.0.2.77"), ("fd02::9", "2001:db8::77")])
def test_ping_reports_loss_and_the_reason_given(overlay, address, silent):
    a, _, _ = overlay
    unreachable = ping(a, address, seconds=3)
    assert unreachable.lost == 1
    assert unreachable.errors[0].errno in {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES}
    assert ping(a, silent, seconds=0.2).lost == 1


@ADDRESSES
def test_echo_compares_every_byte(overlay, address):
    a, _, _ = overlay
    assert tcp_echo(a, address, sizes=(1, 1400, 100_000)) > 0
    assert udp_echo(a, address, size=1) > 0
    assert udp_echo(a, address, size=1300) > 0


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_echo_notices_a_flipped_bit(overlay, protocol):
    a, b, _ = overlay
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with b.socket(socket.AF_INET, kind) as liar:
        liar.bind((V4, 0))
        if protocol == "tcp":
            liar.listen()  # before anybody calls
        port = liar.getsockname()[1]
        thread = threading.Thread(target=_lie, args=(liar, kind))
        thread.start()
        ask = tcp_echo if protocol == "tcp" else udp_echo
        sizes = {"sizes": (64,)} if protocol == "tcp" else {"size": 64}
        with pytest.raises(TrafficError, match="changed"):
            ask(a, V4, port=port, **sizes)
        thread.join()


def _lie(liar, kind):
    if kind == socket.SOCK_STREAM:
        connection, _ = liar.accept()
        with connection:
            data = connection.recv(100)
            connection.sendall(bytes([data[0] ^ 1]) + data[1:])
    else:
        data, sender = liar.recvfrom(100)
        liar.sendto(bytes([data[0] ^ 1]) + data[1:], sender)


@ADDRESSES
def test_echo_says_who_refused(overlay, address):
    a, _, _ = overlay
    with pytest.raises(TrafficError, match=f"refused.*by {address}"):
        udp_echo(a, address, port=9)
    with pytest.raises(TrafficError, match="refused"):
        tcp_echo(a, address, port=9)


@ADDRESSES
def test_path_mtu_is_what_the_tunnel_leaves(overlay, address):
    a, _, _ = overlay
    assert path_mtu(a, address) == 1450


@pytest.mark.needs("nft")
def test_path_mtu_refuses_a_black_hole(overlay):
    a, b, lab = overlay
    node = lab["node2"]
    node.run(["ip", "link", "set", "pod-pod2", "mtu", "1300"])
    b.run(["ip", "link", "set", "eth0", "mtu", "1300"])
    assert node.call(lambda: subprocess.run(["nft", "-f", "-"], input=SILENCE, text=True, check=False)).returncode == 0
    try:
        with pytest.raises(TrafficError, match="vanish"):
            path_mtu(a, V4, seconds=0.2)
    finally:
        node.run(["nft", "flush", "ruleset"])
        node.run(["ip", "link", "set", "pod-pod2", "mtu", "1500"])
        b.run(["ip", "link", "set", "eth0", "mtu", "1500"])


@pytest.mark.parametrize(("address", "hops"), [(V4, ["169.254.1.1", "10.2.0.0", V4]), (V6, ["fd01::", "fd02::", V6])])
def test_traceroute_names_the_routers(overlay, address, hops):
    a, _, _ = overlay
    found = traceroute(a, address)
    assert [hop.address for hop in found] == hops
    assert [hop.arrived for hop in found] == [False, False, True]


@ADDRESSES
def test_delivery_of_a_good_path(overlay, address):
    a, b, _ = overlay
    result = delivery(a, b, address, count=500, size=1200)
    assert result.ok, result


def test_delivery_tells_faults_apart():
    result = _judge(6, [0, 2, 1, 1, -1, 4])
    assert (result.lost, result.duplicated, result.reordered, result.corrupted) == (2, 1, 1, 1)
    assert not result.ok


@ADDRESSES
def test_throughput_counts_what_arrived(overlay, address):
    a, b, _ = overlay
    before = b.interface("eth0").statistics["rx_bytes"]
    result = throughput(a, b, address, seconds=0.5, warm_up=0.1, streams=2)
    received = b.interface("eth0").statistics["rx_bytes"] - before
    assert result.gigabits > 0.1
    assert result.received <= received


def test_throughput_of_nobody_is_an_error(overlay):
    a, b, lab = overlay
    lab["node1"].interface("vxlan0").set(state="down")
    try:
        with pytest.raises(TrafficError):
            throughput(a, b, V4, seconds=0.1)
    finally:
        lab["node1"].interface("vxlan0").set(state="up")


@pytest.mark.needs("tshark")
def test_capture_is_complete_and_readable(tmp_path):
    with Lab("test") as lab:
        a, _, _ = build_overlay(lab, Profile.DUMB)
        path = tmp_path / "underlay.pcap"
        with lab["node2"].interface("eth0").capture(path) as capture:
            assert ping(a, V4, count=20).ok
            assert udp_echo(a, V6) > 0
            assert tcp_echo(a, V4, sizes=(500,)) > 0
        assert capture.lost == 0
        tunnelled = [f for f in capture.frames if f.data[12:14] == b"\x08\x00" and f.data[23] == 17]
        assert {struct.unpack("!H", f.data[36:38])[0] for f in tunnelled} == {8472}
        assert sum(f.outgoing for f in tunnelled) >= 22
        decoded = subprocess.run(
            [
                "tshark",
                "-r",
                path,
                "-d",
                "udp.port==8472,vxlan",
                "-Y",
                "vxlan && icmp",
                "-T",
                "fields",
                "-e",
                "vxlan.vni",
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        assert decoded.stdout.split() == ["1"] * 40


@pytest.mark.alone
def test_a_steady_beat_counts_what_is_lost_and_for_how_long_nothing_came(overlay):
    a, b, lab = overlay
    with Beat(b, a, "10.1.0.5", hertz=1000) as beat:
        time.sleep(0.3)
        lab["node2"].sysctl("net/ipv4/ip_forward", 0)
        began = time.monotonic()
        time.sleep(0.2)
        lab["node2"].sysctl("net/ipv4/ip_forward", 1)
        beat.wait_for_one_sent_after(began)
        time.sleep(0.2)
    assert beat.hertz == pytest.approx(1000, rel=0.02)
    assert beat.sent - beat.received == beat.lost > 100
    assert 0.15 < beat.silence_after(began) <= beat.longest_gap
    assert beat.silence_after(began + 10) == 0


@pytest.mark.alone
def test_a_beat_over_a_good_path_loses_nothing(overlay):
    a, b, _ = overlay
    with Beat(b, a, "fd01::5", hertz=2000) as beat:
        wait_until(lambda: beat.received > 600, "datagrams to arrive")
    assert (beat.lost, beat.hertz) == (0, pytest.approx(2000, rel=0.05))
