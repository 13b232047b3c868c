# Reading and writing big-endian integers in packet bytes; only word32, for sums, is in the machine's own order.
#
# Owns: the only way the data plane turns octets into numbers and back.
# Never: checks a bound; the check() of the protocol did that before.
# Invariant: any alignment is fine, and every load comes widened, so that sums
# of two 16-bit lengths cannot wrap.
#
# gcc and clang compile each body to one load or store and a byte swap.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef inline uint32_t load16(const uint8_t *at) noexcept nogil:
    return <uint32_t>at[0] << 8 | at[1]


cdef inline uint32_t load32(const uint8_t *at) noexcept nogil:
    return <uint32_t>at[0] << 24 | <uint32_t>at[1] << 16 | <uint32_t>at[2] << 8 | at[3]


cdef inline uint64_t load64(const uint8_t *at) noexcept nogil:
    return (<uint64_t>at[0] << 56 | <uint64_t>at[1] << 48 | <uint64_t>at[2] << 40 | <uint64_t>at[3] << 32
            | <uint64_t>at[4] << 24 | <uint64_t>at[5] << 16 | <uint64_t>at[6] << 8 | at[7])


cdef inline uint32_t word32(const uint8_t *at) noexcept nogil:
    """Four octets in the machine's own order, for sums: they are right in either (RFC 1071)."""
    cdef uint32_t word
    memcpy(&word, at, 4)
    return word


cdef inline void store16(uint8_t *at, uint32_t value) noexcept nogil:
    at[0] = <uint8_t>(value >> 8)
    at[1] = <uint8_t>value


cdef inline void store32(uint8_t *at, uint32_t value) noexcept nogil:
    at[0] = <uint8_t>(value >> 24)
    at[1] = <uint8_t>(value >> 16)
    at[2] = <uint8_t>(value >> 8)
    at[3] = <uint8_t>value


cdef inline void store64(uint8_t *at, uint64_t value) noexcept nogil:
    store32(at, <uint32_t>(value >> 32))
    store32(at + 4, <uint32_t>value)
