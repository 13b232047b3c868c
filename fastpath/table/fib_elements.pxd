# Arrays of values of 1, 2 or 4 bytes, as fine as the longest prefix in them: what both families have.
#
# Owns: filling elements, laying a node's prefixes over them, and the plain array: one node without children.
# Never: knows how a family refers to an array.
# Invariant: an array has 2^bits elements, in at least one line.

from libc.stdint cimport uint8_t, uint32_t
from fastpath.table.fib_pool cimport trie
from fastpath.table.rib cimport rib_node

cdef enum:
    LINE_BITS = 6              # an array has at least 64 bytes
    ANEW = 16                  # changes of plain arrays after which one is made anew; a power of two

cdef struct plain:
    uint32_t line              # PIECE_NONE without memory
    uint32_t width, bits       # log2 of the bytes of an element, and of the number of elements

cdef inline uint32_t width_for(uint32_t value) noexcept nogil:
    """log2 of the bytes of an element."""
    return 0 if value < 0x100 else 1 if value < 0x10000 else 2

cdef inline uint32_t bits_for(uint32_t bits, uint32_t width) noexcept nogil:
    return max(bits, LINE_BITS - width)

# `n` elements from `start` on.
cdef void elements_fill(uint8_t *array, uint32_t width, uint32_t start, uint32_t n, uint32_t value) noexcept nogil
# The node's prefixes over its 2^bits elements from `start` on; `bits` may be more than 8.
cdef void elements_lay(uint8_t *array, uint32_t width, uint32_t start, uint32_t bits, const rib_node *node) noexcept nogil
# The shape of a plain array of the node's prefixes; no line yet.
cdef plain plain_shape(const rib_node *node, uint32_t inherited) noexcept nogil
# One with all of them.
cdef plain plain_make(trie *t, const rib_node *node, uint32_t inherited) noexcept nogil
# The line of a copy in which the prefix (byte, bits) became `value`; PIECE_NONE without memory.
cdef uint32_t plain_change(trie *t, uint32_t line, uint32_t width, uint32_t fineness, const rib_node *node,
                           uint32_t byte, uint32_t bits, uint32_t value) noexcept nogil
