# reply: the ICMP message that tells a sender why its packet was dropped.
#
# Owns: which drops may be answered, how often, and the bytes of the answer.
# Never: sends. The worker puts the result into a packet flagged
# PACKET_CREATED, which is parsed and routed like any other.
# Invariants:
#   * The dropped packet was counted once, under its own reason. An answer that
#     is made is a created packet; one that is not made is no packet, and when
#     the rate forbade it, `suppressed` says so.
#   * Nothing is answered that could start a chain or a flood: no ICMP error, no
#     later fragment, nothing to or from a group, nothing made here (RFC 1812
#     4.3.2.7, RFC 4443 2.4 e).
#   * An answer is at most 576 (IPv4) or 1280 (IPv6) bytes.
# Limits are per worker and per destination. The global one is jittered, so that
# it cannot be read from outside as a counter of what others were answered.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from fastpath.buffer cimport packet, PACKET_CREATED, PACKET_LATER_FRAGMENT
from fastpath.reason cimport (
    REPLY_NONE, REPLY_TIME_EXCEEDED, REPLY_TOO_BIG, REPLY_NO_ROUTE, REPLY_HOST_UNREACHABLE, REPLY_PROHIBITED,
)
from fastpath.wire.icmp cimport (
    ICMP4_FRAGMENTATION_NEEDED, ICMP4_HOST, ICMP4_NETWORK, ICMP4_PROHIBITED, ICMP4_TIME_EXCEEDED, ICMP4_UNREACHABLE,
    ICMP6_ADDRESS, ICMP6_NO_ROUTE, ICMP6_PROHIBITED, ICMP6_TIME_EXCEEDED, ICMP6_TOO_BIG, ICMP6_UNREACHABLE,
    icmp4_is_error, icmp4_seal, icmp6_is_error, icmp6_seal, icmp_put,
)
from fastpath.wire.ipv4 cimport (
    IPV4_BYTES, IPV4_DESTINATION, IPV4_DF, IPV4_SOURCE, ipv4_is_group, ipv4_is_martian, ipv4_put,
)
from fastpath.wire.ipv6 cimport (
    IPV6_BYTES, IPV6_DESTINATION, IPV6_SOURCE, ipv6_is_group, ipv6_is_martian, ipv6_put,
)
from fastpath.wire.octets cimport load32, load64
from fastpath.wire.transport cimport ICMP_BYTES, PROTOCOL_ICMP, PROTOCOL_ICMPV6

cdef enum:
    REPLY4_MAX = 576
    REPLY6_MAX = 1280
    REPLY_HOPS = 64
    REPLY_CLASS = 0xc0         # internetwork control (RFC 1812 4.3.2.5), not ECN capable

cdef enum:
    REPLY_SLOTS = 1024         # destinations that hash alike share a rate
    REPLY_SLOT_NS = 10000000   # 100 a second to one destination,
    REPLY_SLOT_BURST = 20      # after so many at once
    REPLY_ALL_NS = 1000000     # 1,000 a second together,
    REPLY_ALL_BURST = 100      # after so many at once

# The node's own addresses in the pods' network: the sources of its messages.
cdef struct gateway:
    bint has4
    bint has6
    uint8_t gateway4[4]
    uint8_t gateway6[16]

# Each rate is one moment: when the budget used so far will be earned back.
cdef struct reply_limits:
    uint64_t all_ns
    uint64_t slots_ns[REPLY_SLOTS]
    uint64_t key
    uint64_t random            # xorshift64 state, never 0
    uint64_t suppressed        # answers the rates forbade


cdef inline void reply_limits_init(reply_limits *l, uint64_t key) noexcept nogil:
    memset(l, 0, sizeof(reply_limits))
    l.key = key | 1
    l.random = key | 1


cdef inline bint reply_build(const packet *p, reply_limits *l, const gateway *g, uint64_t now_ns,
                             uint8_t *out, uint32_t room, uint32_t *length) noexcept nogil:
    """Write the message that `p.reply` asks for at `out`; False when there is to be none.

    `p` passed parse and was dropped later; `now_ns` is monotonic.
    """
    cdef uint32_t overhead = (IPV4_BYTES if p.family == 4 else IPV6_BYTES) + ICMP_BYTES
    cdef uint32_t n = overhead + p.length
    cdef uint32_t longest = REPLY4_MAX if p.family == 4 else REPLY6_MAX
    if n > longest:
        n = longest
    if n > room or not reply_allowed(p, g) or not reply_within_rate(p, l, now_ns):
        return False
    memcpy(out + overhead, p.data, n - overhead)
    if p.family == 4:
        reply_put4(p, g, out, n)
    else:
        reply_put6(p, g, out, n)
    length[0] = n
    return True


