"""IPv4 below the root; see fib_array.pxd.

Owns: three forms of a /16. *Plain*: nothing is longer than /24; one array of at
most 256 elements. *Flat*: one array down to the longest prefix; for many long
routes. *Split*: 256 entries of which some refer to a plain array for the last byte.
Never: writes a piece that a published version can reach.
Invariant: an entry is a reference exactly where the routes' node exists.
"""

from libc.stdint cimport uint8_t
from fastpath.table.fib_change cimport change, change_answer, change_byte
from fastpath.table.fib_elements cimport (
    ANEW, LINE_BITS, bits_for, elements_fill, elements_lay, plain, plain_change, plain_make, width_for,
)
from fastpath.table.fib_paint cimport largest_of, longest_of, paint, slots_of
from fastpath.table.fib_pool cimport (
    FIB4_OFFSET, FIB4_SHIFT, FIB4_WIDTH_AT, FIB_LINE, FIB_REF, PIECE_NONE, piece_at, trie_copy, trie_drop, trie_take,
)
from fastpath.table.rib cimport bits_next, rib_child

cdef enum:
    SPLIT_SHIFT = 8
    SPLIT_CLASS = 4            # 256 elements of 4 bytes
    ROUTE_BYTES = 1024         # a flat array may cost so much a route longer than /24
    FLAT_ROUTES = 256          # from so many of them on flat is always allowed

cdef inline uint32_t reference(uint32_t line, uint32_t width, uint32_t shift) noexcept nogil:
    return <uint32_t>FIB_REF | width << FIB4_WIDTH_AT | line * FIB_LINE | shift


cdef inline uint32_t line_of(uint32_t entry) noexcept nogil:
    return (entry & FIB4_OFFSET) // FIB_LINE


cdef inline uint32_t width_of(uint32_t entry) noexcept nogil:
    return entry >> FIB4_WIDTH_AT & 3


cdef uint32_t plain_compile(trie *t, const rib_node *node, uint32_t inherited, uint32_t below) noexcept nogil:
    """A node without children; `below` bits of the address follow its byte."""
    cdef plain p = plain_make(t, node, inherited)
    return 0 if p.line == PIECE_NONE else reference(p.line, p.width, 8 - p.bits + below)

# -- which form --------------------------------------------------------------------------

cdef struct shape:
    uint32_t longest           # bits behind the /16
    uint32_t largest           # value
    uint32_t split_bytes       # of the arrays below a split


cdef shape measure(const rib_node *node, uint32_t inherited) noexcept nogil:
    cdef shape s
    cdef const rib_node *child
    cdef uint32_t i, width
    s.longest = 8
    s.largest = largest_of(node, inherited)
    s.split_bytes = 0
    for i in range(node.n_children):
        child = node.children[i]
        width = width_for(largest_of(child, s.largest))
        s.split_bytes += <uint32_t>1 << (bits_for(longest_of(child), width) + width)
        s.longest = max(s.longest, 8 + longest_of(child))
    for i in range(node.n_children):
        s.largest = largest_of(node.children[i], s.largest)
    return s


cdef inline uint32_t long_routes(const rib_node *node) noexcept nogil:
    """How many are longer than /24."""
    return node.routes - node.n_values


cdef inline bint flat_pays(const rib_node *node, const shape *s) noexcept nogil:
    cdef uint32_t bytes = <uint32_t>1 << (s.longest + width_for(s.largest))
    return bytes <= 1024 + s.split_bytes or bytes // ROUTE_BYTES <= long_routes(node)


cdef uint32_t flat_compile(trie *t, const rib_node *node, uint32_t inherited, const shape *s) noexcept nogil:
    cdef uint32_t width = width_for(s.largest)
    cdef uint32_t line = trie_take(t, s.longest + width - LINE_BITS)
    cdef uint32_t byte, rank = 0
    cdef uint8_t *array
    if line == PIECE_NONE:
        return 0
    array = piece_at(t.pieces, line)
    elements_fill(array, width, 0, <uint32_t>1 << s.longest, inherited)
    elements_lay(array, width, 0, s.longest, node)
    byte = bits_next(node.child_set, 0, 256)
    while byte < 256:
        elements_lay(array, width, byte << (s.longest - 8), s.longest - 8, node.children[rank])
        rank += 1
        byte = bits_next(node.child_set, byte + 1, 256)
    return reference(line, width, 16 - s.longest)


cdef uint32_t split_compile(trie *t, const rib_node *node, uint32_t inherited) noexcept nogil:
    cdef uint32_t line = trie_take(t, SPLIT_CLASS)
    cdef uint32_t byte, rank = 0
    cdef uint32_t *entries
    if line == PIECE_NONE:
        return 0
    entries = <uint32_t *>piece_at(t.pieces, line)
    paint(node, inherited, entries)
    byte = bits_next(node.child_set, 0, 256)
    while byte < 256:
        entries[byte] = plain_compile(t, node.children[rank], entries[byte], 0)
        rank += 1
        byte = bits_next(node.child_set, byte + 1, 256)
    return reference(line, 2, SPLIT_SHIFT)


cdef uint32_t array_compile(trie *t, const rib_node *node, uint32_t inherited) noexcept nogil:
    cdef shape s
    if node.n_children == 0:
        return plain_compile(t, node, inherited, 8)
    s = measure(node, inherited)
    if flat_pays(node, &s):
        return flat_compile(t, node, inherited, &s)
    return split_compile(t, node, inherited)

