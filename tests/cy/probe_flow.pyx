"""The flow table and the policy image at full speed, without ports: for benchmarks, races and floods.

Owns: the loops. Flow n has addresses and ports that n alone decides.
"""

import numpy as np

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from fastpath.reason cimport REASON_FLOW_FULL, REASON_FLOW_QUOTA, REASON_NONE
from fastpath.simd.siphash cimport siphash_many
from fastpath.stage.police cimport police, police_verdict
from fastpath.system cimport monotonic_ns
from fastpath.table.flow cimport (
    FLOW_ASSURED, FLOW_AT_ONCE, FLOW_ESTABLISHED, FLOW_NONE, FLOW_REPLIED, FLOW_SYN_SENT, FLOW_WORDS, FlowTable, ORIGIN_EITHER,
    TICK_SHIFT, flow, flow_account, flow_at, flow_bank, flow_bank_of, flow_bucket, flow_count, flow_find, flow_hash,
    flow_expect, flow_find_near, flow_hold, flow_insert, flow_key, flow_lock, flow_release, flow_search, flow_stripe, flow_table, flow_unlock,
)
from fastpath.table.policy cimport MEMO_SETS, PolicyImage, memo_entry, policy_memo, policy_view

cdef enum:
    AT_ONCE = FLOW_AT_ONCE


# What an IPv4 packet says of its flow, as it would be read from its bytes; the upper halves of IPv6 are always the same here.
cdef struct tuple_:
    uint32_t low, high
    uint16_t low_port, high_port


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


