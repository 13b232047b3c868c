# hop: what a router does to a packet on its way: ECN of the tunnel, hop count, size.
#
# Owns: RFC 6040 on leaving a tunnel; one TTL decrement per node; the MTU test.
# Never: writes an ICMP message (reply does) or cuts a packet (transmit does).
# Invariant: the hop count falls once per node: not where the host's kernel is
# the router (it counts itself), and not for packets made here.

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from fastpath.buffer cimport (
    burst, packet, packet_bytes, packet_drop, packet_refuse, PACKET_CREATED, PACKET_DONT_FRAGMENT,
    PACKET_FRAGMENT, PACKET_FROM_HOST, PACKET_FROM_TUNNEL, PACKET_NEEDS_CHECKSUM,
)
from fastpath.counters cimport (
    counters, EVENT_ECN_ODD, EVENT_PARTIAL_RESTORED, EVENT_SUPER_RESTORED,
)
from fastpath.offload.restore cimport restore
from fastpath.reason cimport (
    VERDICT_PASS, REASON_ECN, REASON_TOO_BIG, REASON_TTL_EXPIRED, REPLY_TIME_EXCEEDED, REPLY_TOO_BIG,
)
from fastpath.table.adjacency cimport adjacency
from fastpath.wire.ipv4 cimport IPV4_TTL, ipv4_decrement_ttl, ipv4_set_class
from fastpath.wire.ipv6 cimport IPV6_HOPS, ipv6_decrement_hops, ipv6_set_class

cdef enum:
    ECN_MASK = 3
    ECN_CE = 3
    ECN_ECT1 = 1
    ECN_NOT_ECT = 0

cdef inline void class_set(packet *p, uint8_t traffic_class) noexcept nogil:
    if p.family == 4:
        ipv4_set_class(p.data, traffic_class)
    else:
        ipv6_set_class(p.data, traffic_class)
    p.traffic_class = traffic_class

cdef inline void hop_ecn(packet *p, counters *count) noexcept nogil:
    """RFC 6040, section 4.2: what the outer mark does to the inner one."""
    cdef uint8_t inner = p.traffic_class & ECN_MASK
    cdef uint8_t outer = p.outer_class & ECN_MASK
    if outer == ECN_NOT_ECT or outer == inner or inner == ECN_CE:
        return
    if inner == ECN_NOT_ECT:
        if outer == ECN_CE:
            packet_drop(p, REASON_ECN)
        else:
            count.events[EVENT_ECN_ODD] += 1
    elif outer == ECN_CE or outer == ECN_ECT1:
        class_set(p, <uint8_t>((p.traffic_class & ~ECN_MASK) | outer))

cdef inline bint hops_counted(const packet *p, const adjacency *to) noexcept nogil:
    """Whether this node is the router: not where the host's kernel is, nor for packets made here."""
    return not p.flags & (PACKET_CREATED | PACKET_FROM_HOST) and not to.to_host

cdef inline bint hop_is_last(const packet *p) noexcept nogil:
    return (p.data[IPV4_TTL] if p.family == 4 else p.data[IPV6_HOPS]) <= 1

cdef inline void hop_decrement(packet *p) noexcept nogil:
    if p.family == 4:
        ipv4_decrement_ttl(p.data)
    else:
        ipv6_decrement_hops(p.data)

cdef inline bint hop_fits(const packet *p, const adjacency *to) noexcept nogil:
    """Whether it can be sent, be it in fragments (IPv4 without DF)."""
    cdef uint32_t size = p.payload + <uint32_t>p.gso_size if p.gso_size else packet_bytes(p)
    return size <= to.mtu or (p.gso_size == 0 and not p.flags & PACKET_DONT_FRAGMENT)

cdef inline void hop_refuse_size(packet *p, const adjacency *to) noexcept nogil:
    packet_refuse(p, REASON_TOO_BIG, REPLY_TOO_BIG)
    p.reply_mtu = <uint16_t>(to.mtu if to.mtu < 65535 else 65535)

cdef inline void hop_restore(packet *p, const adjacency *to, counters *count) noexcept nogil:
    """Give a packet from a kernel peer the metadata its trip through a socket lost."""
    cdef bint pending = p.flags & PACKET_NEEDS_CHECKSUM != 0
    cdef int reason = restore(p, to.mtu)
    if reason:
        packet_drop(p, reason)
    elif p.gso_size:
        count.events[EVENT_SUPER_RESTORED] += 1
    elif p.flags & PACKET_NEEDS_CHECKSUM and not pending:
        count.events[EVENT_PARTIAL_RESTORED] += 1

cdef inline void hop_tunnel(packet *p, const adjacency *to, counters *count) noexcept nogil:
    """What leaving a tunnel means for a packet."""
    hop_ecn(p, count)
    if p.verdict == VERDICT_PASS:
        hop_restore(p, to, count)

cdef inline void hop_one(packet *p, const adjacency *to, counters *count) noexcept nogil:
    """In the order of a router: hop count, then size, and only what passes both is changed (an ICMP quote is as sent)."""
    cdef bint counted = hops_counted(p, to)
    if counted and hop_is_last(p):
        packet_refuse(p, REASON_TTL_EXPIRED, REPLY_TIME_EXCEEDED)
        return
    if p.flags & PACKET_FROM_TUNNEL and not p.flags & PACKET_CREATED:
        hop_tunnel(p, to, count)
        if p.verdict != VERDICT_PASS:
            return
    if not hop_fits(p, to):
        hop_refuse_size(p, to)
    elif counted:
        hop_decrement(p)

cdef inline void hop(burst *b, counters *count) noexcept nogil:
    cdef uint32_t i
    cdef packet *p
    for i in range(b.n):
        p = &b.packets[i]
        if p.verdict == VERDICT_PASS:
            hop_one(p, <const adjacency *>p.adjacency, count)
