# The Ethernet header inside VXLAN.
#
# Owns: its layout: destination[6] source[6] type[2]; no FCS, no padding.
# Never: accepts a VLAN tag or resolves an address.
# Invariant: ethernet_check() passed means 14 readable bytes and an IP ethertype.

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp, memcpy
from fastpath.reason cimport REASON_NONE, REASON_INNER_ETHERNET, REASON_TRUNCATED
from fastpath.wire.octets cimport load16, store16

cdef enum:
    ETHERNET_BYTES = 14
    ETHERNET_ADDRESS_BYTES = 6
    ETHERNET_SOURCE = 6
    ETHERNET_TYPE = 12

cdef enum:
    ETHERTYPE_IPV4 = 0x0800
    ETHERTYPE_IPV6 = 0x86dd


cdef inline int ethernet_check(const uint8_t *h, uint32_t n) noexcept nogil:
    cdef uint32_t ethertype
    if n < ETHERNET_BYTES:
        return REASON_TRUNCATED
    ethertype = load16(h + ETHERNET_TYPE)
    if ethertype != ETHERTYPE_IPV4 and ethertype != ETHERTYPE_IPV6:
        return REASON_INNER_ETHERNET
    return REASON_NONE


cdef inline uint32_t ethernet_family(const uint8_t *h) noexcept nogil:
    """4 or 6: the version nibble the ethertype promises."""
    return 4 if load16(h + ETHERNET_TYPE) == ETHERTYPE_IPV4 else 6


cdef inline bint ethernet_is_group(const uint8_t *address) noexcept nogil:
    """Broadcast or multicast."""
    return address[0] & 1


cdef inline bint ethernet_same(const uint8_t *a, const uint8_t *b) noexcept nogil:
    return memcmp(a, b, ETHERNET_ADDRESS_BYTES) == 0


cdef inline void ethernet_put(uint8_t *h, const uint8_t *destination, const uint8_t *source,
                              uint32_t family) noexcept nogil:
    memcpy(h, destination, ETHERNET_ADDRESS_BYTES)
    memcpy(h + ETHERNET_SOURCE, source, ETHERNET_ADDRESS_BYTES)
    store16(h + ETHERNET_TYPE, ETHERTYPE_IPV4 if family == 4 else ETHERTYPE_IPV6)
