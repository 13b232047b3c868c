# What a fragment may be, in both families.
#
# Owns: the rules that one fragment can be judged by alone.
# Never: reassembles, or remembers a fragment.
# Invariant: what passes cannot rewrite the transport header of the first
# fragment, and cannot make a datagram longer than 65,535 bytes.

from libc.stdint cimport uint32_t
from fastpath.reason cimport REASON_FRAGMENT, REASON_FRAGMENT_LENGTH, REASON_FRAGMENT_OFFSET, REASON_NONE

cdef enum:
    # The longest TCP header has 60 bytes; the first fragment holds it whole, so an
    # honest second one starts behind it. RFC 1858 knows the attack as offset 1.
    FRAGMENT_OFFSET_MIN = 64
    DATAGRAM_MAX = 65535


cdef inline int fragment_check(uint32_t offset, bint more, uint32_t n, uint32_t others) noexcept nogil:
    """`n` bytes that stand `offset` bytes into a datagram with `others` bytes of headers around."""
    if n == 0:
        return REASON_FRAGMENT
    if more and n & 7 != 0:
        return REASON_FRAGMENT
    if offset != 0 and offset < FRAGMENT_OFFSET_MIN:
        return REASON_FRAGMENT_OFFSET
    if offset + n + others > DATAGRAM_MAX:
        return REASON_FRAGMENT_LENGTH
    return REASON_NONE
