"""Insert, remove and search in the routes of one address family; see rib.pxd.

Owns: the nodes' memory.
Never: raises, needs the GIL, or leaves a table half-changed when memory runs out.
"""

from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memmove

cdef uint16_t places[RIB_PREFIXES]

cdef void number_places() noexcept:
    cdef uint32_t bits, start
    for bits in range(1, 9):
        for start in range(256):
            if start & (255 >> bits) == 0:
                places[rib_position(start, bits)] = <uint16_t>(start << 8 | bits)

number_places()

cdef const uint16_t *rib_places() noexcept nogil:
    return places

# -- nodes ----------------------------------------------------------------------

cdef rib_node *node_new(rib *table) noexcept nogil:
    cdef rib_node *node = table.kept
    if node != NULL and not table.keeping:
        table.kept = <rib_node *>node.prefixes[0]
        node.prefixes[0] = 0
        return node
    node = <rib_node *>calloc(1, sizeof(rib_node))
    if node != NULL:
        table.bytes += sizeof(rib_node)
    return node


cdef void node_free(rib *table, rib_node *node) noexcept nogil:
    table.bytes -= sizeof(rib_node) + node.value_room * sizeof(uint32_t) + node.child_room * sizeof(void *)
    free(node.values)
    free(node.children)
    free(node)


cdef void node_leave(rib *table, rib_node *node) noexcept nogil:
    """A node without routes goes, or is kept; then its first word, which is zero, names the one kept before."""
    if table.keeping:
        node.prefixes[0] = <uint64_t>table.kept
        table.kept = node
    else:
        node_free(table, node)


cdef void rib_keep(rib *table) noexcept nogil:
    table.keeping = True


cdef void rib_undo(rib *table) noexcept nogil:
    table.keeping = False


cdef void rib_drop_kept(rib *table) noexcept nogil:
    cdef rib_node *node
    table.keeping = False
    while table.kept != NULL:
        node = table.kept
        table.kept = <rib_node *>node.prefixes[0]
        node_free(table, node)


cdef uint16_t room_for(uint16_t room) noexcept nogil:
    """The next size of an array that is full: half as much again, in steps of four."""
    return <uint16_t>(room + (room >> 1) + 4) & <uint16_t>0xfffc


cdef bint values_grow(rib *table, rib_node *node) noexcept nogil:
    cdef uint16_t room = room_for(node.value_room)
    cdef void *values = realloc(node.values, room * sizeof(uint32_t))
    if values == NULL:
        return False
    table.bytes += (room - node.value_room) * sizeof(uint32_t)
    node.values, node.value_room = <uint32_t *>values, room
    return True


cdef bint children_grow(rib *table, rib_node *node) noexcept nogil:
    cdef uint16_t room = room_for(node.child_room)
    cdef void *children = realloc(node.children, room * sizeof(void *))
    if children == NULL:
        return False
    table.bytes += (room - node.child_room) * sizeof(void *)
    node.children, node.child_room = <rib_node **>children, room
    return True


cdef int node_put(rib *table, rib_node *node, uint32_t position, uint32_t value, uint32_t *old) noexcept nogil:
    """Set one prefix of a node: 1 new, 0 replaced, -1 no memory."""
    cdef uint32_t rank = bits_rank(node.prefixes, position)
    if bits_test(node.prefixes, position):
        old[0] = node.values[rank]
        node.values[rank] = value
        return 0
    if node.n_values == node.value_room and not values_grow(table, node):
        return -1
    memmove(node.values + rank + 1, node.values + rank, (node.n_values - rank) * sizeof(uint32_t))
    node.values[rank] = value
    node.n_values += 1
    bits_set(node.prefixes, position)
    return 1


