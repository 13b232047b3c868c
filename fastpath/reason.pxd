# Verdicts and drop reasons, declared once.
#
# Owns: the numbers by which the data plane names what became of a packet.
# Never: words about them; reasons.py gives each its name, severity and text,
# and a test keeps the two files in step.
# Invariant: every packet that is not sent carries exactly one reason.

cdef enum:                     # verdicts
    VERDICT_PASS = 0          # still on its way
    VERDICT_DROP = 1          # ends here, for `packet.reason`
    VERDICT_SENT = 2          # handed to a port
    VERDICT_MERGED = 3        # became part of an earlier packet of its burst

cdef enum:                     # the ICMP message a dropped packet asks for
    REPLY_NONE = 0
    REPLY_TIME_EXCEEDED = 1
    REPLY_TOO_BIG = 2
    REPLY_NO_ROUTE = 3
    REPLY_HOST_UNREACHABLE = 4
    REPLY_PROHIBITED = 5

cdef enum:                     # reasons
    REASON_NONE = 0
    # -- what arrived is not a packet we can read
    REASON_TRUNCATED          # shorter than its headers say, or cut by the receive
    REASON_VNET_HEADER        # virtio metadata contradicts the packet
    REASON_IP_VERSION         # version nibble neither 4 nor 6, or not the announced one
    REASON_IP4_LENGTH
    REASON_IP4_CHECKSUM
    REASON_IP4_OPTION         # source route option
    REASON_IP6_LENGTH
    REASON_IP6_EXTENSION      # chain too long, out of order, or cut
    REASON_IP6_ROUTING        # routing header type 0 (RFC 5095)
    REASON_FRAGMENT           # empty, or not a multiple of 8 bytes
    REASON_FRAGMENT_TINY      # a first fragment without its whole transport header
    REASON_FRAGMENT_OFFSET    # a later one that could lie over the transport header
    REASON_FRAGMENT_LENGTH    # the whole would exceed 65,535 bytes
    REASON_FRAGMENT_CHAIN     # IPv6: two fragment headers, or a first fragment without the whole chain (RFC 7112)
    REASON_UDP_LENGTH
    REASON_TCP_OFFSET
    REASON_MARTIAN            # an address that may not travel
    REASON_LAND               # source equals destination
    # -- the tunnel it came through
    REASON_PEER_UNKNOWN       # outer source is no configured peer
    REASON_VXLAN_FLAGS        # flag I clear
    REASON_VXLAN_RESERVED     # any other bit that must be 0
    REASON_VNI_UNKNOWN
    REASON_VNI_CALICO_NODEPORT
    REASON_INNER_ETHERNET     # ethertype not IP, VLAN tag
    REASON_INNER_GROUP_MAC    # broadcast, unknown unicast and multicast are never flooded
    REASON_INNER_MAC          # destination MAC is not ours
    REASON_INNER_MAC_LOOP     # source MAC is ours
    REASON_NESTED             # a tunnel packet inside a tunnel
    REASON_ECN                # outer CE over inner Not-ECT (RFC 6040)
    REASON_SUPER_UDP          # unsegmented UDP super-datagram whose segment size nobody knows
    # -- who may send what
    REASON_GUARD_POD_SOURCE   # a pod used an address that is not its own
    REASON_GUARD_PEER_SOURCE  # a peer used an address that is not behind it
    REASON_GUARD_OWN_SOURCE   # an address of this node came from outside
    REASON_GUARD_NOT_LOCAL    # from a tunnel to a tunnel: transit is off
    # -- where it should go
    REASON_NO_ROUTE
    REASON_UNREACHABLE        # a blackhole route: an unassigned address of this node
    REASON_MULTICAST          # group traffic is not forwarded
    REASON_ENCAP_LOOP         # destination is our own tunnel endpoint
    REASON_TTL_EXPIRED
    REASON_TOO_BIG
    # -- flows and policy
    REASON_POLICY_DENY        # a rule, or the end of a tier, denies
    REASON_FRAGMENT_UNKNOWN   # a later fragment whose first one was not seen, or not let through
    REASON_FRAGMENT_OVERLAP   # a fragment over the first one's bytes: it could change what was judged
    REASON_FRAGMENT_FULL      # no room to remember the verdict of one more fragmented datagram
    REASON_ICMP_BAD_QUOTE     # an ICMP error about no flow of ours, or with an impossible MTU
    REASON_FLOW_INVALID       # in the middle of a conversation that nobody opened
    REASON_FLOW_BAD_RST       # a reset outside of the window
    REASON_FLOW_FULL          # no room, and nothing there that may go
    REASON_FLOW_QUOTA         # the source has its share of flows already
    # -- the ports
    REASON_PORT_GONE          # the port was removed while the packet was under way
    REASON_RATE               # more than the pod may receive
    REASON_TX_FULL            # the kernel's queue was full (ENOBUFS, EAGAIN)
    REASON_TX_ERROR           # any other error of a send
    REASON_TX_TOO_BIG         # EMSGSIZE even as a single packet
    REASON_BURST_FULL         # more segments in one datagram than a burst holds
    REASON_COUNT