# -- one changed route -----------------------------------------------------------------------

cdef inline bint is_split(uint32_t entry) noexcept nogil:
    """An array of 256 elements of 4 bytes: whether any is a reference or not, it may become one."""
    return width_of(entry) == 2 and entry & FIB4_SHIFT == SPLIT_SHIFT


cdef void array_drop(trie *t, uint32_t entry) noexcept nogil:
    cdef uint32_t i, shift = entry & FIB4_SHIFT
    cdef uint32_t *entries
    if not entry & FIB_REF:
        return
    if is_split(entry):
        entries = <uint32_t *>piece_at(t.pieces, line_of(entry))
        for i in range(256):
            plain_drop(t, entries[i])
    trie_drop(t, line_of(entry), 16 - shift + width_of(entry) - LINE_BITS)


cdef inline void plain_drop(trie *t, uint32_t entry) noexcept nogil:
    """An array of the last byte."""
    if entry & FIB_REF:
        trie_drop(t, line_of(entry), 8 - (entry & FIB4_SHIFT) + width_of(entry) - LINE_BITS)


cdef void split_slot(trie *t, uint32_t *entries, const rib_node *node, uint32_t byte, uint32_t inherited) noexcept nogil:
    """Make one element of a split anew, where the /24 or shorter gives `inherited`."""
    cdef const rib_node *child = rib_child(node, byte)
    plain_drop(t, entries[byte])
    entries[byte] = inherited if child == NULL else plain_compile(t, child, inherited, 0)


cdef uint32_t split_update(trie *t, uint32_t entry, const change *c) noexcept nogil:
    cdef uint8_t owned[256]
    cdef const rib_node *node = c.nodes[2]
    cdef uint32_t byte = change_byte(c, 2)
    cdef uint32_t line = trie_copy(t, line_of(entry), SPLIT_CLASS)
    cdef uint32_t *entries
    cdef uint32_t i, value = change_answer(c, min(c.length, <uint32_t>24))
    if line == PIECE_NONE:
        return 0
    entries = <uint32_t *>piece_at(t.pieces, line)
    if c.length > 24:
        split_slot(t, entries, node, byte, value)
    else:
        for i in range(slots_of(node, byte, c.length - 16, owned)):
            if owned[i]:
                split_slot(t, entries, node, byte + i, value)
    return reference(line, 2, SPLIT_SHIFT)


cdef uint32_t flat_update(trie *t, uint32_t entry, const change *c) noexcept nogil:
    """The elements of one /24 anew, in a copy."""
    cdef uint32_t width = width_of(entry), bits = 8 - (entry & FIB4_SHIFT)
    cdef uint32_t start = change_byte(c, 2) << bits
    cdef uint32_t line = trie_copy(t, line_of(entry), 8 + bits + width - LINE_BITS)
    if line == PIECE_NONE:
        return 0
    elements_fill(piece_at(t.pieces, line), width, start, <uint32_t>1 << bits, change_answer(c, 24))
    if c.nodes[3] != NULL:
        elements_lay(piece_at(t.pieces, line), width, start, bits, c.nodes[3])
    return reference(line, width, 8 - bits)


cdef inline bint flat_fits(uint32_t entry, const change *c) noexcept nogil:
    """Whether a route longer than /24 can change in a flat array without giving it another shape."""
    cdef uint32_t bits = 16 - (entry & FIB4_SHIFT)
    return 24 < c.length <= 16 + bits and 8 < bits \
        and (c.nodes[3] == NULL or width_for(largest_of(c.nodes[3], 0)) <= width_of(entry)) \
        and (<uint32_t>1 << (bits + width_of(entry))) // (2 * ROUTE_BYTES) <= long_routes(c.nodes[2])


cdef inline bint plain_fits(const trie *t, uint32_t entry, uint32_t length, uint32_t value) noexcept nogil:
    """Whether the range of a route no longer than /24 can become `value` in a plain array as it is. Now and then it
    is made anew, lest it stay finer or wider than it must."""
    return not is_split(entry) and length <= 32 - (entry & FIB4_SHIFT) and width_for(value) <= width_of(entry) and t.transaction & (ANEW - 1)


cdef uint32_t array_update(trie *t, uint32_t entry, const change *c) noexcept nogil:
    cdef const rib_node *node = c.nodes[2]
    cdef uint32_t value, fineness, line
    if node != NULL and entry & FIB_REF:
        if node.n_children:
            if not is_split(entry):
                if flat_fits(entry, c):
                    return flat_update(t, entry, c)
            elif long_routes(node) < FLAT_ROUTES:
                return split_update(t, entry, c)
        elif c.length <= 24:
            value = change_answer(c, c.length)
            if plain_fits(t, entry, c.length, value):
                fineness = 16 - (entry & FIB4_SHIFT)
                line = plain_change(t, line_of(entry), width_of(entry), fineness, node, change_byte(c, 2), c.length - 16, value)
                return 0 if line == PIECE_NONE else reference(line, width_of(entry), 16 - fineness)
    array_drop(t, entry)
    value = change_answer(c, 16)
    return value if node == NULL else array_compile(t, node, value)
