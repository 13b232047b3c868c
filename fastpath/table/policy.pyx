"""Making policy images from the arrays of a compiled program, and the scan. See policy.pxd."""

import os

import numpy as np

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from fastpath.simd.meet cimport bits_lowest64, meet

KEY_LAST = 0xFFFFFF
ANY, NOTHING = 1, 0


# -- the scan --------------------------------------------------------------------

cdef inline void flip(uint64_t *bitmap, const row_lists *lists, uint32_t number) noexcept nogil:
    cdef uint32_t at, row
    for at in range(lists.offset[number], lists.offset[number + 1]):
        row = lists.rows[at]
        bitmap[row >> 6] ^= <uint64_t>1 << (row & 63)


cdef void draw_side(const policy_image *m, uint64_t *bitmap, const uint64_t *fixed, const row_lists *lists,
                    uint32_t label) noexcept nogil:
    """Which rows hold for a class on one side."""
    cdef uint32_t at
    memcpy(bitmap, fixed, m.n_words * sizeof(uint64_t))
    for at in range(m.class_offset[label], m.class_offset[label + 1]):
        flip(bitmap, lists, m.class_sets[at])


cdef inline uint32_t leaf_of(const policy_image *m, uint32_t key) noexcept nogil:
    """A leaf of the tree of ranges for a key: it and its ancestors are the nodes whose rows hold the key."""
    cdef uint32_t at = 0, n = m.n_bounds, half, slot = m.l4_slot[key >> 16 & 0xFF]
    if slot != 255:
        return m.class_leaf[slot * m.class_stride + m.l4_table[(<size_t>slot << 16) + (key & 0xFFFF)]]
    while n > 1:
        half = n // 2
        at += half if m.key_bounds[at + half] <= key else 0
        n -= half
    return at + m.key_leaf


cdef void draw_key(const policy_image *m, uint64_t *bitmap, uint32_t key) noexcept nogil:
    """Which rows' L4 ranges hold a key."""
    cdef uint32_t at = leaf_of(m, key)
    memcpy(bitmap, m.fixed_key, m.n_words * sizeof(uint64_t))
    while at:
        flip(bitmap, &m.by_key, at)
        at >>= 1


cdef inline uint32_t next_meeting(const uint64_t *a, const uint64_t *b, const uint64_t *c, uint32_t at,
                                  uint32_t end) noexcept nogil:
    """The first row from `at` on and before `end` that all three bitmaps hold, or `end`."""
    cdef size_t word = at >> 6, stop = (end + 63) >> 6
    cdef uint64_t bits
    cdef uint32_t row
    if at >= end:
        return end
    bits = a[word] & b[word] & c[word] & ~<uint64_t>0 << (at & 63)
    if not bits:
        word = meet()(a, b, c, word + 1, stop)
        if word >= stop:
            return end
        bits = a[word] & b[word] & c[word]
    row = <uint32_t>(word << 6) + bits_lowest64(bits)
    return row if row < end else end


cdef uint32_t scan_runs(const policy_image *m, const uint64_t *maps, const policy_question *q, uint32_t group,
                        uint32_t egress, uint32_t *logged) noexcept nogil:
    cdef const policy_run *run
    cdef const uint32_t *row
    cdef const uint64_t *destinations = maps + m.n_words
    cdef const uint64_t *keys = destinations + m.n_words
    cdef uint32_t family = 1 if q.family == 4 else 2
    cdef uint32_t at, i, passed = 0
    cdef bint passing = False
    logged[0] = ROW_NONE
    for i in range(m.run_offset[2 * group + egress], m.run_offset[2 * group + egress + 1]):
        run = &m.runs[i]
        if passing and run.tier <= passed:
            continue
        at = next_meeting(maps, destinations, keys, run.start, run.end)
        while at < run.end:
            row = m.rows + <size_t>at * ROW_COLUMNS
            if row[ROW_FAMILY] & family and row[ROW_SOURCE_LOW] <= q.source_port <= row[ROW_SOURCE_HIGH]:
                if row[ROW_ACTION] == ACTION_PASS:
                    passing, passed = True, run.tier
                    break
                if row[ROW_ACTION] != ACTION_LOG:
                    return at
                if logged[0] == ROW_NONE:
                    logged[0] = at
            at = next_meeting(maps, destinations, keys, at + 1, run.end)
    return ROW_NONE


