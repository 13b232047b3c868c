# IPv6 below the root: nodes of 256 entries, plain arrays, and buckets where few routes are left.
#
# Owns: which of the three a subtree of the routes becomes, and copying the path to a changed route.
# Never: splits a bucket's intervals; fib_bucket does.

from libc.stdint cimport uint32_t
from fastpath.table.fib_change cimport change
from fastpath.table.fib_pool cimport trie
from fastpath.table.rib cimport rib_node

# The entry for a routes' subtree that starts at byte `depth`, where shorter prefixes give `inherited`.
cdef uint32_t node_compile(trie *t, const rib_node *node, uint32_t depth, uint32_t inherited) noexcept nogil
# The entry that takes the place of `entry` after a route of more than 8 * depth bits changed.
cdef uint32_t node_update(trie *t, uint32_t entry, uint32_t depth, const change *c) noexcept nogil
# Drop all that an entry refers to.
cdef void node_drop(trie *t, uint32_t entry) noexcept nogil
