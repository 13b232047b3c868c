# The memory of a compiled table: pieces of 64 * 2^class bytes in one mapping, and editions.
#
# Owns: the mapping, its lists of free pieces, the transaction each piece was made
# in; the editions, one for each version (its root), and which root entries changed when.
# Never: moves a piece, or decides when one may be reused (the builder asks the Reclaimer).
# Invariants:
#   * A line from `piece_take` begins a piece with one holder; line 0 is nobody's.
#   * An edition that is not published is right in all root entries but those
#     named in `changed` from its `position` on.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from "fastpath/simd/fib.h" nogil:
    enum: FIB_REF, FIB_BLOCK, FIB_FANOUT, FIB_BLOCK_KEYS, FIB_ROOT, FIB_LINE
    enum: FIB4_WIDTH_AT, FIB4_OFFSET, FIB4_SHIFT, FIB6_OFFSET, FIB6_WIDTH_AT, FIB6_SHIFT
    struct fib_block:
        uint32_t keys[8]
        uint32_t entries[8]

cdef enum:
    PIECE_NONE = 0             # no memory left
    PIECE_CLASSES = 13         # 64 bytes to 256 KiB
    PIECE_SLACK = 64           # bytes behind the last piece that kernels may read
    POOL_HUGE = 4194304        # bytes from which huge pages are worth asking for
    CHANGES_KEPT = 4096        # root entries changed lately; a power of two
    EDITIONS_KEPT = 3          # free editions that wait for the next change

# A version of the table: its root, and what the writer keeps with it. What readers get is
# a pointer to `base`: struct fib4 or struct fib6, which are laid out alike.
cdef struct edition:
    edition *next              # of the list it is on
    uint64_t position
    uint64_t token             # of its retirement
    const uint8_t *base
    uint32_t root[65536]

cdef struct pool:
    uint8_t *base
    uint32_t lines
    uint32_t fresh             # lines from here on were never taken
    uint32_t live              # lines taken and not yet given back
    uint32_t free_first[PIECE_CLASSES]
    uint32_t *born             # of a piece's first line: its transaction; while free, the next free one
    edition *editions          # free ones, the latest first
    edition *retired           # those that readers may still see, the oldest first
    edition **retired_end
    uint32_t n_editions
    uint64_t n_changed
    uint32_t changed[CHANGES_KEPT]

cdef struct trie:
    pool *pieces
    edition *making            # the version being made
    bint six                   # IPv6
    bint full                  # memory, or what a reference can name, ran out
    uint32_t transaction       # number of the version being made
    uint32_t *dropped          # class << 26 | line of what the new version no longer has
    uint64_t n_dropped, dropped_room

# A pool of so many lines, or NULL.
cdef pool *pool_new(uint32_t lines) noexcept nogil
cdef void pool_free(pool *p) noexcept nogil
# The first line of a piece with undefined contents, or PIECE_NONE.
cdef uint32_t piece_take(pool *p, uint32_t size_class, uint32_t transaction) noexcept nogil
# Take back a piece that nobody reads any more.
cdef void piece_give(pool *p, uint32_t line, uint32_t size_class) noexcept nogil
# A piece for the version being made; sets `full` and gives PIECE_NONE when there is none.
cdef uint32_t trie_take(trie *t, uint32_t size_class) noexcept nogil
# A piece with the same contents that the version being made may write, instead of this one; PIECE_NONE without memory.
cdef uint32_t trie_copy(trie *t, uint32_t line, uint32_t size_class) noexcept nogil
# The version being made no longer has the piece.
cdef void trie_drop(trie *t, uint32_t line, uint32_t size_class) noexcept nogil
# An edition with the root of `current` (NULL: undefined), or NULL without memory.
cdef edition *edition_take(pool *p, const edition *current) noexcept nogil
# Take back an edition that nobody reads any more.
cdef void edition_give(pool *p, edition *e) noexcept nogil
# Keep one that was replaced, until it is given back or the pool freed.
cdef void edition_retire(pool *p, edition *e, uint64_t token) noexcept nogil

cdef inline uint8_t *piece_at(const pool *p, uint32_t line) noexcept nogil:
    return p.base + <uint64_t>line * FIB_LINE

cdef inline void root_store(trie *t, uint32_t slot, uint32_t entry) noexcept nogil:
    cdef pool *p = t.pieces
    t.making.root[slot] = entry
    p.changed[p.n_changed & (CHANGES_KEPT - 1)] = slot
    p.n_changed += 1
