# The memory of a compiled table: equal pieces addressed by number.
#
# Owns: one mapping a pool, its list of free pieces, the transaction each piece was
# made in; and the trie, the two pools (nodes, blocks) of one family.
# Never: moves a piece, or decides when one may be reused (the builder asks the Reclaimer).
# Invariant: a number from `pool_take` is below the capacity and belongs to one holder.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

cdef extern from "<sys/mman.h>" nogil:
    enum: PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_ANONYMOUS, MAP_NORESERVE, MADV_HUGEPAGE
    void *MAP_FAILED
    void *mmap(void *where, size_t length, int protection, int flags, int fd, long offset)
    int munmap(void *where, size_t length)
    int madvise(void *where, size_t length, int advice)

cdef extern from "fastpath/simd/fib.h" nogil:
    enum: FIB_REF, FIB_BLOCK, FIB_INDEX, FIB_NARROW_REF, FIB_NARROW_INDEX, FIB_FANOUT, FIB_BLOCK_KEYS
    struct fib_block:
        uint32_t keys[8]
        uint32_t entries[8]

cdef enum:
    NARROW_MAX = 0x7fff        # largest value, and largest number of nodes, of 16-bit entries
    BUCKET_ROUTES = 15         # IPv6: subtrees of at most so many routes become blocks
    BUCKET_INTERVALS = 64      # at least 2 * BUCKET_ROUTES + 1, at most 8 * 8

cdef enum:
    POOL_NONE = 0xffffffff     # no piece left
    POOL_SLACK = 64            # bytes behind the last piece that kernels may read
    POOL_HUGE = 4194304        # bytes from which huge pages are worth asking for

cdef struct pool:
    uint8_t *base
    uint32_t size              # bytes of a piece
    uint32_t capacity
    uint32_t fresh             # pieces from here on were never taken
    uint32_t n_free
    uint32_t live              # taken and not yet given back
    uint32_t *free_list
    uint32_t *born             # transaction that took the piece

cdef struct trie:
    pool *nodes
    pool *blocks               # NULL for IPv4
    bint narrow                # 16-bit entries
    bint full                  # a pool, or memory, ran out
    uint32_t transaction       # number of the version being made
    uint32_t *dropped          # references the new version no longer has
    uint64_t n_dropped, dropped_room

cdef inline int pool_open(pool *p, uint32_t size, uint32_t capacity) noexcept nogil:
    """0, or -1 without memory; then nothing is held."""
    cdef size_t bytes = <size_t>size * capacity + POOL_SLACK
    cdef void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    if base == MAP_FAILED:
        return -1
    if bytes >= POOL_HUGE:
        madvise(base, bytes, MADV_HUGEPAGE)
    p.base = <uint8_t *>base
    p.size, p.capacity = size, capacity
    p.fresh = p.n_free = p.live = 0
    p.free_list = <uint32_t *>calloc(capacity, sizeof(uint32_t))
    p.born = <uint32_t *>calloc(capacity, sizeof(uint32_t))
    if p.free_list == NULL or p.born == NULL:
        pool_close(p)
        return -1
    return 0

cdef inline void pool_close(pool *p) noexcept nogil:
    if p.base != NULL:
        munmap(p.base, <size_t>p.size * p.capacity + POOL_SLACK)
    free(p.free_list)
    free(p.born)
    p.base = NULL
    p.free_list = p.born = NULL
    p.capacity = p.live = 0

cdef inline uint32_t pool_take(pool *p, uint32_t transaction) noexcept nogil:
    """The number of a piece with undefined contents, or POOL_NONE."""
    cdef uint32_t i
    if p.n_free:
        p.n_free -= 1
        i = p.free_list[p.n_free]
    elif p.fresh < p.capacity:
        i = p.fresh
        p.fresh += 1
    else:
        return POOL_NONE
    p.born[i] = transaction
    p.live += 1
    return i

cdef inline void pool_give(pool *p, uint32_t i) noexcept nogil:
    """Take back a piece that nobody reads any more."""
    p.free_list[p.n_free] = i
    p.n_free += 1
    p.live -= 1

cdef inline uint8_t *pool_at(const pool *p, uint32_t i) noexcept nogil:
    return p.base + <size_t>i * p.size
