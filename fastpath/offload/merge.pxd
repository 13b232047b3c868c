# The segments of a burst become super-packets again.
#
# Owns: which packets may become one, and where their payload ends up.
# Never: delays a packet, reorders the data of a flow, allocates, or touches a
# packet that does not go to a local port.
# Invariants:
#   * Relies on parse: length is the IP length, headers lie within it, IPv4
#     header checksums are right, flow_hash is equal within a flow direction.
#   * What is merged has been verified first, or its checksum was pending: the
#     result is written with a pending checksum and nobody looks again.
#   * Splitting the result by its gso_size gives the packets it was made of,
#     but for the identification of IPv4 packets with DF (RFC 6864: no meaning).
#   * No byte of a live packet is overwritten. See `top`.
#
# A *run* is one flow's packets in sequence; its first packet, the head, grows.
# A burst lies in memory in the order of its packets, with dead bytes (headers
# of absorbed packets, of tunnels) in between:
#
#     head.data [hdr|payload 1] dead [hdr|payload 2] dead [hdr|payload 3]
#                              ^ top                 (not looked at yet)
#
# `top` is the end of everything live so far. A run that ends there pulls the
# next payload down to it (a move within L2 is cheaper than an iovec in a TUN
# write); if another packet lies in between, the payload stays where it is and
# becomes a piece. An absorbed packet is dead and keeps the record of the piece
# it began in its own data and length; merge_finish lays the pieces of each head
# out side by side in burst.tails. There is room for all: each takes a packet.

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcmp, memmove, memset
from fastpath.buffer cimport (
    BURST_CAPACITY, GSO_TCP4, GSO_TCP6, GSO_UDP, PACKET_FRAGMENT, PACKET_MAX, PACKET_NEEDS_CHECKSUM,
    burst, packet, packet_bytes,
)
from fastpath.reason cimport REPLY_NONE, VERDICT_DROP, VERDICT_MERGED, VERDICT_PASS
from fastpath.offload.sums cimport checksum_field, pseudo_sum, transport_intact
from fastpath.wire.checksum cimport checksum_fold
from fastpath.wire.ipv4 cimport (
    IPV4_BYTES, IPV4_DF, IPV4_FRAGMENT, IPV4_ID, IPV4_SOURCE, IPV4_TOTAL, ipv4_seal,
)
from fastpath.wire.ipv6 cimport IPV6_BYTES, IPV6_HOPS, IPV6_PAYLOAD, IPV6_SOURCE
from fastpath.wire.octets cimport load16, load32, store16
from fastpath.wire.transport cimport (
    PROTOCOL_TCP, PROTOCOL_UDP, TCP_ACK, TCP_ACKNOWLEDGEMENT, TCP_CWR, TCP_ECE, TCP_FLAGS, TCP_OFFSET, TCP_PSH,
    TCP_SEQUENCE, TCP_URGENT, TCP_WINDOW, UDP_BYTES, UDP_LENGTH, transport_checksum_offset,
)
from fastpath.wire.virtio cimport GSO_TCP_SIZE_MIN

cdef enum:
    MERGE_SLOTS = 256          # a power of two
    MERGE_PROBES = 4           # slots a flow may be in
    NO_PIECE = 0xffff

cdef enum:                     # what a packet means to the runs
    MERGE_PASSES = 0           # nothing: not TCP or UDP, or an acknowledgement without data
    MERGE_JOINS = 1            # data that may continue or begin one
    MERGE_CLOSES = 2           # nothing of its flow may be appended before it
    MERGE_CLOSES_ALL = 3       # a fragment: its flow is not known

cdef enum:
    JOIN_REFUSED = 0
    JOIN_DONE = 1
    JOIN_LAST = 2              # done, and nothing may follow: PSH, or shorter than the others

