"""Arrays of values of 1, 2 or 4 bytes; see fib_elements.pxd.

Owns: the writing of elements.
Never: writes a piece that a published version can reach.
"""

from libc.stdint cimport uint16_t
from libc.string cimport memset
from fastpath.table.fib_paint cimport largest_of, longest_of
from fastpath.table.fib_pool cimport PIECE_NONE, piece_at, trie_copy, trie_take
from fastpath.table.rib cimport RIB_PREFIXES, bits_next, bits_rank, rib_places, rib_position, rib_run


cdef void elements_fill(uint8_t *array, uint32_t width, uint32_t start, uint32_t n, uint32_t value) noexcept nogil:
    cdef uint32_t i
    if width == 0:
        memset(array + start, value, n)
    elif width == 1:
        for i in range(start, start + n):
            (<uint16_t *>array)[i] = <uint16_t>value
    else:
        for i in range(start, start + n):
            (<uint32_t *>array)[i] = value


cdef void lay_run(uint8_t *array, uint32_t width, uint32_t start, uint32_t bits, const rib_node *node,
                  uint32_t position, uint32_t end) noexcept nogil:
    """The node's prefixes of these numbers over its 2^bits elements from `start` on; `bits` may be more than 8.

    One that has more came with the same change, and its own turn, yet to come, makes the array anew.
    """
    cdef uint32_t rank, place
    position = bits_next(node.prefixes, position, end)
    if position == end:
        return
    rank = bits_rank(node.prefixes, position)
    while position < end:
        place = rib_places()[position]
        if place & 255 <= bits:
            elements_fill(array, width, start + ((place >> 8) << bits >> 8), <uint32_t>1 << (bits - (place & 255)), node.values[rank])
        rank += 1
        position = bits_next(node.prefixes, position + 1, end)


cdef void elements_lay(uint8_t *array, uint32_t width, uint32_t start, uint32_t bits, const rib_node *node) noexcept nogil:
    lay_run(array, width, start, bits, node, 0, RIB_PREFIXES)


cdef plain plain_shape(const rib_node *node, uint32_t inherited) noexcept nogil:
    cdef plain p
    p.line = PIECE_NONE
    p.width = width_for(largest_of(node, inherited))
    p.bits = bits_for(longest_of(node), p.width)
    return p


cdef plain plain_make(trie *t, const rib_node *node, uint32_t inherited) noexcept nogil:
    cdef plain p = plain_shape(node, inherited)
    p.line = trie_take(t, p.bits + p.width - LINE_BITS)
    if p.line != PIECE_NONE:
        elements_fill(piece_at(t.pieces, p.line), p.width, 0, <uint32_t>1 << p.bits, inherited)
        elements_lay(piece_at(t.pieces, p.line), p.width, 0, p.bits, node)
    return p


cdef uint32_t plain_change(trie *t, uint32_t line, uint32_t width, uint32_t fineness, const rib_node *node,
                           uint32_t byte, uint32_t bits, uint32_t value) noexcept nogil:
    cdef uint32_t first = rib_position(byte, bits)
    line = trie_copy(t, line, fineness + width - LINE_BITS)
    if line != PIECE_NONE:
        elements_fill(piece_at(t.pieces, line), width, byte << fineness >> 8, <uint32_t>1 << (fineness - bits), value)
        lay_run(piece_at(t.pieces, line), width, 0, fineness, node, first + 1, first + rib_run(bits))
    return line
