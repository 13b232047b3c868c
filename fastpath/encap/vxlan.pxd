# VXLAN (RFC 7348) as flannel, Calico and the Linux device speak it.
#
#   byte 0      1..3        4..6    7
#   flags 0x08  reserved 0  VNI     0      then Ethernet: dst 6, src 6, type 2
#
# Owns: the 22 bytes between the outer UDP header and the inner IP header.
# Never: learns, floods or answers ARP; group MACs are dropped by `match`.

from libc.stdint cimport uint8_t, uint32_t
from fastpath.buffer cimport packet
from fastpath.encap.tunnel cimport tunnel, RESERVED_DROP, RESERVED_GBP
from fastpath.reason cimport (
    REASON_NONE, REASON_TRUNCATED, REASON_VXLAN_FLAGS, REASON_VXLAN_RESERVED, REASON_VNI_UNKNOWN,
    REASON_VNI_CALICO_NODEPORT, REASON_INNER_GROUP_MAC, REASON_INNER_MAC,
    REASON_INNER_MAC_LOOP, REASON_IP_VERSION,
)
from fastpath.wire.ethernet cimport (
    ETHERNET_BYTES, ETHERNET_SOURCE, ethernet_check, ethernet_family, ethernet_is_group, ethernet_put, ethernet_same,
)
from fastpath.wire.octets cimport load32, store32

cdef enum:
    VXLAN_BYTES = 8
    VXLAN_HEADER = VXLAN_BYTES + ETHERNET_BYTES
    VXLAN_FLAG_VNI = 0x08
    VXLAN_FLAG_GBP = 0x80
    VXLAN_GBP_BITS = 0x0048FFFF  # D and A flags, and the group policy id
    VNI_CALICO_NODEPORT = 0xCA11C0

cdef inline uint32_t vxlan_overhead(uint32_t outer_family) noexcept nogil:
    """Bytes between the inner packet and the underlay's MTU."""
    return (20 if outer_family == 4 else 40) + 8 + VXLAN_HEADER

cdef inline int vxlan_match(const tunnel *t, const uint8_t *data, uint32_t length) noexcept nogil:
    """Whether a datagram is for this tunnel: REASON_NONE, or why not."""
    cdef uint32_t flags, vni
    if length < VXLAN_HEADER + 1:
        return REASON_TRUNCATED
    flags = load32(data)
    if not data[0] & VXLAN_FLAG_VNI:
        return REASON_VXLAN_FLAGS
    vni = load32(data + 4) >> 8
    if vni != t.vni:
        return REASON_VNI_CALICO_NODEPORT if vni == VNI_CALICO_NODEPORT else REASON_VNI_UNKNOWN
    if flags != <uint32_t>VXLAN_FLAG_VNI << 24 or data[7]:
        if t.reserved == RESERVED_DROP:
            return REASON_VXLAN_RESERVED
        if t.reserved == RESERVED_GBP and (
            data[7] or flags & ~((<uint32_t>(VXLAN_FLAG_VNI | VXLAN_FLAG_GBP) << 24) | VXLAN_GBP_BITS)
        ):
            return REASON_VXLAN_RESERVED
    return vxlan_match_frame(t, data + VXLAN_BYTES)

cdef inline int vxlan_match_frame(const tunnel *t, const uint8_t *frame) noexcept nogil:
    """The Ethernet header, and the version nibble behind it: both were seen to be there."""
    cdef int reason
    if ethernet_is_group(frame):
        return REASON_INNER_GROUP_MAC
    reason = ethernet_check(frame, ETHERNET_BYTES)
    if reason != REASON_NONE:
        return reason
    if frame[ETHERNET_BYTES] >> 4 != ethernet_family(frame):
        return REASON_IP_VERSION
    if t.strict_mac and not ethernet_same(frame, t.mac):
        return REASON_INNER_MAC
    if ethernet_same(frame + ETHERNET_SOURCE, t.mac):
        return REASON_INNER_MAC_LOOP
    return REASON_NONE

cdef inline void vxlan_strip(packet *p) noexcept nogil:
    """Make the inner packet the packet. Only after `vxlan_match`."""
    p.data += VXLAN_HEADER
    p.length -= VXLAN_HEADER

cdef inline uint32_t vxlan_bytes() noexcept nogil:
    return VXLAN_HEADER

cdef inline uint32_t vxlan_put(const tunnel *t, const uint8_t *mac, uint32_t family, uint8_t *inner) noexcept nogil:
    """Write the header that ends where the inner packet starts; returns its size."""
    cdef uint8_t *at = inner - VXLAN_HEADER
    store32(at, <uint32_t>VXLAN_FLAG_VNI << 24)
    store32(at + 4, t.vni << 8)
    ethernet_put(at + VXLAN_BYTES, mac, t.mac, family)
    return VXLAN_HEADER
