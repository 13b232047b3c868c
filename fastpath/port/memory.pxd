# The memory port: packets and datagrams in two rings of bytes, for tests and embedding.
#
# Owns: the rings. One producer, one consumer each: Python injects what the
# worker receives, the worker sends what Python drains. Records are contiguous;
# one that does not fit before the end leaves a SKIP record and starts over.
# Never: touches the kernel.
# Invariant: tail <= head <= tail + capacity; a record is visible only when complete.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset
from fastpath.atomic cimport atomic_load_acquire, atomic_store_release
from fastpath.buffer cimport (
    arena, arena_room, arena_take, iovec, packet, packet_bytes, PACKET_MAX, PACKET_NEEDS_CHECKSUM,
)
from fastpath.port.port cimport datagram, port, train

cdef extern from * nogil:
    """
    #include <string.h>

    /* Small packets without a call: 16 bytes at a time, the last of them ending where the bytes end. */
    static inline void towpath_copy(uint8_t *to, const void *from, size_t n) {
        const uint8_t *at = (const uint8_t *)from;
        if (n < 16 || n > 256) {
            memcpy(to, at, n);
            return;
        }
        for (size_t i = 0; i + 16 < n; i += 16)
            memcpy(to + i, at + i, 16);
        memcpy(to + n - 16, at + n - 16, 16);
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

cdef inline memory_record *ring_reserve(memory_ring *ring, uint32_t length) noexcept nogil:
    """Room for a record of `length` bytes, or NULL when the ring is full."""
    cdef uint64_t size = (sizeof(memory_record) + length + 7) & ~<uint64_t>7
    cdef uint64_t at = ring.head & (ring.capacity - 1)
    cdef uint64_t skip = ring.capacity - at if at + size > ring.capacity else 0
    cdef memory_record *record
    if ring.head + skip + size - atomic_load_acquire(&ring.tail) > ring.capacity:
        return NULL
    if skip:
        record = <memory_record *>(ring.bytes + at)
        record.size = <uint32_t>skip
        record.length = RECORD_SKIP
        atomic_store_release(&ring.head, ring.head + skip)
        at = 0
    record = <memory_record *>(ring.bytes + at)
    memset(record, 0, sizeof(memory_record))
    record.size = <uint32_t>size
    record.length = length
    return record

cdef inline uint8_t *record_bytes(memory_record *record) noexcept nogil:
    return <uint8_t *>record + sizeof(memory_record)

cdef inline void ring_commit(memory_ring *ring, const memory_record *record) noexcept nogil:
    atomic_store_release(&ring.head, ring.head + record.size)

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
    cdef memory_record *record = ring_reserve(&rings_of(target).sent, packet_bytes(p))
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
    ring_commit(&rings_of(target).sent, record)
    return True

cdef inline uint32_t memory_send_train(const port *target, const train *t) noexcept nogil:
    """Store every datagram of a train; returns how many fitted."""
    cdef memory_record *record
    cdef const iovec *piece = t.pieces
    cdef uint8_t *at
    cdef uint32_t i, k, length
    for i in range(t.n_datagrams):
        length = 0
        for k in range(t.pieces_each):
            length += <uint32_t>piece[k].iov_len
        record = ring_reserve(&rings_of(target).sent, length)
        if record == NULL:
            return i
        record.traffic_class = t.traffic_class
        record.family = target.tunnel.outer_family
        record.sender = t.sender
        copy(record.remote, t.to.remote, 28)
        at = record_bytes(record)
        for k in range(t.pieces_each):
            copy(at, piece[k].iov_base, piece[k].iov_len)
            at += piece[k].iov_len
        piece += t.pieces_each
        ring_commit(&rings_of(target).sent, record)
    return t.n_datagrams
