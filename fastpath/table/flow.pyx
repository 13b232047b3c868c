"""The flow table's memory, and what the control plane may do with it. See flow.pxd.

Owns: allocation; listing, forgetting, and handing flows over to another process.
Never: runs on a packet's way.
Invariant: a bucket is read and changed only with its lock held, one bucket at
a time, so that a worker waits for a microsecond at most.
"""

import os
import struct
from ipaddress import ip_network

import numpy as np

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from fastpath.system cimport monotonic_ns
from fastpath.wire.octets cimport store32, store64

from fastpath.values import FLOW_STATES as STATE_NAMES, FlowSettings

cdef extern from "<sys/mman.h>" nogil:
    int madvise(void *address, size_t length, int advice)
    enum: MADV_HUGEPAGE

cdef enum:
    HUGE_PAGE = 0x200000

CAPACITY_MAX = 1 << 24
MAGIC = b"towpath flows 1\n"
ADDRESS = ("u1", (16,))
LISTING = np.dtype(
    [
        ("packets", "u8", (2,)), ("bytes", "u8", (2,)), ("time_ns", "u8"), ("age", "f8"), ("idle", "f8"),
        ("expires", "f8"), ("rules", "u4", (2,)), ("generation", "u4"), ("source_port", "u2"),
        ("destination_port", "u2"), ("source", *ADDRESS), ("destination", *ADDRESS), ("family", "u1"),
        ("protocol", "u1"), ("state", "u1"), ("kind", "u1"), ("assured", "?"), ("replied", "?"), ("unused", "u1", (2,)),
    ]
)  # fmt: skip
if LISTING.itemsize != sizeof(flow_listing):
    raise ImportError("flow_listing and its dtype disagree")

# How a flow travels to the next process: its key, its record, what it carried, and ages instead of moments.
cdef struct flow_saved:
    uint64_t low[2]
    uint64_t high[2]
    uint64_t packets[2]
    uint64_t bytes[2]
    uint32_t rules[2]
    uint32_t age               # ticks
    uint32_t idle              # ticks
    uint32_t next[2]
    uint32_t window[2]
    uint16_t low_port
    uint16_t high_port
    uint8_t family
    uint8_t protocol
    uint8_t flags
    uint8_t scales
    uint8_t state
    uint8_t zero[7]


# The addresses of one prefix.
cdef struct address_span:
    uint64_t address[2]
    uint64_t mask[2]


cdef uint32_t tick_now() noexcept nogil:
    return <uint32_t>(monotonic_ns() >> TICK_SHIFT)


cdef double seconds(int64_t ticks) noexcept nogil:
    return <double>ticks * (1 << TICK_SHIFT) / 1e9


cdef void put_address(uint8_t *at, const uint64_t *address, uint32_t family) noexcept nogil:
    if family == 4:
        memset(at, 0, 10)
        at[10] = at[11] = 0xFF
        store32(at + 12, <uint32_t>address[1])
    else:
        store64(at, address[0])
        store64(at + 8, address[1])


cdef void *zeroed(size_t size, list owned) except NULL:
    """Zero pages that cost nothing until they are touched; large ones, as each lookup goes to another."""
    cdef size_t unit = HUGE_PAGE if size >= 2 * HUGE_PAGE else 64
    cdef void *memory = calloc(1, size + unit)
    cdef void *aligned
    if memory == NULL:
        raise MemoryError(f"no memory for a flow table of {size} bytes")
    owned.append(<size_t>memory)
    aligned = <void *>((<size_t>memory + unit - 1) & ~(unit - 1))
    if unit == HUGE_PAGE:
        madvise(aligned, size & ~(unit - 1), MADV_HUGEPAGE)    # a wish: small pages do as well, and slower
    return aligned


