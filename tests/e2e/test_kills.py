"""kill -9 at random moments under traffic: every restart is clean, nothing leaks, connections live on."""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import time

import pytest

from engine.lab.traffic import Beat, Responder, ping, tcp_echo
from tests.e2e.churn import Churn
from tests.e2e.conftest import running_cluster
from tests.e2e.streams import Conversation

pytestmark = pytest.mark.needs("nft")

ALLOWED = 1.0  # seconds from a start to the first datagram
STARTS = 4.0  # or, on a machine that is busy: so many times what a process takes that only loads the same modules
LONGEST = 10.0
MODULES = "import engine.cli.run, engine.daemon, fastpath.plane, fastpath.port.tun"


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


def loading():
    """Seconds that a process takes now which loads what a daemon does, and ends."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", MODULES], check=True)
    return time.monotonic() - began


class Campaign:
    """Kills the daemon of the first of two nodes, again and again."""

    def __init__(self, cluster, seed):
        self.cluster = cluster
        self.node, self.other = cluster.nodes
        self.chance = random.Random(seed)
        self.a, self.b = self.node.pods[0], self.other.pods[0]
        for pod in cluster.pods:
            Responder(pod.host)
        self.talks = [
            Conversation(self.a.host, self.b.host, self.b.addresses[4]),
            Conversation(self.b.host, self.node.pods[1].host, self.node.pods[1].addresses[6]),
        ]
        self.starts = []  # when a daemon was started that was not killed before it was ready
        self.loads = []  # what a start had to take at least, about then
        self.middle = 0  # kills in the middle of a start

    @property
    def kills(self):
        return len(self.starts) + self.middle

    def kill(self, most):
        """At a random moment; half of the times the next one too, in the middle of its start."""
        time.sleep(self.chance.uniform(0, 0.6))  # the moment is the point, not a state
        self.node.daemon.process.kill()
        while self.chance.random() < 0.5 and self.kills + 1 < most:
            process = self.node.daemon.launch()
            time.sleep(self.chance.uniform(0, 1.0))
            process.kill()
            self.middle += 1

    def start(self, beat):
        self.loads.append(self.loads[-1] if len(self.starts) % 5 else loading())
        self.starts.append(time.monotonic())
        self.node.daemon.start()
        beat.wait_for_one_sent_after(self.starts[-1])

    def run(self, kills):
        before = footprint(self.node)
        containers = [(f"c{number}", self.cluster.lab.pod(f"c{number}")) for number in range(4)]
        with Beat(self.a.host, self.b.host, self.b.addresses[4]) as beat:
            with Churn(self.node, containers) as churn:
                while self.kills < kills:
                    self.kill(kills)
                    self.start(beat)
                    assert footprint(self.node) == before
                    if len(self.starts) % 10 == 0:
                        self.talk()
            self.talk()
        self.back = [beat.silence_after(moment) for moment in self.starts]
        self.nothing_leaked(churn, before)
        print(f"{self.kills} kills, {self.middle} in the middle of a start, under {beat.hertz:.0f} datagrams a second,")
        print(f"{churn.added} ADDs, {churn.postponed} told to try again, {churn.deleted} DELs;", end=" ")

    def talk(self):
        for talk in self.talks:
            talk.goes_on()

    def nothing_leaked(self, churn, before):
        assert churn.wrong == []
        assert churn.added
        churn.delete_all()
        assert churn.wrong == []
        assert self.node.daemon.ask("ipam", "show")["addresses"] == []
        assert self.node.daemon.ask("ipam", "check")["leaks"] == []
        for name, host in churn.containers:
            assert host.interfaces() == ["lo"], name
        assert footprint(self.node) == before

    def everything_works(self):
        for talk in self.talks:
            talk.end()
        for address in self.b.addresses.values():
            assert ping(self.a.host, address, count=2).ok
            tcp_echo(self.a.host, address)
        assert self.node.daemon.ask("status")["problems"] == []

    def pods_that_go_leave_nothing(self):
        gone = self.node.pods.pop()
        self.cluster.lab.remove(gone.host)  # its namespace goes, device and all
        self.cluster.configure(self.node)
        self.node.daemon.reload()
        assert footprint(self.node)[4] == [self.a.name]

    def forwarding_was_back_soon(self):
        ranked = sorted(self.back)
        print(f"forwarding after a start: median {statistics.median(ranked):.3f} s,", end=" ")
        print(f"99 of 100 within {ranked[-1 - len(ranked) // 100]:.3f} s, worst {ranked[-1]:.3f} s;", end=" ")
        print(f"loading the modules alone {statistics.median(self.loads):.3f} s")
        late = [
            (seconds, load)
            for seconds, load in zip(self.back, self.loads, strict=True)
            if seconds > max(ALLOWED, STARTS * load)
        ]
        assert len(late) <= len(self.back) // 100, f"later than it should be (seconds, loading alone): {late}"
        assert ranked[-1] < LONGEST


def campaign(kills, seed):
    with running_cluster(nodes=2, pods=2) as cluster:
        campaign = Campaign(cluster, seed)
        campaign.run(kills)
        campaign.everything_works()
        campaign.pods_that_go_leave_nothing()
        campaign.forwarding_was_back_soon()


@pytest.mark.alone
def test_ten_kills():
    campaign(10, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_five_hundred_kills():
    campaign(int(os.environ.get("KILLS", "500")), seed=int(time.time()))