cdef rib_node *node_adopt(rib *table, rib_node *node, uint32_t byte) noexcept nogil:
    """A new child for `byte`, or NULL."""
    cdef uint32_t rank = bits_rank(node.child_set, byte)
    cdef rib_node *child
    if node.n_children == node.child_room and not children_grow(table, node):
        return NULL
    child = node_new(table)
    if child == NULL:
        return NULL
    memmove(node.children + rank + 1, node.children + rank, (node.n_children - rank) * sizeof(void *))
    node.children[rank] = child
    node.n_children += 1
    bits_set(node.child_set, byte)
    return child


cdef void node_disown(rib *table, rib_node *node, uint32_t byte) noexcept nogil:
    """Give up the child for `byte`, which has no routes."""
    cdef uint32_t rank = bits_rank(node.child_set, byte)
    node_leave(table, node.children[rank])
    node.n_children -= 1
    memmove(node.children + rank, node.children + rank + 1, (node.n_children - rank) * sizeof(void *))
    bits_clear(node.child_set, byte)

# -- the way to a prefix -----------------------------------------------------------

cdef inline rib_node *child_fetched(const rib_node *node, uint32_t byte) noexcept nogil:
    """The child for `byte`; all its lines are on their way, not only the one that is asked for first."""
    cdef rib_node *child = rib_child(node, byte)
    if child != NULL:
        line_fetch(child.prefixes)
        line_fetch(child.child_set)
        line_fetch(&child.routes)
    return child


cdef void prune(rib *table, rib_node **path, uint32_t depth, uint64_t high, uint64_t low) noexcept nogil:
    """Give up the nodes of path[0 .. depth] that have no routes left, from the deepest up."""
    while path[depth].routes == 0:
        if depth == 0:
            node_leave(table, path[0])
            table.root = NULL
            return
        depth -= 1
        node_disown(table, path[depth], rib_byte(high, low, depth))


cdef bint descend(rib *table, uint64_t high, uint64_t low, uint32_t depth, rib_node **path) noexcept nogil:
    """Fill path[0 .. depth], making the nodes that are missing. False, and nothing made, without memory."""
    cdef uint32_t d
    cdef rib_node *child
    if table.root == NULL:
        table.root = node_new(table)
        if table.root == NULL:
            return False
    path[0] = table.root
    for d in range(depth):
        child = child_fetched(path[d], rib_byte(high, low, d))
        if child == NULL:
            child = node_adopt(table, path[d], rib_byte(high, low, d))
        if child == NULL:
            rib_undo(table)                # what was made for this route has nothing that an undo could want
            prune(table, path, d, high, low)
            return False
        path[d + 1] = child
    return True


cdef rib_node *find_node(const rib *table, uint64_t high, uint64_t low, uint32_t depth) noexcept nogil:
    cdef rib_node *node = table.root
    cdef uint32_t d
    for d in range(depth):
        if node == NULL:
            return NULL
        node = rib_child(node, rib_byte(high, low, d))
    return node


cdef inline uint32_t position_of(uint64_t high, uint64_t low, uint32_t length) noexcept nogil:
    cdef uint32_t depth = (length - 1) >> 3
    return rib_position(rib_byte(high, low, depth), length - 8 * depth)

# -- changes -------------------------------------------------------------------------

cdef int rib_insert(rib *table, uint64_t high, uint64_t low, uint32_t length, uint32_t value, uint32_t *old) noexcept nogil:
    cdef rib_node *path[RIB_DEPTH_MAX]
    cdef uint32_t depth, d
    cdef int outcome
    old[0] = 0
    if length == 0:
        old[0] = table.default_value
        table.default_value = value
        table.routes += old[0] == 0
        return old[0] == 0
    depth = (length - 1) >> 3
    if not descend(table, high, low, depth, path):
        return -1
    outcome = node_put(table, path[depth], position_of(high, low, length), value, old)
    if outcome < 0:
        rib_undo(table)
        prune(table, path, depth, high, low)
    elif outcome > 0:
        for d in range(depth + 1):
            path[d].routes += 1
        table.routes += 1
    return outcome


