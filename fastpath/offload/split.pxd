# A super-packet becomes its segments: headers are written, payload is pointed at.
#
# Owns: every header field that differs between the segments of a super-packet.
# Never: copies or changes payload, allocates, or reads the kernel's hdr_len.
# Invariants:
#   * split_begin relies on parse: gso_size > 0, TCP or UDP with payload, not a
#     fragment, p.payload measured by the TCP data offset (never by the kernel's
#     hdr_len); and on the packet having no tail pieces: merge grows only what
#     goes to local ports.
#   * Segments are made in order, each of header_length + size bytes, only the
#     last may be shorter: what UDP_SEGMENT asks for. n_segments is not bounded
#     by SEGMENTS_MAX; the sender cuts the sends.
#   * p must not change until the last segment is made. n_segments equals
#     p.n_segments except for a packet that restore turned into a super-packet.
#
# What all segments have in common is summed once; a segment adds its lengths,
# identification, sequence number, flags and payload.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy
from fastpath.buffer cimport packet
from fastpath.simd.checksum cimport checksum_words
from fastpath.offload.sums cimport pseudo_sum
from fastpath.wire.checksum cimport checksum_add, checksum_finish, checksum_finish_udp
from fastpath.wire.ipv4 cimport IPV4_CHECKSUM, IPV4_FRAGMENT, IPV4_ID, IPV4_SOURCE, IPV4_TOTAL
from fastpath.wire.ipv6 cimport IPV6_BYTES, IPV6_PAYLOAD
from fastpath.wire.octets cimport load16, load32, store16, store32
from fastpath.wire.transport cimport (
    PROTOCOL_TCP, TCP_ACKNOWLEDGEMENT, TCP_CHECKSUM, TCP_CWR, TCP_FIN, TCP_OFFSET, TCP_PSH, TCP_SEQUENCE, TCP_URGENT,
    TCP_WINDOW, UDP_BYTES, UDP_CHECKSUM, UDP_LENGTH,
)

cdef enum:
    SPLIT_HEADER_MAX = 356     # IPV6_BYTES + EXTENSION_BYTES_MAX + the longest TCP header

cdef struct split:
    const uint8_t *headers     # of the super-packet
    const uint8_t *payload     # of the next segment
    uint32_t left              # payload bytes from there on
    uint32_t header_length     # IP and transport header, the same for all segments
    uint32_t transport
    uint32_t size              # payload bytes of every segment but the last
    uint32_t n_segments
    uint32_t i                 # the next segment
    uint64_t ip_sum            # IPv4 header without total length, identification, checksum
    uint64_t transport_sum     # pseudo-header and transport header without what varies
    uint8_t family
    uint8_t protocol


cdef inline void split_begin(split *s, const packet *p) noexcept nogil:
    cdef const uint8_t *transport = p.data + p.transport
    s.headers = p.data
    s.transport = p.transport
    s.family = p.family
    s.protocol = p.protocol
    s.header_length = p.payload
    s.payload = p.data + p.payload
    s.left = p.length - p.payload
    s.size = p.gso_size
    s.n_segments = (s.left + s.size - 1) / s.size
    s.i = 0
    s.ip_sum = 0
    if p.family == 4:
        s.ip_sum = (load16(p.data) + <uint64_t>load32(p.data + IPV4_FRAGMENT)
                    + checksum_add(0, p.data + IPV4_SOURCE, s.transport - IPV4_SOURCE))
    s.transport_sum = pseudo_sum(p, 0) + load32(transport)
    if p.protocol == PROTOCOL_TCP:
        s.transport_sum += <uint64_t>load32(transport + TCP_ACKNOWLEDGEMENT) + load16(transport + TCP_WINDOW)
        s.transport_sum = checksum_add(s.transport_sum, transport + TCP_URGENT,
                                       s.header_length - s.transport - TCP_URGENT)


cdef inline uint32_t split_next(split *s, uint8_t *header, const uint8_t **payload) noexcept nogil:
    """Write the next segment's headers (s.header_length bytes) and say where its payload lies.

    Returns the payload bytes, 0 when there is none left.
    """
    cdef uint32_t n = s.left if s.left < s.size else s.size
    cdef uint32_t length = s.header_length + n
    cdef uint64_t total
    if n == 0:
        return 0
    total = s.transport_sum + (length - s.transport) + checksum_words(s.payload, n)
    memcpy(header, s.headers, s.header_length)
    if s.family == 4:
        split_ipv4(s, header, length)
    else:
        store16(header + IPV6_PAYLOAD, length - IPV6_BYTES)
    if s.protocol == PROTOCOL_TCP:
        split_tcp(s, header + s.transport, total)
    else:
        split_udp(header + s.transport, UDP_BYTES + n, total)
    payload[0] = s.payload
    s.payload += n
    s.left -= n
    s.i += 1
    return n


cdef inline void split_ipv4(const split *s, uint8_t *header, uint32_t length) noexcept nogil:
    cdef uint32_t identification = (load16(s.headers + IPV4_ID) + s.i) & 0xffff
    store16(header + IPV4_TOTAL, length)
    store16(header + IPV4_ID, identification)
    store16(header + IPV4_CHECKSUM, checksum_finish(s.ip_sum + length + identification))


cdef inline void split_tcp(const split *s, uint8_t *header, uint64_t total) noexcept nogil:
    """FIN and PSH end what the sender wrote: last segment. CWR answers one ECE: first (RFC 3168)."""
    cdef uint32_t sequence = load32(header + TCP_SEQUENCE) + s.i * s.size
    cdef uint32_t flags = load16(header + TCP_OFFSET)
    if s.i + 1 != s.n_segments:
        flags &= ~<uint32_t>(TCP_FIN | TCP_PSH)
    if s.i != 0:
        flags &= ~<uint32_t>TCP_CWR
    store32(header + TCP_SEQUENCE, sequence)
    store16(header + TCP_OFFSET, flags)
    store16(header + TCP_CHECKSUM, checksum_finish(total + sequence + flags))


cdef inline void split_udp(uint8_t *header, uint32_t n, uint64_t total) noexcept nogil:
    store16(header + UDP_LENGTH, n)
    store16(header + UDP_CHECKSUM, checksum_finish_udp(total + n))
