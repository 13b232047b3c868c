"""The way past the sockets between real daemons: what goes by it, what ends it, and what it leaves behind."""

from __future__ import annotations

import itertools
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN

from engine.lab import Profile, wait_until
from engine.lab.traffic import Responder, ping, tcp_echo, udp_echo
from tests.e2e.conftest import running_cluster

SEGMENTATION = "tx-udp_tnl-segmentation"


def answering(cluster):
    for pod in cluster.pods:
        Responder(pod.host)
    return cluster


@pytest.fixture
def cluster():
    """Two nodes over IPv4, a pod each, on an underlay that takes tunnelled super-packets."""
    with running_cluster(nodes=2, pods=1, underlay=(4,)) as cluster:
        yield answering(cluster)


def events(node):
    return node.daemon.ask("counters")["events"]


def shortcut(node):
    """What status says of it, of the one tunnel."""
    (text,) = [port["shortcut"] for port in node.daemon.ask("status")["ports"] if port["kind"] == "tunnel"]
    return text


def devices(node):
    return [name for name in node.host.interfaces() if name.startswith("towpath-to")]


def indexes(node):
    """Of the devices: one that is made anew has another."""
    links = json.loads(node.host.run(["ip", "-json", "link"]).stdout)
    return [link["ifindex"] for link in links if link["ifname"].startswith("towpath-to")]


def exchange(cluster, size=300_000):
    """Bytes there and back, each family; the events of the first node that this caused."""
    (node, other), before = cluster.nodes, events(cluster.nodes[0])
    for address in other.pods[0].addresses.values():
        tcp_echo(node.pods[0].host, address, sizes=(1, 1000, size))
    after = events(node)
    return {name: after.get(name, 0) - before.get(name, 0) for name in ("shortcut_sent", "shortcut_refused", "super_split")}


def has_shortcut(node):
    return lambda: shortcut(node).startswith("TCP whole through eth0")


def until_whole(cluster):
    """Sending makes the kernel find the neighbour, which makes the shortcut."""
    exchange(cluster, size=10)
    wait_until(has_shortcut(cluster.nodes[0]), "the shortcut to be there")


def goes_whole(cluster):
    found = exchange(cluster)
    return found["shortcut_sent"] > 20 and found["super_split"] == found["shortcut_refused"] == 0


def until_trains(cluster):
    node = cluster.nodes[0]
    exchange(cluster, size=10)
    wait_until(lambda: shortcut(node).startswith("trains of datagrams straight through eth0"), "the shortcut to be there")


def goes_in_trains(cluster):
    found = exchange(cluster)
    return found["shortcut_sent"] > 20 and found["super_split"] > 0 and found["shortcut_refused"] == 0


@pytest.mark.parametrize("underlay", [4, 6])
def test_a_card_that_does_nothing_itself_gets_trains(underlay):
    """The kernel cuts and sums them; all that the pods send arrives."""
    with running_cluster(nodes=2, pods=1, underlay=(underlay,), profile=Profile.DUMB) as cluster:
        answering(cluster)
        until_trains(cluster)
        assert goes_in_trains(cluster)
        node, other = cluster.nodes
        assert shortcut(node) == "trains of datagrams straight through eth0 to 1 of 1 peers"
        for address in other.pods[0].addresses.values():
            assert ping(node.pods[0].host, address).ok
            udp_echo(node.pods[0].host, address, size=1200)
        assert node.daemon.ask("status")["problems"] == []


@pytest.mark.parametrize("underlay", [4, 6])
def test_super_packets_arrive_as_they_were_sent(underlay):
    with running_cluster(nodes=2, pods=1, underlay=(underlay,)) as cluster:
        answering(cluster)
        until_whole(cluster)
        assert goes_whole(cluster)
        node, other = cluster.nodes
        assert shortcut(node) == "TCP whole through eth0 to 1 of 1 peers"
        assert "TCP whole through eth0" in node.daemon.command("status").stdout
        for address in other.pods[0].addresses.values():
            assert ping(node.pods[0].host, address).ok
            udp_echo(node.pods[0].host, address, size=1200)
        assert node.daemon.ask("status")["problems"] == []


def test_no_packet_of_a_connection_overtakes_another(cluster):
    until_whole(cluster)
    node, other = cluster.nodes
    with other.host.interface("eth0").capture() as capture:
        exchange(cluster, 2_000_000)
        frames = capture.stop()
    sequences: dict[tuple[int, int], list[int]] = {}
    for frame in frames:
        outer = Ether(frame.data)
        inner = VXLAN(bytes(outer[UDP].payload)) if UDP in outer and outer[UDP].dport == 4789 else None
        if inner is not None and TCP in inner and IP in inner and inner[IP].src == node.pods[0].addresses[4]:
            tcp = inner[TCP]
            sequences.setdefault((tcp.sport, tcp.dport), []).append(tcp.seq)
    assert sum(map(len, sequences.values())) > 30
    for numbers in sequences.values():
        assert all((after - before) % 2**32 < 2**31 for before, after in itertools.pairwise(numbers))


def test_an_underlay_that_does_not_segment_tunnels_is_left_to_the_sockets():
    with running_cluster(nodes=2, pods=1, underlay=(4,), profile=Profile.NO_TUNNEL) as cluster:
        answering(cluster)
        assert exchange(cluster)["super_split"] > 0
        node = cluster.nodes[0]
        assert shortcut(node) == "through sockets: eth0 does not segment tunnels"
        assert devices(node) == []
        cluster.configure(node, offload="tap")
        node.daemon.reload()
        until_trains(cluster)
        assert goes_in_trains(cluster)
        cluster.configure(node, offload="udp")
        node.daemon.reload()
        assert shortcut(node) == ""
        assert devices(node) == []
        assert exchange(cluster)["shortcut_sent"] == 0


