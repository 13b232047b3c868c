"""One towpath node whose peers are in the hands of the test: hosts without a daemon."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from engine.lab import Profile
from engine.lab.daemon import Daemon
from engine.lab.host import Host

PREFIXES = ("10.244.1.0/24", "fd00:10:244:1::/64")
POD = ("10.244.1.2", "fd00:10:244:1::2")


@dataclass(slots=True)
class Peer:
    """What the node is told of another node, and the host that plays it."""

    name: str
    underlay: tuple[str, ...]  # with prefix lengths
    prefixes: tuple[str, ...]
    keys: dict = field(default_factory=dict)  # further keys: mac, mac6, encapsulation
    host: Host | None = None

    @property
    def table(self):
        underlay = [text.split("/")[0] for text in self.underlay]
        return {"name": self.name, "underlay": underlay, "prefixes": list(self.prefixes), **self.keys}


class Solo:
    def __init__(
        self,
        lab,
        *,
        peers,
        network,
        name="node-a",
        underlay=("192.0.2.1/24",),
        prefixes=PREFIXES,
        pods=(POD,),
        mtu=1500,
        profile=Profile.DEFAULT,
    ):
        self.lab = lab
        self.switch = lab.switch(mtu=mtu)
        self.profile = profile
        self.name = name
        self.host = lab.host(name).forward()
        self.switch.join(self.host, addresses=underlay, profile=profile)
        self.daemon = Daemon(self.host)
        self.node = {"name": name, "underlay": list(underlay), "prefixes": list(prefixes)}
        self.network = network
        self.peers = peers
        for peer in peers:
            peer.host = self.stranger(peer.name, *peer.underlay)
        self.pods = [lab.pod(f"p{number + 1}") for number in range(len(pods))]
        self.pod_addresses = list(pods)
        self.configure()

    @property
    def pod(self):
        return self.pods[0]

    def stranger(self, name, *addresses):
        """A host on the underlay that the node was not told of."""
        host = self.lab.host(name).forward()
        self.switch.join(host, addresses=addresses, profile=self.profile)
        return host

    def configure(self, **network):
        pods = [
            {"name": pod.name, "namespace": pod.namespace.path, "addresses": list(addresses)}
            for pod, addresses in zip(self.pods, self.pod_addresses, strict=True)
        ]
        self.daemon.configure(
            [
                ("node", self.node),
                ("network", self.network | network),
                *(("[peers]", peer.table) for peer in self.peers),
                *(("[pods]", pod) for pod in pods),
            ]
        )

    def start(self):
        self.daemon.start()
        return self


def derived_mac(name):
    """A VTEP address by Calico's rule, which is the default here too."""
    return "66:" + hashlib.sha1(name.encode()).digest()[:5].hex(":")
