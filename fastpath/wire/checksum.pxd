# The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
#
# Owns: ones-complement arithmetic over octets.
# Never: knows where a protocol keeps its checksum field.
# Invariants:
#   * A partial sum is any 64-bit number congruent to the sum of the 16-bit
#     words modulo 0xffff; partial sums are added with plain `+`. Words are added
#     at most 32 bits wide, so 2^32 of them fit before 64 bits could wrap.
#   * Pieces may be summed apart if each but the last has an even length.
#   * checksum_fold() does not invert. A header whose checksum is right folds to
#     0xffff; what goes into a checksum field is ~fold.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from fastpath.wire.octets cimport load16, load32, load64, word32


cdef inline uint64_t checksum_add(uint64_t sum, const uint8_t *data, uint32_t n) noexcept nogil:
    """`sum` plus the `n` bytes at `data`; an odd last byte counts as the high half of a word."""
    cdef const uint8_t *end = data + n
    cdef uint64_t eight
    while end - data >= 8:
        eight = load64(data)
        sum += (eight >> 32) + <uint32_t>eight
        data += 8
    if end - data >= 4:
        sum += load32(data)
        data += 4
    if end - data >= 2:
        sum += load16(data)
        data += 2
    if end - data == 1:
        sum += <uint32_t>data[0] << 8
    return sum


cdef inline bint checksum_right20(const uint8_t *data) noexcept nogil:
    """Whether 20 bytes that are not all 0, as most headers have, fold to 0xffff: in either byte order (RFC 1071)."""
    return (<uint64_t>word32(data) + word32(data + 4) + word32(data + 8) + word32(data + 12) + word32(data + 16)) % 0xffff == 0


cdef inline uint16_t checksum_fold(uint64_t sum) noexcept nogil:
    """The 16-bit ones-complement sum, not inverted; 0 only when every word was 0."""
    sum = (sum >> 32) + <uint32_t>sum
    sum = (sum >> 32) + <uint32_t>sum
    sum = (sum >> 16) + (sum & 0xffff)
    sum = (sum >> 16) + (sum & 0xffff)
    return <uint16_t>sum


cdef inline uint16_t checksum_finish(uint64_t sum) noexcept nogil:
    """What goes into a checksum field."""
    return <uint16_t>~checksum_fold(sum)


cdef inline uint16_t checksum_finish_udp(uint64_t sum) noexcept nogil:
    """The same for UDP, where a field of 0 means that there is none (RFC 768)."""
    cdef uint16_t field = checksum_finish(sum)
    return field if field != 0 else 0xffff


cdef inline uint16_t checksum_replace16(uint32_t field, uint32_t old, uint32_t new) noexcept nogil:
    """The field after a 16-bit word it covers changed: RFC 1624, equation 3."""
    return checksum_finish(<uint64_t>(~field & 0xffff) + (~old & 0xffff) + (new & 0xffff))


cdef inline uint16_t checksum_replace32(uint32_t field, uint32_t old, uint32_t new) noexcept nogil:
    """The field after a 32-bit word it covers changed, such as an address."""
    return checksum_finish(<uint64_t>(~field & 0xffff) + <uint32_t>~old + new)