# A key mostly leaves few rows over. Then these are looked at, in place of bitmaps over all rows.
cdef uint32_t few_rows(const policy_image *m, uint32_t key, uint32_t *rows) noexcept nogil:
    """The rows whose L4 range holds a key, ascending; how many, or a number beyond `few` when they are not few."""
    cdef uint32_t n = m.n_every_key, node = leaf_of(m, key), at, row, place
    if n > m.few:
        return n
    memcpy(rows, m.every_key, n * sizeof(uint32_t))
    while node:
        for at in range(m.by_key.offset[node], m.by_key.offset[node + 1]):
            if n == m.few:
                return n + 1
            row = m.by_key.rows[at]
            place = n
            while place and rows[place - 1] > row:
                rows[place] = rows[place - 1]
                place -= 1
            rows[place] = row
            n += 1
        node >>= 1
    return n


cdef inline bint holds(const policy_image *m, uint32_t label, uint32_t reference, uint32_t node) noexcept nogil:
    """Whether a class is in what a row names; "own node" is another set for every group."""
    if reference >> 1 == OWN_NODE_SET:
        return policy_holds(m, label, node) ^ (reference & 1)
    return policy_holds(m, label, reference)


cdef uint32_t scan_few(const policy_image *m, const policy_sides *sides, const policy_question *q, uint32_t group,
                       uint32_t egress, uint32_t *logged) noexcept nogil:
    """As scan_runs, over the few rows of a key."""
    cdef const policy_run *run
    cdef const uint32_t *row
    cdef uint32_t family = 1 if q.family == 4 else 2, node = m.group_node[group]
    cdef uint32_t i, at = 0, before = 0, passed = 0
    cdef bint passing = False
    logged[0] = ROW_NONE
    for i in range(m.run_offset[2 * group + egress], m.run_offset[2 * group + egress + 1]):
        run = &m.runs[i]
        if passing and run.tier <= passed:
            continue
        if run.start < before:     # profiles stand in an endpoint's own order
            at = 0
        before = run.start
        while at < sides.n_few and sides.few[at] < run.start:
            at += 1
        while at < sides.n_few and sides.few[at] < run.end:
            row = m.rows + <size_t>sides.few[at] * ROW_COLUMNS
            at += 1
            if not row[ROW_FAMILY] & family or not row[ROW_SOURCE_LOW] <= q.source_port <= row[ROW_SOURCE_HIGH] \
                    or not holds(m, sides.label[0], row[ROW_SOURCE], node) \
                    or not holds(m, sides.label[1], row[ROW_DESTINATION], node):
                continue
            if row[ROW_ACTION] == ACTION_PASS:
                passing, passed = True, run.tier
                break
            if row[ROW_ACTION] != ACTION_LOG:
                return sides.few[at - 1]
            if logged[0] == ROW_NONE:
                logged[0] = sides.few[at - 1]
    return ROW_NONE


