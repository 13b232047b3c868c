"""Every pair of pods, by every protocol and family, small and at the full MTU, in every encapsulation.

One cluster of two nodes with two pods each answers all questions about one way
of travelling, so that its cost is paid once; the demo's test has three nodes.
"""

from __future__ import annotations

import itertools
import re
from functools import partial

import pytest

from engine.lab import Profile, wait_until
from engine.lab.traffic import (
    Responder,
    delivery,
    path_mtu,
    ping,
    tcp_echo,
    throughput,
    traceroute,
    udp_echo,
)
from tests.e2e.conftest import running_cluster

OVERHEAD = {
    ("vxlan", 4): 50,
    ("vxlan", 6): 70,
    ("udp", 4): 28,
    ("udp", 6): 48,
    ("ipip", 4): 20,
    ("ipip", 6): 40,
    ("none", 4): 0,
    ("none", 6): 0,
}
ICMP_HEADERS = {4: 28, 6: 48}
LEAST_IPV6 = 1280


def plans():
    """Quick: each encapsulation over each underlay, the three MTUs dealt out; slow: all of them."""
    quick = {
        ("vxlan", 4, 1500),
        ("vxlan", 6, 9000),
        ("udp", 4, 9000),
        ("udp", 6, 1500),
        ("ipip", 4, 1280),
        ("ipip", 6, 1500),
        ("none", 4, 1500),
        ("none", 6, 1280),
    }
    for encapsulation, underlay, mtu in itertools.product(("vxlan", "udp", "ipip", "none"), (4, 6), (1280, 1500, 9000)):
        plan = (encapsulation, underlay, mtu)
        marks = () if plan in quick else pytest.mark.slow
        yield pytest.param(plan, marks=marks, id=f"{encapsulation}-ipv{underlay}-{mtu}")


@pytest.fixture(scope="module", params=plans())
def cluster(request):
    encapsulation, underlay, mtu = request.param
    inner_mtu = mtu - OVERHEAD[encapsulation, underlay]
    inner = (4, 6) if inner_mtu >= LEAST_IPV6 else (4,)
    # Bare packets need a router of their own family.
    families = (4, 6) if encapsulation == "none" and underlay == 4 else (underlay,)
    if encapsulation == "none" and underlay == 6:
        inner = (6,)
    with running_cluster(
        encapsulation=encapsulation, nodes=2, pods=2, underlay=families, inner=inner, mtu=mtu
    ) as cluster:
        for pod in cluster.pods:
            Responder(pod.host)
        cluster.inner_mtu = inner_mtu
        yield cluster


def pairs(cluster):
    """Source, target and family of every question."""
    for source, target in itertools.permutations(cluster.pods, 2):
        for family in cluster.plan.inner:
            yield source, target, family


def test_pods_get_the_mtu_that_the_path_leaves(cluster):
    for pod in cluster.pods:
        assert pod.host.interface("eth0").mtu == cluster.inner_mtu


def test_icmp(cluster):
    for source, target, family in pairs(cluster):
        address, full = target.addresses[family], cluster.inner_mtu - ICMP_HEADERS[family]
        for size in (0, 56, full):
            result = ping(source.host, address, size=size, fragment=False)
            assert result.ok, (source.name, target.name, family, size, result)


def test_icmp_fragments(cluster):
    for source, target, family in pairs(cluster):
        result = ping(source.host, target.addresses[family], size=3 * cluster.inner_mtu, count=2)
        assert result.ok, (source.name, target.name, family, result)


def test_tcp(cluster):
    for source, target, family in pairs(cluster):
        tcp_echo(source.host, target.addresses[family], sizes=(1, 100, cluster.inner_mtu, 200_000))


def test_udp(cluster):
    for source, target, family in pairs(cluster):
        full = cluster.inner_mtu - ICMP_HEADERS[family]
        for size in (0, 1, 64, full):
            udp_echo(source.host, target.addresses[family], size=size)


def test_datagrams_arrive_once_in_order_and_whole(cluster):
    source, target = cluster.nodes[0].pods[0], cluster.nodes[1].pods[0]
    for family in cluster.plan.inner:
        for size in (12, 700, cluster.inner_mtu - ICMP_HEADERS[family]):
            result = delivery(source.host, target.host, target.addresses[family], count=2000, size=size)
            assert result.ok, (family, size, result)


