# The IPv4 header (RFC 791).
#
# Owns: its layout, its check, and the changes a router makes to it.
# Never: looks behind it.
# Invariant: ipv4_check() passed means a right checksum, header <= total <= n,
# and options that can be walked and hold no source route. Every accessor
# relies on that; every change keeps the checksum right.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy
from fastpath.reason cimport (
    REASON_NONE, REASON_TRUNCATED, REASON_IP_VERSION, REASON_IP4_LENGTH, REASON_IP4_CHECKSUM, REASON_IP4_OPTION,
)
from fastpath.wire.checksum cimport (
    checksum_add, checksum_finish, checksum_fold, checksum_replace16, checksum_right20,
)
from fastpath.wire.octets cimport load16, load32, store16

cdef enum:
    IPV4_BYTES = 20
    IPV4_HEADER_MAX = 60
    IPV4_CLASS = 1
    IPV4_TOTAL = 2
    IPV4_ID = 4
    IPV4_FRAGMENT = 6
    IPV4_TTL = 8
    IPV4_PROTOCOL = 9
    IPV4_CHECKSUM = 10
    IPV4_SOURCE = 12
    IPV4_DESTINATION = 16

cdef enum:                     # of the 16 bits at IPV4_FRAGMENT
    IPV4_DF = 0x4000
    IPV4_MF = 0x2000
    IPV4_OFFSET = 0x1fff       # in units of 8 bytes

cdef enum:
    OPTION_END = 0
    OPTION_NOP = 1
    OPTION_LOOSE_ROUTE = 131
    OPTION_STRICT_ROUTE = 137


cdef inline int ipv4_check(const uint8_t *h, uint32_t n) noexcept nogil:
    cdef uint32_t header, total
    if n < IPV4_BYTES:
        return REASON_TRUNCATED
    if h[0] >> 4 != 4:
        return REASON_IP_VERSION
    header = ipv4_header_bytes(h)
    total = load16(h + IPV4_TOTAL)
    if header < IPV4_BYTES or total < header:
        return REASON_IP4_LENGTH
    if total > n:
        return REASON_TRUNCATED
    if header == IPV4_BYTES:
        return REASON_NONE if checksum_right20(h) else REASON_IP4_CHECKSUM
    if checksum_fold(checksum_add(0, h, header)) != 0xffff:
        return REASON_IP4_CHECKSUM
    return ipv4_check_options(h + IPV4_BYTES, header - IPV4_BYTES)


cdef inline int ipv4_check_options(const uint8_t *option, uint32_t n) noexcept nogil:
    """Source routes are dropped (RFC 7126), all others pass uninterpreted."""
    cdef const uint8_t *end = option + n
    cdef uint32_t size
    while option < end and option[0] != OPTION_END:
        if option[0] == OPTION_LOOSE_ROUTE or option[0] == OPTION_STRICT_ROUTE:
            return REASON_IP4_OPTION
        size = 1
        if option[0] != OPTION_NOP:
            if end - option < 2:
                return REASON_IP4_OPTION
            size = option[1]
            if size < 2 or size > end - option:
                return REASON_IP4_OPTION
        option += size
    return REASON_NONE


cdef inline uint32_t ipv4_header_bytes(const uint8_t *h) noexcept nogil:
    return (h[0] & 15) << 2


cdef inline bint ipv4_is_group(uint32_t address) noexcept nogil:
    """Multicast, or the limited broadcast."""
    return address >> 28 == 14 or <uint32_t>~address == 0


cdef inline bint ipv4_is_martian(uint32_t address) noexcept nogil:
    """This network, loopback, link-local, multicast or reserved: may not be routed (RFC 6890)."""
    return (address >> 24 == 0 or address >> 24 == 127 or address >> 16 == 0xa9fe
            or address >> 28 >= 14)


cdef inline bint ipv4_is_ordinary(uint32_t address) noexcept nogil:
    """Neither a group nor a martian, in fewer steps than asking for each."""
    return address - (1 << 24) < 126 << 24 or address - <uint32_t>(128 << 24) < 96 << 24 and address >> 16 != 0xa9fe


cdef inline bint ipv4_is_link_local(uint32_t address) noexcept nogil:
    """RFC 3927: never leaves its link, which for a pod is its node."""
    return address >> 16 == 0xa9fe


cdef inline uint64_t ipv4_pseudo(const uint8_t *h, uint32_t protocol, uint32_t n) noexcept nogil:
    """Partial sum of the pseudo-header of `n` transport bytes."""
    return <uint64_t>load32(h + IPV4_SOURCE) + load32(h + IPV4_DESTINATION) + protocol + n


cdef inline void ipv4_set_class(uint8_t *h, uint32_t traffic_class) noexcept nogil:
    """Change DSCP and ECN."""
    cdef uint32_t old = load16(h)
    cdef uint32_t new = (old & 0xff00) | (traffic_class & 0xff)
    store16(h, new)
    store16(h + IPV4_CHECKSUM, checksum_replace16(load16(h + IPV4_CHECKSUM), old, new))


cdef inline void ipv4_decrement_ttl(uint8_t *h) noexcept nogil:
    """One hop less; the caller has seen that more than one is left.

    What RFC 1624, equation 3, comes to: the word falls by 0x100, so the field rises by it, with the carry added.
    """
    cdef uint32_t field = load16(h + IPV4_CHECKSUM) + 0x100
    h[IPV4_TTL] -= 1
    store16(h + IPV4_CHECKSUM, field + (field >= 0xffff))


cdef inline void ipv4_seal(uint8_t *h) noexcept nogil:
    """Compute the header checksum anew."""
    store16(h + IPV4_CHECKSUM, 0)
    store16(h + IPV4_CHECKSUM, checksum_finish(checksum_add(0, h, ipv4_header_bytes(h))))


cdef inline void ipv4_put(uint8_t *h, const uint8_t *source, const uint8_t *destination, uint32_t protocol,
                          uint32_t total, uint32_t traffic_class, uint32_t identification, uint32_t fragment,
                          uint32_t ttl) noexcept nogil:
    """Write a header without options; `total` counts it, `fragment` is 0 or IPV4_DF."""
    h[0] = 0x45
    h[IPV4_CLASS] = <uint8_t>traffic_class
    store16(h + IPV4_TOTAL, total)
    store16(h + IPV4_ID, identification)
    store16(h + IPV4_FRAGMENT, fragment)
    h[IPV4_TTL] = <uint8_t>ttl
    h[IPV4_PROTOCOL] = <uint8_t>protocol
    memcpy(h + IPV4_SOURCE, source, 4)
    memcpy(h + IPV4_DESTINATION, destination, 4)
    ipv4_seal(h)
