"""IPv6 below the root; see fib_node.pxd.

Owns: nodes.
Never: writes a piece that a published version can reach.
Invariant: an entry is a reference exactly where routes longer than the entry's prefix exist.
"""

from libc.stdint cimport uint8_t
from libc.string cimport memcpy
from fastpath.table.fib_bucket cimport BUCKET_ROUTES, bucket_compile
from fastpath.table.fib_paint cimport answer_of, paint, slots_of
from fastpath.table.fib_pool cimport (
    FIB_BLOCK, FIB_BLOCK_KEYS, FIB_FANOUT, FIB_INDEX, FIB_REF, PIECE_NONE, fib_block, piece_at, trie_drop, trie_take,
)
from fastpath.table.rib cimport bits_next, rib_byte, rib_child

cdef enum:
    NODE_CLASS = 4             # 256 entries of 4 bytes
    BLOCK_CLASS = 0


cdef inline uint32_t *entries_of(const trie *t, uint32_t line) noexcept nogil:
    return <uint32_t *>piece_at(t.pieces, line)


cdef void block_drop(trie *t, uint32_t line) noexcept nogil:
    cdef const fib_block *block = <const fib_block *>piece_at(t.pieces, line)
    cdef uint32_t i
    node_drop(t, block.entries[0])
    for i in range(1, FIB_BLOCK_KEYS):
        if block.entries[i] != block.entries[i - 1]:     # equal neighbours are padding
            node_drop(t, block.entries[i])
    trie_drop(t, line, BLOCK_CLASS)


cdef void node_drop(trie *t, uint32_t entry) noexcept nogil:
    cdef uint32_t line = entry & FIB_INDEX
    cdef uint32_t i
    if not entry & FIB_REF:
        return
    if entry & FIB_BLOCK:
        block_drop(t, line)
        return
    for i in range(FIB_FANOUT):
        node_drop(t, entries_of(t, line)[i])
    trie_drop(t, line, NODE_CLASS)


cdef uint32_t node_compile(trie *t, const rib_node *node, uint32_t depth, uint32_t inherited) noexcept nogil:
    cdef uint32_t line, byte, rank = 0
    cdef uint32_t *entries
    if node.routes <= BUCKET_ROUTES:
        return bucket_compile(t, node, depth, inherited)
    line = trie_take(t, NODE_CLASS)
    if line == PIECE_NONE:
        return 0
    entries = entries_of(t, line)
    paint(node, inherited, entries)
    byte = bits_next(node.child_set, 0, FIB_FANOUT)
    while byte < FIB_FANOUT:
        entries[byte] = node_compile(t, node.children[rank], depth + 1, entries[byte])
        rank += 1
        byte = bits_next(node.child_set, byte + 1, FIB_FANOUT)
    return <uint32_t>FIB_REF | line


cdef uint32_t node_copy(trie *t, uint32_t line) noexcept nogil:
    """A node with the same entries that this transaction may write, or PIECE_NONE."""
    cdef uint32_t copy
    if t.pieces.born[line] == t.transaction:
        return line
    copy = trie_take(t, NODE_CLASS)
    if copy != PIECE_NONE:
        memcpy(entries_of(t, copy), entries_of(t, line), FIB_FANOUT * sizeof(uint32_t))
        trie_drop(t, line, NODE_CLASS)
    return copy


cdef inline uint32_t repainted(trie *t, uint32_t entry, const rib_node *node, uint32_t byte, uint32_t depth, uint32_t value) noexcept nogil:
    """The entry of a slot whose longest prefix of this level changed to `value`."""
    cdef const rib_node *child = rib_child(node, byte)
    node_drop(t, entry)
    return value if child == NULL else node_compile(t, child, depth + 1, value)


cdef uint32_t node_update(trie *t, uint32_t entry, const rib_node *node, uint32_t depth,
                          uint64_t high, uint64_t low, uint32_t length, uint32_t inherited) noexcept nogil:
    cdef uint8_t owned[FIB_FANOUT]
    cdef uint32_t byte = rib_byte(high, low, depth)
    cdef uint32_t line, i, bits = length - 8 * depth
    cdef uint32_t *entries
    if node == NULL or not entry & FIB_REF or entry & FIB_BLOCK or node.routes <= BUCKET_ROUTES:
        node_drop(t, entry)
        return inherited if node == NULL else node_compile(t, node, depth, inherited)
    line = node_copy(t, entry & FIB_INDEX)
    if line == PIECE_NONE:
        return 0
    entries = entries_of(t, line)
    inherited = answer_of(node, byte, bits, inherited)
    if bits > 8:
        entries[byte] = node_update(t, entries[byte], rib_child(node, byte), depth + 1, high, low, length, inherited)
    else:
        for i in range(slots_of(node, byte, bits, owned)):
            if owned[i]:
                entries[byte + i] = repainted(t, entries[byte + i], node, byte + i, depth, inherited)
    return <uint32_t>FIB_REF | line
