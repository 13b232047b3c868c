# The policy image: an immutable compiled policy, and the first row that decides a connection.
#
# Owns: the arrays workers read, from address to class and group, from classes
# and port to rows; the memo of verdicts.
# Never: changes once made; a change of policy is another image.
# Invariants:
#   * Every index inside was checked when the image was made.
#   * The verdict is that of a linear walk over the rows of the group: the scan
#     finds the first row that all three bitmaps hold, the memo remembers scans.
#   * What no row decides is denied.
#
# A row matches when its source reference, its destination reference and its L4
# range hold. For each there is a bitmap over all rows: a fixed part (rows that
# hold for everything, or for all but a few), in which the few sets of a class,
# or the few ranges around a port, flip or set the bits of the rows that name them.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy
from fastpath.simd.meet cimport rank16

cdef enum:
    ROW_OUTSIDE = 0xFFFFFFFF   # the address is no endpoint that is judged here
    ROW_SELF = 0xFFFFFFFE      # an endpoint and itself
    ROW_OWN_NODE = 0xFFFFFFFD  # an endpoint and its own node
    ROW_NONE = 0xFFFFFFFC      # no row decided: denied
    ROW_NUMBERS = 0xFFFFFFF0   # rows have numbers below
    NO_GROUP = 0xFFFFFFFF

cdef enum:                     # rows' columns, as engine.desired.policy.program lays them out
    ROW_SOURCE = 0
    ROW_DESTINATION
    ROW_LOW
    ROW_HIGH
    ROW_SOURCE_LOW
    ROW_SOURCE_HIGH
    ROW_FAMILY
    ROW_ACTION
    ROW_RULE
    ROW_COLUMNS

cdef enum:
    ACTION_ALLOW = 1
    ACTION_DENY = 2
    ACTION_PASS = 3
    ACTION_LOG = 4

cdef enum:
    OWN_NODE_SET = 1
    RANK_LEVELS = 8            # 16^8 = 2^32 starts
    MEMO_SETS = 8192           # of two entries each: 512 KiB a worker
    FEW = 48                   # rows a key leaves over that are walked one by one, without bitmaps

# One endpoint's address.
cdef struct policy_entry:
    uint64_t high, low         # IPv4 in low
    uint32_t label             # class
    uint32_t group             # NO_GROUP: known, not judged here
    uint32_t owner
    uint32_t used

# Rows [start, end) of one tier.
cdef struct policy_run:
    uint32_t start, end, tier

# Lists of rows, one after the other: those of i at rows[offset[i] .. offset[i + 1]).
cdef struct row_lists:
    const uint32_t *offset
    const uint32_t *rows

cdef struct policy_image:
    uint64_t key[2]            # of the hash of entries
    policy_entry *entries[2]   # IPv4, IPv6; open addressing, at most half full
    uint32_t entry_mask[2]
    const uint32_t *starts4[RANK_LEVELS]    # level 0: all starts; each further one every 16th of the one below
    uint32_t levels4
    uint32_t n_starts4
    const uint64_t *starts6    # pairs, ascending
    uint32_t n_starts6
    const uint32_t *range_class4
    const uint32_t *range_class6
    const uint32_t *rows
    uint32_t n_rows
    uint32_t n_words           # of a bitmap over all rows, a multiple of 8
    const uint64_t *fixed_source
    const uint64_t *fixed_destination
    const uint64_t *fixed_key
    row_lists by_source        # set -> rows whose reference it flips
    row_lists by_destination
    row_lists by_key           # node of the tree of ranges -> rows
    const uint32_t *every_key  # rows that hold for every key, ascending
    uint32_t n_every_key
    uint32_t few               # as FEW, or less
    const uint32_t *key_bounds # ascending, the first is 0
    uint32_t n_bounds
    uint32_t key_leaf          # number of the first leaf: a power of two
    const uint32_t *class_leaf # L4 class -> a leaf of its keys, for each slot `class_stride` of them
    uint32_t class_stride
    const uint32_t *class_offset
    const uint32_t *class_sets
    const uint32_t *run_offset # of group g, direction d (0 ingress, 1 egress): run_offset[2g + d] ..
    const policy_run *runs
    const uint32_t *group_node
    const uint32_t *counters   # row -> number of its counter
    const uint8_t *l4_slot
    const uint16_t *l4_table
    const uint16_t *source_l4
    bint selects               # some endpoint is judged by more than "allow everything"

# A published image with its generation: one pointer, so that no worker sees one without the other.
cdef struct policy_view:
    const policy_image *image  # NULL: flows are tracked and everything passes
    uint32_t generation        # from 1 on
    uint32_t unused
    uint64_t scratch[1]        # in fact three bitmaps a worker

