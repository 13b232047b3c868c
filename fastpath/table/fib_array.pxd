# IPv4 below the root: routes of one /16 as an array, or as an array of arrays.
#
# Owns: which form a /16 takes, and copying it with one route changed.
# Never: makes an array finer than its longest prefix or wider than its largest
# value needs, but keeps a fine one while routes change below it.
# Invariant: only 4-byte arrays of 256 elements refer to arrays, and those to none.

from libc.stdint cimport uint32_t
from fastpath.table.fib_change cimport change
from fastpath.table.fib_pool cimport trie
from fastpath.table.rib cimport rib_node

# The root entry for the routes longer than /16 in `node`, where shorter ones give `inherited`.
cdef uint32_t array_compile(trie *t, const rib_node *node, uint32_t inherited) noexcept nogil
# The root entry that takes the place of `entry` after a route of length > 16 changed.
cdef uint32_t array_update(trie *t, uint32_t entry, const change *c) noexcept nogil
# Drop all that a root entry refers to.
cdef void array_drop(trie *t, uint32_t entry) noexcept nogil