cdef uint32_t rib_remove(rib *table, uint64_t high, uint64_t low, uint32_t length) noexcept nogil:
    cdef rib_node *path[RIB_DEPTH_MAX]
    cdef rib_node *node
    cdef uint32_t depth, d, position, rank, value
    if length == 0:
        value = table.default_value
        table.default_value = 0
        table.routes -= value != 0
        return value
    depth = (length - 1) >> 3
    node = table.root
    for d in range(depth):
        if node == NULL:
            return 0
        path[d] = node
        node = child_fetched(node, rib_byte(high, low, d))
    position = position_of(high, low, length)
    if node == NULL or not bits_test(node.prefixes, position):
        return 0
    path[depth] = node
    for d in range(depth + 1):
        path[d].routes -= 1
    rank = bits_rank(node.prefixes, position)
    value = node.values[rank]
    node.n_values -= 1
    memmove(node.values + rank, node.values + rank + 1, (node.n_values - rank) * sizeof(uint32_t))
    bits_clear(node.prefixes, position)
    table.routes -= 1
    prune(table, path, depth, high, low)
    return value


cdef void free_subtree(rib *table, rib_node *node) noexcept nogil:
    cdef uint32_t i
    for i in range(node.n_children):
        free_subtree(table, node.children[i])
    node_free(table, node)


cdef void rib_clear(rib *table) noexcept nogil:
    if table.root != NULL:
        free_subtree(table, table.root)
    table.root = NULL
    table.default_value = 0
    table.routes = 0

# -- questions -----------------------------------------------------------------------

cdef uint32_t rib_get(const rib *table, uint64_t high, uint64_t low, uint32_t length) noexcept nogil:
    cdef const rib_node *node
    cdef uint32_t position
    if length == 0:
        return table.default_value
    node = find_node(table, high, low, (length - 1) >> 3)
    if node == NULL:
        return 0
    position = position_of(high, low, length)
    if not bits_test(node.prefixes, position):
        return 0
    return node.values[bits_rank(node.prefixes, position)]


cdef rib_match rib_longest(const rib *table, uint64_t high, uint64_t low, uint32_t length) noexcept nogil:
    cdef rib_match best, match
    cdef const rib_node *node = table.root
    cdef uint32_t depth = 0
    best.value = table.default_value
    best.length = 0
    while node != NULL and 8 * depth < length:
        match = rib_match_in(node, rib_byte(high, low, depth), min(length - 8 * depth, <uint32_t>8))
        if match.value:
            best.value = match.value
            best.length = 8 * depth + match.length
        node = rib_child(node, rib_byte(high, low, depth)) if depth < RIB_DEPTH_MAX - 1 else NULL
        depth += 1
    return best


cdef uint64_t count_run(const rib_node *node, uint32_t start, uint32_t bits) noexcept nogil:
    """Routes of a node's subtree that lie inside one of its prefixes, itself included."""
    cdef uint32_t first = rib_position(start, bits)
    cdef uint32_t after = first + rib_run(bits)
    cdef uint64_t count = bits_rank(node.prefixes, after) - bits_rank(node.prefixes, first)
    cdef uint32_t end = start + (<uint32_t>256 >> bits)
    cdef uint32_t byte = bits_next(node.child_set, start, end)
    while byte < end:
        count += rib_child(node, byte).routes
        byte = bits_next(node.child_set, byte + 1, end)
    return count


cdef uint64_t rib_count(const rib *table, uint64_t high, uint64_t low, uint32_t length) noexcept nogil:
    cdef const rib_node *node
    cdef uint32_t depth
    if length == 0:
        return table.routes
    depth = (length - 1) >> 3
    node = find_node(table, high, low, depth)
    if node == NULL:
        return 0
    return count_run(node, rib_byte(high, low, depth), length - 8 * depth)

# -- listing in order ------------------------------------------------------------------

cdef struct listing:
    rib_route *routes
    uint64_t n, room
    const rib_route *last      # while not NULL: only what comes after it


