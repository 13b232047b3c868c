"""Nodes in memory with so many routes, peers or pods, and packets for them.

Owns: what "many" looks like: prefixes in 11.0.0.0/8 and on, outer addresses in 100.64.0.0/10.
Invariant: the packets of a node are forwarded, every one.
"""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv4Network

import numpy as np
from numpy.typing import NDArray

from fastpath.port.memory import MemoryPort
from fastpath.values import Deliver, Encapsulate
from tests.fastpath.network import PEER, MemoryNode, mac, outer
from tests.fastpath.packets import ipv4, udp

BATCH = 2048  # packets of one round
SIZE = 64  # bytes
FIRST = int(IPv4Address("11.0.0.0"))


class Grown:
    """A node, and BATCH packets of its pod: to one destination, as a flow goes, or to all in a shuffled order."""

    def __init__(self, node: MemoryNode, destinations: list[IPv4Address], others: list[MemoryPort]) -> None:
        self.node = node
        self.sinks = [node.tunnel, *others]
        self.rows = {"one": _rows(node, destinations[:1]), "all": _rows(node, _shuffled(destinations))}

    def inject(self, spread: str) -> None:
        for port in self.sinks:
            port.discard()
        self.node.pod.inject(self.rows[spread])

    def turn(self) -> None:
        while self.node.plane.turn():
            pass


def _shuffled(destinations: list[IPv4Address]) -> list[IPv4Address]:
    return random.Random(1).choices(destinations, k=BATCH)


def _rows(node: MemoryNode, chosen: list[IPv4Address]) -> NDArray[np.uint8]:
    packets = [
        ipv4(udp(node.pod4, to, bytes(SIZE - 28), sport=1000), source=node.pod4, destination=to) for to in chosen
    ]
    rows = np.frombuffer(b"".join(packets), dtype=np.uint8).reshape(len(chosen), SIZE)
    return np.ascontiguousarray(rows[np.arange(BATCH) % len(chosen)])


def with_routes(count: int) -> Grown:
    """All by the same peer."""
    node = MemoryNode(1, 2)
    addresses = (FIRST + np.arange(count, dtype=np.uint32) * 64).astype(np.uint32)
    node.plane.set_routes(4, addresses, np.full(count, 26, np.uint8), np.full(count, node.to_peer, np.uint32))
    chosen = random.Random(2).sample(range(count), min(count, BATCH))
    return Grown(node, [IPv4Address(FIRST + i * 64 + 1) for i in chosen], [])


def with_peers(count: int) -> Grown:
    """Each peer has a prefix and an outer address of its own, so `all` merges little on the way out."""
    node = MemoryNode(1, 2)
    peers = {}
    for i in range(count):
        remote = IPv4Address("100.64.0.1") + i
        peers[remote] = PEER + 1 + i
        value = Encapsulate(node.tunnel_port, PEER + 1 + i, remote, 1450, 4789, mac(2))
        node.plane.set_route(IPv4Network((FIRST + i * 256, 24)), node.plane.set_adjacency(value))
    node.plane.set_peers({outer(2, 4): PEER, **peers})
    return Grown(node, [IPv4Address(FIRST + i * 256 + 1) for i in range(count)], [])


def with_pods(count: int) -> Grown:
    """From one pod to others of the same node."""
    node = MemoryNode(1, 2)
    destinations = [IPv4Address("10.0.1.3") + i for i in range(count)]
    others = [MemoryPort(f"pod-{i}", addresses=[address]) for i, address in enumerate(destinations)]
    for port, address in zip(others, destinations, strict=True):
        adjacency = node.plane.set_adjacency(Deliver(node.plane.attach(port), 1450))
        node.plane.set_route(IPv4Network(address), adjacency)
    return Grown(node, destinations, others)


NODES = {"routes": with_routes, "peers": with_peers, "pods": with_pods}