# What is asked.
cdef struct policy_question:
    uint64_t source[2]
    uint64_t destination[2]
    uint32_t family
    uint32_t key               # protocol << 16 | destination port, or ICMP type << 8 | code
    uint32_t source_port

# [0] egress of the source, [1] ingress of the destination.
cdef struct policy_answer:
    uint32_t row[2]
    uint32_t logged[2]         # first Log row on the way, or ROW_NONE
    bint allowed

cdef struct memo_entry:
    uint64_t who               # group << 32 | remote class
    uint64_t what              # direction, L4 class, class of the source port
    uint32_t generation
    uint32_t row
    uint32_t logged
    uint32_t unused

# One worker's scratch memory for judging.
cdef struct policy_memo:
    memo_entry *entries        # 2 * MEMO_SETS
    uint64_t *bitmaps          # three of n_words of the largest image so far
    uint64_t hits, scans

cdef inline policy_entry *policy_entry_of(const policy_image *m, uint32_t family, const uint64_t *address) noexcept nogil:
    """The endpoint with an address, NULL when nobody has it."""
    cdef uint32_t which = 0 if family == 4 else 1
    cdef uint64_t hash = (address[0] ^ m.key[0]) * <uint64_t>0x9E3779B97F4A7C15
    cdef uint32_t at
    cdef policy_entry *e
    hash = ((hash ^ hash >> 32) ^ address[1] ^ m.key[1]) * <uint64_t>0xD6E8FEB86659FD93
    hash = (hash ^ hash >> 32) * <uint64_t>0x9E3779B97F4A7C15
    at = <uint32_t>(hash >> 32) & m.entry_mask[which]
    while True:
        e = &m.entries[which][at]
        if not e.used:
            return NULL
        if e.low == address[1] and e.high == address[0]:
            return e
        at = (at + 1) & m.entry_mask[which]

cdef inline uint32_t policy_range4(const policy_image *m, uint32_t address) noexcept nogil:
    """The class of an address that is no endpoint's: a tree of 16 children a node over the sorted starts."""
    cdef uint32_t at = 0, last
    cdef int level = <int>m.levels4 - 1
    while level >= 0:
        at = at * 16 + rank16(m.starts4[level] + at * 16, address) - 1
        last = (m.n_starts4 - 1) >> (4 * level)
        if at > last:          # behind the last start stands what fills its block
            at = last
        level -= 1
    return m.range_class4[at]

cdef inline uint32_t policy_range6(const policy_image *m, const uint64_t *address) noexcept nogil:
    cdef uint32_t at = 0, n = m.n_starts6, half
    cdef const uint64_t *start
    while n > 1:
        half = n // 2
        start = m.starts6 + 2 * <size_t>(at + half)
        if start[0] < address[0] or (start[0] == address[0] and start[1] <= address[1]):
            at += half
        n -= half
    return m.range_class6[at]

cdef inline uint32_t policy_class(const policy_image *m, uint32_t family, const uint64_t *address,
                                  const policy_entry *e) noexcept nogil:
    if e != NULL:
        return e.label
    return policy_range4(m, <uint32_t>address[1]) if family == 4 else policy_range6(m, address)

