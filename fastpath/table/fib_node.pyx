"""IPv6 below the root; see fib_node.pxd.

Owns: nodes, and arrays where no route goes beyond the next eight bits: those are read without a search, so
a small one is made however few the routes are.
Never: writes a piece that a published version can reach.
Invariants: an entry is a reference exactly where routes longer than the entry's prefix exist.
Only 4-byte arrays of 256 elements, the nodes, hold references.
"""

from libc.stdint cimport uint8_t
from fastpath.table.fib_bucket cimport BUCKET_ROUTES, bucket_compile
from fastpath.table.fib_change cimport change, change_answer, change_byte
from fastpath.table.fib_elements cimport ANEW, LINE_BITS, plain, plain_change, plain_make, plain_shape, width_for
from fastpath.table.fib_paint cimport paint, slots_of
from fastpath.table.fib_pool cimport (
    FIB6_OFFSET, FIB6_SHIFT, FIB6_WIDTH_AT, FIB_BLOCK, FIB_BLOCK_KEYS, FIB_FANOUT, FIB_LINE, FIB_REF, PIECE_NONE, fib_block,
    piece_at, trie_copy, trie_drop, trie_take,
)
from fastpath.table.rib cimport bits_next, rib_child

cdef enum:
    NODE_CLASS = 4             # 256 entries of 4 bytes
    BLOCK_CLASS = 0
    NODE_WIDTH = 2
    SMALL_BITS = 8             # log2 of the bytes of an array that pays for any number of routes: 4 lines

# -- references to arrays ------------------------------------------------------------------

cdef inline uint32_t reference(uint32_t line, uint32_t width, uint32_t shift) noexcept nogil:
    return <uint32_t>FIB_REF | line * FIB_LINE | width << FIB6_WIDTH_AT | shift


cdef inline uint32_t line_of(uint32_t entry) noexcept nogil:
    return (entry & FIB6_OFFSET) // FIB_LINE


cdef inline uint32_t width_of(uint32_t entry) noexcept nogil:
    return entry >> FIB6_WIDTH_AT & 3


cdef inline uint32_t shift_of(uint32_t entry) noexcept nogil:
    return entry & FIB6_SHIFT


cdef inline bint is_node(uint32_t entry) noexcept nogil:
    """Of an array: whether its elements may be references."""
    return width_of(entry) == NODE_WIDTH and shift_of(entry) == 0

# -- all that an entry refers to --------------------------------------------------------------

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
    cdef uint32_t line = line_of(entry)
    cdef uint32_t i
    if not entry & FIB_REF:
        return
    if entry & FIB_BLOCK:
        block_drop(t, line)
        return
    if is_node(entry):
        for i in range(FIB_FANOUT):
            node_drop(t, entries_of(t, line)[i])
    trie_drop(t, line, 8 - shift_of(entry) + width_of(entry) - LINE_BITS)


cdef inline bint array_pays(const rib_node *node, uint32_t inherited) noexcept nogil:
    """Of a node without children."""
    cdef plain shape = plain_shape(node, inherited)
    return node.routes > BUCKET_ROUTES or shape.bits + shape.width <= SMALL_BITS


cdef uint32_t node_compile(trie *t, const rib_node *node, uint32_t depth, uint32_t inherited) noexcept nogil:
    cdef plain p
    if node.n_children == 0 and array_pays(node, inherited):
        p = plain_make(t, node, inherited)
        return 0 if p.line == PIECE_NONE else reference(p.line, p.width, 8 - p.bits)
    if node.routes <= BUCKET_ROUTES:
        return bucket_compile(t, node, depth, inherited)
    return branch_compile(t, node, depth, inherited)


cdef uint32_t branch_compile(trie *t, const rib_node *node, uint32_t depth, uint32_t inherited) noexcept nogil:
    cdef uint32_t line = trie_take(t, NODE_CLASS)
    cdef uint32_t byte, rank = 0
    cdef uint32_t *entries
    if line == PIECE_NONE:
        return 0
    entries = entries_of(t, line)
    paint(node, inherited, entries)
    byte = bits_next(node.child_set, 0, FIB_FANOUT)
    while byte < FIB_FANOUT:
        entries[byte] = node_compile(t, node.children[rank], depth + 1, entries[byte])
        rank += 1
        byte = bits_next(node.child_set, byte + 1, FIB_FANOUT)
    return reference(line, NODE_WIDTH, 0)

# -- one changed route -----------------------------------------------------------------------

cdef inline uint32_t repainted(trie *t, uint32_t entry, const rib_node *node, uint32_t byte, uint32_t depth, uint32_t value) noexcept nogil:
    """The entry of a slot whose longest prefix of this level changed to `value`."""
    cdef const rib_node *child = rib_child(node, byte)
    node_drop(t, entry)
    return value if child == NULL else node_compile(t, child, depth + 1, value)


cdef uint32_t branch_update(trie *t, uint32_t entry, uint32_t depth, const change *c) noexcept nogil:
    """The way to a changed route through a copy of a node."""
    cdef uint8_t owned[FIB_FANOUT]
    cdef const rib_node *node = c.nodes[depth]
    cdef uint32_t byte = change_byte(c, depth)
    cdef uint32_t line = trie_copy(t, line_of(entry), NODE_CLASS)
    cdef uint32_t i, value, bits = c.length - 8 * depth
    cdef uint32_t *entries
    if line == PIECE_NONE:
        return 0
    entries = entries_of(t, line)
    if bits > 8:
        entries[byte] = node_update(t, entries[byte], depth + 1, c)
    else:
        value = change_answer(c, c.length)
        for i in range(slots_of(node, byte, bits, owned)):
            if owned[i]:
                entries[byte + i] = repainted(t, entries[byte + i], node, byte + i, depth, value)
    return reference(line, NODE_WIDTH, 0)


cdef inline bint node_stays(const trie *t, const rib_node *node) noexcept nogil:
    """Whether a node remains one. Now and then one without children is made anew, lest it stay wider than it must."""
    return node.routes > BUCKET_ROUTES and (node.n_children or t.transaction & (ANEW - 1))


cdef inline bint plain_fits(const trie *t, uint32_t entry, uint32_t bits, uint32_t value) noexcept nogil:
    """Whether a prefix's range can become `value` in an array as it is; now and then that is made anew, too."""
    return bits <= 8 - shift_of(entry) and width_for(value) <= width_of(entry) and t.transaction & (ANEW - 1)


cdef uint32_t node_update(trie *t, uint32_t entry, uint32_t depth, const change *c) noexcept nogil:
    cdef const rib_node *node = c.nodes[depth]
    cdef uint32_t bits = c.length - 8 * depth
    cdef uint32_t value, line
    if node != NULL and entry & FIB_REF and not entry & FIB_BLOCK:
        if is_node(entry):
            if node_stays(t, node):
                return branch_update(t, entry, depth, c)
        elif node.n_children == 0 and bits <= 8:
            value = change_answer(c, c.length)
            if plain_fits(t, entry, bits, value):
                line = plain_change(t, line_of(entry), width_of(entry), 8 - shift_of(entry), node, change_byte(c, depth), bits, value)
                return 0 if line == PIECE_NONE else reference(line, width_of(entry), shift_of(entry))
    node_drop(t, entry)
    value = change_answer(c, 8 * depth)
    return value if node == NULL else node_compile(t, node, depth, value)
