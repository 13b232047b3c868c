# The answers of one node of the routes: 256 entries, the longest prefix on top.
#
# Owns: painting a node's prefixes over what is inherited from shorter ones, and
# which slots a changed prefix still answers for.
# Never: looks into children, or at memory of a compiled table.

from libc.stdint cimport uint8_t, uint32_t
from fastpath.table.rib cimport rib_node

# `node` may be NULL: then all is inherited.
cdef void paint(const rib_node *node, uint32_t inherited, uint32_t *entries) noexcept nogil
# Mark (relative to `start`) the slots for which the prefix of `bits` bits is the longest of this node; how many it spans.
cdef uint32_t slots_of(const rib_node *node, uint32_t start, uint32_t bits, uint8_t *owned) noexcept nogil
# Length in bits (1..8, 0 without prefixes) of the node's longest prefix.
cdef uint32_t longest_of(const rib_node *node) noexcept nogil
# The largest value of the node's own prefixes, or `least`.
cdef uint32_t largest_of(const rib_node *node, uint32_t least) noexcept nogil