cdef void list_prefix(const rib_node *node, uint32_t depth, uint64_t high, uint64_t low, uint32_t position, listing *l) noexcept nogil:
    cdef rib_route *route = &l.routes[l.n]
    cdef uint32_t start = places[position] >> 8
    route.high = high | (<uint64_t>start << (56 - 8 * depth) if depth < 8 else 0)
    route.low = low | (<uint64_t>start << (120 - 8 * depth) if depth >= 8 else 0)
    route.length = 8 * depth + (places[position] & 255)
    route.value = node.values[bits_rank(node.prefixes, position)]
    l.n += 1


cdef void list_child(const rib_node *node, uint32_t depth, uint64_t high, uint64_t low, uint32_t byte, listing *l) noexcept nogil:
    if depth < 8:
        high |= <uint64_t>byte << (56 - 8 * depth)
    else:
        low |= <uint64_t>byte << (120 - 8 * depth)
    list_run(rib_child(node, byte), depth + 1, high, low, 0, RIB_PREFIXES, 0, 256, l)


cdef void list_run(const rib_node *node, uint32_t depth, uint64_t high, uint64_t low,
                   uint32_t position, uint32_t position_end, uint32_t byte, uint32_t byte_end, listing *l) noexcept nogil:
    """List prefixes and children of a node in the given ranges, merged: a child follows its own /8 prefix."""
    cdef uint32_t resumed
    if l.last != NULL:
        resumed = rib_byte(l.last.high, l.last.low, depth)
        if l.last.length > 8 * depth + 8:
            position = rib_position(resumed, 8) + 1
            byte = bits_next(node.child_set, resumed, byte_end)
            if byte != resumed:
                l.last = NULL
        else:
            position = rib_position(resumed, l.last.length - 8 * depth) + 1
            byte = resumed
            l.last = NULL
    position = bits_next(node.prefixes, position, position_end)
    byte = bits_next(node.child_set, byte, byte_end)
    while l.n < l.room and (position < position_end or byte < byte_end):
        if byte >= byte_end or (position < position_end and position <= rib_position(byte, 8)):
            list_prefix(node, depth, high, low, position, l)
            position = bits_next(node.prefixes, position + 1, position_end)
        else:
            list_child(node, depth, high, low, byte, l)
            byte = bits_next(node.child_set, byte + 1, byte_end)


cdef uint64_t rib_list(const rib *table, uint64_t high, uint64_t low, uint32_t length,
                       const rib_route *last, rib_route *routes, uint64_t room) noexcept nogil:
    cdef listing l
    cdef const rib_node *node
    cdef uint32_t depth, start, bits, first
    l.routes, l.n, l.room, l.last = routes, 0, room, last
    if length == 0:
        if last == NULL and table.default_value and room:
            routes[0].high = routes[0].low = 0
            routes[0].length, routes[0].value = 0, table.default_value
            l.n = 1
        if last != NULL and last.length == 0:
            l.last = NULL
        if table.root != NULL:
            list_run(table.root, 0, 0, 0, 0, RIB_PREFIXES, 0, 256, &l)
        return l.n
    depth = (length - 1) >> 3
    node = find_node(table, high, low, depth)
    if node == NULL:
        return 0
    start, bits = rib_byte(high, low, depth), length - 8 * depth
    first = rib_position(start, bits)
    if last != NULL and last.length < length:
        l.last = NULL
    list_run(node, depth, masked_high(high, depth), masked_low(low, depth),
             first, first + rib_run(bits), start, start + (<uint32_t>256 >> bits), &l)
    return l.n


cdef uint64_t masked_high(uint64_t high, uint32_t depth) noexcept nogil:
    """The first `depth` bytes."""
    return high if depth >= 8 else high & ~(~<uint64_t>0 >> (8 * depth))


cdef uint64_t masked_low(uint64_t low, uint32_t depth) noexcept nogil:
    return 0 if depth <= 8 else low & ~(~<uint64_t>0 >> (8 * (depth - 8)))