cdef inline bint policy_holds(const policy_image *m, uint32_t label, uint32_t reference) noexcept nogil:
    """Whether a class is in a referenced set. Its sets ascend."""
    cdef uint32_t low = m.class_offset[label], high = m.class_offset[label + 1], end = high, middle
    cdef uint32_t wanted = reference >> 1
    while low < high:
        middle = (low + high) // 2
        if m.class_sets[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return (low < end and m.class_sets[low] == wanted) ^ (reference & 1)

cdef inline uint32_t policy_l4_class(const policy_image *m, uint32_t key) noexcept nogil:
    cdef uint32_t slot = m.l4_slot[key >> 16 & 0xFF]
    if slot == 255:
        return 0xFF0000 | key >> 16
    return slot << 16 | m.l4_table[(<size_t>slot << 16) + (key & 0xFFFF)]

cdef inline memo_entry *policy_memo_set(policy_memo *memo, const policy_image *m, uint64_t who, uint64_t what) noexcept nogil:
    cdef uint64_t hash = (who ^ m.key[0]) * <uint64_t>0x9E3779B97F4A7C15
    hash = ((hash ^ hash >> 32) ^ what ^ m.key[1]) * <uint64_t>0xD6E8FEB86659FD93
    return &memo.entries[2 * ((hash >> 40) & (MEMO_SETS - 1))]

# The classes of one question, found once for both directions.
cdef struct policy_sides:
    const policy_entry *entry[2]    # source, destination
    uint32_t label[2]
    bint drawn                      # whether `few`, or the memo's bitmaps, are of this question
    uint32_t n_few                  # more than the image's `few`: the bitmaps are
    uint32_t few[FEW]               # rows whose L4 range holds the key, ascending

# The first row that decides in the rows of a group; `logged` gets the first Log row before it.
cdef uint32_t policy_scan(const policy_image *m, policy_memo *memo, policy_sides *sides, const policy_question *q,
                          uint32_t group, uint32_t egress, uint32_t *logged) noexcept nogil

cdef inline uint32_t policy_row(const policy_image *m, policy_memo *memo, policy_sides *sides, const policy_question *q,
                                uint32_t generation, uint32_t egress, uint32_t *logged) noexcept nogil:
    """The row that decides one direction, from the memo when it was asked before."""
    cdef const policy_entry *local = sides.entry[0] if egress else sides.entry[1]
    cdef const policy_entry *remote = sides.entry[1] if egress else sides.entry[0]
    cdef uint32_t remote_class = sides.label[1] if egress else sides.label[0]
    cdef uint64_t who, what
    cdef memo_entry *pair
    logged[0] = ROW_NONE
    if local == NULL or local.group == NO_GROUP:
        return ROW_OUTSIDE
    if remote != NULL and remote.owner == local.owner:
        return ROW_SELF
    if not egress and policy_holds(m, remote_class, m.group_node[local.group]):
        return ROW_OWN_NODE
    who = <uint64_t>local.group << 32 | remote_class
    what = <uint64_t>egress << 63 | <uint64_t>policy_l4_class(m, q.key) << 16 | m.source_l4[q.source_port]
    pair = policy_memo_set(memo, m, who, what)
    if pair.who == who and pair.what == what and pair.generation == generation:
        memo.hits += 1
        logged[0] = pair.logged
        return pair.row
    if pair[1].who == who and pair[1].what == what and pair[1].generation == generation:
        memo.hits += 1
        logged[0] = pair[1].logged
        return pair[1].row
    memo.scans += 1
    memcpy(&pair[1], pair, sizeof(memo_entry))
    pair.row = policy_scan(m, memo, sides, q, local.group, egress, &pair.logged)
    pair.who, pair.what, pair.generation = who, what, generation
    logged[0] = pair.logged
    return pair.row

cdef inline bint row_allows(const policy_image *m, uint32_t row) noexcept nogil:
    if row < ROW_NUMBERS:
        return m.rows[<size_t>row * ROW_COLUMNS + ROW_ACTION] == ACTION_ALLOW
    return row != ROW_NONE

cdef inline void policy_judge(const policy_image *m, policy_memo *memo, uint32_t generation, const policy_question *q,
                              policy_answer *answer) noexcept nogil:
    """Both directions of a connection. A denied egress is not asked about ingress."""
    cdef policy_sides sides
    sides.entry[0] = policy_entry_of(m, q.family, q.source)
    sides.entry[1] = policy_entry_of(m, q.family, q.destination)
    answer.row[0] = answer.row[1] = ROW_OUTSIDE
    answer.logged[0] = answer.logged[1] = ROW_NONE
    answer.allowed = True
    if (sides.entry[0] == NULL or sides.entry[0].group == NO_GROUP) \
            and (sides.entry[1] == NULL or sides.entry[1].group == NO_GROUP):
        return
    sides.label[0] = policy_class(m, q.family, q.source, sides.entry[0])
    sides.label[1] = policy_class(m, q.family, q.destination, sides.entry[1])
    sides.drawn = False
    answer.row[0] = policy_row(m, memo, &sides, q, generation, 1, &answer.logged[0])
    answer.allowed = row_allows(m, answer.row[0])
    if answer.allowed:
        answer.row[1] = policy_row(m, memo, &sides, q, generation, 0, &answer.logged[1])
        answer.allowed = row_allows(m, answer.row[1])

cdef class PolicyImage:
    cdef policy_image image
    cdef list kept             # the arrays the image points into
    cdef readonly int n_rows
    cdef readonly int n_counters
    cdef readonly int n_groups
    cdef readonly int n_classes
    cdef int keep_leaves(self, slots, table) except -1
    cdef int keep_rows(self, rows, counters) except -1
    cdef int keep_blocks(self, start, end, tier, offset, blocks, node) except -1
    cdef int keep_classes(self, offset, sets) except -1
    cdef int keep_addresses(self, int family, entries, ranges) except -1
    cdef bint judges(self, uint32_t at, const uint8_t[::1] ends) noexcept
    cdef const void *hold(self, array, dtype) except NULL
