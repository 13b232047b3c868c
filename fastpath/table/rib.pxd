# The authoritative routes of one address family: an exact map from prefix to value.
#
# Owns: the routes, and every question about prefixes (covering, covered, next).
# Never: is read by a packet; lookups read the tables compiled from it (fib.pxd).
# Invariants:
#   * Addresses are 128 bits, left-aligned in (high, low): IPv4 uses the top 32.
#     A prefix has no bits set behind its length.
#   * A prefix of length 8d+1 .. 8d+8 lives in the node that its first d bytes
#     lead to; /0 lives in the rib itself. A node exists while its subtree has routes.
#   * `routes` of a node counts its whole subtree.
#
# A node's prefixes are the 510 nodes of a binary tree of height 8 without its
# root, numbered in preorder. So a bit scan yields them sorted, those inside a
# prefix are one run of bits, and painting them in order leaves the longest on top.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from *:
    """
    #ifndef FASTPATH_RIB_BITS
    #define FASTPATH_RIB_BITS
    #include <stdint.h>
    /* The builtin is a library call where the baseline has no instruction for it. Builds for tests count without the
     * instruction, so that both ways are tested. */
    static inline uint32_t bits_count(uint64_t x)
    {
    #if defined(__x86_64__) && defined(__OPTIMIZE__) && !defined(FASTPATH_DEBUG)
        if (__builtin_expect(__builtin_cpu_supports("popcnt"), 1)) {
            __asm__("popcnt %0, %0" : "+r"(x) : : "cc");
            return (uint32_t)x;
        }
    #endif
        x -= x >> 1 & 0x5555555555555555u;
        x = (x & 0x3333333333333333u) + (x >> 2 & 0x3333333333333333u);
        x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fu;
        return (uint32_t)(x * 0x0101010101010101u >> 56);
    }
    #define bits_lowest(x) ((uint32_t)__builtin_ctzll(x))
    #define line_fetch(p) __builtin_prefetch(p)
    #endif
    """
    uint32_t bits_count(uint64_t x) noexcept nogil
    uint32_t bits_lowest(uint64_t x) noexcept nogil      # x != 0
    void line_fetch(const void *p) noexcept nogil

cdef enum:
    RIB_PREFIX_WORDS = 8       # 512 bits, 510 used
    RIB_CHILD_WORDS = 4        # 256 bits
    RIB_PREFIXES = 510
    RIB_DEPTH_MAX = 16         # bytes of an address

cdef struct rib_node:
    uint64_t prefixes[RIB_PREFIX_WORDS]
    uint64_t child_set[RIB_CHILD_WORDS]
    uint32_t *values           # one for each set bit of prefixes, in order
    rib_node **children        # one for each set bit of child_set, in order
    uint16_t n_values, value_room
    uint16_t n_children, child_room
    uint32_t routes

cdef struct rib:
    rib_node *root             # NULL while no route is longer than /0
    uint32_t default_value     # of /0, 0 when there is none
    uint64_t routes            # /0 included
    uint64_t bytes             # allocated
    rib_node *kept             # nodes that lost their last route since rib_keep, the latest first
    bint keeping

cdef struct rib_match:
    uint32_t value             # 0: nothing matched
    uint32_t length

# One route, as iteration yields it.
cdef struct rib_route:
    uint64_t high, low
    uint32_t length, value

# -- bit arithmetic ------------------------------------------------------------

cdef inline uint32_t rib_byte(uint64_t high, uint64_t low, uint32_t depth) noexcept nogil:
    if depth < 8:
        return <uint32_t>(high >> (56 - 8 * depth)) & 255
    return <uint32_t>(low >> (120 - 8 * depth)) & 255

cdef inline uint32_t rib_position(uint32_t start, uint32_t bits) noexcept nogil:
    """Preorder number of the prefix of `bits` (1..8) bits whose first address byte is `start`."""
    return 2 * start - bits_count(start) + bits - 1

cdef inline uint32_t rib_run(uint32_t bits) noexcept nogil:
    """How many numbers the prefix and those inside it take."""
    return (<uint32_t>1 << (9 - bits)) - 1

