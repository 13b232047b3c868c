"""The pace of a pod's port on memory ports: what passes, what waits, what is dropped and counted."""

from __future__ import annotations

from ipaddress import IPv4Address

from engine.lab import wait_until
from fastpath.values import Bandwidth
from tests.fastpath.network import MemoryNode
from tests.fastpath.packets import ipv4, udp


def packets(source, destination, n, size=1000):
    body = udp(source, destination, bytes(size - 28))
    return [ipv4(body, source=source, destination=destination)] * n


def test_what_a_pod_may_not_receive_is_dropped_and_counted():
    node = MemoryNode(1, 2, "udp")
    node.plane.update_port(node.pod_port, bandwidth=Bandwidth(ingress=1000, ingress_burst=10_000))
    for packet in packets(IPv4Address("10.0.2.2"), node.pod4, 50):
        node.tunnel.inject_datagram(packet, node.peer_address)
    node.turn()
    assert len(node.pod.drain()) == 11, "the burst, and the one that goes beyond it"
    assert node.drops == {"rate": 39}
    node.plane.update_port(node.pod_port, bandwidth=Bandwidth())
    assert len(node.receive(*packets(IPv4Address("10.0.2.2"), node.pod4, 5))) == 5


def test_what_a_pod_may_not_send_yet_waits_in_its_queue():
    node = MemoryNode(1, 2, "udp")
    node.plane.update_port(node.pod_port, bandwidth=Bandwidth(egress=1_000_000, egress_burst=5000))
    node.pod.inject(packets(node.pod4, IPv4Address("10.0.2.2"), 20))
    node.turn()
    sent = len(node.tunnel.drain())
    assert 5 <= sent <= 8
    assert node.drops == {}
    node.plane.start()  # the rest follows at 125 packets a second, without another word
    try:
        wait_until(lambda: node.plane.counters().sent == 20, "the rest to be sent", seconds=5)
    finally:
        node.plane.stop()
    node.check()