def test_an_offload_that_goes_and_comes_back_is_followed(cluster):
    until_whole(cluster)
    node = cluster.nodes[0]
    for _ in range(2):
        node.host.interface("eth0").offload({SEGMENTATION: False})
        wait_until(lambda: devices(node) == [], "the shortcut to be given up")
        assert exchange(cluster)["shortcut_sent"] == 0
        node.host.interface("eth0").offload({SEGMENTATION: True})
        wait_until(has_shortcut(node), "the shortcut to be there again")
        assert goes_whole(cluster)


@pytest.mark.parametrize("breaking", [["delete"], ["set", "down"]])
def test_a_device_that_breaks_under_traffic_is_replaced_and_nothing_is_lost(cluster, breaking):
    until_whole(cluster)
    node, other = cluster.nodes
    address, over = other.pods[0].addresses[4], threading.Event()

    def lost():
        return [node.daemon.drops().get(reason, 0) for reason in ("tx_error", "tx_full", "port_gone")]

    def talk():
        rounds = 0
        while not over.is_set():
            tcp_echo(node.pods[0].host, address, sizes=(100_000,))
            rounds += 1
        return rounds

    before, first = lost(), indexes(node)
    with ThreadPoolExecutor() as pool:
        talking = pool.submit(talk)
        try:
            node.host.run(["ip", "link", breaking[0], *devices(node), *breaking[1:]])
            wait_until(lambda: len(indexes(node)) == 1 and indexes(node) != first, "another device")
            wait_until(has_shortcut(node), "the shortcut to be there again")
        finally:
            over.set()
        assert talking.result() > 0
    assert events(node)["shortcut_refused"] > 0
    assert lost() == before
    assert goes_whole(cluster)


@pytest.mark.parametrize("of", ["qdisc", "filter"])
def test_a_device_that_leads_nowhere_any_more_is_replaced(cluster, of):
    """It takes frames still: nothing is refused, and what is lost until then TCP sends again."""
    until_whole(cluster)
    node, (device,) = cluster.nodes[0], devices(cluster.nodes[0])
    first = indexes(node)
    words = ["qdisc", "del", "dev", device, "clsact"] if of == "qdisc" else ["filter", "del", "dev", device, "ingress"]
    node.host.run(["tc", *words])
    wait_until(lambda: len(indexes(node)) == 1 and indexes(node) != first, "another device")
    until_whole(cluster)
    assert goes_whole(cluster)


def test_a_peer_with_another_ethernet_address_is_followed(cluster):
    until_whole(cluster)
    node, other = cluster.nodes
    other.host.interface("eth0").set(address="02:00:00:00:77:01")
    node.host.interface("eth0").neighbor(other.underlay[4], "02:00:00:00:77:01")
    wait_until(lambda: goes_whole(cluster), "the new address to be used")


@pytest.mark.parametrize("mac", ["01:00:5e:00:00:01", "00:00:00:00:00:00"])
def test_no_frame_is_addressed_to_a_group_or_to_nobody(cluster, mac):
    until_whole(cluster)
    node, other = cluster.nodes
    node.host.interface("eth0").neighbor(other.underlay[4], mac)
    wait_until(lambda: not has_shortcut(node)(), "the shortcut to be given up")
    assert shortcut(node) == "through sockets: no Ethernet address of a peer is known"


def test_a_route_of_another_kind_ends_it(cluster):
    until_whole(cluster)
    node, other = cluster.nodes
    target = f"{other.underlay[4]}/32"
    node.host.run(["ip", "route", "add", target, "dev", "eth0", "mtu", "1480"])  # less than its device carries
    wait_until(lambda: not has_shortcut(node)(), "the shortcut to be given up")
    assert shortcut(node) == "through sockets: paths carry less than their device"
    assert exchange(cluster)["shortcut_sent"] == 0
    node.host.run(["ip", "route", "del", target])
    wait_until(has_shortcut(node), "the shortcut to be there again")
    node.host.run(["ip", "route", "add", target, "via", "192.0.2.250"])  # a gateway that does not answer
    wait_until(lambda: not has_shortcut(node)(), "the shortcut to be given up")


def test_nothing_comes_in_by_the_device_and_no_pod_has_it(cluster):
    until_whole(cluster)
    node = cluster.nodes[0]
    (name,) = devices(node)
    device = node.host.interface(name)
    assert device.addresses() == []
    assert name not in node.pods[0].host.interfaces()
    before = device.statistics["tx_dropped"]
    frame = bytes(Ether(dst="ff:ff:ff:ff:ff:ff") / IP(dst="192.0.2.1") / UDP(dport=4789))
    with node.host.socket(socket.AF_PACKET, socket.SOCK_RAW) as packet:
        packet.bind((name, 0))
        for _ in range(5000):  # more than a queue would hold
            packet.send(frame)
    wait_until(lambda: device.statistics["tx_dropped"] - before == 5000, "every frame to be dropped")
    assert goes_whole(cluster)


def test_it_ends_with_its_daemon_however_that_ends(cluster):
    until_whole(cluster)
    node = cluster.nodes[0]
    (first,) = [node.host.interface(name).index for name in devices(node)]
    node.daemon.take_over()
    until_whole(cluster)
    (second,) = [node.host.interface(name).index for name in devices(node)]
    assert second != first
    assert goes_whole(cluster)
    node.daemon.process.kill()
    wait_until(lambda: devices(node) == [], "the killed one's device to be gone")
    node.daemon.start()
    until_whole(cluster)
    assert node.daemon.stop() == 0
    assert devices(node) == []
