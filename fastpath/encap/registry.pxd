# The encapsulations by number: one line each in each of the five functions.
#
# Owns: the dispatch. A switch over constants, so that everything inlines.
# Adding one: its file, its number in tunnel.pxd, its five lines here, its row
# in the contract suite.

from libc.stdint cimport uint8_t, uint32_t
from fastpath.buffer cimport packet
from fastpath.encap.tunnel cimport tunnel, ENCAP_VXLAN, ENCAP_UDP, ENCAP_IPIP
from fastpath.encap.vxlan cimport vxlan_bytes, vxlan_overhead, vxlan_match, vxlan_strip, vxlan_put
from fastpath.encap.udp cimport udp_bytes, udp_overhead, udp_match, udp_strip, udp_put
from fastpath.encap.ipip cimport ipip_bytes, ipip_overhead, ipip_match, ipip_strip, ipip_put
from fastpath.encap.plain cimport plain_bytes, plain_overhead, plain_match, plain_strip, plain_put

cdef inline uint32_t encap_overhead(uint32_t encapsulation, uint32_t outer_family) noexcept nogil:
    if encapsulation == ENCAP_VXLAN: return vxlan_overhead(outer_family)
    if encapsulation == ENCAP_UDP: return udp_overhead(outer_family)
    if encapsulation == ENCAP_IPIP: return ipip_overhead(outer_family)
    return plain_overhead(outer_family)

cdef inline int encap_match(const tunnel *t, const uint8_t *data, uint32_t length) noexcept nogil:
    if t.encapsulation == ENCAP_VXLAN: return vxlan_match(t, data, length)
    if t.encapsulation == ENCAP_UDP: return udp_match(t, data, length)
    if t.encapsulation == ENCAP_IPIP: return ipip_match(t, data, length)
    return plain_match(t, data, length)

cdef inline void encap_strip(const tunnel *t, packet *p) noexcept nogil:
    if t.encapsulation == ENCAP_VXLAN: vxlan_strip(p)
    elif t.encapsulation == ENCAP_UDP: udp_strip(p)
    elif t.encapsulation == ENCAP_IPIP: ipip_strip(p)
    else: plain_strip(p)

cdef inline uint32_t encap_bytes(const tunnel *t) noexcept nogil:
    """What encap_put writes, ENCAP_HEADER_MAX at most."""
    if t.encapsulation == ENCAP_VXLAN: return vxlan_bytes()
    if t.encapsulation == ENCAP_UDP: return udp_bytes()
    if t.encapsulation == ENCAP_IPIP: return ipip_bytes()
    return plain_bytes()

cdef inline uint32_t encap_put(const tunnel *t, const uint8_t *mac, uint32_t family, uint8_t *inner) noexcept nogil:
    if t.encapsulation == ENCAP_VXLAN: return vxlan_put(t, mac, family, inner)
    if t.encapsulation == ENCAP_UDP: return udp_put(t, mac, family, inner)
    if t.encapsulation == ENCAP_IPIP: return ipip_put(t, mac, family, inner)
    return plain_put(t, mac, family, inner)
