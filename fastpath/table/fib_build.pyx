"""From routes to the compiled table: the entries of a new version.

Owns: compiling a subtree, and copying the path to a changed route.
Never: writes a piece that a published version can reach.
Invariant: an entry is a reference exactly where routes longer than the entry's prefix exist.
"""

from libc.stdint cimport uint8_t, uint16_t
from libc.stdlib cimport realloc
from libc.string cimport memcpy
from fastpath.table.fib_bucket cimport bucket_compile
from fastpath.table.fib_pool cimport (
    BUCKET_ROUTES, FIB_BLOCK, FIB_BLOCK_KEYS, FIB_FANOUT, FIB_INDEX, FIB_NARROW_INDEX, FIB_NARROW_REF, FIB_REF,
    POOL_NONE, fib_block, pool, pool_at, pool_give, pool_take,
)
from fastpath.table.rib cimport (
    RIB_PREFIXES, bits_next, rib_byte, rib_child, rib_match, rib_match_in, rib_node, rib_places,
    rib_position, rib_run,
)

# -- entries of a node, whatever their width -----------------------------------------

cdef inline uint32_t entry_load(const trie *t, uint32_t node, uint32_t slot) noexcept nogil:
    cdef uint32_t e
    if not t.narrow:
        return (<uint32_t *>pool_at(t.nodes, node))[slot]
    e = (<uint16_t *>pool_at(t.nodes, node))[slot]
    return <uint32_t>FIB_REF | (e & FIB_NARROW_INDEX) if e & FIB_NARROW_REF else e


cdef inline void entry_store(trie *t, uint32_t node, uint32_t slot, uint32_t entry) noexcept nogil:
    if t.narrow:
        (<uint16_t *>pool_at(t.nodes, node))[slot] = <uint16_t>(entry | entry >> 16)
    else:
        (<uint32_t *>pool_at(t.nodes, node))[slot] = entry


cdef void node_write(trie *t, uint32_t node, const uint32_t *entries) noexcept nogil:
    cdef uint16_t *narrow = <uint16_t *>pool_at(t.nodes, node)
    cdef uint32_t i
    if not t.narrow:
        memcpy(narrow, entries, FIB_FANOUT * sizeof(uint32_t))
        return
    for i in range(FIB_FANOUT):
        narrow[i] = <uint16_t>(entries[i] | entries[i] >> 16)


cdef uint32_t node_copy(trie *t, uint32_t node) noexcept nogil:
    """A node with the same entries that this transaction may write, or POOL_NONE."""
    cdef uint32_t copy
    if t.nodes.born[node] == t.transaction:
        return node
    copy = pool_take(t.nodes, t.transaction)
    if copy == POOL_NONE:
        t.full = True
        return copy
    memcpy(pool_at(t.nodes, copy), pool_at(t.nodes, node), t.nodes.size)
    drop_piece(t, <uint32_t>FIB_REF | node)
    return copy

# -- what the new version no longer has --------------------------------------------------

cdef void drop_piece(trie *t, uint32_t reference) noexcept nogil:
    cdef pool *owner = t.blocks if reference & FIB_BLOCK else t.nodes
    cdef uint64_t room
    cdef void *dropped
    if owner.born[reference & FIB_INDEX] == t.transaction:
        pool_give(owner, reference & FIB_INDEX)
        return
    if t.n_dropped == t.dropped_room:
        room = 2 * t.dropped_room + 64
        dropped = realloc(t.dropped, room * sizeof(uint32_t))
        if dropped == NULL:
            t.full = True
            return
        t.dropped, t.dropped_room = <uint32_t *>dropped, room
    t.dropped[t.n_dropped] = reference
    t.n_dropped += 1


cdef void trie_drop(trie *t, uint32_t entry) noexcept nogil:
    """Drop everything below an entry."""
    cdef const fib_block *block
    cdef uint32_t i
    if not entry & FIB_REF:
        return
    if entry & FIB_BLOCK:
        block = <const fib_block *>pool_at(t.blocks, entry & FIB_INDEX)
        trie_drop(t, block.entries[0])
        for i in range(1, FIB_BLOCK_KEYS):
            if block.entries[i] != block.entries[i - 1]:     # equal neighbours are padding
                trie_drop(t, block.entries[i])
    else:
        for i in range(FIB_FANOUT):
            trie_drop(t, entry_load(t, entry & FIB_INDEX, i))
    drop_piece(t, entry)

# -- compiling ------------------------------------------------------------------------------

cdef void fill(uint32_t *entries, uint32_t start, uint32_t n, uint32_t value) noexcept nogil:
    cdef uint32_t i
    for i in range(start, start + n):
        entries[i] = value


cdef void paint(const rib_node *node, uint32_t inherited, uint32_t *entries) noexcept nogil:
    """The answers of one level: shorter prefixes first, so that the longest remains."""
    cdef uint32_t rank = 0, place
    cdef uint32_t position
    fill(entries, 0, FIB_FANOUT, inherited)
    if node == NULL:
        return
    position = bits_next(node.prefixes, 0, RIB_PREFIXES)
    while position < RIB_PREFIXES:
        place = rib_places()[position]
        fill(entries, place >> 8, <uint32_t>256 >> (place & 255), node.values[rank])
        rank += 1
        position = bits_next(node.prefixes, position + 1, RIB_PREFIXES)