cdef struct run:
    uint8_t *end               # behind its last payload byte
    uint32_t hash
    uint32_t size              # payload bytes of every segment but the last
    uint32_t sequence          # TCP: of the byte that has to follow
    uint16_t identification    # IPv4: of the last segment
    uint16_t head              # packet numbers in the burst, or NO_PIECE
    uint16_t first_piece
    uint16_t last_piece
    bint verified              # the head's own checksum

# One worker's scratch memory; its contents mean nothing between bursts.
cdef struct merger:
    uint8_t *top
    uint32_t n_runs
    uint32_t udp_segments      # of one UDP super-packet; 0: UDP is not merged
    uint32_t n_pieces
    bint ascending             # the burst lies in memory in its own order
    uint16_t slots[MERGE_SLOTS]            # number of an open run + 1, 0 = free
    uint16_t next_piece[BURST_CAPACITY]    # by packet number
    run runs[BURST_CAPACITY]


# -- what a packet is --------------------------------------------------------


cdef inline int merge_tcp_kind(const packet *p, uint32_t *size) noexcept nogil:
    cdef const uint8_t *tcp = p.data + p.transport
    size[0] = p.length - p.payload
    if size[0] == 0:
        return MERGE_PASSES if tcp[TCP_FLAGS] & ~(TCP_ECE | TCP_CWR) == TCP_ACK else MERGE_CLOSES
    if tcp[TCP_FLAGS] & ~TCP_PSH != TCP_ACK or tcp[TCP_OFFSET] & 15 != 0:
        return MERGE_CLOSES
    return MERGE_JOINS


cdef inline int merge_udp_kind(const packet *p, uint32_t *size) noexcept nogil:
    cdef const uint8_t *udp = p.data + p.transport
    cdef uint32_t length = p.length - p.transport
    if length <= UDP_BYTES or load16(udp + UDP_LENGTH) != length:
        return MERGE_CLOSES
    size[0] = length - UDP_BYTES
    return MERGE_JOINS


cdef inline int merge_kind(const packet *p, uint32_t udp_segments, uint32_t *size) noexcept nogil:
    """What `p` means to the runs; its payload bytes in `size` if it joins."""
    cdef bint tcp = p.protocol == PROTOCOL_TCP
    if p.flags & PACKET_FRAGMENT != 0:
        return MERGE_CLOSES_ALL
    if not tcp and (p.protocol != PROTOCOL_UDP or udp_segments == 0):
        return MERGE_PASSES
    if p.n_tail != 0 or (p.gso_size != 0) != (p.n_segments > 1):
        return MERGE_CLOSES    # restored ones: their segments are not known
    if p.family == 4:          # no options, reserved flag clear
        if p.transport != IPV4_BYTES or load16(p.data + IPV4_FRAGMENT) & ~<uint32_t>IPV4_DF != 0:
            return MERGE_CLOSES
    elif p.transport != IPV6_BYTES:
        return MERGE_CLOSES
    if p.flags & PACKET_NEEDS_CHECKSUM != 0 and p.checksum_start != p.transport:
        return MERGE_CLOSES    # pending deeper inside; of p's own nothing is known
    return merge_tcp_kind(p, size) if tcp else merge_udp_kind(p, size)


cdef inline uint32_t segment_bytes(const packet *p, uint32_t size) noexcept nogil:
    """Payload bytes of p's segments but the last, of `size` in all."""
    return p.gso_size if p.gso_size else size


cdef inline uint16_t last_identification(const packet *p) noexcept nogil:
    """Of p's last segment, in IPv4."""
    return <uint16_t>(load16(p.data + IPV4_ID) + p.n_segments - 1)


cdef inline bint may_begin(const packet *p, uint32_t size) noexcept nogil:
    """Whether anything may follow; and no super-packet is made that parse would refuse from a device."""
    if size % segment_bytes(p, size) != 0:
        return False
    if p.protocol == PROTOCOL_UDP:
        return True
    return segment_bytes(p, size) >= GSO_TCP_SIZE_MIN and p.data[p.transport + TCP_FLAGS] & TCP_PSH == 0


