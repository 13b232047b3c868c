"""Few IPv6 routes under one entry, as intervals in blocks.

Owns: the sweep from sorted prefixes to elementary intervals of a 32-bit window.
Never: makes a bucket of more than 8 * 8 intervals (BUCKET_ROUTES sees to that).
Invariant: intervals ascend, the first starts at 0, neighbours differ in their
entry; routes longer than the window hang below their interval, as a bucket of the next window.
"""

from libc.stdint cimport uint64_t
from fastpath.table.fib_pool cimport (
    FIB_BLOCK, FIB_BLOCK_KEYS, FIB_LINE, FIB_REF, PIECE_NONE, fib_block, piece_at, trie_take,
)
from fastpath.table.rib cimport RIB_PREFIXES, bits_next, rib_child, rib_node, rib_places, rib_position

cdef enum:
    WINDOW_BYTES = 4           # or what is left of a half of the address
    HALF_BYTES = 8
    LAST_KEY = 0xffffffff
    NESTING_MAX = 34           # one enclosing prefix a bit, and the whole window

cdef struct sweep:
    trie *t
    uint32_t depth, bytes      # where the window starts, and its size
    uint32_t n, nested
    uint32_t starts[BUCKET_INTERVALS]
    uint32_t entries[BUCKET_INTERVALS]
    uint32_t ends[NESTING_MAX] # last address of each prefix we are in
    uint32_t values[NESTING_MAX]


cdef void emit(sweep *s, uint32_t start, uint32_t entry) noexcept nogil:
    """From `start` on the answer is `entry`."""
    if s.n and s.starts[s.n - 1] == start:
        s.n -= 1
    if s.n and s.entries[s.n - 1] == entry:
        return
    s.starts[s.n] = start
    s.entries[s.n] = entry
    s.n += 1


cdef void leave_before(sweep *s, uint32_t start) noexcept nogil:
    """Close the prefixes that end before `start`."""
    cdef uint32_t end
    while s.ends[s.nested - 1] < start:
        end = s.ends[s.nested - 1]
        s.nested -= 1
        emit(s, end + 1, s.values[s.nested - 1])


cdef void enter(sweep *s, uint32_t start, uint32_t end, uint32_t value) noexcept nogil:
    leave_before(s, start)
    emit(s, start, value)
    s.ends[s.nested] = end
    s.values[s.nested] = value
    s.nested += 1


# `node_compile` for so few routes would come back here: a window's rest is a bucket again.
cdef void visit_beyond(sweep *s, const rib_node *node, uint32_t key) noexcept nogil:
    """The routes behind the window's end, all at one key."""
    cdef uint32_t inherited, last = key | <uint32_t>((<uint64_t>1 << (32 - 8 * s.bytes)) - 1)
    leave_before(s, key)
    inherited = s.values[s.nested - 1]
    emit(s, key, bucket_compile(s.t, node, s.depth + s.bytes, inherited))
    if last != LAST_KEY:
        emit(s, last + 1, inherited)


cdef void visit(sweep *s, const rib_node *node, uint32_t depth, uint32_t key) noexcept nogil:
    """All routes of a subtree in order; `key` holds the window's bytes before `depth`."""
    cdef uint32_t shift = 24 - 8 * (depth - s.depth)
    cdef uint32_t position = bits_next(node.prefixes, 0, RIB_PREFIXES)
    cdef uint32_t byte = bits_next(node.child_set, 0, 256)
    cdef uint32_t start, bits, rank = 0
    if depth == s.depth + s.bytes:
        visit_beyond(s, node, key)
        return
    while position < RIB_PREFIXES or byte < 256:
        if byte == 256 or (position < RIB_PREFIXES and position <= rib_position(byte, 8)):
            start = key | <uint32_t>(rib_places()[position] >> 8) << shift
            bits = rib_places()[position] & 255
            enter(s, start, start | (((<uint64_t>256 >> bits) << shift) - 1), node.values[rank])
            rank += 1
            position = bits_next(node.prefixes, position + 1, RIB_PREFIXES)
        else:
            visit(s, rib_child(node, byte), depth + 1, key | byte << shift)
            byte = bits_next(node.child_set, byte + 1, 256)


cdef uint32_t block_write(trie *t, const uint32_t *keys, const uint32_t *entries, uint32_t n, uint32_t depth) noexcept nogil:
    """A reference to a block of n (1..8) intervals."""
    cdef uint32_t i = trie_take(t, 0)
    cdef uint32_t k
    cdef fib_block *block
    if i == PIECE_NONE:
        return 0
    block = <fib_block *>piece_at(t.pieces, i)
    for k in range(FIB_BLOCK_KEYS):
        block.keys[k] = keys[k] if k < n else <uint32_t>LAST_KEY
        block.entries[k] = entries[k] if k < n else entries[n - 1]
    return <uint32_t>FIB_REF | FIB_BLOCK | i * FIB_LINE | depth


cdef uint32_t bucket_compile(trie *t, const rib_node *node, uint32_t depth, uint32_t inherited) noexcept nogil:
    cdef sweep s
    cdef uint32_t first, n_blocks
    cdef uint32_t block_keys[FIB_BLOCK_KEYS]
    cdef uint32_t block_entries[FIB_BLOCK_KEYS]
    s.t, s.depth = t, depth
    s.bytes = min(<uint32_t>WINDOW_BYTES, HALF_BYTES - (depth & (HALF_BYTES - 1)))
    s.n, s.nested = 0, 1
    s.ends[0], s.values[0] = LAST_KEY, inherited
    emit(&s, 0, inherited)
    visit(&s, node, depth, 0)
    while s.nested > 1:
        s.nested -= 1
        if s.ends[s.nested] != LAST_KEY:
            emit(&s, s.ends[s.nested] + 1, s.values[s.nested - 1])
    if s.n <= FIB_BLOCK_KEYS:
        return block_write(t, s.starts, s.entries, s.n, depth)
    first = n_blocks = 0
    while first < s.n:
        block_keys[n_blocks] = s.starts[first]
        block_entries[n_blocks] = block_write(
            t, s.starts + first, s.entries + first, min(<uint32_t>FIB_BLOCK_KEYS, s.n - first), depth)
        n_blocks += 1
        first += FIB_BLOCK_KEYS
    return block_write(t, block_keys, block_entries, n_blocks, depth)