cdef inline bint bits_test(const uint64_t *words, uint32_t i) noexcept nogil:
    return words[i >> 6] >> (i & 63) & 1

cdef inline void bits_set(uint64_t *words, uint32_t i) noexcept nogil:
    words[i >> 6] |= <uint64_t>1 << (i & 63)

cdef inline void bits_clear(uint64_t *words, uint32_t i) noexcept nogil:
    words[i >> 6] &= ~(<uint64_t>1 << (i & 63))

cdef inline uint32_t bits_rank(const uint64_t *words, uint32_t i) noexcept nogil:
    """Set bits before `i`."""
    cdef uint32_t rank = bits_count(words[i >> 6] & ((<uint64_t>1 << (i & 63)) - 1))
    cdef uint32_t w
    for w in range(i >> 6):
        rank += bits_count(words[w])
    return rank

cdef inline uint32_t bits_next(const uint64_t *words, uint32_t i, uint32_t end) noexcept nogil:
    """The first set bit from `i` on and before `end`, or `end`. `end` is at most the size of `words`."""
    cdef uint64_t rest
    while i < end:
        rest = words[i >> 6] >> (i & 63)
        if rest:
            i += bits_lowest(rest)
            return i if i < end else end
        i = (i | 63) + 1
    return end

# -- one node -----------------------------------------------------------------

cdef inline rib_node *rib_child(const rib_node *node, uint32_t byte) noexcept nogil:
    if not bits_test(node.child_set, byte):
        return NULL
    return node.children[bits_rank(node.child_set, byte)]

cdef inline rib_match rib_match_in(const rib_node *node, uint32_t byte, uint32_t bits) noexcept nogil:
    """The longest prefix of at most `bits` (0..8) bits in this node that covers `byte`."""
    cdef rib_match match
    cdef uint32_t position
    match.value = 0
    match.length = 0
    if bits == 0 or node.n_values == 0:
        return match
    position = rib_position(byte & (<uint32_t>0xff00 >> bits), bits)
    while not bits_test(node.prefixes, position):
        bits -= 1
        if bits == 0:
            return match
        position -= <uint32_t>1 << (8 - bits if byte >> (7 - bits) & 1 else 0)   # a right half stands behind the whole left one
    match.value = node.values[bits_rank(node.prefixes, position)]
    match.length = bits
    return match

# Preorder number -> first address byte << 8 | bits; the inverse of rib_position.
cdef const uint16_t *rib_places() noexcept nogil

# -- the whole table (rib.pyx) -------------------------------------------------

# 1 the route is new, 0 its value was replaced, -1 no memory and nothing changed.
# `old` gets the value before, 0 when there was none.
cdef int rib_insert(rib *table, uint64_t high, uint64_t low, uint32_t length, uint32_t value, uint32_t *old) noexcept nogil
# From here on nodes that lose their last route are kept, until rib_drop_kept. What changed meanwhile can be undone in
# the opposite order without memory: after rib_undo (or an insertion that failed) the nodes come back, arrays and all.
cdef void rib_keep(rib *table) noexcept nogil
cdef void rib_undo(rib *table) noexcept nogil
cdef void rib_drop_kept(rib *table) noexcept nogil
# The value removed, 0 when there was no such route.
cdef uint32_t rib_remove(rib *table, uint64_t high, uint64_t low, uint32_t length) noexcept nogil
cdef uint32_t rib_get(const rib *table, uint64_t high, uint64_t low, uint32_t length) noexcept nogil
# The longest route of at most `length` bits that covers the address.
cdef rib_match rib_longest(const rib *table, uint64_t high, uint64_t low, uint32_t length) noexcept nogil
# Routes inside the prefix, itself included.
cdef uint64_t rib_count(const rib *table, uint64_t high, uint64_t low, uint32_t length) noexcept nogil
# Copies up to `room` routes inside the prefix (hi, lo, length) in order, those after the route `last`
# (from the first on when NULL); how many.
cdef uint64_t rib_list(const rib *table, uint64_t high, uint64_t low, uint32_t length,
                       const rib_route *last, rib_route *routes, uint64_t room) noexcept nogil
cdef void rib_clear(rib *table) noexcept nogil