cdef class FlowTable:
    """See flow.pyi."""

    def __cinit__(self, settings=None, *, int workers=1, bytes hash_key=None):
        self.owned = []
        self.settings = FlowSettings() if settings is None else settings
        self.n_workers = workers
        if not FLOW_WAYS <= self.settings.capacity <= CAPACITY_MAX:
            raise ValueError(f"flow capacity must be {FLOW_WAYS}..{CAPACITY_MAX}, not {self.settings.capacity}")
        key = os.urandom(16) if hash_key is None else (hash_key * 2)[:16]
        self.table = <flow_table *>zeroed(sizeof(flow_table), self.owned)
        self.table.key[0], self.table.key[1] = int.from_bytes(key[:8]), int.from_bytes(key[8:])
        self.table.sources = <uint32_t *>zeroed(SOURCES * sizeof(uint32_t), self.owned)
        self.make_bank(&self.table.banks[0], 4, self.settings.capacity, sizeof(flow4))
        self.make_bank(&self.table.banks[1], 6, self.settings.capacity, sizeof(flow6))
        self.table.shared = workers > 1
        if workers > 1:
            self.table.stripe_bits = min(
                STRIPES_MAX_BITS, max(int(self.table.banks[0].mask).bit_length() - STRIPE_BUCKETS_BITS, 0)
            )
        self.table.locks = <flow_lock_line *>zeroed(sizeof(flow_lock_line) << self.table.stripe_bits, self.owned)
        self.table.quota = self.settings.quota or max(self.settings.capacity // 4, 1)
        self.table.pickup = self.settings.pickup
        self.table.revalidate = self.settings.on_policy_change == "revalidate"
        for i, name in enumerate(STATE_NAMES):
            self.table.timeouts[<uint32_t>i] = max(1, -(-int(self.settings.timeouts[name] * 1e9) >> TICK_SHIFT))
        self.account.now_ns = monotonic_ns()

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(RULES_CHUNKS):
            free(self.account.rules[i])
        for memory in self.owned or ():
            free(<void *><size_t>memory)

    cdef int make_bank(self, flow_bank *bank, uint32_t family, uint32_t capacity, uint32_t stride) except -1:
        cdef uint32_t buckets = 1
        while buckets * FLOW_WAYS < capacity:
            buckets *= 2
        bank.mask, bank.stride, bank.family = buckets - 1, stride, family
        bank.tags = <uint16_t *>zeroed(<size_t>buckets * FLOW_WAYS * sizeof(uint16_t), self.owned)
        bank.records = <uint8_t *>zeroed(<size_t>buckets * FLOW_WAYS * stride, self.owned)
        bank.rests = <flow_rest *>zeroed(<size_t>buckets * FLOW_WAYS * sizeof(flow_rest), self.owned)
        return 0

    def __len__(self):
        return self.table.banks[0].live + self.table.banks[1].live

    @property
    def capacity(self):
        """Flows of each family there is room for."""
        return (self.table.banks[0].mask + 1) * FLOW_WAYS

    # -- listing ---------------------------------------------------------
    def listing(self, uint64_t cursor=0, uint32_t limit=4096):
        cdef uint32_t n = 0, tick = tick_now()
        found = np.zeros(limit + FLOW_WAYS, LISTING)
        cdef uint8_t[::1] view = found.view(np.uint8)
        with nogil:
            while n < limit and (cursor >> 32) < 2:
                n += list_bucket(self.table, &self.table.banks[cursor >> 32], <uint32_t>cursor, tick,
                                 <flow_listing *>&view[0] + n)
                cursor = cursor + 1 if <uint32_t>cursor < self.table.banks[cursor >> 32].mask \
                    else ((cursor >> 32) + 1) << 32
        return found[:n], None if cursor >> 32 == 2 else cursor

    def live_rules(self, uint32_t count):
        """(packets, bytes) that the flows in the table have carried and no counter holds yet, by number of the rule's counter."""
        packets, octets = np.zeros(count, np.uint64), np.zeros(count, np.uint64)
        cdef uint64_t[::1] packets_view = packets, octets_view = octets
        cdef uint32_t which, bucket
        if count:
            with nogil:
                for which in range(2):
                    for bucket in range(self.table.banks[which].mask + 1):
                        add_bucket(self.table, &self.table.banks[which], bucket, count, &packets_view[0], &octets_view[0])
        return packets, octets

    def has(self, source, destination, uint32_t protocol, uint32_t source_port, uint32_t destination_port) -> bool:
        """Whether a flow exists, in either direction. Of ICMP queries `source_port` is the identifier."""
        cdef flow_key k
        cdef flow_bank *b
        cdef uint32_t *held
        cdef bint found
        low, high = sorted((source, destination))
        memset(&k, 0, sizeof(flow_key))
        k.low[0], k.low[1] = int(low) >> 64, int(low) & 0xFFFFFFFFFFFFFFFF
        k.high[0], k.high[1] = int(high) >> 64, int(high) & 0xFFFFFFFFFFFFFFFF
        k.family, k.protocol, k.from_high = source.version, <uint8_t>protocol, source == high
        k.low_port, k.high_port = (destination_port, source_port) if source == high else (source_port, destination_port)
        k.origin = ORIGIN_EITHER
        if protocol == (1 if source.version == 4 else 58):
            k.low_port = k.high_port = source_port
            k.origin = k.from_high
        flow_hash(self.table, &k)
        b = flow_bank_of(self.table, k.family)
        held = flow_stripe(self.table, flow_bucket(b, k.hash))
        flow_lock(held)
        found = flow_find(self.table, b, &k) != FLOW_NONE
        flow_unlock(held)
        return found

    # -- forgetting --------------------------------------------------------
    def forget(self, whom) -> int:
        """Forget every flow of an address, or of all in a prefix; how many. For a pod that is gone, before its address
        is given again."""
        prefix = ip_network(whom)
        cdef address_span wanted
        cdef uint32_t bucket, found = 0
        cdef flow_bank *bank = &self.table.banks[0 if prefix.version == 4 else 1]
        address, mask = int(prefix.network_address), int(prefix.netmask)
        wanted.address[0], wanted.address[1] = address >> 64, address & 0xFFFFFFFFFFFFFFFF
        wanted.mask[0], wanted.mask[1] = mask >> 64, mask & 0xFFFFFFFFFFFFFFFF
        with nogil:
            for bucket in range(bank.mask + 1):
                found += forget_bucket(self.table, bank, bucket, &wanted, &self.account)
        return found

    # -- handing over --------------------------------------------------------
    def export(self) -> bytes:
        cdef uint32_t which, bucket, n, tick = tick_now()
        cdef flow_saved[FLOW_WAYS] rows
        pieces = []
        for which in range(2):
            for bucket in range(self.table.banks[which].mask + 1):
                n = save_bucket(self.table, &self.table.banks[which], bucket, tick, rows)
                if n:
                    pieces.append((<char *>&rows[0])[: n * sizeof(flow_saved)])
        body = b"".join(pieces)
        return MAGIC + struct.pack("=IQ", sizeof(flow_saved), len(body) // sizeof(flow_saved)) + body

    def load(self, bytes data) -> int:
        """Take over what `export` gave; how many flows there was room for. ValueError for anything else."""
        cdef size_t head = len(MAGIC) + 12, i, n
        cdef const char *rows = data
        cdef uint32_t taken = 0, tick = tick_now()
        if data[: len(MAGIC)] != MAGIC or len(data) < head:
            raise ValueError("not an export of flows, or one of another version")
        size, count = struct.unpack_from("=IQ", data, len(MAGIC))
        if size != sizeof(flow_saved) or len(data) - head != size * count:
            raise ValueError(f"an export of {count} flows is cut, or of another version")
        n = count
        rows += head
        for i in range(n):
            if load_flow(self.table, rows + i * sizeof(flow_saved), tick, &self.account):
                taken += 1
        return taken


cdef bint seems_empty(const flow_bank *b, uint32_t bucket) noexcept nogil:
    """A glance without the lock: a flow that comes this moment is not seen."""
    return tags_equal(b.tags + <size_t>bucket * FLOW_WAYS, 0) == 0xFF


cdef uint32_t list_bucket(flow_table *t, flow_bank *b, uint32_t bucket, uint32_t tick, flow_listing *rows) noexcept nogil:
    cdef uint32_t *held = flow_stripe(t, bucket)
    cdef uint32_t slot, n = 0
    if seems_empty(b, bucket):
        return 0
    flow_lock(held)
    for slot in range(bucket * FLOW_WAYS, (bucket + 1) * FLOW_WAYS):
        if b.tags[slot] and not flow_expired(t, flow_at(b, slot), tick):
            list_flow(t, b, slot, tick, &rows[n])
            n += 1
    flow_unlock(held)
    return n


cdef void list_flow(flow_table *t, flow_bank *b, uint32_t slot, uint32_t tick, flow_listing *row) noexcept nogil:
    cdef const flow *f = flow_at(b, slot)
    cdef const flow_rest *rest = &b.rests[slot]
    cdef flow_key k
    cdef uint32_t state = f.state, i
    flow_key_at(b, slot, &k)
    if state == FLOW_ESTABLISHED and not f.flags & FLOW_REPLIED:
        state = FLOW_UNACKNOWLEDGED
    put_address(row.source, &k.high[0] if k.from_high else &k.low[0], k.family)
    put_address(row.destination, &k.low[0] if k.from_high else &k.high[0], k.family)
    row.source_port = k.high_port if k.from_high else k.low_port
    row.destination_port = k.low_port if k.from_high else k.high_port
    for i in range(2):
        row.packets[i] = rest.packets[i] + f.packets[i]
        row.bytes[i] = rest.bytes[i] + f.bytes[i]
        row.rules[i] = rest.rules[i]
    row.age = seconds(<int32_t>(tick - rest.created))
    row.idle = seconds(<int32_t>(tick - f.seen))
    row.expires = seconds(<int64_t>t.timeouts[state]) - row.idle
    row.generation, row.family, row.protocol, row.state = f.policy, k.family, f.protocol, f.state
    row.kind = 0 if f.flags & FLOW_DENIED else 1
    row.assured = f.flags & FLOW_ASSURED != 0
    row.replied = f.flags & FLOW_REPLIED != 0


cdef void add_bucket(flow_table *t, flow_bank *b, uint32_t bucket, uint32_t count, uint64_t *packets,
                     uint64_t *octets) noexcept nogil:
    """Add what a bucket's flows carried to the sums of their rules, of which there are `count`."""
    cdef uint32_t *held = flow_stripe(t, bucket)
    cdef uint32_t slot, i, rule
    cdef uint64_t carried, size
    flow_lock(held)
    for slot in range(bucket * FLOW_WAYS, (bucket + 1) * FLOW_WAYS):
        if b.tags[slot] == 0:
            continue
        carried = flow_uncredited(flow_at(b, slot), &b.rests[slot], &size)
        for i in range(2):
            rule = b.rests[slot].rules[i]
            if rule < count:
                packets[rule] += carried
                octets[rule] += size
    flow_unlock(held)


cdef bint in_span(const address_span *span, const uint64_t *address) noexcept nogil:
    return address[0] & span.mask[0] == span.address[0] and address[1] & span.mask[1] == span.address[1]


cdef uint32_t forget_bucket(flow_table *t, flow_bank *b, uint32_t bucket, const address_span *wanted,
                            flow_account *a) noexcept nogil:
    cdef uint32_t *held = flow_stripe(t, bucket)
    cdef uint32_t slot, found = 0
    cdef flow_key k
    flow_lock(held)
    for slot in range(bucket * FLOW_WAYS, (bucket + 1) * FLOW_WAYS):
        if not b.tags[slot]:
            continue
        flow_key_at(b, slot, &k)
        if in_span(wanted, k.low) or in_span(wanted, k.high):
            flow_release(t, b, slot, a)
            found += 1
    flow_unlock(held)
    return found


cdef uint32_t save_bucket(flow_table *t, flow_bank *b, uint32_t bucket, uint32_t tick, flow_saved *rows) noexcept nogil:
    cdef uint32_t *held = flow_stripe(t, bucket)
    cdef uint32_t slot, n = 0
    flow_lock(held)
    for slot in range(bucket * FLOW_WAYS, (bucket + 1) * FLOW_WAYS):
        if b.tags[slot] and not flow_expired(t, flow_at(b, slot), tick):
            save_flow(b, slot, tick, &rows[n])
            n += 1
    flow_unlock(held)
    return n


cdef void save_flow(flow_bank *b, uint32_t slot, uint32_t tick, flow_saved *row) noexcept nogil:
    cdef const flow *f = flow_at(b, slot)
    cdef const flow_rest *rest = &b.rests[slot]
    cdef flow_key k
    cdef uint32_t i
    flow_key_at(b, slot, &k)
    memset(row, 0, sizeof(flow_saved))
    for i in range(2):
        row.low[i], row.high[i] = k.low[i], k.high[i]
        row.packets[i] = rest.packets[i] + f.packets[i]
        row.bytes[i] = rest.bytes[i] + f.bytes[i]
        row.rules[i] = rest.rules[i]
        row.next[i], row.window[i] = f.next[i], f.window[i]
    row.low_port, row.high_port, row.family, row.protocol = k.low_port, k.high_port, k.family, f.protocol
    row.flags, row.scales, row.state = f.flags, f.scales, f.state
    row.age, row.idle = tick - rest.created, tick - f.seen


cdef bint load_flow(flow_table *t, const char *data, uint32_t tick, flow_account *a) noexcept nogil:
    """One saved flow, checked: nothing of it may lead outside of the table or name a state that is none."""
    cdef flow_saved row
    cdef flow_key k
    cdef flow_bank *b
    cdef flow *f
    cdef uint32_t *held
    cdef uint32_t slot = 0, i
    cdef bint loaded
    memcpy(&row, data, sizeof(flow_saved))
    if (row.family != 4 and row.family != 6) or row.state >= FLOW_UNACKNOWLEDGED or row.idle >> 31:
        return False
    if row.family == 4 and (row.low[0] or row.high[0] or row.low[1] >> 32 or row.high[1] >> 32):
        return False
    if row.low[0] > row.high[0] or (row.low[0] == row.high[0] and row.low[1] >= row.high[1]):
        return False
    memset(&k, 0, sizeof(flow_key))
    for i in range(2):
        k.low[i], k.high[i] = row.low[i], row.high[i]
    k.low_port, k.high_port, k.family, k.protocol = row.low_port, row.high_port, row.family, row.protocol
    k.from_high = row.flags & FLOW_ORIGIN_HIGH
    k.origin = k.from_high if row.state == FLOW_ICMP else <uint8_t>ORIGIN_EITHER
    flow_hash(t, &k)
    b = flow_bank_of(t, k.family)
    held = flow_stripe(t, flow_bucket(b, k.hash))
    flow_lock(held)
    loaded = flow_find(t, b, &k) == FLOW_NONE and flow_insert(t, b, &k, tick, a, &slot) == REASON_NONE
    if loaded:
        f = flow_at(b, slot)
        f.protocol, f.state, f.scales = row.protocol, row.state, row.scales
        f.flags = row.flags & <uint8_t>~(FLOW_TUNNEL_ORIGINAL | FLOW_TUNNEL_REPLY)
        f.seen = tick - row.idle
        b.rests[slot].created = tick - row.age
        for i in range(2):
            f.next[i], f.window[i] = row.next[i], row.window[i]
            b.rests[slot].packets[i], b.rests[slot].bytes[i] = row.packets[i], row.bytes[i]
            b.rests[slot].rules[i] = RULE_NONE     # counters have other numbers in another process
    flow_unlock(held)
    return loaded


# -- what workers tell -----------------------------------------------------------------

cdef object rule_rows(flow_account *a, uint32_t chunk):
    cdef const uint64_t *at = <const uint64_t *>a.rules[chunk]
    if at == NULL:
        return np.zeros((RULES_CHUNK, 3), np.uint64)
    return np.array(<const uint64_t[:RULES_CHUNK, :3]>at)


cdef object event_rows(flow_account *a):
    cdef uint64_t first = a.taken, end = atomic_load_acquire(&a.written), i
    cdef uint8_t[::1] view
    found = np.zeros(max(end - first, 1), LISTING)
    view = found.view(np.uint8)
    for i in range(first, end):
        list_event(&a.events[i & (EVENT_RING - 1)], <flow_listing *>&view[0] + (i - first))
    atomic_store_release(&a.taken, end)
    return found[: end - first]


cdef void list_event(const flow_event *e, flow_listing *row) noexcept nogil:
    cdef uint32_t i
    put_address(row.source, e.source, e.family)
    put_address(row.destination, e.destination, e.family)
    row.source_port, row.destination_port = e.source_port, e.destination_port
    for i in range(2):
        row.packets[i], row.bytes[i], row.rules[i] = e.packets[i], e.bytes[i], e.rules[i]
    row.time_ns, row.age = e.time_ns, seconds(e.lasted)
    row.family, row.protocol, row.state, row.kind = e.family, e.protocol, e.state, e.kind
