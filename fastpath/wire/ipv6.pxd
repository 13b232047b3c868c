# The IPv6 header and its extension headers (RFC 8200).
#
# Owns: their layout, their check, the one walk along the chain.
# Never: acts on an option; a router need not, and nothing a pod sends should
# choose a path through this code.
# Invariant: protocol and offset are found together by ipv6_walk() and computed
# nowhere else, so that they cannot disagree.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy
from fastpath.reason cimport (
    REASON_NONE, REASON_TRUNCATED, REASON_IP_VERSION, REASON_IP6_LENGTH, REASON_IP6_EXTENSION, REASON_IP6_ROUTING,
    REASON_FRAGMENT_CHAIN,
)
from fastpath.wire.checksum cimport checksum_add
from fastpath.wire.fragment cimport DATAGRAM_MAX, fragment_check
from fastpath.wire.octets cimport load16, load32, load64, store16, store32

cdef enum:
    IPV6_BYTES = 40
    IPV6_PAYLOAD = 4
    IPV6_NEXT = 6
    IPV6_HOPS = 7
    IPV6_SOURCE = 8
    IPV6_DESTINATION = 24

cdef enum:                     # extension headers that are walked; ESP, AH and all others end the chain
    EXTENSION_HOP_BY_HOP = 0
    EXTENSION_ROUTING = 43
    EXTENSION_FRAGMENT = 44
    EXTENSION_DESTINATION = 60
    EXTENSIONS_MAX = 8
    EXTENSION_BYTES_MAX = 256

cdef enum:                     # hop-by-hop options
    OPTION_PAD1 = 0
    OPTION_JUMBO = 0xc2

# What the walk found.
cdef struct ipv6_chain:
    uint32_t offset            # of the transport header, or of a later fragment's bytes
    uint8_t protocol
    bint is_fragment           # an atomic fragment (RFC 6946) is none
    bint is_later              # a fragment that does not start its datagram
    bint is_more               # nor ends it
    uint32_t position          # of a fragment: bytes into the datagram's fragmentable part
    uint32_t identification
    uint32_t carried           # bytes behind the fragment header


cdef inline int ipv6_check(const uint8_t *h, uint32_t n) noexcept nogil:
    """Passed: a payload of 1.. bytes that is all there. Jumbograms are not supported."""
    cdef uint32_t payload
    if n < IPV6_BYTES:
        return REASON_TRUNCATED
    if h[0] >> 4 != 6:
        return REASON_IP_VERSION
    payload = load16(h + IPV6_PAYLOAD)
    if payload == 0 or payload > DATAGRAM_MAX - IPV6_BYTES:
        return REASON_IP6_LENGTH
    if payload > n - IPV6_BYTES:
        return REASON_TRUNCATED
    return REASON_NONE


cdef inline int ipv6_walk(const uint8_t *h, uint32_t n, ipv6_chain *chain) noexcept nogil:
    """Follow the chain of a packet of exactly `n` bytes to its transport header."""
    cdef uint32_t at = IPV6_BYTES
    cdef uint32_t size, word
    cdef uint8_t kind = h[IPV6_NEXT]
    cdef bint seen_fragment = False
    cdef int reason, i
    chain.is_fragment = False
    chain.is_later = False
    for i in range(EXTENSIONS_MAX + 1):
        if (kind != EXTENSION_HOP_BY_HOP and kind != EXTENSION_ROUTING and kind != EXTENSION_FRAGMENT
                and kind != EXTENSION_DESTINATION) or chain.is_later:
            chain.protocol = kind
            chain.offset = at
            return REASON_NONE
        if i == EXTENSIONS_MAX:
            break
        if n - at < 8:
            # RFC 7112: a first fragment holds the whole chain
            return REASON_FRAGMENT_CHAIN if chain.is_fragment else REASON_IP6_EXTENSION
        size = 8
        if kind == EXTENSION_FRAGMENT:
            if seen_fragment:
                return REASON_FRAGMENT_CHAIN
            seen_fragment = True
            word = load16(h + at + 2)
            if word & 0xfff9 != 0:
                chain.is_fragment = True
                chain.is_later = word & 0xfff8 != 0
                chain.is_more = word & 1
                chain.position = word & 0xfff8
                chain.identification = load32(h + at + 4)
                chain.carried = n - at - 8
                reason = fragment_check(word & 0xfff8, word & 1, n - at - 8, at - IPV6_BYTES)
                if reason != REASON_NONE:
                    return reason
        else:
            size = (<uint32_t>h[at + 1] + 1) << 3
            if size > EXTENSION_BYTES_MAX:
                return REASON_IP6_EXTENSION
            if size > n - at:
                return REASON_FRAGMENT_CHAIN if chain.is_fragment else REASON_IP6_EXTENSION
            if kind == EXTENSION_HOP_BY_HOP:
                if i != 0:
                    return REASON_IP6_EXTENSION
                reason = ipv6_check_options(h + at + 2, size - 2)
                if reason != REASON_NONE:
                    return reason
            elif kind == EXTENSION_ROUTING and h[at + 2] == 0:
                return REASON_IP6_ROUTING
        kind = h[at]
        at += size
        if at - IPV6_BYTES > EXTENSION_BYTES_MAX:
            break
    return REASON_IP6_EXTENSION


