"""The numbers that flannel, Calico and Towpath itself put on the wire.

Owns: default port, VNI and source-port behaviour of each profile and encapsulation.
Never: knows a node, a peer or a MAC address.
Invariant: a pair that is not in the table does not exist in that project.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engine.model import EncapsulationName, Profile

CALICO_NODEPORT_VNI = 0xCA11C0  # Calico's eBPF nodes forward NodePorts under it; never pod traffic


@dataclass(frozen=True, slots=True)
class Numbers:
    """0 where the encapsulation has no such number."""

    port: int = 0
    vni: int = 0
    source_ports: Literal["hashed", "fixed"] = "hashed"


PROFILES: dict[tuple[Profile, EncapsulationName], Numbers] = {
    ("towpath", "vxlan"): Numbers(port=4789, vni=1),
    ("towpath", "udp"): Numbers(port=8285),
    ("towpath", "ipip"): Numbers(),
    ("towpath", "none"): Numbers(),
    ("flannel", "vxlan"): Numbers(port=8472, vni=1),
    ("flannel", "udp"): Numbers(port=8285, source_ports="fixed"),
    ("flannel", "ipip"): Numbers(),
    ("flannel", "none"): Numbers(),
    ("calico", "vxlan"): Numbers(port=4789, vni=4096),
    ("calico", "ipip"): Numbers(),
    ("calico", "none"): Numbers(),
}
