# Few IPv6 routes under one entry, as intervals in blocks.

from libc.stdint cimport uint32_t
from fastpath.table.fib_pool cimport trie
from fastpath.table.rib cimport rib_node

cdef enum:
    BUCKET_ROUTES = 7          # subtrees of at most so many routes become blocks
    BUCKET_INTERVALS = 16      # at least 2 * BUCKET_ROUTES + 1, at most 8 * 8

# The entry for a subtree of at most BUCKET_ROUTES routes.
cdef uint32_t bucket_compile(trie *t, const rib_node *node, uint32_t depth, uint32_t inherited) noexcept nogil