cdef uint32_t policy_scan(const policy_image *m, policy_memo *memo, policy_sides *sides, const policy_question *q,
                          uint32_t group, uint32_t egress, uint32_t *logged) noexcept nogil:
    cdef uint64_t *sources = memo.bitmaps
    cdef uint64_t *destinations = sources + m.n_words
    cdef uint32_t node = m.group_node[group], row
    cdef bint source_is_node = policy_holds(m, sides.label[0], node)
    cdef bint destination_is_node = policy_holds(m, sides.label[1], node)
    if not sides.drawn:
        sides.n_few = few_rows(m, q.key, sides.few)
    if sides.n_few <= m.few:
        sides.drawn = True
        return scan_few(m, sides, q, group, egress, logged)
    if not sides.drawn:
        draw_side(m, sources, m.fixed_source, &m.by_source, sides.label[0])
        draw_side(m, destinations, m.fixed_destination, &m.by_destination, sides.label[1])
        draw_key(m, destinations + m.n_words, q.key)
        sides.drawn = True
    if source_is_node:         # "own node" is another set for every group
        flip(sources, &m.by_source, OWN_NODE_SET)
    if destination_is_node:
        flip(destinations, &m.by_destination, OWN_NODE_SET)
    row = scan_runs(m, sources, q, group, egress, logged)
    if source_is_node:
        flip(sources, &m.by_source, OWN_NODE_SET)
    if destination_is_node:
        flip(destinations, &m.by_destination, OWN_NODE_SET)
    return row


# -- making ----------------------------------------------------------------------

def require(holds, str what) -> None:
    if not holds:
        raise ValueError(f"not a policy program: {what}")


def but_last(values):
    """Without a negative index, which this module's bounds are compiled not to know."""
    return values[:len(values) - 1]


