"""Pieces and editions of compiled tables; see fib_pool.pxd.

Owns: taking, splitting and giving back.
Never: raises, or needs the GIL.
"""

from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy

cdef extern from "<sys/mman.h>" nogil:
    enum: PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_ANONYMOUS, MAP_NORESERVE, MADV_HUGEPAGE
    void *MAP_FAILED
    void *mmap(void *where, size_t length, int protection, int flags, int fd, long offset)
    int munmap(void *where, size_t length)
    int madvise(void *where, size_t length, int advice)


cdef inline size_t mapped(uint32_t lines) noexcept nogil:
    return <size_t>lines * FIB_LINE + PIECE_SLACK


cdef pool *pool_new(uint32_t lines) noexcept nogil:
    cdef pool *p = <pool *>calloc(1, sizeof(pool))
    cdef void *base
    if p == NULL:
        return NULL
    p.born = <uint32_t *>calloc(lines, sizeof(uint32_t))
    base = mmap(NULL, mapped(lines), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    if p.born == NULL or base == MAP_FAILED:
        if base != MAP_FAILED:
            munmap(base, mapped(lines))
        free(p.born)
        free(p)
        return NULL
    if mapped(lines) >= POOL_HUGE:
        madvise(base, mapped(lines), MADV_HUGEPAGE)
    p.base = <uint8_t *>base
    p.lines, p.fresh = lines, 1
    p.retired_end = &p.retired
    return p


cdef void editions_free(edition *e) noexcept nogil:
    cdef edition *next
    while e != NULL:
        next = e.next
        free(e)
        e = next


cdef void pool_free(pool *p) noexcept nogil:
    editions_free(p.editions)
    editions_free(p.retired)
    munmap(p.base, mapped(p.lines))
    free(p.born)
    free(p)

# -- pieces ------------------------------------------------------------------------

cdef inline void free_push(pool *p, uint32_t line, uint32_t size_class) noexcept nogil:
    p.born[line] = p.free_first[size_class]
    p.free_first[size_class] = line


cdef inline uint32_t free_pop(pool *p, uint32_t size_class) noexcept nogil:
    cdef uint32_t line = p.free_first[size_class]
    p.free_first[size_class] = p.born[line]
    return line


cdef uint32_t split(pool *p, uint32_t size_class) noexcept nogil:
    """A piece cut from a larger free one, the rest of which goes back in halves."""
    cdef uint32_t larger = size_class + 1
    cdef uint32_t line
    while larger < PIECE_CLASSES and p.free_first[larger] == PIECE_NONE:
        larger += 1
    if larger >= PIECE_CLASSES:
        return PIECE_NONE
    line = free_pop(p, larger)
    while larger > size_class:
        larger -= 1
        free_push(p, line + (<uint32_t>1 << larger), larger)
    return line


cdef uint32_t piece_take(pool *p, uint32_t size_class, uint32_t transaction) noexcept nogil:
    cdef uint32_t line
    cdef uint32_t size = <uint32_t>1 << size_class
    if p.free_first[size_class] != PIECE_NONE:
        line = free_pop(p, size_class)
    elif p.lines - p.fresh >= size:
        line = p.fresh
        p.fresh += size
    else:
        line = split(p, size_class)
        if line == PIECE_NONE:
            return PIECE_NONE
    p.born[line] = transaction
    p.live += size
    return line


cdef void piece_give(pool *p, uint32_t line, uint32_t size_class) noexcept nogil:
    free_push(p, line, size_class)
    p.live -= <uint32_t>1 << size_class


cdef uint32_t trie_take(trie *t, uint32_t size_class) noexcept nogil:
    cdef uint32_t line = PIECE_NONE if t.full else piece_take(t.pieces, size_class, t.transaction)
    if line == PIECE_NONE:
        t.full = True
    return line


cdef uint32_t trie_copy(trie *t, uint32_t line, uint32_t size_class) noexcept nogil:
    cdef uint32_t copy
    if t.pieces.born[line] == t.transaction:
        return line
    copy = trie_take(t, size_class)
    if copy != PIECE_NONE:
        memcpy(piece_at(t.pieces, copy), piece_at(t.pieces, line), <size_t>FIB_LINE << size_class)
        trie_drop(t, line, size_class)
    return copy


cdef void trie_drop(trie *t, uint32_t line, uint32_t size_class) noexcept nogil:
    cdef uint64_t room
    cdef void *dropped
    if t.pieces.born[line] == t.transaction:
        piece_give(t.pieces, line, size_class)
        return
    if t.n_dropped == t.dropped_room:
        room = 2 * t.dropped_room + 64
        dropped = realloc(t.dropped, room * sizeof(uint32_t))
        if dropped == NULL:
            t.full = True
            return
        t.dropped, t.dropped_room = <uint32_t *>dropped, room
    t.dropped[t.n_dropped] = size_class << 26 | line
    t.n_dropped += 1

# -- editions -------------------------------------------------------------------------

cdef void catch_up(const pool *p, edition *e, const edition *current) noexcept nogil:
    """Give a free edition the root of the current one."""
    cdef uint64_t i
    cdef uint32_t slot
    if p.n_changed - e.position > CHANGES_KEPT:
        memcpy(e.root, current.root, sizeof(e.root))
        return
    for i in range(e.position, p.n_changed):
        slot = p.changed[i & (CHANGES_KEPT - 1)]
        e.root[slot] = current.root[slot]


cdef edition *edition_take(pool *p, const edition *current) noexcept nogil:
    cdef edition *e = p.editions
    if e != NULL and current != NULL:
        p.editions = e.next
        p.n_editions -= 1
        catch_up(p, e, current)
        return e
    e = <edition *>malloc(sizeof(edition))
    if e != NULL:
        e.base = p.base
        e.position = p.n_changed
        if current != NULL:
            memcpy(e.root, current.root, sizeof(e.root))
    return e


cdef void edition_give(pool *p, edition *e) noexcept nogil:
    if p.n_editions >= EDITIONS_KEPT:
        free(e)
        return
    e.next = p.editions
    p.editions = e
    p.n_editions += 1


cdef void edition_retire(pool *p, edition *e, uint64_t token) noexcept nogil:
    e.token, e.next = token, NULL
    p.retired_end[0] = e
    p.retired_end = &e.next
