# ICMP and ICMPv6 error messages: their numbers, and how one is written.
#
# Owns: types, codes, and which messages are errors.
# Never: decides whether an error may be sent (stage/reply).
# Invariant: icmp_put() leaves the checksum 0; icmp4_seal() or icmp6_seal() completes it.

from libc.stdint cimport uint8_t, uint32_t
from fastpath.wire.checksum cimport checksum_add, checksum_finish
from fastpath.wire.ipv6 cimport ipv6_pseudo
from fastpath.wire.octets cimport store16, store32
from fastpath.wire.transport cimport ICMP_CHECKSUM, PROTOCOL_ICMPV6

cdef enum:
    ICMP4_UNREACHABLE = 3
    ICMP4_SOURCE_QUENCH = 4
    ICMP4_REDIRECT = 5
    ICMP4_TIME_EXCEEDED = 11
    ICMP4_PARAMETER_PROBLEM = 12

cdef enum:                     # codes of ICMP4_UNREACHABLE
    ICMP4_NETWORK = 0
    ICMP4_HOST = 1
    ICMP4_FRAGMENTATION_NEEDED = 4
    ICMP4_PROHIBITED = 13

cdef enum:
    ICMP6_UNREACHABLE = 1
    ICMP6_TOO_BIG = 2
    ICMP6_TIME_EXCEEDED = 3
    ICMP6_PARAMETER_PROBLEM = 4
    ICMP6_INFORMATIONAL = 128  # this type and above are no errors (RFC 4443)
    ICMP6_REDIRECT = 137       # but no message answers a redirect

cdef enum:                     # codes of ICMP6_UNREACHABLE
    ICMP6_NO_ROUTE = 0
    ICMP6_PROHIBITED = 1
    ICMP6_ADDRESS = 3


cdef inline bint icmp4_is_error(uint32_t kind) noexcept nogil:
    return (kind == ICMP4_UNREACHABLE or kind == ICMP4_SOURCE_QUENCH or kind == ICMP4_REDIRECT
            or kind == ICMP4_TIME_EXCEEDED or kind == ICMP4_PARAMETER_PROBLEM)


cdef inline bint icmp6_is_error(uint32_t kind) noexcept nogil:
    return kind < ICMP6_INFORMATIONAL or kind == ICMP6_REDIRECT


cdef inline void icmp_put(uint8_t *h, uint32_t kind, uint32_t code, uint32_t rest) noexcept nogil:
    """The 8 bytes in front of the quote; `rest` is an MTU or 0."""
    h[0] = <uint8_t>kind
    h[1] = <uint8_t>code
    store16(h + ICMP_CHECKSUM, 0)
    store32(h + 4, rest)


cdef inline void icmp4_seal(uint8_t *h, uint32_t n) noexcept nogil:
    """Complete the checksum of a message of `n` bytes."""
    store16(h + ICMP_CHECKSUM, checksum_finish(checksum_add(0, h, n)))


cdef inline void icmp6_seal(const uint8_t *ip, uint8_t *h, uint32_t n) noexcept nogil:
    """The same for ICMPv6, whose checksum covers addresses of the header at `ip`."""
    store16(h + ICMP_CHECKSUM, checksum_finish(checksum_add(ipv6_pseudo(ip, PROTOCOL_ICMPV6, n), h, n)))
