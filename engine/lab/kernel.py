"""The kernel's own overlay: what Towpath is tested and measured against.

Owns: VXLAN devices with static forwarding entries and neighbours, and pods behind a veth.
Never: learns or floods: every peer is stated.
Invariant: a peer is reached by exactly one route, one neighbour and one forwarding entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_interface, ip_network

from engine.lab.host import Host, Interface
from engine.lab.lab import Lab

_NUD_PERMANENT = 128
_NTF_SELF = 2


@dataclass(frozen=True, slots=True)
class KernelVxlan:
    """A VXLAN device as flannel and Calico make it: no learning, checksummed, static entries."""

    interface: Interface

    def peer(self, remote: str, *, mac: str, prefixes: Sequence[str]) -> KernelVxlan:
        """Reach `prefixes` through the tunnel endpoint `remote` with inner MAC address `mac`."""
        self._forward(mac, remote)
        for text in prefixes:
            gateway = str(ip_network(text).network_address)
            self.interface.neighbor(gateway, mac)
            self.interface.host.route(text, via=gateway, device=self.interface.name, onlink=True)
        return self

    def _forward(self, mac: str, remote: str) -> None:
        self.interface.host.namespace.netlink(
            lambda ipr: ipr.fdb(
                "append",
                ifindex=self.interface.index,
                lladdr=mac,
                dst=remote,
                state=_NUD_PERMANENT,
                flags=_NTF_SELF,
            )
        )


def add_vxlan(
    host: Host,
    *,
    vni: int,
    port: int,
    local: str,
    mac: str,
    mtu: int,
    name: str = "vxlan0",
    addresses: Sequence[str] = (),
) -> KernelVxlan:
    """Make a kernel VXLAN device on `host`; `addresses` are its own, "10.244.1.0/32" by custom."""
    source = {"vxlan_local6" if ":" in local else "vxlan_local": local}
    host.namespace.netlink(
        lambda ipr: ipr.link(
            "add",
            ifname=name,
            kind="vxlan",
            address=mac,
            mtu=mtu,
            vxlan_id=vni,
            vxlan_port=port,
            vxlan_learning=0,
            vxlan_udp_csum=1,
            **source,
        )
    )
    return KernelVxlan(host.interface(name).set(state="up").address(*addresses))


def add_pod(lab: Lab, node: Host, name: str, addresses: Sequence[str], *, mtu: int) -> Host:
    """A pod of a kernel node: one veth, its addresses as host routes, the node as gateway."""
    pod = lab.pod(name)
    device = f"pod-{name}"[:15]
    link = lab.link(pod, node, names=("eth0", device), mtu=mtu)
    for text in addresses:
        address = ip_interface(text).ip
        gateway, full, default = ("169.254.1.1", 32, "0.0.0.0/0") if address.version == 4 else ("fe80::1", 128, "::/0")
        link.left.address(f"{address}/{full}")
        link.right.address(f"{gateway}/{full}")
        pod.route(default, via=gateway, device="eth0", onlink=True)
        node.route(f"{address}/{full}", device=device)
    return pod
