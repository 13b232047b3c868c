"""The root of a version; see fib_build.pxd.

Owns: its 65,536 entries: 256 pages, one for each first byte.
Never: looks below an entry; the family's own module does.
Invariant: an entry is a reference exactly where routes longer than /16 exist below it.
"""

from libc.stdint cimport uint8_t
from fastpath.table.fib_array cimport array_compile, array_drop, array_update
from fastpath.table.fib_change cimport change, change_answer, change_byte
from fastpath.table.fib_node cimport node_compile, node_drop, node_update
from fastpath.table.fib_paint cimport paint, slots_of
from fastpath.table.fib_pool cimport FIB_REF, root_store
from fastpath.table.rib cimport rib_child

cdef enum:
    UNTOUCHED = 0xffffffff     # no value, no reference: marks what a page's own prefixes do not answer

# -- below an entry, by family -----------------------------------------------------------

cdef inline uint32_t below_compile(trie *t, const rib_node *node, uint32_t inherited) noexcept nogil:
    if node == NULL:
        return inherited
    return node_compile(t, node, 2, inherited) if t.six else array_compile(t, node, inherited)


cdef inline void below_drop(trie *t, uint32_t entry) noexcept nogil:
    if t.six:
        node_drop(t, entry)
    else:
        array_drop(t, entry)


cdef void slot_make(trie *t, uint32_t slot, const rib_node *node, uint32_t inherited) noexcept nogil:
    """One entry anew."""
    below_drop(t, t.making.root[slot])
    root_store(t, slot, below_compile(t, node, inherited))

# -- all of it -----------------------------------------------------------------------------

cdef void page_compile(trie *t, uint32_t first, const rib_node *node, uint32_t inherited) noexcept nogil:
    cdef uint32_t i
    cdef uint32_t *entries = t.making.root + first
    paint(node, inherited, entries)
    if node != NULL and node.n_children:
        for i in range(256):
            entries[i] = below_compile(t, rib_child(node, i), entries[i])


cdef void root_compile(trie *t, const rib_node *routes, uint32_t inherited) noexcept nogil:
    cdef uint32_t answers[256]
    cdef uint32_t i
    paint(routes, inherited, answers)
    for i in range(256):
        page_compile(t, i << 8, NULL if routes == NULL else rib_child(routes, i), answers[i])

# -- one changed route -----------------------------------------------------------------------

cdef void page_inherit(trie *t, uint32_t first, const rib_node *node, uint32_t inherited) noexcept nogil:
    """What the page inherits changed: anew all that its own prefixes do not answer."""
    cdef uint32_t answers[256]
    cdef uint32_t i
    paint(node, UNTOUCHED, answers)
    for i in range(256):
        if answers[i] == UNTOUCHED:
            slot_make(t, first + i, NULL if node == NULL else rib_child(node, i), inherited)


cdef void page_update(trie *t, const change *c) noexcept nogil:
    """A route of more than 8 bits changed in the page."""
    cdef uint8_t owned[256]
    cdef const rib_node *node = c.nodes[1]
    cdef uint32_t byte = change_byte(c, 1)
    cdef uint32_t i, value, slot = <uint32_t>(c.high >> 48)
    cdef uint32_t entry = t.making.root[slot]
    if node == NULL:
        page_inherit(t, slot - byte, node, change_answer(c, 8))
    elif c.length <= 16:
        value = change_answer(c, c.length)
        for i in range(slots_of(node, byte, c.length - 8, owned)):
            if owned[i]:
                slot_make(t, slot + i, rib_child(node, byte + i), value)
    elif t.six:
        root_store(t, slot, node_update(t, entry, 2, c))
    else:
        root_store(t, slot, array_update(t, entry, c))


cdef void root_update(trie *t, const change *c) noexcept nogil:
    cdef uint8_t owned[256]
    cdef uint32_t byte = change_byte(c, 0)
    cdef uint32_t i, value
    if c.nodes[0] == NULL:
        for i in range(256):
            page_inherit(t, i << 8, NULL, c.default_value)
    elif c.length > 8:
        page_update(t, c)
    else:
        value = change_answer(c, c.length)
        for i in range(slots_of(c.nodes[0], byte, c.length, owned)):
            if owned[i]:
                page_inherit(t, (byte + i) << 8, rib_child(c.nodes[0], byte + i), value)
