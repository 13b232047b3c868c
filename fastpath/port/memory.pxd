# The memory port: packets and datagrams in two rings of bytes, for tests and embedding.
#
# Owns: the rings. One producer, one consumer each: Python injects what the
# worker receives, the worker sends what Python drains. Records are contiguous;
# one that does not fit before the end leaves a SKIP record and starts over.
# Never: touches the kernel.
# Invariant: tail <= head <= tail + capacity; a record is visible only when complete.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from fastpath.atomic cimport atomic_load_acquire, atomic_store_release
from fastpath.buffer cimport (
    arena, arena_room, arena_take, iovec, packet, packet_bytes, PACKET_MAX, PACKET_NEEDS_CHECKSUM,
)
from fastpath.port.port cimport datagram, port, train

cdef extern from * nogil:
    """
    #include <string.h>

    /* The first and the last `part` bytes of n, which overlap where n is smaller than both. */
    static inline __attribute__((always_inline)) void towpath_copy_ends(uint8_t *to, const uint8_t *from, size_t n, size_t part) {
        memcpy(to, from, part);
        memcpy(to + n - part, from + n - part, part);
    }

    /* Small packets without a call. */
    static inline void towpath_copy(uint8_t *to, const void *from, size_t n) {
        if (n - 32 <= 32)
            towpath_copy_ends(to, (const uint8_t *)from, n, 32);
        else if (n - 64 <= 64)
            towpath_copy_ends(to, (const uint8_t *)from, n, 64);
        else
            memcpy(to, from, n);
    }
    """
    void copy "towpath_copy"(uint8_t *to, const void *start, size_t n)

cdef struct memory_record:
    uint32_t size              # of header and bytes, multiple of 8
    uint32_t length            # bytes; SKIP marks the unused end of the ring
    uint16_t gso_size
    uint16_t checksum_start
    uint16_t checksum_offset
    uint8_t gso_type
    uint8_t flags              # PACKET_NEEDS_CHECKSUM or 0
    uint16_t n_segments
    uint8_t traffic_class      # outer, of datagrams
    uint8_t family             # outer, of datagrams
    uint32_t segment_bytes     # datagrams: size of each but maybe the last
    uint64_t high              # datagrams received: outer source address
    uint64_t low
    uint8_t remote[28]         # datagrams sent: socket address of the peer
    uint32_t sender            # and which of the port's sources sent it

cdef enum:
    RECORD_SKIP = 0xFFFFFFFF

cdef struct memory_ring:
    uint64_t head              # written by the producer
    uint64_t tail              # written by the consumer
    uint64_t capacity          # bytes, power of two
    uint8_t *bytes

cdef struct memory_rings:
    memory_ring received       # Python -> worker
    memory_ring sent           # worker -> Python

cdef inline uint64_t ring_end(memory_ring *ring) noexcept nogil:
    """How far the producer may write at the moment."""
    return atomic_load_acquire(&ring.tail) + ring.capacity

cdef inline memory_record *ring_reserve(memory_ring *ring, uint64_t *head, uint64_t end, uint32_t length) noexcept nogil:
    """A record of `length` bytes before `end`, and `head` behind it; NULL when it does not fit."""
    cdef uint64_t size = (sizeof(memory_record) + length + 7) & ~<uint64_t>7
    cdef uint64_t at = head[0] & (ring.capacity - 1)
    cdef uint64_t skip = ring.capacity - at if at + size > ring.capacity else 0
    cdef memory_record *record
    if head[0] + skip + size > end:
        return NULL
    if skip:
        record = <memory_record *>(ring.bytes + at)
        record.size = <uint32_t>skip
        record.length = RECORD_SKIP
        at = 0
    record = <memory_record *>(ring.bytes + at)
    memset(record, 0, sizeof(memory_record))
    record.size = <uint32_t>size
    record.length = length
    head[0] += skip + size
    return record

cdef inline uint8_t *record_bytes(memory_record *record) noexcept nogil:
    return <uint8_t *>record + sizeof(memory_record)

cdef inline void ring_commit(memory_ring *ring, uint64_t head) noexcept nogil:
    """Everything before `head` is complete."""
    atomic_store_release(&ring.head, head)

cdef inline void ring_release(memory_ring *ring, const memory_record *record) noexcept nogil:
    atomic_store_release(&ring.tail, ring.tail + record.size)

