"""kill -9 at random moments under traffic: every restart is clean, nothing leaks, connections live on."""

from __future__ import annotations

import json
import random
import statistics
import time

import pytest

from engine.lab import wait_until
from engine.lab.traffic import Responder, ping, tcp_echo
from tests.e2e.conftest import running_cluster
from tests.e2e.streams import Conversation, Stream

pytestmark = pytest.mark.needs("nft")


def footprint(node):
    """Everything of ours in the kernel and on disk, in a form that can be compared."""
    inside = {
        pod.name: [
            (name, pod.host.interface(name).index, sorted(pod.host.interface(name).addresses()), routes(pod.host))
            for name in pod.host.interfaces()
        ]
        for pod in node.pods
    }
    table = node.host.run(["nft", "list", "tables"]).stdout
    record = json.loads((node.daemon.directory / "state" / "devices.json").read_text())
    return inside, sorted(node.host.interfaces()), routes(node.host), table, sorted(entry["pod"] for entry in record)


def routes(host):
    text = host.run(["ip", "route"]).stdout + host.run(["ip", "-6", "route"]).stdout
    return sorted(line for line in text.splitlines() if "fe80" not in line)


def campaign(kills, seed):
    chance = random.Random(seed)
    back, middle = [], 0
    with running_cluster(nodes=2, pods=2) as cluster:
        node, other = cluster.nodes
        a, b = node.pods[0], other.pods[0]
        for pod in cluster.pods:
            Responder(pod.host)
        before = footprint(node)
        talks = [Conversation(a.host, b.host, b.addresses[4]), Conversation(b.host, node.pods[1].host, node.pods[1].addresses[6])]
        with Stream(a.host, b.host, b.addresses[4]) as stream:
            while len(back) + middle < kills:
                time.sleep(chance.uniform(0, 0.3))  # the moment is the point, not a state
                node.daemon.process.kill()
                while chance.random() < 0.5 and len(back) + middle + 1 < kills:
                    process = node.daemon.launch()  # and again, in the middle of its start
                    time.sleep(chance.uniform(0, 1.0))
                    process.kill()
                    middle += 1
                launched = time.monotonic()
                node.daemon.start()
                wait_until(lambda since=launched: stream.last > since, "packets to flow again", seconds=10)
                back.append(time.monotonic() - launched)
                assert footprint(node) == before
                if len(back) % 10 == 0:
                    for talk in talks:
                        talk.goes_on()
        for talk in talks:
            talk.goes_on()
            talk.end()
        for address in b.addresses.values():
            assert ping(a.host, address, count=2).ok
            tcp_echo(a.host, address)
        assert node.daemon.ask("status")["problems"] == []
        gone = node.pods.pop()
        cluster.lab.remove(gone.host)  # its namespace goes, device and all
        cluster.configure(node)
        node.daemon.reload()
        assert footprint(node)[4] == [a.name]
    print(f"{kills} kills, {middle} of them during a start; forwarding after a launch: ", end="")
    print(f"median {statistics.median(back):.2f} s, worst {max(back):.2f} s")
    return back


def test_ten_kills():
    campaign(10, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_five_hundred_kills():
    campaign(500, seed=int(time.time()))
