"""Against the kernel's own VXLAN device: both directions, all protocols, with and without offloads."""

from __future__ import annotations

import pytest

from engine.lab import Lab, Profile, add_pod, add_vxlan
from engine.lab.traffic import Responder, delivery, path_mtu, ping, tcp_echo, throughput, traceroute, udp_echo
from tests.e2e.conftest import told_apart
from tests.e2e.solo import Peer, Solo, derived_mac

KERNEL_MAC = "02:00:00:00:00:02"
FAMILIES = {4: ("10.244.1.2", "10.244.2.2"), 6: ("fd00:10:244:1::2", "fd00:10:244:2::2")}


@pytest.fixture(
    scope="module",
    params=[
        (4, Profile.DEFAULT, "towpath"),
        (4, Profile.NO_TUNNEL, "flannel"),
        (4, Profile.DUMB, "calico"),
        (6, Profile.DEFAULT, "calico"),
        pytest.param((6, Profile.NO_TUNNEL, "towpath"), marks=pytest.mark.slow),
        pytest.param((6, Profile.DUMB, "flannel"), marks=pytest.mark.slow),
    ],
    ids=lambda p: f"ipv{p[0]}-{p[1].value}-{p[2]}",
)
def mixed(request):
    """A towpath node and a kernel node, a pod on each: ours, theirs, the underlay's inner MTU."""
    underlay, profile, numbers = request.param
    addresses = ("192.0.2.1/24", "192.0.2.2/24") if underlay == 4 else ("2001:db8::1/64", "2001:db8::2/64")
    mtu = 1450 if underlay == 4 else 1430
    own_name = "node-a" if underlay == 4 else "node-a-v6"
    ours_mac = {"towpath": derived_mac(own_name), "calico": derived_mac(own_name), "flannel": "02:00:00:00:00:01"}[
        numbers
    ]
    mac_key = "mac" if underlay == 4 else "mac6"
    network = {"encapsulation": "vxlan", "profile": numbers}
    if numbers == "flannel":
        network |= {mac_key: ours_mac}
    with Lab("test") as lab:
        peer = Peer("kernel", (addresses[1],), ("10.244.2.0/24", "fd00:10:244:2::/64"), {mac_key: KERNEL_MAC})
        solo = Solo(lab, peers=[peer], network=network, underlay=(addresses[0],), profile=profile)
        vni, port = {"towpath": (1, 4789), "flannel": (1, 8472), "calico": (4096, 4789)}[numbers]
        local, remote = (text.split("/")[0] for text in reversed(addresses))
        device = add_vxlan(
            peer.host,
            vni=vni,
            port=port,
            local=local,
            mac=KERNEL_MAC,
            mtu=mtu,
            addresses=["10.244.2.0/32", "fd00:10:244:2::/128"],
        )
        device.peer(remote, mac=ours_mac, prefixes=["10.244.1.0/24", "fd00:10:244:1::/64"])
        theirs = add_pod(lab, peer.host, "theirs", [pair[1] for pair in FAMILIES.values()], mtu=mtu)
        with told_apart([solo.daemon]):
            solo.start()
            Responder(theirs)
            Responder(solo.pod)
            yield solo.pod, theirs, mtu


def directions(mixed):
    ours, theirs, _ = mixed
    for own, other in FAMILIES.values():
        yield ours, theirs, other
        yield theirs, ours, own


def test_icmp_and_udp_of_every_size(mixed):
    for source, _, target in directions(mixed):
        headers = 48 if ":" in target else 28
        for size in (0, 1, 500, mixed[2] - headers):
            assert ping(source, target, size=size, fragment=False).ok, (source.name, target, size)
            udp_echo(source, target, size=size)
        assert ping(source, target, size=5000).ok
        udp_echo(source, target, size=20_000, fragment=True)


def test_tcp_small_and_large(mixed):
    for source, _, target in directions(mixed):
        tcp_echo(source, target, sizes=(1, 100, 1400, 1_000_000))


def test_tcp_flows_at_speed(mixed):
    """A broken checksum or size leaves kilobits; the benchmark compares what is left."""
    for source, sink, target in directions(mixed):
        moved = throughput(source, sink, target, seconds=0.4, warm_up=0.2).gigabits
        assert moved > 0.1, (source.name, target, moved)


def test_datagrams_arrive_once_in_order_and_whole(mixed):
    for source, sink, target in directions(mixed):
        for size in (12, 1200):
            result = delivery(source, sink, target, count=1000, size=size)
            assert result.ok, (source.name, target, size, result)


def test_path_mtu_and_hops(mixed):
    ours, theirs, mtu = mixed
    for own, other in FAMILIES.values():
        assert path_mtu(ours, other) == path_mtu(theirs, own) == mtu
        assert [hop.arrived for hop in traceroute(ours, other)] == [False, False, True]
        assert [hop.arrived for hop in traceroute(theirs, own)] == [False, False, True]


@pytest.mark.needs("iperf3")
def test_iperf3_agrees_that_tcp_flows(mixed):
    """A sender and receiver that are not ours, with large sends and a real congestion control."""
    ours, theirs, _ = mixed
    server = theirs.start(["iperf3", "-s", "-1", "--forceflush"])
    server.expect("listening")
    client = ours.run(["iperf3", "-c", FAMILIES[4][1], "-n", "20M"])
    assert client.returncode == 0, client.stdout + client.stderr
