# Give a packet back the metadata that its way through a socket lost.
#
# A kernel VXLAN device whose underlay offloads everything hands a UDP socket
# datagrams that were never segmented, and inner checksums that were never
# computed: their state stayed behind in the sender's socket buffer.
#
# Owns: recognising both by the bytes alone.
# Never: changes a byte, or guesses at a datagram's boundaries.
# Invariants:
#   * An unsegmented super-packet always comes with a pending checksum; a larger
#     packet whose checksum is complete is what its sender meant, and is left to
#     the MTU test, so that path MTU discovery works.
#   * One complete checksum in 65,536 looks pending; computing it gives the same value.
#   * n_segments stays what was received, 1: how many the sender's kernel would have
#     made is unknown. Whoever splits such a packet accounts for the difference.

from libc.stdint cimport uint16_t, uint32_t
from fastpath.buffer cimport GSO_TCP4, GSO_TCP6, PACKET_FRAGMENT, PACKET_NEEDS_CHECKSUM, packet
from fastpath.offload.sums cimport checksum_field, pseudo_sum
from fastpath.reason cimport REASON_NONE, REASON_SUPER_UDP
from fastpath.wire.checksum cimport checksum_fold
from fastpath.wire.octets cimport load16
from fastpath.wire.transport cimport PROTOCOL_TCP, PROTOCOL_UDP, transport_checksum_offset


cdef inline bint is_pending(const packet *p) noexcept nogil:
    """The transport's field holds the pseudo-header sum. (0 in UDP means none; no pseudo-header sums to 0.)"""
    return load16(checksum_field(p)) == checksum_fold(pseudo_sum(p, p.length - p.transport))


cdef inline int restore(packet *p, uint32_t mtu) noexcept nogil:
    """Judge a parsed packet from a tunnel, bound for where packets have at most `mtu` bytes; 0, or why to drop it."""
    if p.protocol != PROTOCOL_TCP and p.protocol != PROTOCOL_UDP:
        return REASON_NONE
    if p.flags & (PACKET_FRAGMENT | PACKET_NEEDS_CHECKSUM) != 0 or not is_pending(p):
        return REASON_NONE
    p.flags |= PACKET_NEEDS_CHECKSUM
    p.checksum_start = p.transport
    p.checksum_offset = <uint16_t>transport_checksum_offset(p.protocol)
    if p.length <= mtu:
        return REASON_NONE
    if p.protocol == PROTOCOL_UDP:
        return REASON_SUPER_UDP
    if mtu > p.payload and p.length > p.payload:
        p.gso_size = <uint16_t>(mtu - p.payload)
        p.gso_type = GSO_TCP4 if p.family == 4 else GSO_TCP6
    return REASON_NONE