cdef void compile_children(trie *t, const rib_node *node, uint32_t depth, uint32_t *entries) noexcept nogil:
    cdef uint32_t byte, rank = 0
    if node == NULL:
        return
    byte = bits_next(node.child_set, 0, FIB_FANOUT)
    while byte < FIB_FANOUT:
        entries[byte] = trie_compile(t, node.children[rank], depth + 1, entries[byte])
        rank += 1
        byte = bits_next(node.child_set, byte + 1, FIB_FANOUT)


cdef uint32_t trie_compile(trie *t, const rib_node *node, uint32_t depth, uint32_t inherited) noexcept nogil:
    cdef uint32_t entries[FIB_FANOUT]
    cdef uint32_t i
    if t.full:
        return 0
    if t.blocks != NULL and node.routes <= BUCKET_ROUTES:
        return bucket_compile(t, node, depth, inherited)
    i = pool_take(t.nodes, t.transaction)
    if i == POOL_NONE:
        t.full = True
        return 0
    paint(node, inherited, entries)
    compile_children(t, node, depth, entries)
    node_write(t, i, entries)
    return <uint32_t>FIB_REF | i


cdef void trie_compile_top(trie *t, const rib_node *root, uint32_t inherited, uint32_t *top) noexcept nogil:
    paint(root, inherited, top)
    compile_children(t, root, 0, top)

# -- one changed route ------------------------------------------------------------------------

cdef uint32_t slots_of(const rib_node *node, uint32_t start, uint32_t bits, uint8_t *owned) noexcept nogil:
    """Mark the slots for which the prefix itself is the longest of this node; how many slots it spans."""
    cdef uint32_t first = rib_position(start, bits)
    cdef uint32_t end = first + rib_run(bits)
    cdef uint32_t span = <uint32_t>256 >> bits
    cdef uint32_t position, place, i
    for i in range(span):
        owned[i] = 1
    position = bits_next(node.prefixes, first + 1, end)
    while position < end:
        place = rib_places()[position]
        for i in range((place >> 8) - start, (place >> 8) - start + (<uint32_t>256 >> (place & 255))):
            owned[i] = 0
        position = bits_next(node.prefixes, position + rib_run(place & 255), end)
    return span


cdef inline uint32_t repainted(trie *t, uint32_t entry, const rib_node *node, uint32_t byte, uint32_t depth, uint32_t value) noexcept nogil:
    """The entry of a slot whose longest prefix of this level changed to `value`."""
    cdef const rib_node *child = rib_child(node, byte)
    if child == NULL:
        return value
    trie_drop(t, entry)
    return trie_compile(t, child, depth + 1, value)


cdef uint32_t trie_update(trie *t, uint32_t entry, const rib_node *node, uint32_t depth,
                          uint64_t high, uint64_t low, uint32_t length, uint32_t inherited) noexcept nogil:
    cdef uint8_t owned[FIB_FANOUT]
    cdef uint32_t byte = rib_byte(high, low, depth)
    cdef uint32_t copy, i, bits = length - 8 * depth
    cdef rib_match match
    if node == NULL:
        trie_drop(t, entry)
        return inherited
    if not entry & FIB_REF or entry & FIB_BLOCK or (t.blocks != NULL and node.routes <= BUCKET_ROUTES):
        trie_drop(t, entry)
        return trie_compile(t, node, depth, inherited)
    copy = node_copy(t, entry & FIB_INDEX)
    if t.full:
        return 0
    match = rib_match_in(node, byte, min(bits, <uint32_t>8))
    if match.value:
        inherited = match.value
    if bits > 8:
        entry_store(t, copy, byte, trie_update(
            t, entry_load(t, copy, byte), rib_child(node, byte), depth + 1, high, low, length, inherited))
    else:
        for i in range(slots_of(node, byte, bits, owned)):
            if owned[i]:
                entry_store(t, copy, byte + i, repainted(
                    t, entry_load(t, copy, byte + i), node, byte + i, depth, inherited))
    return <uint32_t>FIB_REF | copy


cdef void trie_update_top(trie *t, const rib_node *root, uint64_t high, uint64_t low, uint32_t length,
                          uint32_t inherited, uint32_t *top) noexcept nogil:
    cdef uint8_t owned[FIB_FANOUT]
    cdef uint32_t byte = rib_byte(high, low, 0)
    cdef uint32_t i
    cdef rib_match match
    if root == NULL:
        for i in range(FIB_FANOUT):
            trie_drop(t, top[i])
        paint(NULL, inherited, top)
        return
    match = rib_match_in(root, byte, min(length, <uint32_t>8))
    if match.value:
        inherited = match.value
    if length > 8:
        top[byte] = trie_update(t, top[byte], rib_child(root, byte), 1, high, low, length, inherited)
        return
    for i in range(slots_of(root, byte, length, owned)):
        if owned[i]:
            top[byte + i] = repainted(t, top[byte + i], root, byte + i, 0, inherited)
