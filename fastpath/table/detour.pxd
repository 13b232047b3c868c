# Detours: connections of pods of ours whose destination the host's kernel changed, and whose replies it must see.
#
# A pod speaks to a service's address. That is none of ours, so the packet goes
# to the host, whose kernel puts a pod's address in its place and hands it back,
# source unchanged. The reply would reach the first pod directly, from an
# address it never spoke to; so it is sent through the host, which undoes the
# change. Owns: a fixed table of the replies expected, by a keyed 64-bit mark.
# Never: is asked for a packet while no such connection was ever seen.
# Invariants: a slot is one release store, so readers on other threads see a
# whole mark or none; a full bucket loses the entry unused for longest; who
# sends cannot choose a bucket (the key is random).

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from fastpath.atomic cimport atomic_load_acquire, atomic_load_relaxed, atomic_store_relaxed, atomic_store_release
from fastpath.buffer cimport packet, PACKET_LATER_FRAGMENT
from fastpath.simd.siphash cimport siphash_words
from fastpath.wire.octets cimport load32, load64
from fastpath.wire.transport cimport PROTOCOL_SCTP, PROTOCOL_TCP, PROTOCOL_UDP

cdef enum:
    DETOUR_WAYS = 4            # slots of a bucket: one cache line
    DETOUR_BUCKETS = 16384     # power of two
    DETOUR_SLOTS = DETOUR_WAYS * DETOUR_BUCKETS
    DETOUR_FRESH_NS = 1000000000  # younger ones are not written again: the line stays shared

cdef struct detour:
    uint64_t mark              # of the reply; 0: free
    uint64_t used_ns

cdef struct detours:
    uint64_t key[2]            # of SipHash, random: who sends cannot aim at a bucket
    uint64_t taken             # entries ever made; 0: nobody need look
    detour slots[DETOUR_SLOTS]

cdef inline bint detour_applies(const packet *p) noexcept nogil:
    """Whether the packet's connection can be told: the kernel changes addresses by ports."""
    return not p.flags & PACKET_LATER_FRAGMENT and (
        p.protocol == PROTOCOL_TCP or p.protocol == PROTOCOL_UDP or p.protocol == PROTOCOL_SCTP
    )

cdef inline uint64_t detour_mark(const detours *d, const packet *p, bint reply) noexcept nogil:
    """The mark of the packet, or of the reply to it; never 0."""
    cdef const uint8_t *h = p.data
    cdef uint32_t ports = load32(h + p.transport)
    cdef uint64_t words[5]
    cdef uint32_t source = 2 if reply else 0
    cdef uint32_t destination = 2 - source
    if p.family == 4:
        words[0], words[2] = 0, 0
        words[source + 1], words[destination + 1] = load32(h + 12), load32(h + 16)
    else:
        words[source], words[source + 1] = load64(h + 8), load64(h + 16)
        words[destination], words[destination + 1] = load64(h + 24), load64(h + 32)
    if reply:
        ports = ports << 16 | ports >> 16
    words[4] = <uint64_t>p.family << 40 | <uint64_t>p.protocol << 32 | ports
    return siphash_words(d.key, words, 5) | 1

cdef inline detour *detour_find(detours *d, uint64_t mark) noexcept nogil:
    cdef detour *bucket = &d.slots[(mark >> 1 & (DETOUR_BUCKETS - 1)) * DETOUR_WAYS]
    cdef uint32_t i
    for i in range(DETOUR_WAYS):
        if atomic_load_acquire(&bucket[i].mark) == mark:
            return &bucket[i]
    return NULL

cdef inline void detour_use(detour *entry, uint64_t now_ns) noexcept nogil:
    if now_ns - atomic_load_relaxed(&entry.used_ns) > DETOUR_FRESH_NS:
        atomic_store_relaxed(&entry.used_ns, now_ns)

cdef inline void detour_remember(detours *d, const packet *p, uint64_t now_ns) noexcept nogil:
    """The host handed back a packet of a pod of ours: expect its reply."""
    cdef uint64_t mark = detour_mark(d, p, True)
    cdef detour *bucket
    cdef detour *entry = detour_find(d, mark)
    cdef uint32_t i
    if entry == NULL:
        bucket = &d.slots[(mark >> 1 & (DETOUR_BUCKETS - 1)) * DETOUR_WAYS]
        entry = bucket
        for i in range(DETOUR_WAYS):
            if bucket[i].mark == 0:
                entry = &bucket[i]
                break
            if atomic_load_relaxed(&bucket[i].used_ns) < atomic_load_relaxed(&entry.used_ns):
                entry = &bucket[i]
        atomic_store_relaxed(&entry.used_ns, now_ns)
        atomic_store_release(&entry.mark, mark)
        atomic_store_release(&d.taken, d.taken + 1)
    detour_use(entry, now_ns)

cdef inline bint detour_expects(detours *d, const packet *p, uint64_t now_ns) noexcept nogil:
    """Whether the packet is the reply of a connection that went through the host."""
    cdef detour *entry = detour_find(d, detour_mark(d, p, False))
    if entry == NULL:
        return False
    detour_use(entry, now_ns)
    return True

cdef inline void detour_forget(detours *d, const packet *p) noexcept nogil:
    """A pod speaks to this end directly, so its reply comes directly too."""
    cdef detour *entry = detour_find(d, detour_mark(d, p, True))
    if entry != NULL:
        atomic_store_release(&entry.mark, 0)

cdef class Detours:
    cdef detours *table

    cdef int set_key(self, bytes key) except -1
