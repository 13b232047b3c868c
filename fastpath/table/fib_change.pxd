# One changed route as the builders see it: where it is, and the way to it through the routes.
#
# Owns: what the routes say there now, looked for only where it is asked for, from the longest prefix up.
# Never: outlives the change; the nodes are the routes' own.
# Invariant: `nodes` goes down to the node the route would stand in; NULL from where there is none.

from libc.stdint cimport uint32_t, uint64_t
from fastpath.table.rib cimport RIB_DEPTH_MAX, rib, rib_byte, rib_child, rib_match, rib_match_in, rib_node

cdef struct change:
    uint64_t high, low
    uint32_t length            # not 0
    uint32_t default_value
    const rib_node *nodes[RIB_DEPTH_MAX]

cdef inline uint32_t change_byte(const change *c, uint32_t depth) noexcept nogil:
    return rib_byte(c.high, c.low, depth)

cdef inline void change_trace(change *c, const rib *routes) noexcept nogil:
    """Find the way, after the routes changed."""
    cdef uint32_t d
    c.default_value = routes.default_value
    c.nodes[0] = routes.root
    for d in range((c.length - 1) >> 3):
        c.nodes[d + 1] = NULL if c.nodes[d] == NULL else rib_child(c.nodes[d], change_byte(c, d))

cdef inline uint32_t change_answer(const change *c, uint32_t bits) noexcept nogil:
    """The value of the longest prefix of at most `bits` bits, no more than the route's own, that covers it."""
    cdef uint32_t depth
    cdef rib_match match
    while bits:
        depth = (bits - 1) >> 3
        if c.nodes[depth] != NULL:
            match = rib_match_in(c.nodes[depth], change_byte(c, depth), bits - 8 * depth)
            if match.value:
                return match.value
        bits = 8 * depth
    return c.default_value
