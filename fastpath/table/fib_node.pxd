# IPv6 below the root: nodes of 256 entries, plain arrays, and buckets where few routes are left.
#
# Owns: which of the three a subtree of the routes becomes, and copying the path to a changed route.
# Never: splits a bucket's intervals; fib_bucket does.

from libc.stdint cimport uint32_t, uint64_t
from fastpath.table.fib_pool cimport trie
from fastpath.table.rib cimport rib_node

# The entry for a routes' subtree that starts at byte `depth`, where shorter prefixes give `inherited`.
cdef uint32_t node_compile(trie *t, const rib_node *node, uint32_t depth, uint32_t inherited) noexcept nogil
# The entry that takes the place of `entry` after the route (high, low, length > 8 * depth) changed.
cdef uint32_t node_update(trie *t, uint32_t entry, const rib_node *node, uint32_t depth,
                          uint64_t high, uint64_t low, uint32_t length, uint32_t inherited) noexcept nogil
# Drop all that an entry refers to.
cdef void node_drop(trie *t, uint32_t entry) noexcept nogil