# -- open runs by flow -----------------------------------------------------


cdef inline bint same_flow(const packet *p, const packet *q) noexcept nogil:
    """Equal addresses, ports, protocol and next hop; both without options or extensions."""
    if p.family != q.family or p.protocol != q.protocol or p.adjacency != q.adjacency:
        return False
    if p.family == 4:          # addresses and ports are side by side
        return memcmp(p.data + IPV4_SOURCE, q.data + IPV4_SOURCE, 12) == 0
    return memcmp(p.data + IPV6_SOURCE, q.data + IPV6_SOURCE, 36) == 0


cdef inline uint16_t *run_find(merger *m, burst *b, const packet *p) noexcept nogil:
    """The slot of the open run of p's flow, or NULL."""
    cdef uint32_t k
    cdef uint16_t *slot
    cdef run *r
    for k in range(<uint32_t>MERGE_PROBES):
        slot = &m.slots[(p.flow_hash + k) & (MERGE_SLOTS - 1)]
        if slot[0] != 0:
            r = &m.runs[slot[0] - 1]
            if r.hash == p.flow_hash and same_flow(&b.packets[r.head], p):
                return slot
    return NULL


cdef inline void run_close(merger *m, uint32_t hash) noexcept nogil:
    """Close whatever is open under that hash: at worst a merge is missed."""
    cdef uint32_t k
    cdef uint16_t *slot
    for k in range(<uint32_t>MERGE_PROBES):
        slot = &m.slots[(hash + k) & (MERGE_SLOTS - 1)]
        if slot[0] != 0 and m.runs[slot[0] - 1].hash == hash:
            slot[0] = 0


cdef inline void run_open(merger *m, const packet *p, uint32_t i, uint32_t size) noexcept nogil:
    """Let packet i of the burst be a head, in a free slot or in place of another flow's run."""
    cdef uint32_t k
    cdef uint16_t *slot = &m.slots[p.flow_hash & (MERGE_SLOTS - 1)]
    cdef run *r = &m.runs[m.n_runs]
    for k in range(<uint32_t>MERGE_PROBES):
        if m.slots[(p.flow_hash + k) & (MERGE_SLOTS - 1)] == 0:
            slot = &m.slots[(p.flow_hash + k) & (MERGE_SLOTS - 1)]
            break
    m.n_runs += 1
    slot[0] = <uint16_t>m.n_runs
    r.end = p.data + p.length
    r.hash = p.flow_hash
    r.size = segment_bytes(p, size)
    r.sequence = load32(p.data + p.transport + TCP_SEQUENCE) + size
    r.identification = last_identification(p)
    r.head = <uint16_t>i
    r.first_piece = NO_PIECE
    r.last_piece = NO_PIECE
    r.verified = False


# -- what may follow what ----------------------------------------------------


cdef inline bint follows_ip(const run *r, const packet *head, const packet *q) noexcept nogil:
    """Equal TOS, TTL and DF, consecutive identification where it matters."""
    if head.family == 6:       # version, traffic class, flow label; hop limit
        return memcmp(head.data, q.data, 4) == 0 and head.data[IPV6_HOPS] == q.data[IPV6_HOPS]
    if memcmp(head.data, q.data, 2) != 0 or memcmp(head.data + IPV4_FRAGMENT, q.data + IPV4_FRAGMENT, 4) != 0:
        return False
    if load16(q.data + IPV4_FRAGMENT) & IPV4_DF != 0:
        return True
    return load16(q.data + IPV4_ID) == ((<uint32_t>r.identification + 1) & 0xffff)