cdef inline memory_record *ring_peek(memory_ring *ring) noexcept nogil:
    """The oldest record, or NULL."""
    cdef memory_record *record
    while ring.tail != atomic_load_acquire(&ring.head):
        record = <memory_record *>(ring.bytes + (ring.tail & (ring.capacity - 1)))
        if record.length != RECORD_SKIP:
            return record
        ring_release(ring, record)
    return NULL

cdef inline memory_rings *rings_of(const port *at) noexcept nogil:
    return <memory_rings *>at.memory

cdef inline int memory_receive(const port *source, arena *memory, packet *p) noexcept nogil:
    """As tun_receive."""
    cdef memory_record *record = ring_peek(&rings_of(source).received)
    cdef uint8_t *room
    if record == NULL:
        return 0
    room = arena_room(memory, record.length)
    if room == NULL:
        return 0
    memset(p, 0, sizeof(packet))
    copy(room, record_bytes(record), record.length)
    p.data = room
    p.length = record.length
    p.n_segments = 1
    p.port = source.index
    p.gso_size = record.gso_size
    p.gso_type = record.gso_type
    p.flags = record.flags
    p.checksum_start = record.checksum_start
    p.checksum_offset = record.checksum_offset
    ring_release(&rings_of(source).received, record)
    arena_take(memory, room + p.length)
    return 1

cdef inline int memory_receive_datagram(const port *source, arena *memory, datagram *d) noexcept nogil:
    """As udp_receive."""
    cdef memory_record *record = ring_peek(&rings_of(source).received)
    if record == NULL:
        return 0
    memset(d, 0, sizeof(datagram))
    d.data = arena_room(memory, record.length)
    if d.data == NULL:
        return 0
    copy(d.data, record_bytes(record), record.length)
    d.length = record.length
    d.segment_bytes = record.segment_bytes if record.segment_bytes else record.length
    d.source_high = record.high
    d.source_low = record.low
    d.traffic_class = record.traffic_class
    ring_release(&rings_of(source).received, record)
    arena_take(memory, d.data + d.length)
    return 1

cdef inline bint memory_send(const port *target, const packet *p) noexcept nogil:
    """Store a packet with its metadata; False when the ring is full."""
    cdef memory_ring *ring = &rings_of(target).sent
    cdef uint64_t head = ring.head
    cdef memory_record *record = ring_reserve(ring, &head, ring_end(ring), packet_bytes(p))
    cdef uint8_t *at
    cdef uint32_t i
    if record == NULL:
        return False
    record.gso_size = p.gso_size
    record.gso_type = p.gso_type if p.gso_size else 0
    record.flags = p.flags & PACKET_NEEDS_CHECKSUM
    record.checksum_start = p.checksum_start
    record.checksum_offset = p.checksum_offset
    record.n_segments = p.n_segments
    at = record_bytes(record)
    copy(at, p.data, p.length)
    at += p.length
    for i in range(p.n_tail):
        copy(at, p.tail[i].iov_base, p.tail[i].iov_len)
        at += p.tail[i].iov_len
    ring_commit(ring, head)
    return True

cdef inline uint32_t memory_send_train(const port *target, const train *t) noexcept nogil:
    """Store every datagram of a train, seen all at once; returns how many fitted."""
    cdef memory_ring *ring = &rings_of(target).sent
    cdef uint64_t head = ring.head
    cdef uint64_t end = ring_end(ring)
    cdef memory_record *record
    cdef const iovec *piece = t.pieces
    cdef const iovec *last
    cdef uint8_t *at
    cdef uint32_t length, left = t.total_bytes, n = 0
    while n < t.n_datagrams:
        length = t.datagram_bytes if t.datagram_bytes < left else left
        record = ring_reserve(ring, &head, end, length)
        if record == NULL:
            break
        record.traffic_class = t.traffic_class
        record.family = target.tunnel.outer_family
        record.sender = t.sender
        memcpy(record.remote, t.to.remote, sizeof(record.remote))
        at = record_bytes(record)
        last = piece + t.pieces_each
        while piece != last:
            copy(at, piece.iov_base, piece.iov_len)
            at += piece.iov_len
            piece += 1
        left -= length
        n += 1
    ring_commit(ring, head)
    return n