def hashes(key, const uint64_t[:, ::1] inputs):
    """What the kernel in use makes of up to FLOW_AT_ONCE inputs, one a row."""
    cdef uint64_t[2] words
    cdef uint64_t laid[FLOW_WORDS * FLOW_AT_ONCE]
    cdef uint64_t found[FLOW_AT_ONCE]
    cdef Py_ssize_t i, w
    words[0], words[1] = key
    memset(laid, 0, sizeof(laid))
    for i in range(inputs.shape[0]):
        for w in range(inputs.shape[1]):
            laid[w * FLOW_AT_ONCE + i] = inputs[i, w]
    siphash_many()(words, laid, FLOW_AT_ONCE, inputs.shape[1], found, inputs.shape[0])
    return np.array(<uint64_t[:inputs.shape[0]]>found)


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

    def crowd(self, uint64_t first, uint64_t n, uint32_t bucket_bits):
        """Those of flows first .. first + n - 1 whose both buckets are the same two of 2^bucket_bits, under this table's key."""
        cdef flow_key k
        cdef uint64_t i, mask = (<uint64_t>1 << bucket_bits) - 1
        found = []
        for i in range(first, first + n):
            key_put(&k, i, 4)
            flow_hash(self.table.table, &k)
            if k.hash & mask == 0 and k.hash >> 48 & mask == 0:
                found.append(i)
        return found

    cdef uint32_t stands(self, uint64_t number, flow_key *k) except? FLOW_NONE:
        """The slot of an IPv4 flow, whose key goes into `k`. KeyError: it is not there."""
        cdef uint32_t slot
        key_put(k, number, 4)
        flow_hash(self.table.table, k)
        slot = flow_find(self.table.table, flow_bank_of(self.table.table, 4), k)
        if slot == FLOW_NONE:
            raise KeyError(number)
        return slot

    def finds_released(self, uint64_t number):
        """Release a flow and look where it stood."""
        cdef flow_table *t = self.table.table
        cdef flow_bank *b = flow_bank_of(t, 4)
        cdef flow_key k
        cdef uint32_t slot = self.stands(number, &k)
        flow_release(t, b, slot, &self.account)
        return flow_find_near(t, b, &k, slot) != FLOW_NONE

    def holds_elsewhere(self, uint64_t number, uint64_t other):
        """Lock the stripe of a flow that was last seen where `other` stands; whether the guess survives."""
        cdef flow_table *t = self.table.table
        cdef flow_bank *b = flow_bank_of(t, 4)
        cdef flow_key k
        cdef uint32_t guess = self.stands(other, &k)
        key_put(&k, number, 4)
        flow_unlock(flow_hold(t, b, &k, &guess))
        return guess != FLOW_NONE

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
        """Look `n` flows up, in an order like none, and count a packet in each; ns a lookup. What packets say is made beforehand."""
        cdef flow_key *keys = <flow_key *>calloc(AT_ONCE, sizeof(flow_key))
        cdef tuple_ *packets = <tuple_ *>calloc(n, sizeof(tuple_))
        cdef uint64_t i, began, found = 0, tick = monotonic_ns() >> TICK_SHIFT
        cdef uint32_t m
        if keys == NULL or packets == NULL:
            raise MemoryError
        for i in range(n):
            key_put(keys, scramble(i + 77) % flows, family)
            packets[i].low, packets[i].high = <uint32_t>keys.low[1], <uint32_t>keys.high[1]
            packets[i].low_port, packets[i].high_port = keys.low_port, keys.high_port
        with nogil:
            began = monotonic_ns()
            i = 0
            while i < n:
                m = <uint32_t>(AT_ONCE if n - i >= AT_ONCE else n - i)
                found += self.look(keys, packets + i, m, family, <uint32_t>tick, staged)
                i += m
            began = monotonic_ns() - began
        free(keys)
        free(packets)
        if found != n:
            raise RuntimeError(f"{n - found} of {n} flows were not there")
        return <double>began / n

    cdef uint32_t look(self, flow_key *keys, const tuple_ *packets, uint32_t n, uint32_t family, uint32_t tick,
                       bint staged) noexcept nogil:
        """As a worker does with a burst: keys, then all of them searched for, then each in its turn."""
        cdef flow_table *t = self.table.table
        cdef flow_bank *b = flow_bank_of(t, family)
        cdef uint32_t guesses[AT_ONCE]
        cdef uint8_t which[AT_ONCE]
        cdef uint32_t j, found = 0
        which[0] = 0   # n may be 0, for all that the compiler knows
        for j in range(n):
            keys[j].low[1], keys[j].high[1] = packets[j].low, packets[j].high
            keys[j].low_port, keys[j].high_port = packets[j].low_port, packets[j].high_port
            keys[j].low[0] = <uint64_t>0xfd00 << 48 if family == 6 else 0
            keys[j].high[0] = <uint64_t>0xfd01 << 48 if family == 6 else 0
            keys[j].family, keys[j].protocol, keys[j].origin = <uint8_t>family, 6, ORIGIN_EITHER
            keys[j].hash = 0
            which[j] = <uint8_t>j
            if not staged:
                flow_hash(t, &keys[j])
                found += self.touch(t, b, &keys[j], tick, FLOW_NONE)
        if staged:
            flow_search(t, keys, which, n, guesses)
            for j in range(n):
                found += self.touch(t, b, &keys[j], tick, guesses[j])
        return found

    cdef bint touch(self, flow_table *t, flow_bank *b, flow_key *k, uint32_t tick, uint32_t guess) noexcept nogil:
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
        cdef policy_view *view = <policy_view *>calloc(1, sizeof(policy_view) + 24 * <size_t>image.image.n_words)
        cdef flow_key *keys = <flow_key *>calloc(AT_ONCE, sizeof(flow_key))
        cdef uint64_t i = 0, n = questions.shape[0], began, allowed = 0
        cdef uint32_t m, tick = <uint32_t>(monotonic_ns() >> TICK_SHIFT)
        if view == NULL or keys == NULL:
            raise MemoryError
        view.image, view.generation = &image.image, 1
        self.memo.bitmaps = &view.scratch[0]
        with nogil:
            began = monotonic_ns()
            while i < n:
                m = <uint32_t>(AT_ONCE if n - i >= AT_ONCE else n - i)
                allowed += self.open_many(view, keys, &questions[i, 0], m, first + i, tick, insert)
                i += m
            began = monotonic_ns() - began
        free(keys)
        free(view)
        return <double>began / n, allowed

    cdef uint32_t open_many(self, const policy_view *view, flow_key *keys, const uint32_t *questions, uint32_t n,
                            uint64_t first, uint32_t tick, bint insert) noexcept nogil:
        """As a worker does with a burst of unknown flows."""
        cdef flow_table *t = self.table.table
        cdef flow_bank *b = flow_bank_of(t, 4)
        cdef police_verdict verdict
        cdef uint32_t guesses[AT_ONCE]
        cdef uint8_t which[AT_ONCE]
        cdef uint32_t i, slot = 0, allowed = 0
        cdef flow_key *k
        which[0] = 0   # as in `look`
        for i in range(n):
            question_key(&keys[i], questions + 4 * <size_t>i, <uint16_t>(first + i))
            which[i] = <uint8_t>i
        flow_search(t, keys, which, n, guesses)
        if insert:
            flow_expect(t, keys, which, n, guesses)
        for i in range(n):
            k = &keys[i]
            if insert and flow_find_near(t, b, k, guesses[i]) != FLOW_NONE:
                continue
            police(view, &self.memo, &self.account, k, False, k.protocol << 16 | questions[4 * <size_t>i + 3], &verdict)
            allowed += verdict.allowed
            if insert:
                flow_insert(t, b, k, tick, &self.account, &slot)
        return allowed


cdef inline void question_key(flow_key *k, const uint32_t *question, uint16_t port) noexcept nogil:
    """The key of a packet with source, destination, protocol and destination port of the question, from `port`."""
    cdef uint32_t source = question[0], destination = question[1]
    k.family, k.protocol, k.origin, k.hash, k.originator = 4, <uint8_t>question[2], ORIGIN_EITHER, 0, 0
    k.from_high = source > destination
    k.low[1], k.high[1] = (destination, source) if k.from_high else (source, destination)
    k.low_port = <uint16_t>question[3] if k.from_high else port
    k.high_port = port if k.from_high else <uint16_t>question[3]
