# IP in IP: protocol 4 (RFC 2003) for an inner IPv4, 41 (RFC 4213, RFC 2473) for an inner IPv6 packet.
#
# Owns: nothing between the two IP headers. The outer header is the kernel's;
# the raw port picks the socket of the inner family.
# Never: copies the inner TTL outwards; the outer one is 64.

from libc.stdint cimport uint8_t, uint32_t
from fastpath.buffer cimport packet
from fastpath.encap.tunnel cimport tunnel, bare_match

cdef inline uint32_t ipip_overhead(uint32_t outer_family) noexcept nogil:
    return 20 if outer_family == 4 else 40

cdef inline int ipip_match(const tunnel *t, const uint8_t *data, uint32_t length) noexcept nogil:
    return bare_match(data, length)

cdef inline void ipip_strip(packet *p) noexcept nogil:
    pass

cdef inline uint32_t ipip_bytes() noexcept nogil:
    return 0

cdef inline uint32_t ipip_put(const tunnel *t, const uint8_t *mac, uint32_t family, uint8_t *inner) noexcept nogil:
    return 0