def words_of(rows):
    """A bitmap over rows, from one truth value a row, in whole groups of eight words."""
    padded = np.zeros((len(rows) + 511) // 512 * 512, bool)
    padded[: len(rows)] = rows
    return np.packbits(padded, bitorder="little").view(np.uint64)


def lists_of(owners, rows, count):
    """For each owner below `count` its rows, as offsets and one list."""
    order = np.argsort(owners, kind="stable")
    offset = np.searchsorted(owners[order], np.arange(count + 1)).astype(np.uint32)
    return offset, np.append(rows[order], np.uint32(0)).astype(np.uint32)


def range_nodes(first, after, leaf):
    """Half-open ranges of leaves as the fewest whole subtrees: (range number, node) pairs."""
    numbers, nodes = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    which = np.arange(len(first))
    low, high = first + leaf, after + leaf
    while len(which):
        left = low & 1 == 1
        numbers.append(which[left])
        nodes.append(low[left])
        low = low + left
        right = high & 1 == 1
        high = high - right
        right &= low <= high
        numbers.append(which[right])
        nodes.append(high[right])
        low, high = low >> 1, high >> 1
        open_ = low < high
        which, low, high = which[open_], low[open_], high[open_]
    return np.concatenate(numbers), np.concatenate(nodes)


cdef class PolicyImage:
    """See policy.pyi."""

    def __cinit__(
        self, *, rows, block_start, block_end, block_tier, group_offset, group_blocks, group_node,
        class_offset, class_sets, entries, ranges, l4_slot, l4_table, source_l4, counters=None, few=FEW,
    ):
        self.kept = []
        require(0 <= few <= FEW, "so many rows are not few")
        self.image.few = few
        key = os.urandom(16)
        self.image.key[0], self.image.key[1] = int.from_bytes(key[:8]), int.from_bytes(key[8:])
        self.keep_classes(class_offset, class_sets)
        self.keep_rows(np.ascontiguousarray(rows, np.uint32), counters)
        self.keep_blocks(block_start, block_end, block_tier, group_offset, group_blocks, group_node)
        for family in (4, 6):
            self.keep_addresses(family, entries[family], ranges[family])
        table = np.ascontiguousarray(l4_table, np.uint16)
        slot = np.ascontiguousarray(l4_slot, np.uint8)
        require(slot.shape == (256,) and table.ndim == 2 and table.shape[1] == 65536, "the L4 classes")
        require(((slot == 255) | (slot < len(table))).all(), "an L4 slot without a table")
        require(len(source_l4) == 65536, "the classes of source ports")
        self.image.l4_slot = <const uint8_t *>self.hold(slot, np.uint8)
        self.image.l4_table = <const uint16_t *>self.hold(table, np.uint16)
        self.image.source_l4 = <const uint16_t *>self.hold(source_l4, np.uint16)
        self.keep_leaves(slot, table)
        self.image.selects = self.judges_anything(np.asarray(rows))

    def __dealloc__(self):
        free(self.image.entries[0])
        free(self.image.entries[1])

    @property
    def selects(self):
        return bool(self.image.selects)

    def judge(self, source, destination, int protocol, int source_port=0, int destination_port=0):
        cdef policy_question q
        cdef policy_sides sides
        cdef policy_memo memo
        cdef memo_entry *entries = <memo_entry *>calloc(2 * MEMO_SETS, sizeof(memo_entry))
        cdef uint64_t *bitmaps = <uint64_t *>calloc(3 * <size_t>self.image.n_words, sizeof(uint64_t))
        cdef uint32_t egress, ingress, logged
        if source.version != destination.version:
            raise ValueError(f"{source} and {destination} are not of one family")
        if not (0 <= protocol <= 255 and 0 <= source_port <= 65535 and 0 <= destination_port <= 65535):
            raise ValueError(f"no connection: protocol {protocol}, ports {source_port} and {destination_port}")
        memset(&memo, 0, sizeof(policy_memo))
        memo.entries, memo.bitmaps = entries, bitmaps
        q.source[0], q.source[1] = int(source) >> 64, int(source) & 0xFFFFFFFFFFFFFFFF
        q.destination[0], q.destination[1] = int(destination) >> 64, int(destination) & 0xFFFFFFFFFFFFFFFF
        q.family, q.key, q.source_port = source.version, protocol << 16 | destination_port, source_port
        sides.drawn = False
        sides.entry[0] = policy_entry_of(&self.image, q.family, q.source)
        sides.entry[1] = policy_entry_of(&self.image, q.family, q.destination)
        sides.label[0] = policy_class(&self.image, q.family, q.source, sides.entry[0])
        sides.label[1] = policy_class(&self.image, q.family, q.destination, sides.entry[1])
        if entries == NULL or bitmaps == NULL:
            free(entries)
            free(bitmaps)
            raise MemoryError
        egress = policy_row(&self.image, &memo, &sides, &q, 1, 1, &logged)
        ingress = policy_row(&self.image, &memo, &sides, &q, 1, 0, &logged)
        free(entries)
        free(bitmaps)
        return egress, ingress

    def allows(self, uint32_t row) -> bool:
        if self.n_rows <= row < ROW_NUMBERS:
            raise IndexError(f"there are {self.n_rows} rows, not {row}")
        return row_allows(&self.image, row)

    cdef const void *hold(self, array, dtype) except NULL:
        """The address of an array's elements, which live as long as the image."""
        cdef const uint8_t[::1] view
        array = np.array(array, dtype)     # a copy: whoever gave it may change his own
        if array.size == 0:
            array = np.zeros(1, dtype)
        array.flags.writeable = False
        self.kept.append(array)
        view = array.reshape(-1).view(np.uint8)
        return &view[0]

    cdef int keep_classes(self, offset, sets) except -1:
        offset, sets = np.asarray(offset, np.uint32), np.asarray(sets, np.uint32)
        require(len(offset) > 1 and offset[0] == 0 and offset.max() <= len(sets), "the offsets of classes")
        require((offset[1:] >= but_last(offset)).all(), "the offsets of classes")
        self.n_classes = len(offset) - 1
        self.image.class_offset = <const uint32_t *>self.hold(offset, np.uint32)
        self.image.class_sets = <const uint32_t *>self.hold(sets, np.uint32)
        return 0

    cdef int keep_rows(self, rows, counters) except -1:
        require(rows.ndim == 2 and rows.shape[1] == ROW_COLUMNS and 0 < len(rows) < 1 << 24, "the rows")
        require(((rows[:, ROW_ACTION] >= ACTION_ALLOW) & (rows[:, ROW_ACTION] <= ACTION_LOG)).all(), "an action")
        require((rows[:, ROW_HIGH] <= KEY_LAST).all() and (rows[:, ROW_LOW] <= rows[:, ROW_HIGH]).all(), "an L4 range")
        self.n_rows = self.image.n_rows = <uint32_t>len(rows)
        self.image.rows = <const uint32_t *>self.hold(rows, np.uint32)
        counters = rows[:, ROW_RULE] if counters is None else np.asarray(counters, np.uint32)
        require(len(counters) == len(rows), "one counter a row")
        self.n_counters = int(counters.max()) + 1
        self.image.counters = <const uint32_t *>self.hold(counters, np.uint32)
        numbers = np.arange(len(rows), dtype=np.uint32)
        sets = self.kept[1]                # of all classes
        # As many lists as any class or row may name: a set that only one of them knows has an empty one.
        count = int(max(rows[:, ROW_SOURCE].max() >> 1, rows[:, ROW_DESTINATION].max() >> 1, sets.max(), OWN_NODE_SET)) + 1
        require(count <= 1 << 24, "a set number")
        for column in (ROW_SOURCE, ROW_DESTINATION):
            references = rows[:, column]
            named = references >> 1 != NOTHING
            offset, flipped = lists_of(references[named] >> 1, numbers[named], count)
            fixed = words_of(references & 1 == 1)
            if column == ROW_SOURCE:
                self.image.n_words = <uint32_t>len(fixed)
                self.image.fixed_source = <const uint64_t *>self.hold(fixed, np.uint64)
                self.image.by_source.offset = <const uint32_t *>self.hold(offset, np.uint32)
                self.image.by_source.rows = <const uint32_t *>self.hold(flipped, np.uint32)
            else:
                self.image.fixed_destination = <const uint64_t *>self.hold(fixed, np.uint64)
                self.image.by_destination.offset = <const uint32_t *>self.hold(offset, np.uint32)
                self.image.by_destination.rows = <const uint32_t *>self.hold(flipped, np.uint32)
        self.keep_keys(rows, numbers)
        return 0

    cdef int keep_leaves(self, slots, table) except -1:
        """For each L4 class the leaf of one of its keys: keys of one class are in the same ranges."""
        bounds = np.asarray(<const uint32_t[:self.image.n_bounds]>self.image.key_bounds).astype(np.int64)
        stride = int(table.max(initial=0)) + 1
        leaves = np.full((max(len(table), 1), stride), self.image.key_leaf, np.uint32)
        for protocol in np.flatnonzero(slots != 255).tolist():
            low = protocol << 16
            first = int(np.searchsorted(bounds, low, "right")) - 1
            after = int(np.searchsorted(bounds, low + 65536))
            edges = np.concatenate([[low], bounds[first + 1 : after], [low + 65536]])
            of_key = np.repeat(np.arange(first, after, dtype=np.uint32), np.diff(edges))
            leaves[slots[protocol], table[slots[protocol]]] = of_key + np.uint32(self.image.key_leaf)
        self.image.class_leaf = <const uint32_t *>self.hold(leaves, np.uint32)
        self.image.class_stride = <uint32_t>stride
        return 0

    def keep_keys(self, rows, numbers):
        low, high = rows[:, ROW_LOW].astype(np.int64), rows[:, ROW_HIGH].astype(np.int64)
        every = (low == 0) & (high == KEY_LAST)
        some = numbers[~every]
        bounds = np.unique(np.concatenate([[0], low[some], high[some] + 1]))
        leaf = 1 << int(len(bounds) - 1).bit_length()
        which, nodes = range_nodes(np.searchsorted(bounds, low[some]), np.searchsorted(bounds, high[some] + 1), leaf)
        offset, listed = lists_of(nodes, some[which], 2 * leaf)
        self.image.every_key = <const uint32_t *>self.hold(numbers[every], np.uint32)
        self.image.n_every_key = <uint32_t>every.sum()
        self.image.fixed_key = <const uint64_t *>self.hold(words_of(every), np.uint64)
        self.image.key_bounds = <const uint32_t *>self.hold(bounds, np.uint32)
        self.image.n_bounds = <uint32_t>len(bounds)
        self.image.key_leaf = <uint32_t>leaf
        self.image.by_key.offset = <const uint32_t *>self.hold(offset, np.uint32)
        self.image.by_key.rows = <const uint32_t *>self.hold(listed, np.uint32)

    cdef int keep_blocks(self, start, end, tier, offset, blocks, node) except -1:
        """Each group's blocks as runs of rows, neighbours of one tier joined."""
        start, end, tier = (np.asarray(a, np.int64) for a in (start, end, tier))
        offset, blocks = np.asarray(offset, np.int64), np.asarray(blocks, np.int64)
        self.n_groups = len(node)
        require(len(start) == len(end) == len(tier), "blocks of unlike lengths")
        require((start >= 0).all() and (start <= end).all() and (end <= self.n_rows).all(), "the rows of a block")
        require(len(offset) == 2 * self.n_groups + 1 and offset[0] == 0, "the offsets of groups")
        require((offset[1:] >= but_last(offset)).all() and offset.max() <= len(blocks), "the offsets of groups")
        blocks = blocks[: offset.max()]
        require(((blocks >= 0) & (blocks < len(start))).all(), "the block of a group")
        owner = np.repeat(np.arange(2 * self.n_groups), offset[1:] - but_last(offset))
        filled = end[blocks] > start[blocks]
        owner, blocks = owner[filled], blocks[filled]
        first, after, level = start[blocks], end[blocks], tier[blocks]
        new = np.ones(len(blocks), bool)
        new[1:] = (owner[1:] != but_last(owner)) | (first[1:] != but_last(after)) | (level[1:] != but_last(level))
        heads = np.flatnonzero(new)
        tails = np.append(heads[1:], len(blocks)) - 1
        runs = np.stack([first[heads], after[tails], level[heads]], axis=1) if len(heads) else np.zeros((0, 3))
        bounds = np.searchsorted(owner[heads], np.arange(2 * self.n_groups + 1))
        self.image.runs = <const policy_run *>self.hold(runs, np.uint32)
        self.image.run_offset = <const uint32_t *>self.hold(bounds, np.uint32)
        self.image.group_node = <const uint32_t *>self.hold(node, np.uint32)
        return 0

    cdef int keep_addresses(self, int family, entries, ranges) except -1:
        cdef const uint64_t[:, ::1] addresses
        cdef const uint32_t[::1] labels, groups, owners
        cdef uint32_t capacity = 8
        cdef Py_ssize_t i
        cdef policy_entry *table
        keys, labels_, groups_, owners_ = entries
        start, classes = ranges
        pairs = address_pairs(family, keys)
        labels, groups, owners = (np.ascontiguousarray(a, np.uint32) for a in (labels_, groups_, owners_))
        classes = np.asarray(classes, np.uint32)
        require(len(pairs) == len(labels) == len(groups) == len(owners), "entries of unlike lengths")
        require(len(start) == len(classes) > 0, "ranges of unlike lengths")
        require((np.asarray(labels) < self.n_classes).all() and (classes < self.n_classes).all(), "a class")
        known = np.asarray(groups)
        require(((known < self.n_groups) | (known == <uint32_t>NO_GROUP)).all(), "a group")
        while capacity < 2 * len(pairs):
            capacity *= 2
        table = <policy_entry *>calloc(capacity, sizeof(policy_entry))
        if table == NULL:
            raise MemoryError(f"no memory for {len(pairs)} endpoints")
        self.image.entries[0 if family == 4 else 1] = table
        self.image.entry_mask[0 if family == 4 else 1] = capacity - 1
        addresses = pairs
        for i in range(len(pairs)):
            put_entry(table, capacity - 1, &self.image, addresses[i, 0], addresses[i, 1], labels[i], groups[i], owners[i])
        self.keep_ranges(family, address_pairs(family, start), classes)
        return 0

    def keep_ranges(self, int family, pairs, classes):
        require(not pairs[0].any(), "the first range starts at address 0")
        if family == 6:
            require(len({bytes(pair) for pair in pairs}) == len(pairs), "two ranges from one start")
            self.image.starts6 = <const uint64_t *>self.hold(pairs, np.uint64)
            self.image.n_starts6 = <uint32_t>len(pairs)
            self.image.range_class6 = <const uint32_t *>self.hold(classes, np.uint32)
            return
        level = pairs[:, 1].astype(np.uint32)
        require((level[1:] > but_last(level)).all(), "ranges in order")
        self.image.n_starts4 = <uint32_t>len(level)
        self.image.range_class4 = <const uint32_t *>self.hold(classes, np.uint32)
        self.image.levels4 = 0
        while True:
            padded = np.full((len(level) + 15) // 16 * 16, 0xFFFFFFFF, np.uint32)
            padded[: len(level)] = level
            self.image.starts4[self.image.levels4] = <const uint32_t *>self.hold(padded, np.uint32)
            self.image.levels4 += 1
            if len(level) <= 16:
                return
            level = level[::16]

    def judges_anything(self, rows) -> bool:
        """Whether any endpoint has a row other than "allow" before the one that allows everything."""
        free_rows = (rows[:, ROW_SOURCE] == ANY) & (rows[:, ROW_DESTINATION] == ANY) & (rows[:, ROW_FAMILY] == 3)
        free_rows &= (rows[:, ROW_LOW] == 0) & (rows[:, ROW_HIGH] == KEY_LAST) & (rows[:, ROW_ACTION] == ACTION_ALLOW)
        free_rows &= (rows[:, ROW_SOURCE_LOW] == 0) & (rows[:, ROW_SOURCE_HIGH] == 65535)
        cdef uint32_t which, i, at
        # From a row on: 0 go on to the next, 1 everything is allowed, 2 something else may come of it.
        verdicts = np.where(free_rows, 1, np.where(rows[:, ROW_ACTION] == ACTION_ALLOW, 0, 2))
        cdef const uint8_t[::1] ends = verdicts.astype(np.uint8)
        cdef const policy_entry *e
        for which in range(2):
            for i in range(self.image.entry_mask[which] + 1):
                e = &self.image.entries[which][i]
                if not e.used or e.group == NO_GROUP:
                    continue
                for at in range(2 * e.group, 2 * e.group + 2):
                    if self.judges(at, ends):
                        return True
        return False

    cdef bint judges(self, uint32_t at, const uint8_t[::1] ends) noexcept:
        """Whether a group does, in one direction."""
        cdef uint32_t i, row
        for i in range(self.image.run_offset[at], self.image.run_offset[at + 1]):
            for row in range(self.image.runs[i].start, self.image.runs[i].end):
                if ends[row]:
                    return ends[row] == 2
        return True


def address_pairs(int family, keys):
    """Addresses of a program's table as (upper, lower) halves."""
    if family == 4:
        low = np.asarray(keys, np.uint64)
        return np.ascontiguousarray(np.stack([np.zeros_like(low), low], axis=1))
    packed = np.ascontiguousarray(np.asarray(keys, "S16"))
    return np.frombuffer(packed.tobytes(), ">u8").reshape(-1, 2).astype(np.uint64)


cdef void put_entry(policy_entry *table, uint32_t mask, const policy_image *m, uint64_t high, uint64_t low, uint32_t label,
                    uint32_t group, uint32_t owner) noexcept:
    cdef uint64_t hash = (high ^ m.key[0]) * <uint64_t>0x9E3779B97F4A7C15
    cdef uint32_t at
    hash = ((hash ^ hash >> 32) ^ low ^ m.key[1]) * <uint64_t>0xD6E8FEB86659FD93
    hash = (hash ^ hash >> 32) * <uint64_t>0x9E3779B97F4A7C15
    at = <uint32_t>(hash >> 32) & mask
    while table[at].used:
        at = (at + 1) & mask
    table[at].high, table[at].low = high, low
    table[at].label, table[at].group, table[at].owner, table[at].used = label, group, owner, 1
