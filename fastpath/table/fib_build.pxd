# From routes to the compiled table: the root of a new version, both families.
#
# Owns: the first 16 bits: compiling all of them, and those a changed route touches.
# Never: publishes; Fib does, and then retires what was dropped.
# Invariants:
#   * A piece that a published version can reach is never written again.
#   * When `full` is set the version being made is abandoned as a whole.

from libc.stdint cimport uint32_t
from fastpath.table.fib_change cimport change
from fastpath.table.fib_pool cimport trie
from fastpath.table.rib cimport rib_node

# Fill the root of the version being made from all routes; `inherited` is /0's value.
cdef void root_compile(trie *t, const rib_node *routes, uint32_t inherited) noexcept nogil
# Bring it up to date after a route changed.
cdef void root_update(trie *t, const change *c) noexcept nogil
