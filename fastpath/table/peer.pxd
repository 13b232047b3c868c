# The peers: outer source address -> peer number.
#
# Owns: an immutable open-addressed hash, built once by plane.pyx.
# Never: says what a peer may send (guard asks the routes).
# Invariant: at most half full, so a search ends at a free slot within `capacity` steps.
# Keys are 16 bytes, IPv4 as ::ffff:a.b.c.d; the hash is keyed, so that whoever
# announces addresses cannot choose their buckets.

from libc.stdint cimport uint32_t, uint64_t

cdef struct peer_slot:
    uint64_t high
    uint64_t low
    uint32_t peer
    uint32_t used

cdef struct peer_table:
    uint64_t key
    uint32_t mask              # capacity - 1, capacity a power of two
    uint32_t n
    peer_slot slots[1]         # in fact `capacity` of them

cdef inline uint32_t peer_hash(uint64_t high, uint64_t low, uint64_t key) noexcept nogil:
    cdef uint64_t h = (high ^ key) * <uint64_t>0x9E3779B97F4A7C15
    h ^= h >> 32
    h = (h ^ low ^ (key >> 7)) * <uint64_t>0xD6E8FEB86659FD93
    return <uint32_t>(h >> 32)

cdef inline bint peer_find(const peer_table *table, uint64_t high, uint64_t low, uint32_t *peer) noexcept nogil:
    cdef uint32_t at = peer_hash(high, low, table.key) & table.mask
    cdef const peer_slot *slot
    cdef uint32_t step
    for step in range(table.mask + 1):
        slot = &table.slots[(at + step) & table.mask]
        if not slot.used:
            return False
        if slot.high == high and slot.low == low:
            peer[0] = slot.peer
            return True
    return False
