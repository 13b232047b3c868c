# The datagrams of one receive become super-packets as they are taken out of the tunnel.
#
# UDP_GRO hands over up to 64 kB of one peer's datagrams of equal size, side by
# side; nearly always they carry consecutive segments of one flow. Whatever then
# follows the first packet by every rule of merge becomes part of it here, before
# a stage has looked at it: one is parsed, judged and looked up, not forty.
#
# Owns: seeing that a datagram needs no parsing because it repeats a parsed one.
# Never: knows a rule of its own about what may be merged: merge has them all.
# Invariants:
#   * What is appended would have passed parse: its tunnel and IP headers, ports
#     and flags are the head's, its length is what its header says, its IPv4
#     header checksum and its transport checksum are right.
#   * Payload moves towards the head only, over headers that have been read.
#   * The head of a super-packet made here carries what a TUN would have delivered.

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp, memcpy, memmove
from fastpath.buffer cimport PACKET_MAX, PACKET_NEEDS_CHECKSUM, packet
from fastpath.offload.merge cimport (
    MERGE_JOINS, follows_ip, follows_tcp, may_begin, merge_kind, run, same_flow, sound, super_seal,
)
from fastpath.wire.checksum cimport checksum_add, checksum_fold
from fastpath.wire.ipv4 cimport IPV4_BYTES, IPV4_ID, IPV4_TOTAL
from fastpath.wire.ipv6 cimport IPV6_BYTES, IPV6_NEXT, IPV6_PAYLOAD
from fastpath.wire.octets cimport load16, load32
from fastpath.wire.transport cimport PROTOCOL_TCP, TCP_FLAGS, TCP_PSH, TCP_SEQUENCE


cdef inline bint repeats_ip(const packet *head, const packet *q) noexcept nogil:
    """q's IP header is the head's in all that parse looks at, and as long as its datagram says."""
    if q.data[0] != head.data[0]:
        return False
    if head.family == 4:
        return (load16(q.data + IPV4_TOTAL) == q.length
                and checksum_fold(checksum_add(0, q.data, IPV4_BYTES)) == 0xffff)
    return load16(q.data + IPV6_PAYLOAD) == q.length - IPV6_BYTES and q.data[IPV6_NEXT] == head.data[IPV6_NEXT]


cdef inline bint repeats(const run *r, const packet *head, const packet *q, uint32_t tunnel_header) noexcept nogil:
    """The same tunnel, flow and headers as the head's, but for what a next segment changes."""
    return (memcmp(q.data - tunnel_header, head.data - tunnel_header, tunnel_header) == 0
            and repeats_ip(head, q) and same_flow(head, q) and follows_ip(r, head, q))


cdef inline bint gather_begin(run *r, packet *head, uint32_t stride, uint32_t udp_segments) noexcept nogil:
    """Whether anything may follow the parsed packet that fills a datagram of `stride` bytes behind its tunnel header."""
    cdef uint32_t size
    if head.length != stride or merge_kind(head, udp_segments, &size) != MERGE_JOINS or not may_begin(head, size):
        return False
    r.end = head.data + head.length
    r.size = size
    r.sequence = load32(head.data + head.transport + TCP_SEQUENCE) + size
    r.identification = <unsigned short>load16(head.data + IPV4_ID)
    return True


cdef inline bint gather_one(
    run *r, packet *head, packet *q, uint32_t tunnel_header, uint32_t udp_segments, bint *last,
) noexcept nogil:
    """Append q's payload to the head. `last`: nothing may follow it."""
    cdef uint32_t size
    cdef bint tcp = head.protocol == PROTOCOL_TCP
    if q.length <= head.payload or q.length - head.payload + head.length > PACKET_MAX:
        return False
    if not repeats(r, head, q, tunnel_header) or merge_kind(q, udp_segments, &size) != MERGE_JOINS:
        return False
    if not follows_tcp(r, head, q) if tcp else head.n_segments >= udp_segments:
        return False
    if (head.n_segments == 1 and not sound(head)) or not sound(q):
        return False
    last[0] = size < r.size
    if tcp and q.data[q.transport + TCP_FLAGS] & TCP_PSH:
        head.data[head.transport + TCP_FLAGS] |= TCP_PSH
        last[0] = True
    r.identification = <unsigned short>load16(q.data + IPV4_ID)
    r.sequence += size
    memmove(r.end, q.data + q.payload, size)
    r.end += size
    head.length += size
    head.n_segments += 1
    return True


cdef inline uint32_t gather(
    packet *head, uint32_t tunnel_header, uint32_t stride, uint32_t left, uint32_t udp_segments,
) noexcept nogil:
    """Append what follows a parsed packet, out of datagrams of `stride` bytes (the last may be shorter).

    `left` bytes of them lie behind the head's own. Returns how many were used up.
    """
    cdef packet q
    cdef run r
    cdef bint last = False
    cdef uint32_t used = 0, bytes
    if not gather_begin(&r, head, stride - tunnel_header, udp_segments):
        return 0
    memcpy(&q, head, sizeof(packet))
    q.data += stride
    while used < left and not last:
        bytes = stride if stride < left - used else left - used
        if bytes <= tunnel_header:
            break
        q.length = bytes - tunnel_header
        if not gather_one(&r, head, &q, tunnel_header, udp_segments, &last):
            break
        used += bytes
        q.data += stride
    if head.n_segments > 1:
        super_seal(head, r.size, head.length)
    return used
