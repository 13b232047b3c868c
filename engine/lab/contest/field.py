"""Two nodes joined by one cable, and the ways from one to the other that are compared on it.

Owns: the plan of addresses, and each contender's devices, daemons and routes.
Never: measures; and never gives one contender an underlay of its own.
Invariant: all contenders of a field are up at once on the same two veth ends,
so that taking turns costs nothing and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from engine.lab.daemon import Daemon
from engine.lab.host import Host
from engine.lab.kernel import add_pod, add_vxlan
from engine.lab.lab import Lab
from engine.lab.offload import Profile

Family = Literal[4, 6]

MTU = 1500  # of the underlay
INNER_MTU = 1450  # of every contender that may choose
UNDERLAY: tuple[str, str] = ("192.0.2.1", "192.0.2.2")
_MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02")
_KERNEL_VNI, _KERNEL_PORT = 2, 8472  # beside Towpath's 1 and 4789


@dataclass(frozen=True, slots=True)
class Contender:
    """A way from `source` to the `addresses` of `target`."""

    name: str
    title: str
    source: Host
    target: Host
    addresses: Mapping[Family, Sequence[str]]
    remark: str = ""

    def address(self, family: Family = 4) -> str:
        return self.addresses[family][0]


class Field:
    """Nodes `<prefix>a` and `<prefix>b`. Contenders are added one by one, each at most once."""

    def __init__(self, lab: Lab, prefix: str = "", profile: Profile = Profile.DEFAULT) -> None:
        self.lab = lab
        self.prefix = prefix
        self.profile = profile
        self.nodes = (lab.host(f"{prefix}a").forward(), lab.host(f"{prefix}b").forward())
        link = lab.link(*self.nodes, mtu=MTU, profile=profile)
        for end, address in zip((link.left, link.right), UNDERLAY, strict=True):
            end.address(f"{address}/24")
        self.daemons: list[Daemon] = []
        self.pods: list[Host] = []  # of Towpath on the first node

    def veth(self) -> Contender:
        """No tunnel: the ceiling. The route's MTU is what a tunnel would leave."""
        addresses: Mapping[Family, list[str]] = {4: ["198.18.0.1", "198.18.0.2"], 6: ["2001:db8:1::1", "2001:db8:1::2"]}
        for index, node in enumerate(self.nodes):
            for family, own in addresses.items():
                full = 32 if family == 4 else 128
                node.interface("eth0").address(f"{own[index]}/{full}")
                node.route(f"{own[1 - index]}/{full}", device="eth0", mtu=INNER_MTU)
        return Contender("veth", "plain veth", *self.nodes, _second(addresses))

    def kernel_vxlan(self, *, destinations: int = 1) -> Contender:
        """The kernel's VXLAN device, its user in the same namespace: the shortest way it has."""
        for index, node in enumerate(self.nodes):
            own, peer = f"10.245.{index + 1}", f"10.245.{2 - index}"
            own6, peer6 = f"fd00:10:245:{index + 1}:", f"fd00:10:245:{2 - index}:"
            addresses = [f"{own}.{number}/32" for number in range(1, destinations + 1)]
            device = add_vxlan(
                node,
                vni=_KERNEL_VNI,
                port=_KERNEL_PORT,
                local=UNDERLAY[index],
                mac=_MACS[index],
                mtu=INNER_MTU,
                addresses=[*addresses, f"{own6}:1/128"],
            )
            device.peer(UNDERLAY[1 - index], mac=_MACS[1 - index], prefixes=[f"{peer}.0/24", f"{peer6}:/64"])
        targets: Mapping[Family, list[str]] = {
            4: [f"10.245.2.{number}" for number in range(1, destinations + 1)],
            6: ["fd00:10:245:2::1"],
        }
        return Contender("kernel-vxlan", "kernel VXLAN", *self.nodes, targets, "its user in the node's namespace")

    def kernel_vxlan_pods(self) -> Contender:
        """The same device with a pod behind a veth on each side, as a cluster has it. After `kernel_vxlan`."""
        addresses: Mapping[Family, list[str]] = {
            4: ["10.245.1.201", "10.245.2.201"],
            6: ["fd00:10:245:1::201", "fd00:10:245:2::201"],
        }
        source, target = (
            add_pod(self.lab, node, f"{self.prefix}k{index}", [own[index] for own in addresses.values()], mtu=INNER_MTU)
            for index, node in enumerate(self.nodes)
        )
        remark = "pods behind a veth each"
        return Contender("kernel-vxlan-pods", "kernel VXLAN, pods", source, target, _second(addresses), remark)

    def towpath(
        self,
        *,
        destinations: int = 1,
        pods: int = 1,
        tables: Sequence[tuple[str, Mapping[str, Any]]] = (),
        seconds: float = 20.0,
        program: Sequence[str] = (),
        workers: int = 1,
        **network: Any,
    ) -> Contender:
        """A daemon on each node, of `workers` each. `tables` go into the first node's file; `pods` are its pods, the
        first sends; `program` is what runs it, where that is not `towpath run`."""
        ends: list[Host] = []
        for index, node in enumerate(self.nodes):
            own = [self.lab.pod(f"{self.prefix}p{index}-{number}") for number in range(pods if index == 0 else 1)]
            ends.append(own[0])
            self.pods = self.pods or own
            daemon = Daemon(node, program) if program and index == 0 else Daemon(node)
            daemon.configure(
                [
                    ("node", self._table(index, own=True)),
                    ("network", {"encapsulation": "vxlan", **network}),
                    ("workers", {"count": workers}),
                    ("[peers]", self._table(1 - index, own=False)),
                    *(("[pods]", _pod(index, number, pod, destinations)) for number, pod in enumerate(own)),
                    *(tables if index == 0 else ()),
                ]
            )
            self.daemons.append(daemon)
        for daemon in self.daemons:
            daemon.launch()
        for daemon in self.daemons:
            daemon.wait_ready(seconds=seconds)
        targets: Mapping[Family, list[str]] = {
            4: [f"10.244.2.{2 + number}" for number in range(destinations)],
            6: ["fd00:10:244:2::2"],
        }
        source, target = ends
        return Contender("towpath", "Towpath", source, target, targets, "pods with a TUN each, a daemon a node")

    def local(self) -> Contender:
        """From the first pod of the first node to its second, through the daemon. After `towpath(pods=2)`."""
        source, target = self.pods[:2]
        addresses: Mapping[Family, list[str]] = {4: ["10.244.1.3"], 6: ["fd00:10:244:1::3"]}
        return Contender("towpath-local", "Towpath", source, target, addresses, "two pods of one node")

    def bridge(self) -> Contender:
        """Two pods of one node the usual way: a veth each, and a bridge."""
        switch = self.lab.switch(f"{self.prefix}bridge", mtu=INNER_MTU)
        pods = source, target = self.lab.pod(f"{self.prefix}b0"), self.lab.pod(f"{self.prefix}b1")
        for index, pod in enumerate(pods):
            switch.join(pod, addresses=[f"10.249.0.{index + 1}/24", f"fd00:10:249::{index + 1}/64"])
        addresses: Mapping[Family, list[str]] = {4: ["10.249.0.2"], 6: ["fd00:10:249::2"]}
        return Contender("veth-bridge", "veth + bridge", source, target, addresses, "two pods of one node")

    def _table(self, index: int, *, own: bool) -> dict[str, Any]:
        return {
            "name": f"{self.prefix}{'ab'[index]}",
            "underlay": [f"{UNDERLAY[index]}/24" if own else UNDERLAY[index]],
            "prefixes": [f"10.244.{index + 1}.0/24", f"fd00:10:244:{index + 1}::/64"],
        }


def _pod(index: int, number: int, pod: Host, destinations: int) -> dict[str, Any]:
    """The first pod has `destinations` addresses; each further one has one of each family."""
    four = (
        [f"10.244.{index + 1}.{2 + each}" for each in range(destinations)]
        if number == 0
        else [f"10.244.{index + 1}.{1 + destinations + number}"]
    )
    return {
        "name": pod.name,
        "namespace": pod.namespace.path,
        "addresses": [*four, f"fd00:10:244:{index + 1}::{2 + number:x}"],
    }


def _second(addresses: Mapping[Family, Sequence[str]]) -> Mapping[Family, Sequence[str]]:
    return {family: pair[1:] for family, pair in addresses.items()}
