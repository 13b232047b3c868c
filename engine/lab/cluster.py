"""Nodes with a real daemon each, their pods, and the network between them.

Owns: the plan of names and addresses, and what it means for every node's file.
Never: reaches into a daemon: it is started, asked and stopped as a user would.
Invariant: what a plan says is the whole difference between two clusters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from engine.lab.daemon import Daemon
from engine.lab.host import Host
from engine.lab.lab import Lab
from engine.lab.offload import Profile

Encapsulation = Literal["vxlan", "udp", "ipip", "none"]
Family = Literal[4, 6]

_UNDERLAY: Mapping[Family, str] = {4: "192.0.2.{}", 6: "2001:db8::{}"}
_UNDERLAY_LENGTH: Mapping[Family, int] = {4: 24, 6: 64}
_PREFIX: Mapping[Family, str] = {4: "10.244.{}.0/24", 6: "fd00:10:244:{}::/64"}
_POD: Mapping[Family, str] = {4: "10.244.{}.{}", 6: "fd00:10:244:{}::{}"}
_FIRST_POD = 2  # the first address of a prefix is the node's


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a cluster is to be. `network` holds further keys of the files' [network] table."""

    encapsulation: Encapsulation = "vxlan"
    nodes: int = 3
    pods: int = 2  # on each node
    underlay: tuple[Family, ...] = (4, 6)
    inner: tuple[Family, ...] = (4, 6)
    mtu: int = 1500  # of the underlay
    profile: Profile = Profile.DEFAULT
    workers: int = 1  # of every daemon
    network: Mapping[str, Any] = field(default_factory=dict)

    @property
    def mode(self) -> str:
        return "overlay" if self.encapsulation in {"vxlan", "udp"} else "routed"


@dataclass(frozen=True, slots=True)
class Pod:
    name: str
    node: str
    host: Host
    addresses: Mapping[Family, str]

    @property
    def table(self) -> dict[str, Any]:
        """As it stands in its node's file."""
        return {"name": self.name, "namespace": self.host.namespace.path, "addresses": list(self.addresses.values())}


@dataclass(slots=True)
class Node:
    """One machine of the cluster, its daemon and its pods."""

    name: str
    number: int
    host: Host
    daemon: Daemon
    underlay: Mapping[Family, str]
    prefixes: Mapping[Family, str]
    pods: list[Pod] = field(default_factory=list)

    @property
    def table(self) -> dict[str, Any]:
        """As it stands in its own file."""
        underlay = [f"{address}/{_UNDERLAY_LENGTH[family]}" for family, address in self.underlay.items()]
        return {"name": self.name, "underlay": underlay, "prefixes": list(self.prefixes.values())}

    @property
    def peer_table(self) -> dict[str, Any]:
        """As it stands in the others' files."""
        return {
            "name": self.name,
            "underlay": list(self.underlay.values()),
            "prefixes": list(self.prefixes.values()),
        }


class Cluster:
    """Nodes on one switch. Nothing runs before `start`."""

    def __init__(self, lab: Lab, plan: Plan) -> None:
        self.lab = lab
        self.plan = plan
        self.switch = lab.switch(mtu=plan.mtu)
        self.nodes = [self._node(number) for number in range(1, plan.nodes + 1)]
        for node in self.nodes:
            self.configure(node)

    @property
    def pods(self) -> list[Pod]:
        return [pod for node in self.nodes for pod in node.pods]

    def start(self) -> Cluster:
        """Start every daemon and wait until all are ready."""
        for node in self.nodes:
            node.daemon.launch()
        for node in self.nodes:
            node.daemon.wait_ready()
        return self

    def stop(self) -> None:
        """End every daemon cleanly."""
        for node in self.nodes:
            node.host.tell_to_stop()
        for node in self.nodes:
            node.daemon.stop()

    def add_pod(self, node: Node) -> Pod:
        """One more pod; its node's file names it after `configure`."""
        index = len(node.pods) + 1
        name = f"{node.name[-1]}{index}"
        addresses: dict[Family, str] = {
            family: _POD[family].format(node.number, index - 1 + _FIRST_POD) for family in self.plan.inner
        }
        pod = Pod(name, node.name, self.lab.pod(name), addresses)
        node.pods.append(pod)
        return pod

    def configure(self, node: Node, **network: Any) -> None:
        """Write the file of a node; `network` changes keys of its [network] table."""
        plan = {"mode": self.plan.mode, "encapsulation": self.plan.encapsulation, **self.plan.network}
        node.daemon.configure(
            [
                ("node", node.table),
                ("network", plan | network),
                ("workers", {"count": self.plan.workers}),
                *(("[peers]", peer.peer_table) for peer in self.nodes if peer is not node),
                *(("[pods]", pod.table) for pod in node.pods),
            ]
        )

    def _node(self, number: int) -> Node:
        name = f"node-{chr(ord('a') + number - 1)}"
        host = self.lab.host(name).forward()
        underlay: dict[Family, str] = {family: _UNDERLAY[family].format(number) for family in self.plan.underlay}
        prefixes: dict[Family, str] = {family: _PREFIX[family].format(number) for family in self.plan.inner}
        node = Node(name, number, host, Daemon(host), underlay, prefixes)
        self.switch.join(host, addresses=node.table["underlay"], profile=self.plan.profile)
        for _ in range(self.plan.pods):
            self.add_pod(node)
        return node