cdef inline bint follows_tcp(const run *r, const packet *head, const packet *q) noexcept nogil:
    """Next in sequence, all else equal but for PSH: acknowledgement, window, urgent pointer, options."""
    cdef const uint8_t *first = head.data + head.transport
    cdef const uint8_t *tcp = q.data + q.transport
    return (load32(tcp + TCP_SEQUENCE) == r.sequence
            and memcmp(first + TCP_ACKNOWLEDGEMENT, tcp + TCP_ACKNOWLEDGEMENT, 5) == 0   # and the data offset
            and load16(first + TCP_WINDOW) == load16(tcp + TCP_WINDOW)
            and memcmp(first + TCP_URGENT, tcp + TCP_URGENT, q.payload - q.transport - TCP_URGENT) == 0)


cdef inline bint sound(const packet *p) noexcept nogil:
    return p.flags & PACKET_NEEDS_CHECKSUM != 0 or transport_intact(p)


# -- growing -----------------------------------------------------------------


cdef inline void run_append(merger *m, burst *b, run *r, uint32_t i, uint32_t size) noexcept nogil:
    """Make the payload of packet i the end of the run; the packet is absorbed."""
    cdef packet *head = &b.packets[r.head]
    cdef packet *q = &b.packets[i]
    cdef uint8_t *payload = q.data + (q.length - size)
    q.verdict = VERDICT_MERGED
    head.n_segments += q.n_segments
    r.identification = last_identification(q)
    r.sequence += size
    if r.end == m.top and m.ascending:
        memmove(r.end, payload, size)
        r.end += size
        m.top = r.end
        if r.last_piece == NO_PIECE:
            head.length += size
        else:
            b.packets[r.last_piece].length += size
            head.tail_bytes += size
        return
    q.data = payload
    q.length = size
    m.next_piece[i] = NO_PIECE
    if r.last_piece == NO_PIECE:
        r.first_piece = <uint16_t>i
    else:
        m.next_piece[r.last_piece] = <uint16_t>i
    r.last_piece = <uint16_t>i
    r.end = payload + size
    head.tail_bytes += size
    m.n_pieces += 1
    if r.end > m.top:
        m.top = r.end


cdef inline int run_join(merger *m, burst *b, run *r, uint32_t i, uint32_t size) noexcept nogil:
    cdef packet *head = &b.packets[r.head]
    cdef packet *q = &b.packets[i]
    cdef bint push = False, last
    if segment_bytes(q, size) > r.size or (q.gso_size != 0 and q.gso_size != r.size):
        return JOIN_REFUSED
    if packet_bytes(head) + size > PACKET_MAX or not follows_ip(r, head, q):
        return JOIN_REFUSED
    if q.protocol == PROTOCOL_TCP:
        push = q.data[q.transport + TCP_FLAGS] & TCP_PSH != 0
        if not follows_tcp(r, head, q):
            return JOIN_REFUSED
    elif head.n_segments + q.n_segments > m.udp_segments:
        return JOIN_REFUSED
    if m.n_pieces + b.n_tails >= BURST_CAPACITY:
        return JOIN_REFUSED
    if not r.verified:
        if not sound(head):
            return JOIN_REFUSED
        r.verified = True
    if not sound(q):
        return JOIN_REFUSED
    if push:
        head.data[head.transport + TCP_FLAGS] |= TCP_PSH
    last = push or size % r.size != 0
    run_append(m, b, r, i, size)
    return JOIN_LAST if last else JOIN_DONE


cdef inline void merge_live(merger *m, const packet *p) noexcept nogil:
    """Nothing is moved over `p` unless it has ended and nobody is to be told."""
    if p.verdict == VERDICT_MERGED or (p.verdict == VERDICT_DROP and p.reply == REPLY_NONE):
        return
    if p.data + p.length > m.top:
        m.top = p.data + p.length


# -- the burst ---------------------------------------------------------------


