"""What the drop reasons of reason.pxd mean, for people.

Owns: the words: name, severity, what happened, what it usually means, what to do.
Never: counts anything, or knows a number that reason.pxd does not.
Invariant: REASONS[n] describes the reason whose number is n; a test reads
reason.pxd and compares.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Reason:
    """One way for a packet to end.

    Severity says how much attention a growing counter deserves: "info" is
    everyday noise, "warning" a mistake or an attack, "error" loss on this node.
    """

    name: str
    severity: Severity
    text: str
    means: str
    remedy: str


REASONS: tuple[Reason, ...] = (
    Reason("none", "info", "not dropped", "The packet went through.", "Nothing."),
    # -- what arrived is not a packet we can read
    Reason(
        "truncated",
        "warning",
        "shorter than its headers say",
        "A broken sender, or a datagram cut on its way into the receive buffer.",
        "Capture on the port that counts it; compare the IP length with the bytes on the wire.",
    ),
    Reason(
        "vnet_header",
        "warning",
        "virtio metadata contradicts the packet",
        "A program in the pod writes raw frames with offload metadata of its own, or a kernel bug.",
        "Find the pod by the port's counter; if no program of its own does this, report the kernel version.",
    ),
    Reason(
        "ip_version",
        "warning",
        "version is neither 4 nor 6, or not the announced one",
        "Something other than IP on a device or in a tunnel, such as a peer with another encapsulation.",
        "Compare encapsulation and port of the two nodes.",
    ),
    Reason(
        "ip4_length",
        "warning",
        "IPv4 header or total length impossible",
        "A crafted or damaged packet.",
        "Capture on the port that counts it.",
    ),
    Reason(
        "ip4_checksum",
        "warning",
        "IPv4 header checksum wrong",
        "A damaged packet, or a device that leaves checksums to hardware that is not there.",
        "Check the sender's checksum offload; packets of a TUN always carry a complete one.",
    ),
    Reason(
        "ip4_option",
        "warning",
        "IPv4 source route or malformed option",
        "Source routing is refused (RFC 7126): it steers packets around policy.",
        "Look at the program that sets the option.",
    ),
    Reason(
        "ip6_length",
        "warning",
        "IPv6 payload length 0, too long, or a jumbogram",
        "A crafted packet; jumbograms are not supported.",
        "Capture on the port that counts it.",
    ),
    Reason(
        "ip6_extension",
        "warning",
        "IPv6 extension headers too many, out of order, or cut",
        "More than 8 headers or 256 bytes, or a chain that runs past the packet: mostly crafted.",
        "Capture on the port that counts it.",
    ),
    Reason(
        "ip6_routing",
        "warning",
        "IPv6 routing header type 0",
        "Deprecated by RFC 5095 because it multiplies traffic.",
        "Look at the program that sets it.",
    ),
    Reason(
        "fragment",
        "warning",
        "a fragment that no honest sender makes",
        "It carries nothing, or one that is not the last carries no multiple of 8 bytes.",
        "Find the sender by the port that counts it.",
    ),
    Reason(
        "fragment_tiny",
        "warning",
        "a first fragment without its whole transport header",
        "Somebody hides ports from policy (RFC 1858). No honest stack cuts so early.",
        "Find the sender by the port that counts it.",
    ),
    Reason(
        "fragment_offset",
        "warning",
        "a later fragment that starts inside the transport header",
        "Somebody tries to overwrite ports or flags behind policy (RFC 1858).",
        "Find the sender by the port that counts it.",
    ),
    Reason(
        "fragment_length",
        "warning",
        "a fragment that ends beyond 65,535 bytes",
        "The ping of death: its reassembly overflows old stacks.",
        "Find the sender by the port that counts it.",
    ),
    Reason(
        "fragment_chain",
        "warning",
        "IPv6 fragment with a second fragment header, or a first one without its whole chain",
        "Somebody hides the transport header from policy (RFC 7112).",
        "Find the sender by the port that counts it.",
    ),
    Reason(
        "udp_length",
        "warning",
        "UDP length below 8 or beyond the packet",
        "A crafted or damaged packet.",
        "Capture on the port that counts it.",
    ),
    Reason(
        "tcp_offset",
        "warning",
        "TCP header length below 20 or beyond the packet",
        "A crafted or damaged packet.",
        "Capture on the port that counts it.",
    ),
    Reason(
        "martian",
        "warning",
        "an address that may not travel",
        "Unspecified, loopback, link-local, reserved or IPv4-mapped source or destination. Link-local "
        "services such as 169.254.169.254 are reached by pods of the same node through its host port, and not otherwise.",
        "Give the service an ordinary address, or find the program that uses the wrong one.",
    ),
    Reason(
        "land",
        "warning",
        "source equals destination, or port 0",
        "An old attack, or a scanner.",
        "Find the sender.",
    ),
    # -- the tunnel it came through
    Reason(
        "peer_unknown",
        "warning",
        "outer source is no configured peer",
        "A node that is not configured here, one behind address translation, or a stranger.",
        "If it is a node of yours, add its underlay address to its peer entry.",
    ),
    Reason(
        "vxlan_flags",
        "warning",
        "VXLAN header without a valid VNI",
        "Something else speaks to the VXLAN port.",
        "Compare the encapsulation of the two nodes.",
    ),
    Reason(
        "vxlan_reserved",
        "warning",
        "VXLAN reserved bits set",
        "The peer uses an extension such as group policy (GBP).",
        'If that is meant, set the tunnel\'s `reserved` to "gbp" or "ignore".',
    ),
    Reason(
        "vni_unknown",
        "warning",
        "VXLAN network identifier is not ours",
        "The nodes disagree about the VNI, or another overlay uses the same port.",
        "Set the same VNI, or another port for one of the overlays.",
    ),
    Reason(
        "vni_calico_nodeport",
        "info",
        "Calico eBPF NodePort forwarding between nodes",
        "Normal in clusters with Calico's eBPF data plane; not part of the pod overlay.",
        "Nothing, unless NodePort traffic for pods on this node is missing: it is not supported.",
    ),
    Reason(
        "inner_ethernet",
        "warning",
        "inner frame is neither IPv4 nor IPv6",
        "ARP, a VLAN tag or another protocol inside the tunnel; the overlay carries IP alone.",
        "Check that the peer's tunnel device is not part of a bridge.",
    ),
    Reason(
        "inner_group_mac",
        "info",
        "inner frame to a group address",
        "Broadcast and multicast are never flooded.",
        "Nothing; frequent ones come from a peer that learns addresses instead of being told them.",
    ),
    Reason(
        "inner_mac",
        "warning",
        "inner destination MAC is not ours",
        "The peer still uses an old VTEP address of this node, or derives it by another rule.",
        "Compare the MAC that this node publishes with the peer's forwarding entry; "
        "`strict_mac` off accepts peers whose inner MACs mean nothing.",
    ),
    Reason(
        "inner_mac_loop",
        "error",
        "inner source MAC is ours",
        "Our own frame came back: a loop, or two nodes with one VTEP address.",
        "Look for a cloned node name or MAC.",
    ),
    Reason(
        "nested",
        "warning",
        "a tunnel packet inside a tunnel, addressed to this node",
        "An attempt to be decapsulated twice, or an overlay routed through itself.",
        "Check the routes to underlay addresses; otherwise find the sender.",
    ),
    Reason(
        "ecn",
        "warning",
        "congestion marked on a packet that cannot say so",
        "The underlay set CE on the tunnel packet of a flow without ECN (RFC 6040 demands the drop).",
        "Find the underlay device that marks packets that are not ECN capable.",
    ),
    Reason(
        "super_udp",
        "warning",
        "unsegmented UDP super-datagram of unknown segment size",
        "A peer's kernel handed over a whole UDP burst without the size of its datagrams.",
        "Switch off UDP tunnel segmentation on the peer's underlay device.",
    ),
    # -- who may send what
    Reason(
        "guard_pod_source",
        "warning",
        "a pod used an address that is not its own",
        "Spoofing, or an address added inside the pod that the node was not told of.",
        "If it is wanted, add the address to the pod's configuration.",
    ),
    Reason(
        "guard_peer_source",
        "warning",
        "a peer used an address that is not behind it",
        "The peer's prefixes here are out of date, or the peer forwards for others, or it is compromised.",
        "Compare the peer's prefixes with what it really serves.",
    ),
    Reason(
        "guard_own_source",
        "warning",
        "an address of this node came from outside",
        "Spoofing, or two nodes with the same prefix.",
        "Look for a prefix that is assigned twice.",
    ),
    Reason(
        "guard_not_local",
        "warning",
        "from a tunnel, but not for this node",
        "The peer believes that the destination lives here; transit between tunnels is off.",
        "Compare the routes of the two nodes; a pod that moved away explains a short burst.",
    ),
    # -- where it should go
    Reason(
        "no_route",
        "warning",
        "no route to the destination",
        "No prefix holds the address: a peer is missing, or its lease has expired.",
        "See `towpath routes get ADDRESS`.",
    ),
    Reason(
        "unreachable",
        "info",
        "a route that rejects",
        "The address belongs to this node's prefix but to no pod, or a static route says unreachable.",
        "Nothing, unless the pod should exist: see `towpath pods`.",
    ),
    Reason(
        "multicast",
        "info",
        "group traffic is not forwarded",
        "Neighbour discovery, mDNS and the like, which every pod sends.",
        "Nothing.",
    ),
    Reason(
        "encap_loop",
        "error",
        "destination is our own tunnel endpoint",
        "The route to a peer's underlay address leads into the tunnel.",
        "Exclude underlay addresses from pod prefixes and static routes.",
    ),
    Reason(
        "ttl_expired",
        "info",
        "TTL or hop limit used up",
        "traceroute, or a routing loop when it grows fast.",
        "If it grows fast, compare the routes of both nodes for the destination.",
    ),
    Reason(
        "too_big",
        "info",
        "longer than the path allows, and may not be fragmented",
        "Path MTU discovery at work: the sender was told the size that fits.",
        "If it keeps growing for one sender, ICMP is filtered on the way to it.",
    ),
    # -- flows and policy
    Reason(
        "policy_deny",
        "info",
        "denied by policy",
        "A policy selects the pod and no rule allows the connection, or a rule denies it.",
        "`towpath policy explain` names the rule; the flow log has the connection.",
    ),
    Reason(
        "fragment_unknown",
        "warning",
        "a later fragment without a first one that was let through",
        "Fragments out of order, the first one denied or lost, or somebody slipping data past policy.",
        "Let the sender avoid fragments: path MTU discovery, or smaller datagrams.",
    ),
    Reason(
        "fragment_overlap",
        "warning",
        "a fragment over the bytes of its datagram's first one",
        "Somebody tries to change ports after they were judged. No honest stack sends this.",
        "Find the sender by the port that counts it.",
    ),
    Reason(
        "fragment_full",
        "warning",
        "too many fragmented datagrams at once",
        "A flood of first fragments, or one source with more datagrams under way than its share.",
        "Let the sender avoid fragments: path MTU discovery, or smaller datagrams.",
    ),
    Reason(
        "icmp_bad_quote",
        "warning",
        "an ICMP error about no known flow, or with an impossible MTU",
        "A forged error, or one that comes long after its flow ended.",
        "Nothing, unless it grows with every connection; then capture the errors.",
    ),
    Reason(
        "flow_invalid",
        "info",
        "in the middle of a conversation that nobody opened",
        "An answer to nothing, a scan, or a flow that was forgotten: the node restarted, or it was idle too long.",
        "Raise the timeout of the state, if idle connections are meant to live longer.",
    ),
    Reason(
        "flow_bad_rst",
        "warning",
        "a TCP reset or SCTP abort that does not fit its connection",
        "Somebody outside of the connection tries to end it.",
        "Find the sender by the port that counts it.",
    ),
    Reason(
        "flow_full",
        "error",
        "the flow table is full of established flows",
        "More flows than the table has room for.",
        "Raise the capacity of the flow table.",
    ),
    Reason(
        "flow_quota",
        "warning",
        "the source has its share of flows already",
        "One address opens very many flows: a flood, a scan, or a busy proxy.",
        "Look at the flows of this source; raise the quota for a proxy.",
    ),
    # -- the ports
    Reason(
        "port_gone",
        "info",
        "the port was removed while the packet was under way",
        "A pod was deleted under traffic.",
        "Nothing.",
    ),
    Reason(
        "rate",
        "info",
        "more than the pod may receive",
        "The pod's bandwidth.ingress is used up; TCP slows down by it.",
        "Nothing, or raise the pod's bandwidth.",
    ),
    Reason(
        "tx_full",
        "error",
        "the kernel's queue was full",
        "The receiver (a pod, the underlay) is slower than the sender.",
        "Raise txqueuelen or the socket buffer, or give the receiver more CPU.",
    ),
    Reason(
        "tx_error",
        "error",
        "the kernel refused to send",
        "A device or route is down, or a firewall rejects tunnel packets.",
        "The log names the error; check the underlay route to the peer.",
    ),
    Reason(
        "tx_too_big",
        "error",
        "too long for the underlay even as a single packet",
        "The underlay's MTU is smaller than configured.",
        "Lower the pod MTU, or raise that of the underlay.",
    ),
    Reason(
        "burst_full",
        "error",
        "more segments in one datagram than a burst holds",
        "A very large burst of very small packets from one peer.",
        "Report it with the peer's segment size; nothing is lost but the excess.",
    ),
)

BY_NAME: dict[str, Reason] = {reason.name: reason for reason in REASONS}
