# The transport checksum of a whole packet, as split, merge and restore need it.
#
# Owns: the pseudo-header sum of a packet, and the verification of its checksum.
# Never: changes a packet.
# Invariant: sums are those of wire/checksum: neither folded nor inverted.
# Headers are summed by checksum_add, payload by the kernels of simd/checksum.
#
# A *pending* checksum (PACKET_NEEDS_CHECKSUM) means that the transport's field
# holds the folded, not inverted pseudo-header sum, as the kernel leaves it.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from fastpath.buffer cimport packet
from fastpath.simd.checksum cimport checksum_words
from fastpath.wire.checksum cimport checksum_fold
from fastpath.wire.ipv4 cimport ipv4_pseudo
from fastpath.wire.ipv6 cimport ipv6_pseudo
from fastpath.wire.octets cimport load16
from fastpath.wire.transport cimport PROTOCOL_UDP, transport_checksum_offset


cdef inline uint64_t pseudo_sum(const packet *p, uint32_t n) noexcept nogil:
    """Of a transport message of `n` bytes."""
    if p.family == 4:
        return ipv4_pseudo(p.data, p.protocol, n)
    return ipv6_pseudo(p.data, p.protocol, n)


cdef inline uint8_t *checksum_field(const packet *p) noexcept nogil:
    """Of TCP or UDP."""
    return p.data + p.transport + transport_checksum_offset(p.protocol)


cdef inline bint transport_intact(const packet *p) noexcept nogil:
    """Whether the TCP or UDP checksum of a contiguous packet is right.

    UDP over IPv4 may have none. Over IPv6 only some tunnels may (RFC 6935): not
    right here, so that such a packet arrives as it was sent.
    """
    cdef uint32_t n = p.length - p.transport
    if p.protocol == PROTOCOL_UDP and p.family == 4 and load16(checksum_field(p)) == 0:
        return True
    return checksum_fold(pseudo_sum(p, n) + checksum_words(p.data + p.transport, n)) == 0xffff
