# From routes to the compiled table: the entries of a new version.
#
# Owns: compiling a subtree, and copying the path to a changed route.
# Never: publishes; Fib does, and then retires what was dropped.
# Invariants:
#   * A piece that a published version can reach is never written again.
#   * When `full` is set the version being made is abandoned as a whole.

from libc.stdint cimport uint32_t, uint64_t
from fastpath.table.fib_pool cimport trie
from fastpath.table.rib cimport rib_node

# The entry for a routes' subtree that starts at byte `depth`, where shorter prefixes give `inherited`.
cdef uint32_t trie_compile(trie *t, const rib_node *node, uint32_t depth, uint32_t inherited) noexcept nogil
# The entry that takes the place of `entry` after the route (high, low, length > 8 * depth) changed.
cdef uint32_t trie_update(trie *t, uint32_t entry, const rib_node *node, uint32_t depth,
                          uint64_t high, uint64_t low, uint32_t length, uint32_t inherited) noexcept nogil
# The same two for the first level, whose 256 entries stand in the version itself.
cdef void trie_compile_top(trie *t, const rib_node *root, uint32_t inherited, uint32_t *top) noexcept nogil
cdef void trie_update_top(trie *t, const rib_node *root, uint64_t high, uint64_t low, uint32_t length,
                          uint32_t inherited, uint32_t *top) noexcept nogil