def test_bulk_transfer_moves(cluster):
    source, target = cluster.nodes[0].pods[0], cluster.nodes[1].pods[0]
    for family in cluster.plan.inner:
        for a, b in ((source, target), (target, source)):
            assert throughput(a.host, b.host, b.addresses[family], seconds=0.2, warm_up=0.1).gigabits > 0.02


def test_path_mtu(cluster):
    for source, target, family in pairs(cluster):
        assert path_mtu(source.host, target.addresses[family]) == cluster.inner_mtu


def test_too_big_is_refused_with_the_right_size(cluster):
    """A pod whose device has a larger MTU is told by the node, not by its own kernel."""
    source, target = cluster.nodes[0].pods[0], cluster.nodes[1].pods[0]
    device = source.host.interface("eth0")

    def refused(family):
        """By the node: it takes a device's MTU back when it sees the change, and then the pod's kernel refuses."""
        device.set(mtu=cluster.inner_mtu + 100)
        size = cluster.inner_mtu - ICMP_HEADERS[family] + 1
        result = ping(source.host, target.addresses[family], size=size, fragment=False)
        assert not result.ok
        (error,) = result.errors
        return None if error.local else error

    try:
        for family in cluster.plan.inner:
            error = wait_until(partial(refused, family), "the node to refuse what is too big")
            assert error.mtu == cluster.inner_mtu
            assert error.offender == gateway(cluster.nodes[0], family)
            assert (error.type, error.code) == ((3, 4) if family == 4 else (2, 0))
    finally:
        device.set(mtu=cluster.inner_mtu)


def test_nodes_are_hops(cluster):
    """Each node takes one from the TTL and names itself; between pods of one node there is one hop."""
    first, second = cluster.nodes
    for family in cluster.plan.inner:
        near = traceroute(first.pods[0].host, first.pods[1].addresses[family])
        assert [hop.address for hop in near] == [gateway(first, family), first.pods[1].addresses[family]]
        far = traceroute(first.pods[0].host, second.pods[0].addresses[family])
        assert far[0].address == gateway(first, family)
        assert far[-1].address == second.pods[0].addresses[family]
        assert far[-1].arrived


@pytest.mark.needs("tracepath", "traceroute", "ping")
def test_the_usual_programs_agree(cluster):
    source, target = cluster.nodes[0].pods[0], cluster.nodes[1].pods[0]
    for family in cluster.plan.inner:
        address = target.addresses[family]
        tracepath = source.host.run(["tracepath", "-n", address])
        assert re.search(rf"Resume: pmtu {cluster.inner_mtu}\b", tracepath.stdout), tracepath.stdout
        traced = source.host.run(["traceroute", "-n", "-q", "1", "-w", "1", address])
        assert traced.stdout.splitlines()[1].split()[1] == gateway(cluster.nodes[0], family)
        assert traced.stdout.splitlines()[-1].split()[1] == address
        size = str(cluster.inner_mtu - ICMP_HEADERS[family])
        assert source.host.run(["ping", "-c", "1", "-W", "1", "-M", "do", "-s", size, address]).returncode == 0


def test_unassigned_address_is_unreachable(cluster):
    """Both of our own node and of another: the answer is an ICMP error, not silence."""
    source = cluster.nodes[0].pods[0]
    for node in cluster.nodes:
        for family in cluster.plan.inner:
            nobody = f"10.244.{node.number}.99" if family == 4 else f"fd00:10:244:{node.number}::99"
            result = ping(source.host, nobody)
            assert result.errors, (node.name, family, result)


def gateway(node, family):
    return f"10.244.{node.number}.1" if family == 4 else f"fd00:10:244:{node.number}::1"


@pytest.mark.parametrize(
    "profile",
    [pytest.param(Profile.NO_TUNNEL, marks=pytest.mark.slow), Profile.DUMB],
    ids=lambda profile: profile.value,
)
@pytest.mark.parametrize("encapsulation", ["vxlan", "udp", "ipip", "none"])
def test_underlay_without_offloads(encapsulation, profile):
    with running_cluster(encapsulation=encapsulation, nodes=2, pods=1, profile=profile) as cluster:
        a, b = cluster.pods
        Responder(b.host)
        for address in b.addresses.values():
            tcp_echo(a.host, address, sizes=(1, 500_000))
            udp_echo(a.host, address, size=1300)
            assert throughput(a.host, b.host, address, seconds=0.3, warm_up=0.1).gigabits > 0.02