cdef inline int ipv6_check_options(const uint8_t *option, uint32_t n) noexcept nogil:
    """The options of a hop-by-hop header can be walked and announce no jumbogram."""
    cdef const uint8_t *end = option + n
    cdef uint32_t size
    while option < end:
        if option[0] == OPTION_JUMBO:
            return REASON_IP6_LENGTH
        size = 1
        if option[0] != OPTION_PAD1:
            if end - option < 2:
                return REASON_IP6_EXTENSION
            size = 2 + <uint32_t>option[1]
            if size > end - option:
                return REASON_IP6_EXTENSION
        option += size
    return REASON_NONE


cdef inline uint32_t ipv6_class(const uint8_t *h) noexcept nogil:
    return load16(h) >> 4 & 0xff


cdef inline bint ipv6_is_group(const uint8_t *address) noexcept nogil:
    return address[0] == 0xff


cdef inline bint ipv6_is_martian(const uint8_t *address) noexcept nogil:
    """Unspecified, loopback, IPv4-mapped, link-local or multicast: may not be routed (RFC 6890)."""
    cdef uint64_t high = load64(address)
    cdef uint64_t low = load64(address + 8)
    if high == 0:
        return low <= 1 or low >> 32 == 0xffff
    return high >> 54 == 0x3fa or high >> 56 == 0xff


cdef inline uint64_t ipv6_pseudo(const uint8_t *h, uint32_t protocol, uint32_t n) noexcept nogil:
    """Partial sum of the pseudo-header of `n` transport bytes."""
    return checksum_add(<uint64_t>protocol + n, h + IPV6_SOURCE, 32)


cdef inline void ipv6_set_class(uint8_t *h, uint32_t traffic_class) noexcept nogil:
    """Change DSCP and ECN."""
    store16(h, (load16(h) & 0xf00f) | (traffic_class & 0xff) << 4)


cdef inline void ipv6_decrement_hops(uint8_t *h) noexcept nogil:
    """One hop less; the caller has seen that more than one is left."""
    h[IPV6_HOPS] -= 1


cdef inline void ipv6_put(uint8_t *h, const uint8_t *source, const uint8_t *destination, uint32_t next_header,
                          uint32_t payload, uint32_t traffic_class, uint32_t flow_label,
                          uint32_t hops) noexcept nogil:
    """Write a header; `payload` does not count it."""
    store32(h, <uint32_t>6 << 28 | (traffic_class & 0xff) << 20 | (flow_label & 0xfffff))
    store16(h + IPV6_PAYLOAD, payload)
    h[IPV6_NEXT] = <uint8_t>next_header
    h[IPV6_HOPS] = <uint8_t>hops
    memcpy(h + IPV6_SOURCE, source, 16)
    memcpy(h + IPV6_DESTINATION, destination, 16)
