"""The golden twin: what the data plane does to one packet, slow and obvious.

Owns: the meaning of parse, guard, route, hop, reply, of each encapsulation's
bytes, and of split and merge, written from the RFCs and not from the .pxd files;
this face of it. Its twin of flows, which alone remembers, is `reference.flows`.
Never: is fast, is imported by the compiled code, or is used outside of tests.
Invariant: a function returns what goes on, or raises Drop with the name the
reason has in reasons.py; it keeps no state between calls.
"""

from __future__ import annotations

from fastpath.reference.forwarding import fragments, hop, set_class
from fastpath.reference.hashing import flow_hash
from fastpath.reference.header import ip_packet, seal_ipv4
from fastpath.reference.lookup import LINK_LOCAL, guard_peer, guard_pod, route, within
from fastpath.reference.packet import (
    GSO_TCP4,
    GSO_TCP6,
    GSO_UDP,
    ICMP,
    ICMPV6,
    PLAIN,
    SCTP,
    TCP,
    UDP,
    Address,
    Drop,
    Offload,
    Parsed,
    Prefix,
)
from fastpath.reference.parsing import parse
from fastpath.reference.replies import reply
from fastpath.reference.segments import merge, split
from fastpath.reference.sums import checksum, ones_sum, pseudo_header, transport_checksum
from fastpath.reference.tunnels import (
    VxlanTunnel,
    check_nested,
    check_peer,
    decapsulate_ipip,
    decapsulate_vxlan,
    ecn_decapsulate,
    encapsulate_ipip,
    encapsulate_udp,
    encapsulate_vxlan,
    outer_class,
    vxlan_frame,
)

__all__ = [
    "GSO_TCP4",
    "GSO_TCP6",
    "GSO_UDP",
    "ICMP",
    "ICMPV6",
    "LINK_LOCAL",
    "PLAIN",
    "SCTP",
    "TCP",
    "UDP",
    "Address",
    "Drop",
    "Offload",
    "Parsed",
    "Prefix",
    "VxlanTunnel",
    "check_nested",
    "check_peer",
    "checksum",
    "decapsulate_ipip",
    "decapsulate_vxlan",
    "ecn_decapsulate",
    "encapsulate_ipip",
    "encapsulate_udp",
    "encapsulate_vxlan",
    "flow_hash",
    "fragments",
    "guard_peer",
    "guard_pod",
    "hop",
    "ip_packet",
    "merge",
    "ones_sum",
    "outer_class",
    "parse",
    "pseudo_header",
    "reply",
    "route",
    "seal_ipv4",
    "set_class",
    "split",
    "transport_checksum",
    "vxlan_frame",
    "within",
]
