# The inner IP packet right behind the outer UDP header: flannel's udp backend.
#
# Owns: nothing on the wire; there is no magic, length or flag. One datagram is
# exactly one packet. An inner IPv6 packet is an extension of ours.
# Never: decides families; the version nibble does.

from libc.stdint cimport uint8_t, uint32_t
from fastpath.buffer cimport packet
from fastpath.encap.tunnel cimport tunnel, bare_match

cdef inline uint32_t udp_overhead(uint32_t outer_family) noexcept nogil:
    return (20 if outer_family == 4 else 40) + 8

cdef inline int udp_match(const tunnel *t, const uint8_t *data, uint32_t length) noexcept nogil:
    return bare_match(data, length)

cdef inline void udp_strip(packet *p) noexcept nogil:
    pass

cdef inline uint32_t udp_bytes() noexcept nogil:
    return 0

cdef inline uint32_t udp_put(const tunnel *t, const uint8_t *mac, uint32_t family, uint8_t *inner) noexcept nogil:
    return 0
