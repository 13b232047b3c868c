# Give a packet with a pending checksum its real one.
#
# Owns: the one place where the deferral of a checksum ends without a split.
# Never: touches a super-packet; split writes its checksums.
# Invariant: relies on parse for the field to lie inside the packet, and on the
# field holding the pseudo-header sum: whoever set the flag put it there. Hence
# it works for a checksum deep in the payload, too (a tunnel of the pod's own).

from libc.stdint cimport uint8_t, uint32_t
from fastpath.buffer cimport packet, PACKET_NEEDS_CHECKSUM
from fastpath.simd.checksum cimport checksum_words
from fastpath.wire.checksum cimport checksum_finish, checksum_finish_udp
from fastpath.wire.octets cimport store16
from fastpath.wire.transport cimport UDP_CHECKSUM


cdef inline void complete(packet *p) noexcept nogil:
    cdef uint32_t total
    if p.flags & PACKET_NEEDS_CHECKSUM == 0 or p.gso_size != 0:
        return
    total = checksum_words(p.data + p.checksum_start, p.length - p.checksum_start)
    store16(p.data + p.checksum_start + p.checksum_offset,
            checksum_finish_udp(total) if p.checksum_offset == UDP_CHECKSUM else checksum_finish(total))
    p.flags &= <uint8_t>~PACKET_NEEDS_CHECKSUM