cdef inline void merge_begin(merger *m, const burst *b, uint32_t udp_segments) noexcept nogil:
    """Forget everything. `udp_segments`: how many the local ports take at once, 0 = UDP stays as it is."""
    cdef uint32_t i
    cdef const uint8_t *end = NULL
    m.top = NULL
    m.n_runs = 0
    m.n_pieces = 0
    m.udp_segments = udp_segments
    m.ascending = True
    memset(m.slots, 0, sizeof(m.slots))
    for i in range(b.n):
        if b.packets[i].data < end:
            m.ascending = False    # then everything stays where it is
        end = b.packets[i].data + b.packets[i].length


cdef inline void merge_local(merger *m, burst *b, uint32_t i) noexcept nogil:
    """Packet i goes to a local port: append it to a run, or let it begin one."""
    cdef packet *p = &b.packets[i]
    cdef uint32_t size = 0
    cdef uint16_t *slot
    cdef int joined
    cdef int kind = merge_kind(p, m.udp_segments, &size)
    if kind == MERGE_JOINS:
        slot = run_find(m, b, p)
        if slot != NULL:
            joined = run_join(m, b, &m.runs[slot[0] - 1], i, size)
            if joined != JOIN_DONE:
                slot[0] = 0
            if joined != JOIN_REFUSED:
                return
        if may_begin(p, size):
            run_open(m, p, i, size)
    elif kind == MERGE_CLOSES:
        run_close(m, p.flow_hash)
    elif kind == MERGE_CLOSES_ALL:
        memset(m.slots, 0, sizeof(m.slots))
    merge_live(m, p)


cdef inline void merge_other(merger *m, const burst *b, uint32_t i) noexcept nogil:
    """Packet i goes elsewhere, or nowhere: only keep its bytes."""
    merge_live(m, &b.packets[i])


cdef inline void super_seal(packet *head, uint32_t size, uint32_t total) noexcept nogil:
    """The headers and metadata of a super-packet of `total` bytes with segments of `size` payload bytes."""
    if head.family == 4:
        store16(head.data + IPV4_TOTAL, total)
        ipv4_seal(head.data)
    else:
        store16(head.data + IPV6_PAYLOAD, total - IPV6_BYTES)
    if head.protocol == PROTOCOL_TCP:
        head.gso_type = GSO_TCP4 if head.family == 4 else GSO_TCP6
    else:
        head.gso_type = GSO_UDP
        store16(head.data + head.transport + UDP_LENGTH, total - head.transport)
    head.gso_size = <uint16_t>size
    head.checksum_start = head.transport
    head.checksum_offset = <uint16_t>transport_checksum_offset(head.protocol)
    head.flags |= PACKET_NEEDS_CHECKSUM
    store16(checksum_field(head), checksum_fold(pseudo_sum(head, total - head.transport)))


cdef inline void run_seal(merger *m, burst *b, const run *r) noexcept nogil:
    """Make the head a super-packet, and lay out its pieces."""
    cdef packet *head = &b.packets[r.head]
    cdef uint32_t i = r.first_piece
    super_seal(head, r.size, packet_bytes(head))
    if i != NO_PIECE:
        head.tail = &b.tails[b.n_tails]
    while i != NO_PIECE:
        b.tails[b.n_tails].iov_base = b.packets[i].data
        b.tails[b.n_tails].iov_len = b.packets[i].length
        b.n_tails += 1
        head.n_tail += 1
        i = m.next_piece[i]


cdef inline void merge_finish(merger *m, burst *b) noexcept nogil:
    cdef uint32_t i
    for i in range(m.n_runs):
        if b.packets[m.runs[i].head].n_segments > 1:
            run_seal(m, b, &m.runs[i])


cdef inline void merge(merger *m, burst *b, uint32_t udp_segments) noexcept nogil:
    """Merge a burst of which all that pass go to local ports."""
    cdef uint32_t i
    if b.n < 2:
        return
    merge_begin(m, b, udp_segments)
    for i in range(b.n):
        if b.packets[i].verdict == VERDICT_PASS:
            merge_local(m, b, i)
        else:
            merge_other(m, b, i)
    merge_finish(m, b)
