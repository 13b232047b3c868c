# decap: a datagram from a peer -> the inner packets in it.
#
# Owns: the order of the checks: truncated, peer known, then per datagram the
# exact kind, VNI and MAC (encap/); the port's sockets have already matched
# local address and UDP port. Where several datagrams of one receive are the
# segments of one flow, they leave as one super-packet (offload/gather).
# Never: looks behind the tunnel header itself; parse and gather do.
# Stops: packets of strangers (the inner header of an unknown source is not even
# read), tunnels configured for one kind being spoken to in another.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memset
from fastpath.buffer cimport burst, packet, packet_drop, BURST_CAPACITY, PACKET_FROM_TUNNEL
from fastpath.encap.registry cimport encap_match, encap_strip
from fastpath.offload.gather cimport gather
from fastpath.port.port cimport datagram, port
from fastpath.reason cimport (
    REASON_NONE, REASON_BURST_FULL, REASON_IP_VERSION, REASON_PEER_UNKNOWN, REASON_TRUNCATED, VERDICT_PASS,
)
from fastpath.stage.parse cimport parse_all
from fastpath.table.peer cimport peer_find, peer_table

cdef inline packet *burst_next(burst *b, const port *source) noexcept nogil:
    """A fresh packet at the end of the burst; the caller has seen that there is room."""
    cdef packet *p = &b.packets[b.n]
    b.n += 1
    memset(p, 0, sizeof(packet))
    p.n_segments = 1
    p.port = source.index
    p.flags = PACKET_FROM_TUNNEL
    return p

cdef inline void decap_refused(burst *b, const datagram *d, const port *source, uint32_t n, int reason) noexcept nogil:
    """All datagrams of one receive, dropped for one reason, as one record."""
    cdef packet *p = burst_next(b, source)
    p.n_segments = <unsigned short>n
    p.data = d.data
    p.length = d.length
    packet_drop(p, reason)

cdef inline packet *decap_one(
    burst *b, const datagram *d, const port *source, uint32_t peer, uint8_t *data, uint32_t length,
) noexcept nogil:
    cdef packet *p = burst_next(b, source)
    cdef int reason = encap_match(&source.tunnel, data, length)
    p.data = data
    p.length = length
    p.peer = peer
    p.outer_class = d.traffic_class
    if reason != REASON_NONE:
        packet_drop(p, reason)
        return p
    encap_strip(&source.tunnel, p)
    if d.inner_family and p.data[0] >> 4 != d.inner_family:
        packet_drop(p, REASON_IP_VERSION)
    return p

cdef inline bint resembles(const packet *p, uint32_t stride, uint32_t left) noexcept nogil:
    """Whether the next datagram may be of p's flow, so that it is worth to parse p now: equal addresses and ports."""
    cdef uint32_t at = 12 if p.data[0] >> 4 == 4 else 8
    cdef uint32_t n = 12 if at == 12 else 36
    if p.length < at + n or left < stride - p.length + at + n:
        return False
    return p.data[0] == p.data[stride] and memcmp(p.data + at, p.data + stride + at, n) == 0

cdef inline void decap(
    burst *b, const datagram *d, const port *source, const peer_table *peers, uint64_t key, uint32_t udp_segments,
) noexcept nogil:
    """Append the packets inside `d` to the burst, each with verdict PASS or DROP.

    `key` is parse's; `udp_segments` bounds a UDP super-packet, 0: none is made.
    """
    cdef uint32_t n = (d.length + d.segment_bytes - 1) // d.segment_bytes if d.segment_bytes else 1
    cdef uint32_t peer = 0, offset = 0, size
    cdef packet *p
    if d.truncated:
        decap_refused(b, d, source, n, REASON_TRUNCATED)
    elif peers == NULL or not peer_find(peers, d.source_high, d.source_low, &peer):
        decap_refused(b, d, source, n, REASON_PEER_UNKNOWN)
    elif d.length == 0:
        decap_refused(b, d, source, 1, REASON_TRUNCATED)
    elif n > BURST_CAPACITY - b.n:
        decap_refused(b, d, source, n, REASON_BURST_FULL)
    else:
        while offset < d.length:
            size = d.segment_bytes if d.segment_bytes < d.length - offset else d.length - offset
            p = decap_one(b, d, source, peer, d.data + offset, size)
            offset += size
            if offset < d.length and p.verdict == VERDICT_PASS and resembles(p, size, d.length - offset):
                parse_all(p, 1, key)
                if p.verdict == VERDICT_PASS:
                    offset += gather(p, <uint32_t>(p.data - d.data) - (offset - size), size, d.length - offset, udp_segments)
