"""Answers of one node of the routes; see fib_paint.pxd.

Owns: the order: the prefixes' preorder, in which shorter comes before longer.
Never: raises, or needs the GIL.
"""

from fastpath.table.rib cimport RIB_PREFIXES, bits_next, rib_places, rib_position, rib_run


cdef inline void fill(uint32_t *entries, uint32_t start, uint32_t n, uint32_t value) noexcept nogil:
    cdef uint32_t i
    for i in range(start, start + n):
        entries[i] = value


cdef void paint(const rib_node *node, uint32_t inherited, uint32_t *entries) noexcept nogil:
    cdef uint32_t rank = 0, place
    cdef uint32_t position
    fill(entries, 0, 256, inherited)
    if node == NULL:
        return
    position = bits_next(node.prefixes, 0, RIB_PREFIXES)
    while position < RIB_PREFIXES:
        place = rib_places()[position]
        fill(entries, place >> 8, <uint32_t>256 >> (place & 255), node.values[rank])
        rank += 1
        position = bits_next(node.prefixes, position + 1, RIB_PREFIXES)


cdef uint32_t slots_of(const rib_node *node, uint32_t start, uint32_t bits, uint8_t *owned) noexcept nogil:
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


cdef uint32_t longest_of(const rib_node *node) noexcept nogil:
    cdef uint32_t longest = 0
    cdef uint32_t position = bits_next(node.prefixes, 0, RIB_PREFIXES)
    while position < RIB_PREFIXES and longest < 8:
        longest = max(longest, <uint32_t>rib_places()[position] & 255)
        position = bits_next(node.prefixes, position + 1, RIB_PREFIXES)
    return longest


cdef uint32_t largest_of(const rib_node *node, uint32_t least) noexcept nogil:
    cdef uint32_t i
    for i in range(node.n_values):
        least = max(least, node.values[i])
    return least