cdef inline bint reply_allowed(const packet *p, const gateway *g) noexcept nogil:
    cdef const uint8_t *h = p.data
    if p.reply == REPLY_NONE or p.flags & (PACKET_CREATED | PACKET_LATER_FRAGMENT) != 0:
        return False
    if p.family == 4:
        return (g.has4 and not ipv4_is_martian(load32(h + IPV4_SOURCE))
                and not ipv4_is_group(load32(h + IPV4_DESTINATION))
                and not (p.protocol == PROTOCOL_ICMP and icmp4_is_error(h[p.transport])))
    return (g.has6 and not ipv6_is_martian(h + IPV6_SOURCE)
            and not ipv6_is_group(h + IPV6_DESTINATION)
            and not (p.protocol == PROTOCOL_ICMPV6 and icmp6_is_error(h[p.transport])))


cdef inline bint reply_within_rate(const packet *p, reply_limits *l, uint64_t now_ns) noexcept nogil:
    """Take one answer out of both budgets, or neither."""
    cdef uint64_t *slot = &l.slots_ns[reply_slot(p, l.key)]
    cdef uint64_t slot_ns = slot[0] if slot[0] > now_ns else now_ns
    cdef uint64_t all_ns = l.all_ns if l.all_ns > now_ns else now_ns
    if (slot_ns - now_ns > <uint64_t>REPLY_SLOT_NS * (REPLY_SLOT_BURST - 1)
            or all_ns - now_ns > <uint64_t>REPLY_ALL_NS * (REPLY_ALL_BURST - 1)):
        l.suppressed += 1
        return False
    l.random ^= l.random << 13
    l.random ^= l.random >> 7
    l.random ^= l.random << 17
    slot[0] = slot_ns + REPLY_SLOT_NS
    l.all_ns = all_ns + REPLY_ALL_NS // 2 + l.random % REPLY_ALL_NS
    return True


cdef inline uint32_t reply_slot(const packet *p, uint64_t key) noexcept nogil:
    """The slot of the message's destination, which is the source of `p`."""
    cdef uint64_t hash
    if p.family == 4:
        hash = load32(p.data + IPV4_SOURCE)
    else:
        hash = load64(p.data + IPV6_SOURCE) * key ^ load64(p.data + IPV6_SOURCE + 8)
    hash = (hash ^ key) * 0x9e3779b97f4a7c15ULL
    hash = (hash ^ hash >> 32) * key
    return <uint32_t>(hash >> 54)


cdef inline void reply_put4(const packet *p, const gateway *g, uint8_t *out, uint32_t n) noexcept nogil:
    cdef uint8_t *icmp = out + IPV4_BYTES
    ipv4_put(out, g.gateway4, p.data + IPV4_SOURCE, PROTOCOL_ICMP, n, REPLY_CLASS, 0, IPV4_DF, REPLY_HOPS)
    if p.reply == REPLY_TIME_EXCEEDED:
        icmp_put(icmp, ICMP4_TIME_EXCEEDED, 0, 0)
    elif p.reply == REPLY_TOO_BIG:
        icmp_put(icmp, ICMP4_UNREACHABLE, ICMP4_FRAGMENTATION_NEEDED, p.reply_mtu)
    elif p.reply == REPLY_NO_ROUTE:
        icmp_put(icmp, ICMP4_UNREACHABLE, ICMP4_NETWORK, 0)
    elif p.reply == REPLY_HOST_UNREACHABLE:
        icmp_put(icmp, ICMP4_UNREACHABLE, ICMP4_HOST, 0)
    else:
        icmp_put(icmp, ICMP4_UNREACHABLE, ICMP4_PROHIBITED, 0)
    icmp4_seal(icmp, n - IPV4_BYTES)


cdef inline void reply_put6(const packet *p, const gateway *g, uint8_t *out, uint32_t n) noexcept nogil:
    cdef uint8_t *icmp = out + IPV6_BYTES
    ipv6_put(out, g.gateway6, p.data + IPV6_SOURCE, PROTOCOL_ICMPV6, n - IPV6_BYTES, REPLY_CLASS, 0, REPLY_HOPS)
    if p.reply == REPLY_TIME_EXCEEDED:
        icmp_put(icmp, ICMP6_TIME_EXCEEDED, 0, 0)
    elif p.reply == REPLY_TOO_BIG:
        icmp_put(icmp, ICMP6_TOO_BIG, 0, p.reply_mtu)
    elif p.reply == REPLY_NO_ROUTE:
        icmp_put(icmp, ICMP6_UNREACHABLE, ICMP6_NO_ROUTE, 0)
    elif p.reply == REPLY_HOST_UNREACHABLE:
        icmp_put(icmp, ICMP6_UNREACHABLE, ICMP6_ADDRESS, 0)
    else:
        icmp_put(icmp, ICMP6_UNREACHABLE, ICMP6_PROHIBITED, 0)
    icmp6_seal(out, icmp, n - IPV6_BYTES)
