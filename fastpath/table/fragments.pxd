# What was decided about the first fragment of a datagram, for those that follow.
#
# Owns: a table of fixed size, a worker's own: a datagram's fragments come in by one port.
# Never: keeps a byte of a fragment, or waits for one.
# Invariants:
#   * A later fragment passes only after a first one that passed, within its time,
#     and only behind the bytes of that first one.
#   * A second fragment over those bytes ends the datagram.

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset
from fastpath.reason cimport (
    REASON_FRAGMENT_FULL, REASON_FRAGMENT_OVERLAP, REASON_FRAGMENT_UNKNOWN, REASON_NONE,
)
from fastpath.simd.siphash cimport siphash_words

cdef enum:
    FRAGMENT_SETS = 256        # of four datagrams each
    FRAGMENT_WAYS = 4
    FRAGMENT_SOURCE_MAX = 64   # datagrams of one source (of those whose keyed hashes agree) at once
    FRAGMENT_SOURCES = 1024
cdef enum fragment_times:
    FRAGMENT_NS = 2000000000

cdef struct fragment_key:
    uint64_t source[2]
    uint64_t destination[2]
    uint64_t what              # identification, and for IPv4 the protocol

cdef struct fragment_slot:
    fragment_key key
    uint64_t until_ns          # 0: free
    uint32_t first_end         # bytes of the first fragment
    uint32_t reached           # bytes seen so far without a gap
    uint32_t source            # counter
    uint32_t dead              # its fragments overlapped: all that follows is dropped

cdef struct fragment_table:
    uint64_t key[2]
    fragment_slot slots[FRAGMENT_SETS * FRAGMENT_WAYS]
    uint32_t sources[FRAGMENT_SOURCES]

cdef inline bint fragment_same(const fragment_key *a, const fragment_key *b) noexcept nogil:
    return a.source[0] == b.source[0] and a.source[1] == b.source[1] and a.destination[0] == b.destination[0] \
        and a.destination[1] == b.destination[1] and a.what == b.what

cdef inline void fragment_free(fragment_table *t, fragment_slot *s) noexcept nogil:
    t.sources[s.source] -= 1
    s.until_ns = 0

cdef inline fragment_slot *fragment_find(fragment_table *t, const fragment_key *k, uint64_t now_ns,
                                         fragment_slot **room) noexcept nogil:
    """The datagram's slot, or NULL and a free one in `room` (NULL too when there is none)."""
    cdef uint64_t hash = siphash_words(t.key, <const uint64_t *>k, 5)
    cdef fragment_slot *s = &t.slots[(hash & (FRAGMENT_SETS - 1)) * FRAGMENT_WAYS]
    cdef uint32_t i
    room[0] = NULL
    for i in range(FRAGMENT_WAYS):
        if s[i].until_ns and s[i].until_ns <= now_ns:
            fragment_free(t, &s[i])
        if s[i].until_ns and fragment_same(&s[i].key, k):
            return &s[i]
        if not s[i].until_ns:
            room[0] = &s[i]
    return NULL

cdef inline int fragment_first(fragment_table *t, const fragment_key *k, uint32_t end, uint64_t now_ns) noexcept nogil:
    """Remember that a first fragment of `end` bytes passes; the reason when it must not."""
    cdef fragment_slot *room
    cdef fragment_slot *s = fragment_find(t, k, now_ns, &room)
    cdef uint32_t source
    if s != NULL:
        s.dead = 1
        return REASON_FRAGMENT_OVERLAP
    source = <uint32_t>(siphash_words(t.key, k.source, 2) & (FRAGMENT_SOURCES - 1))
    if room == NULL or t.sources[source] >= FRAGMENT_SOURCE_MAX:
        return REASON_FRAGMENT_FULL
    memset(room, 0, sizeof(fragment_slot))
    room.key = k[0]
    room.until_ns = now_ns + <uint64_t>FRAGMENT_NS
    room.first_end = room.reached = end
    room.source = source
    t.sources[source] += 1
    return REASON_NONE

cdef inline int fragment_later(fragment_table *t, const fragment_key *k, uint32_t offset, uint32_t n, bint last,
                               uint64_t now_ns) noexcept nogil:
    """REASON_NONE when a later fragment of `n` bytes follows one that passed."""
    cdef fragment_slot *room
    cdef fragment_slot *s = fragment_find(t, k, now_ns, &room)
    if s == NULL:
        return REASON_FRAGMENT_UNKNOWN
    if s.dead or offset < s.first_end:
        s.dead = 1
        return REASON_FRAGMENT_OVERLAP
    if offset <= s.reached and offset + n > s.reached:
        s.reached = offset + n
    if last and s.reached >= offset + n:
        fragment_free(t, s)    # complete: its identification may be used again
    return REASON_NONE
