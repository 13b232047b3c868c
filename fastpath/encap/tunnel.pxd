# What a tunnel port accepts and sends: the parameters every encapsulation reads.
#
# Owns: the record, one per tunnel port, and the numbers of the encapsulations.
# Never: changes after its port was attached.

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from fastpath.reason cimport REASON_NONE, REASON_TRUNCATED, REASON_IP_VERSION

cdef enum encapsulation_t:
    ENCAP_PLAIN = 0
    ENCAP_VXLAN = 1
    ENCAP_UDP = 2
    ENCAP_IPIP = 3

cdef enum reserved_t:          # VXLAN headers with reserved bits set
    RESERVED_DROP = 0          # as Linux
    RESERVED_IGNORE = 1        # as RFC 7348
    RESERVED_GBP = 2           # group-policy bits allowed, others dropped

cdef struct tunnel:
    uint8_t encapsulation
    uint8_t outer_family       # 4 or 6
    uint8_t strict_mac
    uint8_t reserved
    uint8_t copy_dscp
    uint8_t fixed_source       # send from the receiving socket (flannel's udp backend)
    uint8_t header_bytes       # encap_bytes: what stands before each inner packet
    uint8_t mac[6]             # our VTEP address
    uint16_t port              # UDP port we receive on
    uint32_t vni
    uint8_t local[16]          # our outer address, IPv4 as ::ffff:a.b.c.d

cdef inline int bare_match(const uint8_t *data, uint32_t length) noexcept nogil:
    """What the encapsulations without a header of their own ask: is this an IP packet at all?"""
    if length < 20:            # the shortest IPv4 header; flannel ignores shorter ones too
        return REASON_TRUNCATED
    if data[0] >> 4 != 4 and data[0] >> 4 != 6:
        return REASON_IP_VERSION
    return REASON_NONE
