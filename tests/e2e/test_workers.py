"""Several workers in one daemon: each serves some of the ports, all read the same tables."""

from __future__ import annotations

import itertools
from pathlib import Path

from engine.lab.traffic import Responder, delivery, ping, tcp_echo
from tests.e2e.conftest import running_cluster


def receiving_sockets(node):
    """How many UDP sockets of the node's namespace are bound to the tunnel's port."""
    local = [line.split()[1] for line in Path(f"/proc/{node.daemon.process.pid}/net/udp").read_text().splitlines()[1:]]
    return sum(int(address.rpartition(":")[2], 16) == 4789 for address in local)


def test_pods_of_different_workers_reach_each_other_in_order():
    with running_cluster(nodes=2, pods=3, workers=3) as cluster:
        for pod in cluster.pods:
            Responder(pod.host)
        for source, target in itertools.permutations(cluster.pods, 2):
            assert ping(source.host, target.addresses[4]).ok, (source.name, target.name)
            tcp_echo(source.host, target.addresses[6], sizes=(1, 50_000))
        for node in cluster.nodes:
            assert len(node.daemon.ask("status")["placement"]) == 3
            assert receiving_sockets(node) == 3
            assert "3, on CPU " in node.daemon.command("status").stdout
        first, neighbour, far = cluster.pods[0], cluster.pods[1], cluster.pods[4]
        for target in (neighbour, far):
            result = delivery(first.host, target.host, target.addresses[4], count=2000, size=200)
            assert result.ok, (target.name, result)
