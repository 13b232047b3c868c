"""The flow table and the policy image at full speed, without ports: for benchmarks, races and floods.

Owns: the loops. Flow n has addresses and ports that n alone decides.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from fastpath.reason cimport REASON_FLOW_FULL, REASON_FLOW_QUOTA, REASON_NONE
from fastpath.stage.police cimport police, police_verdict
from fastpath.system cimport monotonic_ns
from fastpath.table.flow cimport (
    FLOW_ASSURED, FLOW_ESTABLISHED, FLOW_NONE, FLOW_REPLIED, FLOW_SYN_SENT, FlowTable, ORIGIN_EITHER,
    TICK_SHIFT, flow, flow_account, flow_at, flow_bank, flow_bank_of, flow_bucket, flow_count, flow_find, flow_hash,
    flow_insert, flow_key, flow_lock, flow_find_near, flow_guess, flow_prefetch, flow_release, flow_stripe, flow_table, flow_unlock,
)
from fastpath.table.policy cimport MEMO_SETS, PolicyImage, memo_entry, policy_memo, policy_view

cdef enum:
    AT_ONCE = 32


cdef inline uint64_t scramble(uint64_t x) noexcept nogil:
    x = (x ^ x >> 30) * <uint64_t>0xbf58476d1ce4e5b9
    x = (x ^ x >> 27) * <uint64_t>0x94d049bb133111eb
    return x ^ x >> 31


cdef inline void key_put(flow_key *k, uint64_t n, uint32_t family) noexcept nogil:
    """Flow `n`: of one of 16 million sources, as packets of its opener have it."""
    cdef uint64_t a = scramble(n), b = scramble(n + <uint64_t>0x9E3779B97F4A7C15)
    memset(k, 0, sizeof(flow_key))
    k.family, k.protocol, k.origin = <uint8_t>family, 6, ORIGIN_EITHER
    k.low[1], k.high[1] = 0x0A000000 | (a & 0xFFFFFF), <uint64_t>0xAC100000 | (b & 0xFFFF)
    if family == 6:
        k.low[0], k.high[0] = <uint64_t>0xfd00 << 48, <uint64_t>0xfd01 << 48
    k.low_port, k.high_port = <uint16_t>(a >> 32 | 1), <uint16_t>(b >> 32 | 1)


cdef class FlowProbe:
    """A table and one worker's account. Not for two threads at once: make one probe a thread over one table."""

    cdef readonly FlowTable table
    cdef flow_account account
    cdef policy_memo memo

    def __cinit__(self, FlowTable table):
        self.table = table
        self.memo.entries = <memo_entry *>calloc(2 * MEMO_SETS, sizeof(memo_entry))

    def __dealloc__(self):
        free(self.memo.entries)

    @property
    def counts(self):
        return {"opened": self.account.opened, "expired": self.account.expired, "evicted": self.account.evicted,
                "hits": self.memo.hits, "scans": self.memo.scans}

    def fill(self, uint64_t first, uint64_t n, uint32_t family=4, bint established=True):
        """Insert flows; how many were refused for room and for quota."""
        cdef flow_table *t = self.table.table
        cdef flow_bank *b = flow_bank_of(t, family)
        cdef flow_key k
        cdef uint64_t i, full = 0, quota = 0
        cdef uint32_t tick = <uint32_t>(monotonic_ns() >> TICK_SHIFT)
        cdef int reason
        with nogil:
            for i in range(first, first + n):
                key_put(&k, i, family)
                reason = self.open_one(t, b, &k, tick, established)
                full += reason == REASON_FLOW_FULL
                quota += reason == REASON_FLOW_QUOTA
        return full, quota

    cdef int open_one(self, flow_table *t, flow_bank *b, flow_key *k, uint32_t tick, bint established) noexcept nogil:
        cdef uint32_t *held
        cdef uint32_t slot = 0
        cdef flow *f
        cdef int reason = REASON_NONE
        flow_hash(t, k)
        held = flow_stripe(t, flow_bucket(b, k.hash))
        flow_lock(held)
        if flow_find(t, b, k) == FLOW_NONE:
            reason = flow_insert(t, b, k, tick, &self.account, &slot)
            if reason == REASON_NONE:
                f = flow_at(b, slot)
                f.protocol, f.seen = k.protocol, tick
                f.state = FLOW_ESTABLISHED if established else FLOW_SYN_SENT
                f.flags = FLOW_REPLIED | FLOW_ASSURED if established else 0
        flow_unlock(held)
        return reason

    def present(self, uint64_t first, uint64_t n, uint32_t family=4):
        """How many of flows first .. first + n - 1 are there."""
        cdef flow_table *t = self.table.table
        cdef flow_key k
        cdef uint64_t i, found = 0
        with nogil:
            for i in range(first, first + n):
                key_put(&k, i, family)
                flow_hash(t, &k)
                found += flow_find(t, flow_bank_of(t, family), &k) != FLOW_NONE
        return found

    def lookups(self, uint64_t n, uint64_t flows, uint32_t family=4, bint staged=True):
        """Look `n` flows up, in an order like none, and count a packet in each; ns a lookup. Keys are made beforehand."""
        cdef flow_table *t = self.table.table
        cdef flow_bank *b = flow_bank_of(t, family)
        cdef flow_key *keys = <flow_key *>calloc(n, sizeof(flow_key))
        cdef uint64_t i, began, found = 0, tick = monotonic_ns() >> TICK_SHIFT
        cdef uint32_t j, m
        cdef uint32_t guesses[AT_ONCE]
        if keys == NULL:
            raise MemoryError
        for i in range(n):
            key_put(&keys[i], scramble(i + 77) % flows, family)
        with nogil:
            began = monotonic_ns()
            i = 0
            while i < n:
                m = <uint32_t>(AT_ONCE if n - i >= AT_ONCE else n - i)
                for j in range(m):
                    flow_hash(t, &keys[i + j])
                    if staged:
                        flow_prefetch(t, &keys[i + j])
                if staged:
                    for j in range(m):
                        guesses[j] = flow_guess(t, &keys[i + j])
                for j in range(m):
                    found += self.touch(t, b, &keys[i + j], <uint32_t>tick, guesses[j] if staged else <uint32_t>FLOW_NONE)
                i += m
            began = monotonic_ns() - began
        free(keys)
        if found != n:
            raise RuntimeError(f"{n - found} of {n} flows were not there")
        return <double>began / n

    cdef bint touch(self, flow_table *t, flow_bank *b, const flow_key *k, uint32_t tick,
                    uint32_t guess) noexcept nogil:
        cdef uint32_t *held = NULL
        cdef uint32_t slot
        cdef flow *f
        if t.shared:
            held = flow_stripe(t, flow_bucket(b, k.hash))
            flow_lock(held)
        slot = flow_find_near(t, b, k, guess)
        if slot != FLOW_NONE:
            f = flow_at(b, slot)
            f.seen = tick
            flow_count(f, &b.rests[slot], 0, 1, 64)
        if held != NULL:
            flow_unlock(held)
        return slot != FLOW_NONE

    def churn(self, uint64_t first, uint64_t n, uint32_t rounds):
        """Open, touch and release flows that other threads open, touch and release too. For ThreadSanitizer."""
        cdef flow_table *t = self.table.table
        cdef flow_bank *b = flow_bank_of(t, 4)
        cdef flow_key k
        cdef uint64_t i
        cdef uint32_t r, slot, tick = <uint32_t>(monotonic_ns() >> TICK_SHIFT)
        cdef uint32_t *held
        with nogil:
            for r in range(rounds):
                for i in range(first, first + n):
                    key_put(&k, i, 4)
                    self.open_one(t, b, &k, tick, False)
                    self.touch(t, b, &k, tick, FLOW_NONE)
                    if (i + r) % 3 == 0:
                        held = flow_stripe(t, flow_bucket(b, k.hash))
                        flow_lock(held)
                        slot = flow_find(t, b, &k)
                        if slot != FLOW_NONE:
                            flow_release(t, b, slot, &self.account)
                        flow_unlock(held)

    def new_flows(self, PolicyImage image, const uint32_t[:, ::1] questions, uint64_t first, bint insert=True):
        """Judge and open one flow a row of (source, destination, protocol, destination port): ns each, and how many were let in."""
        cdef flow_table *t = self.table.table
        cdef flow_bank *b = flow_bank_of(t, 4)
        cdef policy_view *view = <policy_view *>calloc(1, sizeof(policy_view) + 24 * <size_t>image.image.n_words)
        cdef police_verdict verdict
        cdef flow_key k
        cdef uint64_t i, n = questions.shape[0], began, allowed = 0
        cdef uint32_t tick = <uint32_t>(monotonic_ns() >> TICK_SHIFT), slot = 0, source, destination
        view.image, view.generation = &image.image, 1
        self.memo.bitmaps = &view.scratch[0]
        with nogil:
            began = monotonic_ns()
            for i in range(n):
                memset(&k, 0, sizeof(flow_key))
                source, destination = questions[i, 0], questions[i, 1]
                k.family, k.protocol, k.origin = 4, <uint8_t>questions[i, 2], ORIGIN_EITHER
                k.from_high = source > destination
                k.low[1], k.high[1] = (destination, source) if k.from_high else (source, destination)
                k.low_port = <uint16_t>questions[i, 3] if k.from_high else <uint16_t>(first + i)
                k.high_port = <uint16_t>(first + i) if k.from_high else <uint16_t>questions[i, 3]
                flow_hash(t, &k)
                if insert and flow_find(t, b, &k) != FLOW_NONE:
                    continue
                police(view, &self.memo, &self.account, &k, False, k.protocol << 16 | questions[i, 3], &verdict)
                if verdict.allowed:
                    allowed += 1
                if insert:
                    flow_insert(t, b, &k, tick, &self.account, &slot)
            began = monotonic_ns() - began
        free(view)
        return <double>began / n, allowed
