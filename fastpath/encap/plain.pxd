# No encapsulation: the packet travels as it is (bare routed mode, memory ports).
#
# Owns: the five functions for "nothing", so that no caller needs a special case.

from libc.stdint cimport uint8_t, uint32_t
from fastpath.buffer cimport packet
from fastpath.encap.tunnel cimport tunnel, bare_match

cdef inline uint32_t plain_overhead(uint32_t outer_family) noexcept nogil:
    return 0

cdef inline int plain_match(const tunnel *t, const uint8_t *data, uint32_t length) noexcept nogil:
    return bare_match(data, length)

cdef inline void plain_strip(packet *p) noexcept nogil:
    pass

cdef inline uint32_t plain_bytes() noexcept nogil:
    return 0

cdef inline uint32_t plain_put(const tunnel *t, const uint8_t *mac, uint32_t family, uint8_t *inner) noexcept nogil:
    return 0
