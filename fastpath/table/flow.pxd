# The flow table: who talks to whom, since when, and what was decided about it.
#
# Owns: the records, where a flow may stand, who may be evicted for whom, and
# the locks of a table that several workers share.
# Never: reads a packet (stage/track does), or judges (stage/police does).
# Invariants:
#   * A flow stands in one of two buckets of eight, both in the same stripe, so
#     that one lock covers every place it could be in.
#   * Both directions of a flow have one key: the lower address comes first.
#   * An established flow goes by its own timeout or with its pod, never for another flow.
#   * Memory is what was allocated at the start; nothing grows with traffic.
#   * A record that is free has no key that a packet could have.
#
# Time is in ticks of 2^27 ns (0.13 s), monotonic: 32 bits last 18 years.

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset
from posix.unistd cimport usleep
from fastpath.atomic cimport (
    atomic_add32_relaxed, atomic_exchange32_acquire, atomic_load32_relaxed, atomic_load_acquire, atomic_pause,
    atomic_store32_relaxed, atomic_store32_release, atomic_store_release,
)
from fastpath.reason cimport REASON_FLOW_FULL, REASON_FLOW_QUOTA, REASON_NONE
from fastpath.simd.siphash cimport siphash_many, siphash_words
from fastpath.simd.tags cimport bits_count8, bits_first, prefetch, tags_equal

cdef enum:
    FLOW_WAYS = 8
    FLOW_NEAR = 5              # flows that a bucket takes before the other one is looked at
    FLOW_AT_ONCE = 32          # flows looked up together
    FLOW_WORDS = 5             # of the longest key, as it is hashed
    FLOW_HASHED = 40           # this bit is set in every hash; no bucket, tag or counter is chosen by it
    FLOW_NONE = 0xFFFFFFFF     # no slot
    RULE_NONE = 0xFFFFFFFF     # no rule decided: nobody is judged there
    TICK_SHIFT = 27            # ns to ticks
    STRIPES_MAX_BITS = 10
    STRIPE_BUCKETS_BITS = 5    # buckets of a stripe, at least: among fewer, two choices are none
    SOURCES = 65536            # counters of flows by hashed originator
    SPINS = 4096               # then the holder of a lock is presumed descheduled
    FOLD_AT = 0x80000000       # 32-bit counters of a record move on to the wide ones

cdef enum flow_state:
    FLOW_SYN_SENT = 0
    FLOW_SYN_RECV
    FLOW_ESTABLISHED
    FLOW_FIN_WAIT
    FLOW_CLOSE_WAIT
    FLOW_LAST_ACK
    FLOW_TIME_WAIT
    FLOW_CLOSE
    FLOW_UDP
    FLOW_UDP_STREAM
    FLOW_ICMP
    FLOW_COOKIE_WAIT
    FLOW_COOKIE_ECHOED
    FLOW_SCTP_ESTABLISHED
    FLOW_SHUTDOWN
    FLOW_SCTP_CLOSED
    FLOW_GENERIC
    FLOW_UNACKNOWLEDGED        # no state of a record: the timeout of ESTABLISHED before any reply
    FLOW_STATES

cdef enum:                     # flow.flags
    FLOW_ORIGIN_HIGH = 1       # the higher address opened it
    FLOW_REPLIED = 2
    FLOW_ASSURED = 4           # established: may not be evicted
    FLOW_DENIED = 8            # by a later policy: both directions are dropped until it expires
    FLOW_FIN_ORIGINAL = 16
    FLOW_FIN_REPLY = 32
    FLOW_TUNNEL_ORIGINAL = 64  # this direction's cached adjacency is for packets out of a tunnel
    FLOW_TUNNEL_REPLY = 128

cdef enum:                     # flow_key.origin
    ORIGIN_LOW = 0             # ICMP queries: the lower address asked
    ORIGIN_HIGH = 1
    ORIGIN_EITHER = 2          # whoever came first
    ORIGIN_NONE = 3            # an ICMP message of no flow: no record has this key

# What tells one flow from another, and which way a packet goes in it.
cdef struct flow_key:
    uint64_t low[2]            # the lower address, upper half first; IPv4 in low[1]
    uint64_t high[2]
    uint16_t low_port
    uint16_t high_port         # or the identifier of an ICMP query, in both
    uint8_t protocol
    uint8_t family
    uint8_t origin
    uint8_t from_high          # the packet's source is the higher address
    uint64_t hash              # 0: not computed, as who remembers the slot needs none
    uint64_t originator        # hash of who sent the packet, by which its flows are counted; 0: not computed

# What every packet of a flow touches, 52 bytes. Index 0 is the original direction.
cdef struct flow:
    uint8_t protocol
    uint8_t flags
    uint8_t scales             # TCP window shifts, the original direction's in the low half
    uint8_t state
    uint32_t seen              # tick of the last packet
    uint32_t policy            # generation it was judged under
    uint32_t routes            # generation of both adjacencies
    uint16_t adjacency[2]      # 0: not known
    uint32_t packets[2]        # since they were last folded into flow_rest
    uint32_t bytes[2]
    uint32_t next[2]           # TCP: what this side expects next; SCTP: the tag its packets carry
    uint32_t window[2]         # TCP: the largest this side offered; 0 before it spoke

cdef struct flow4:             # 64 bytes: one cache line
    uint32_t low
    uint32_t high
    uint16_t low_port
    uint16_t high_port
    flow f

cdef struct flow6:             # 88 bytes
    uint64_t low[2]
    uint64_t high[2]
    uint16_t low_port
    uint16_t high_port
    flow f

# What is touched when a flow begins and ends: one cache line.
cdef struct flow_rest:
    uint64_t packets[2]
    uint64_t bytes[2]
    uint64_t credited[2]       # of its packets and bytes, what the counters of rules already hold
    uint32_t rules[2]          # counters of the deciding rules: egress, ingress
    uint32_t created           # tick
    uint32_t unused

cdef struct flow_bank:         # the flows of one family
    uint16_t *tags             # FLOW_WAYS a bucket, 0 = free
    uint8_t *records
    flow_rest *rests
    uint32_t mask              # buckets - 1
    uint32_t stride            # bytes of a record
    uint32_t family
    uint32_t live

cdef struct flow_lock_line:
    uint32_t held
    uint32_t padding[15]

cdef struct flow_table:
    uint64_t key[2]
    flow_bank banks[2]         # IPv4, IPv6
    flow_lock_line *locks
    uint32_t stripe_bits
    uint32_t shared            # several workers: a lock a packet; else the worker holds the one lock a burst
    uint32_t quota             # flows of one originator
    uint32_t pickup            # flows may begin in the middle
    uint32_t revalidate        # judge again after a change of policy
    uint32_t timeouts[FLOW_STATES]   # ticks
    uint32_t *sources          # SOURCES counters

# -- what one worker writes about flows ---------------------------------------
cdef enum:
    RULES_CHUNK = 4096
    RULES_CHUNKS = 1024
    EVENT_RING = 4096          # power of two

cdef enum flow_event_kind:
    FLOW_EVENT_NEW = 1
    FLOW_EVENT_DENIED = 2
    FLOW_EVENT_CLOSED = 4
    FLOW_EVENT_LOGGED = 8      # a Log rule was passed on the way to the verdict

cdef struct rule_counter:
    uint64_t flows
    uint64_t packets
    uint64_t bytes

cdef struct flow_event:
    uint64_t time_ns
    uint64_t source[2]         # of the opener
    uint64_t destination[2]
    uint64_t packets[2]
    uint64_t bytes[2]
    uint32_t rules[2]
    uint32_t lasted            # ticks
    uint16_t source_port
    uint16_t destination_port
    uint8_t family
    uint8_t protocol
    uint8_t kind
    uint8_t state

cdef struct flow_account:
    rule_counter *rules[RULES_CHUNKS]
    flow_event *events         # EVENT_RING, written by the worker alone
    uint64_t written
    uint64_t taken             # by Python
    uint64_t suppressed
    uint64_t pace_ns           # of one event; 0: none at all
    uint64_t budget_ns         # moment when the burst of events is earned back
    uint64_t now_ns
    uint32_t wanted            # flow_event_kind bits
    uint32_t swept             # bucket the worker's broom is at
    uint32_t swept_tick
    uint64_t opened, expired, evicted, ended

# -- keys -----------------------------------------------------------------------
cdef inline uint32_t flow_words(const flow_key *k, uint64_t *words, uint32_t stride) noexcept nogil:
    """Write what is hashed of a key, a word every `stride`; how many words."""
    cdef uint64_t tail = (<uint64_t>k.low_port << 48 | <uint64_t>k.high_port << 32
                          | <uint64_t>k.origin << 8 | k.protocol)
    if k.family == 4:
        words[0] = k.low[1] << 32 | k.high[1]
        words[stride] = tail
        return 2
    words[0] = k.low[0]
    words[stride] = k.low[1]
    words[2 * stride] = k.high[0]
    words[3 * stride] = k.high[1]
    words[4 * stride] = tail
    return FLOW_WORDS

cdef inline void flow_hash(const flow_table *t, flow_key *k) noexcept nogil:
    cdef uint64_t words[FLOW_WORDS]
    cdef uint32_t n = flow_words(k, words, 1)
    k.hash = siphash_words(t.key, words, n) | <uint64_t>1 << FLOW_HASHED

cdef inline void flow_hash_many(const flow_table *t, flow_key *keys, const uint8_t *which, uint32_t n) noexcept nogil:
    """Hash up to FLOW_AT_ONCE keys that `which` lists, as many together as are of one family."""
    cdef uint64_t words[FLOW_WORDS * FLOW_AT_ONCE]
    cdef uint64_t hashes[FLOW_AT_ONCE]
    cdef uint32_t at = 0, i, m, size
    while at < n:
        m = size = 0
        while at + m < n and keys[which[at + m]].family == keys[which[at]].family:
            size = flow_words(&keys[which[at + m]], &words[m], FLOW_AT_ONCE)
            m += 1
        siphash_many()(t.key, words, FLOW_AT_ONCE, size, hashes, m)
        for i in range(m):
            keys[which[at + i]].hash = hashes[i] | <uint64_t>1 << FLOW_HASHED
        at += m

cdef inline flow_bank *flow_bank_of(flow_table *t, uint32_t family) noexcept nogil:
    return &t.banks[0] if family == 4 else &t.banks[1]

cdef inline flow *flow_at(const flow_bank *b, uint32_t slot) noexcept nogil:
    cdef uint8_t *record = b.records + <size_t>slot * b.stride
    return &(<flow4 *>record).f if b.family == 4 else &(<flow6 *>record).f

cdef inline bint flow_is(const flow_bank *b, uint32_t slot, const flow_key *k) noexcept nogil:
    cdef const uint8_t *record = b.records + <size_t>slot * b.stride
    cdef const flow4 *four = <const flow4 *>record
    cdef const flow6 *six = <const flow6 *>record
    cdef const flow *f
    if b.family == 4:
        if four.low != <uint32_t>k.low[1] or four.high != <uint32_t>k.high[1] \
                or four.low_port != k.low_port or four.high_port != k.high_port:
            return False
        f = &four.f
    else:
        if six.low[0] != k.low[0] or six.low[1] != k.low[1] or six.high[0] != k.high[0] or six.high[1] != k.high[1] \
                or six.low_port != k.low_port or six.high_port != k.high_port:
            return False
        f = &six.f
    return f.protocol == k.protocol and (k.origin == ORIGIN_EITHER or (f.flags & FLOW_ORIGIN_HIGH) == k.origin)

cdef inline int flow_fits4(const flow_bank *b, uint32_t slot, uint32_t protocol, uint64_t ends, uint32_t ports) noexcept nogil:
    """As flow_is, of a packet with ports whose key nobody made: whether its source is the higher address; -1: another flow.

    `ends` and `ports`: source above destination, as they stand in the packet.
    """
    cdef const flow4 *four = <const flow4 *>(b.records + <size_t>slot * b.stride)
    cdef bint from_high = ends >> 32 > <uint32_t>ends
    if not from_high:
        ends = ends << 32 | ends >> 32
        ports = ports << 16 | ports >> 16
    if (<uint64_t>four.high << 32 | four.low) != ends or (<uint32_t>four.high_port << 16 | four.low_port) != ports \
            or four.f.protocol != protocol:
        return -1
    return from_high

cdef inline int flow_fits6(const flow_bank *b, uint32_t slot, uint32_t protocol, const uint64_t *source,
                           const uint64_t *destination, uint32_t ports) noexcept nogil:
    """The same of IPv6; addresses upper half first."""
    cdef const flow6 *six = <const flow6 *>(b.records + <size_t>slot * b.stride)
    cdef bint from_high = source[0] > destination[0] or (source[0] == destination[0] and source[1] > destination[1])
    cdef const uint64_t *low = destination if from_high else source
    cdef const uint64_t *high = source if from_high else destination
    if not from_high:
        ports = ports << 16 | ports >> 16
    if six.low[0] != low[0] or six.low[1] != low[1] or six.high[0] != high[0] or six.high[1] != high[1] \
            or (<uint32_t>six.high_port << 16 | six.low_port) != ports or six.f.protocol != protocol:
        return -1
    return from_high

cdef inline void flow_key_at(const flow_bank *b, uint32_t slot, flow_key *k) noexcept nogil:
    """The key of the record in a slot, as a packet of the original direction has it; without its hash."""
    cdef const uint8_t *record = b.records + <size_t>slot * b.stride
    cdef const flow4 *four = <const flow4 *>record
    cdef const flow6 *six = <const flow6 *>record
    cdef const flow *f = flow_at(b, slot)
    memset(k, 0, sizeof(flow_key))
    if b.family == 4:
        k.low[1], k.high[1] = four.low, four.high
        k.low_port, k.high_port = four.low_port, four.high_port
    else:
        k.low[0], k.low[1], k.high[0], k.high[1] = six.low[0], six.low[1], six.high[0], six.high[1]
        k.low_port, k.high_port = six.low_port, six.high_port
    k.protocol = f.protocol
    k.family = <uint8_t>b.family
    k.from_high = f.flags & FLOW_ORIGIN_HIGH
    k.origin = k.from_high if f.state == FLOW_ICMP else <uint8_t>ORIGIN_EITHER

cdef inline void flow_key_put(const flow_bank *b, uint32_t slot, const flow_key *k) noexcept nogil:
    cdef uint8_t *record = b.records + <size_t>slot * b.stride
    cdef flow4 *four = <flow4 *>record
    cdef flow6 *six = <flow6 *>record
    memset(record, 0, b.stride)
    if b.family == 4:
        four.low, four.high = <uint32_t>k.low[1], <uint32_t>k.high[1]
        four.low_port, four.high_port = k.low_port, k.high_port
    else:
        six.low[0], six.low[1], six.high[0], six.high[1] = k.low[0], k.low[1], k.high[0], k.high[1]
        six.low_port, six.high_port = k.low_port, k.high_port

cdef inline uint32_t flow_direction(const flow *f, uint32_t from_high) noexcept nogil:
    """0: the packet goes the way of the one that opened the flow; 1: it answers."""
    return from_high ^ (f.flags & FLOW_ORIGIN_HIGH)

# -- locks ------------------------------------------------------------------------
cdef inline uint32_t *flow_stripe(flow_table *t, uint32_t bucket) noexcept nogil:
    return &t.locks[bucket & ((<uint32_t>1 << t.stripe_bits) - 1)].held

cdef inline void flow_lock(uint32_t *held) noexcept nogil:
    cdef uint32_t spins = 0
    while atomic_exchange32_acquire(held, 1):
        while atomic_load32_relaxed(held):
            atomic_pause()
            spins += 1
            if spins >= SPINS:
                usleep(50)
                spins = 0

cdef inline void flow_unlock(uint32_t *held) noexcept nogil:
    atomic_store32_release(held, 0)

# -- places -------------------------------------------------------------------------
cdef inline uint16_t flow_tag(uint64_t hash) noexcept nogil:
    cdef uint16_t tag = <uint16_t>(hash >> 48)
    return tag if tag else <uint16_t>1

cdef inline uint32_t flow_bucket(const flow_bank *b, uint64_t hash) noexcept nogil:
    return <uint32_t>hash & b.mask

cdef inline uint32_t flow_other(const flow_table *t, const flow_bank *b, uint32_t bucket, uint16_t tag) noexcept nogil:
    """The other bucket of a tag; of that one, the first again. Never another stripe."""
    return bucket ^ ((((<uint32_t>tag * <uint32_t>0x5bd1e995) | 1) << t.stripe_bits) & b.mask)

cdef inline void flow_prefetch(const flow_table *t, const flow_key *k) noexcept nogil:
    """First step of looking many flows up: the tags."""
    cdef const flow_bank *b = &t.banks[0] if k.family == 4 else &t.banks[1]
    prefetch(b.tags + <size_t>flow_bucket(b, k.hash) * FLOW_WAYS)

cdef inline uint32_t flow_guess(const flow_table *t, const flow_key *k) noexcept nogil:
    """Second step: ask for the record of the first tag that agrees; its slot, FLOW_NONE when none does."""
    cdef const flow_bank *b = &t.banks[0] if k.family == 4 else &t.banks[1]
    cdef uint16_t tag = flow_tag(k.hash)
    cdef uint32_t bucket = flow_bucket(b, k.hash)
    cdef uint32_t found = tags_equal(b.tags + <size_t>bucket * FLOW_WAYS, tag)
    if not found:
        bucket = flow_other(t, b, bucket, tag)
        found = tags_equal(b.tags + <size_t>bucket * FLOW_WAYS, tag)
        if not found:
            return FLOW_NONE
    bucket = bucket * FLOW_WAYS + bits_first(found)
    prefetch(b.records + <size_t>bucket * b.stride)
    return bucket

cdef inline uint32_t flow_find(const flow_table *t, const flow_bank *b, const flow_key *k) noexcept nogil:
    """The slot of a flow, FLOW_NONE when there is none. With the lock held."""
    cdef uint16_t tag = flow_tag(k.hash)
    cdef uint32_t bucket = flow_bucket(b, k.hash)
    cdef uint32_t found, slot, choice
    for choice in range(2):
        found = tags_equal(b.tags + <size_t>bucket * FLOW_WAYS, tag)
        while found:
            slot = bucket * FLOW_WAYS + bits_first(found)
            if flow_is(b, slot, k):
                return slot
            found &= found - 1
        bucket = flow_other(t, b, bucket, tag)
    return FLOW_NONE

cdef inline void flow_search(const flow_table *t, flow_key *keys, const uint8_t *which, uint32_t n,
                             uint32_t *guesses) noexcept nogil:
    """Where up to FLOW_AT_ONCE flows probably stand: hashes of all, tags of all, records of all."""
    cdef uint32_t i
    flow_hash_many(t, keys, which, n)
    for i in range(n):
        flow_prefetch(t, &keys[which[i]])
    for i in range(n):
        guesses[which[i]] = flow_guess(t, &keys[which[i]])

cdef inline uint32_t flow_find_near(const flow_table *t, const flow_bank *b, flow_key *k, uint32_t guess) noexcept nogil:
    """As flow_find, looking first where the flow was seen. With the lock held; a key that is not hashed is if it must."""
    if guess != FLOW_NONE and flow_is(b, guess, k):
        return guess
    if k.hash == 0:
        flow_hash(t, k)
    return flow_find(t, b, k)

cdef inline uint32_t *flow_hold(flow_table *t, const flow_bank *b, flow_key *k, uint32_t *guess) noexcept nogil:
    """Lock the stripe a flow is in, or would be; of a key that is not hashed, the one it was seen in.

    A wrong guess is taken back: its record may be in a stripe that is not locked.
    """
    cdef uint32_t *held
    if k.hash == 0:
        held = flow_stripe(t, guess[0] // FLOW_WAYS)
        flow_lock(held)
        if flow_is(b, guess[0], k):
            return held
        flow_unlock(held)
        guess[0] = FLOW_NONE
        flow_hash(t, k)
    held = flow_stripe(t, flow_bucket(b, k.hash))
    flow_lock(held)
    return held

# -- life -----------------------------------------------------------------------------
cdef inline bint flow_expired(const flow_table *t, const flow *f, uint32_t tick) noexcept nogil:
    cdef uint32_t state = f.state
    if state == FLOW_ESTABLISHED and not f.flags & FLOW_REPLIED:
        state = FLOW_UNACKNOWLEDGED
    return <int32_t>(tick - f.seen) >= <int32_t>t.timeouts[state]

cdef inline bint flow_may_go(const flow *f) noexcept nogil:
    """Whether a flow may be evicted for a new one."""
    if f.flags & FLOW_DENIED:
        return False           # without it, the answers of a denied connection would look like a new one
    return not f.flags & FLOW_ASSURED or f.state == FLOW_TIME_WAIT or f.state == FLOW_CLOSE \
        or f.state == FLOW_SCTP_CLOSED

cdef inline void flow_count(flow *f, flow_rest *rest, uint32_t direction, uint32_t packets, uint32_t bytes) noexcept nogil:
    f.packets[direction] += packets
    f.bytes[direction] += bytes
    if (f.packets[direction] | f.bytes[direction]) & <uint32_t>FOLD_AT:
        rest.packets[direction] += f.packets[direction]
        rest.bytes[direction] += f.bytes[direction]
        f.packets[direction] = f.bytes[direction] = 0

cdef inline void flow_originator(const flow_key *k, uint64_t *words, uint32_t stride) noexcept nogil:
    """Write what is hashed of who sent a packet."""
    words[0] = k.high[0] if k.from_high else k.low[0]
    words[stride] = k.high[1] if k.from_high else k.low[1]

cdef inline void flow_sources(const flow_table *t, const flow_key *k, uint32_t *places) noexcept nogil:
    """The two counters that an originator's flows are counted in; it is over its quota when both are."""
    cdef uint64_t words[2]
    cdef uint64_t hash = k.originator
    if hash == 0:
        flow_originator(k, words, 1)
        hash = siphash_words(t.key, words, 2)
    places[0] = <uint32_t>hash & (SOURCES - 1)
    places[1] = <uint32_t>(hash >> 48) & (SOURCES - 1)

cdef inline void flow_tally(flow_table *t, uint32_t *count, uint32_t change) noexcept nogil:
    """Add to a counter of the table. What only the holder of the one lock changes needs no more."""
    if t.shared:
        atomic_add32_relaxed(count, change)
    else:
        atomic_store32_relaxed(count, atomic_load32_relaxed(count) + change)

cdef inline void flow_event_put(flow_account *a, uint32_t kind, const flow_key *k, const flow *f, const flow_rest *rest,
                                uint32_t rule0, uint32_t rule1) noexcept nogil:
    """Write an event about the flow of `k` (a packet of the original direction), if anybody wants it and the pace allows."""
    cdef flow_event *e
    cdef uint64_t from_ns = a.budget_ns if a.budget_ns > a.now_ns else a.now_ns
    if not a.wanted & kind or a.events == NULL:
        return
    if a.pace_ns == 0 or from_ns - a.now_ns > a.pace_ns * (EVENT_RING // 8) \
            or a.written - atomic_load_acquire(&a.taken) >= EVENT_RING:
        a.suppressed += 1
        return
    a.budget_ns = from_ns + a.pace_ns
    e = &a.events[a.written & (EVENT_RING - 1)]
    memset(e, 0, sizeof(flow_event))
    e.time_ns = a.now_ns
    if k.from_high:
        e.source[0], e.source[1], e.source_port = k.high[0], k.high[1], k.high_port
        e.destination[0], e.destination[1], e.destination_port = k.low[0], k.low[1], k.low_port
    else:
        e.source[0], e.source[1], e.source_port = k.low[0], k.low[1], k.low_port
        e.destination[0], e.destination[1], e.destination_port = k.high[0], k.high[1], k.high_port
    e.family, e.protocol, e.kind = k.family, k.protocol, <uint8_t>kind
    e.rules[0], e.rules[1] = rule0, rule1
    if f != NULL:
        e.state = f.state
        e.packets[0], e.packets[1] = rest.packets[0] + f.packets[0], rest.packets[1] + f.packets[1]
        e.bytes[0], e.bytes[1] = rest.bytes[0] + f.bytes[0], rest.bytes[1] + f.bytes[1]
        e.lasted = f.seen - rest.created
    atomic_store_release(&a.written, a.written + 1)

cdef inline rule_counter *rule_at(flow_account *a, uint32_t rule) noexcept nogil:
    """The counter of a rule, NULL for RULE_NONE and for numbers no image announced."""
    if rule >= RULES_CHUNK * RULES_CHUNKS or a.rules[rule // RULES_CHUNK] == NULL:
        return NULL
    return &a.rules[rule // RULES_CHUNK][rule % RULES_CHUNK]

cdef inline uint64_t flow_uncredited(const flow *f, const flow_rest *rest, uint64_t *bytes) noexcept nogil:
    """Packets and bytes that a flow's rules have not been given yet."""
    bytes[0] = rest.bytes[0] + rest.bytes[1] + f.bytes[0] + f.bytes[1] - rest.credited[1]
    return rest.packets[0] + rest.packets[1] + f.packets[0] + f.packets[1] - rest.credited[0]

cdef inline void rules_credit(flow_account *a, const flow *f, flow_rest *rest) noexcept nogil:
    """Give a flow's rules what it carried under them, before it ends or others decide about it."""
    cdef uint64_t bytes
    cdef uint64_t packets = flow_uncredited(f, rest, &bytes)
    cdef rule_counter *c
    cdef uint32_t i
    for i in range(2):
        c = rule_at(a, rest.rules[i])
        if c != NULL:
            c.packets += packets
            c.bytes += bytes
    rest.credited[0] += packets
    rest.credited[1] += bytes

cdef inline void flow_release(flow_table *t, flow_bank *b, uint32_t slot, flow_account *a) noexcept nogil:
    """Forget a flow; what it carried goes to its rules. With the lock held."""
    cdef flow *f = flow_at(b, slot)
    cdef flow_rest *rest = &b.rests[slot]
    cdef flow_key k
    cdef uint32_t places[2]
    flow_key_at(b, slot, &k)
    flow_event_put(a, FLOW_EVENT_CLOSED, &k, f, rest, rest.rules[0], rest.rules[1])
    rules_credit(a, f, rest)
    flow_sources(t, &k, places)
    flow_tally(t, &t.sources[places[0]], <uint32_t>-1)
    flow_tally(t, &t.sources[places[1]], <uint32_t>-1)
    flow_tally(t, &b.live, <uint32_t>-1)
    b.tags[slot] = 0
    memset(b.records + <size_t>slot * b.stride, 0, b.stride)

cdef inline uint32_t flow_victim(flow_table *t, const flow_bank *b, uint32_t bucket, uint32_t other, uint32_t tick,
                                 bint *expired) noexcept nogil:
    """Whose place a new flow takes when both buckets are full: one that is over, else the longest silent that may go."""
    cdef uint32_t best = FLOW_NONE, slot, way, choice
    cdef int32_t silent, longest = -1
    cdef const flow *f
    expired[0] = False
    for choice in range(2):
        for way in range(FLOW_WAYS):
            slot = (other if choice else bucket) * FLOW_WAYS + way
            f = flow_at(b, slot)
            if flow_expired(t, f, tick):
                expired[0] = True
                return slot
            silent = <int32_t>(tick - f.seen)
            if silent < 0:
                silent = 0
            if flow_may_go(f) and silent > longest:
                longest, best = silent, slot
    return best

cdef inline uint32_t flow_room(const flow_table *t, const flow_bank *b, uint32_t bucket, uint16_t tag) noexcept nogil:
    """A free slot for a new flow: in its first bucket, where it is found sooner, until the other one has more room."""
    cdef uint32_t here = tags_equal(b.tags + <size_t>bucket * FLOW_WAYS, 0)
    cdef uint32_t other, there
    if bits_count8(here) > FLOW_WAYS - FLOW_NEAR:
        return bucket * FLOW_WAYS + bits_first(here)
    other = flow_other(t, b, bucket, tag)
    there = tags_equal(b.tags + <size_t>other * FLOW_WAYS, 0)
    if bits_count8(there) > bits_count8(here):
        return other * FLOW_WAYS + bits_first(there)
    return bucket * FLOW_WAYS + bits_first(here) if here else FLOW_NONE

cdef inline void flow_expect(const flow_table *t, flow_key *keys, const uint8_t *which, uint32_t n,
                             const uint32_t *guesses) noexcept nogil:
    """After flow_search: ask for what entering the flows that were not seen will touch."""
    cdef uint64_t words[2 * FLOW_AT_ONCE]
    cdef uint64_t hashes[FLOW_AT_ONCE]
    cdef uint8_t fresh[FLOW_AT_ONCE]
    cdef uint32_t places[2]
    cdef uint32_t i, slot, m = 0
    cdef const flow_bank *b
    for i in range(n):
        if guesses[which[i]] != FLOW_NONE:
            continue
        b = &t.banks[0] if keys[which[i]].family == 4 else &t.banks[1]
        slot = flow_room(t, b, flow_bucket(b, keys[which[i]].hash), flow_tag(keys[which[i]].hash))
        if slot != FLOW_NONE:
            prefetch(b.records + <size_t>slot * b.stride)
            prefetch(&b.rests[slot])
        flow_originator(&keys[which[i]], &words[m], FLOW_AT_ONCE)
        fresh[m] = which[i]
        m += 1
    if m == 0:
        return
    siphash_many()(t.key, words, FLOW_AT_ONCE, 2, hashes, m)
    for i in range(m):
        keys[fresh[i]].originator = hashes[i] | <uint64_t>1 << FLOW_HASHED
        flow_sources(t, &keys[fresh[i]], places)
        prefetch(&t.sources[places[0]])
        prefetch(&t.sources[places[1]])

cdef inline int flow_insert(flow_table *t, flow_bank *b, const flow_key *k, uint32_t tick, flow_account *a,
                            uint32_t *found) noexcept nogil:
    """A slot for a flow that is not there, its key written and the rest zero; or the reason why not. With the lock held."""
    cdef uint16_t tag = flow_tag(k.hash)
    cdef uint32_t bucket = flow_bucket(b, k.hash)
    cdef uint32_t places[2]
    cdef uint32_t slot, other
    cdef bint expired
    flow_sources(t, k, places)
    if atomic_load32_relaxed(&t.sources[places[0]]) >= t.quota \
            and atomic_load32_relaxed(&t.sources[places[1]]) >= t.quota:
        return REASON_FLOW_QUOTA
    slot = flow_room(t, b, bucket, tag)
    if slot == FLOW_NONE:
        other = flow_other(t, b, bucket, tag)
        slot = flow_victim(t, b, bucket, other, tick, &expired)
        if slot == FLOW_NONE:
            return REASON_FLOW_FULL
        if expired:
            a.expired += 1
        else:
            a.evicted += 1
        flow_release(t, b, slot, a)
    flow_key_put(b, slot, k)
    memset(&b.rests[slot], 0, sizeof(flow_rest))
    b.rests[slot].created = tick
    b.tags[slot] = tag
    flow_tally(t, &t.sources[places[0]], 1)
    flow_tally(t, &t.sources[places[1]], 1)
    flow_tally(t, &b.live, 1)
    a.opened += 1
    found[0] = slot
    return REASON_NONE

cdef inline void flow_sweep(flow_table *t, flow_bank *b, uint32_t bucket, uint32_t tick, flow_account *a) noexcept nogil:
    """Forget what expired in one bucket. With the lock held."""
    cdef uint32_t taken = ~tags_equal(b.tags + <size_t>bucket * FLOW_WAYS, 0) & 0xFF
    cdef uint32_t slot
    while taken:
        slot = bucket * FLOW_WAYS + bits_first(taken)
        if flow_expired(t, flow_at(b, slot), tick):
            a.expired += 1
            flow_release(t, b, slot, a)
        taken &= taken - 1


# -- what Python holds ------------------------------------------------------------------
# A flow, or an event about one, as numpy sees it: fields in order of size, nothing between them.
cdef struct flow_listing:
    uint64_t packets[2]
    uint64_t bytes[2]
    uint64_t time_ns           # events: when; flows: 0
    double age                 # s since it began; events: how long it lasted
    double idle                # s since its last packet
    double expires             # s until it is forgotten
    uint32_t rules[2]
    uint32_t generation
    uint16_t source_port
    uint16_t destination_port
    uint8_t source[16]         # network order, IPv4 as ::ffff:a.b.c.d
    uint8_t destination[16]
    uint8_t family
    uint8_t protocol
    uint8_t state
    uint8_t kind               # events: flow_event_kind; flows: 1 allowed, 0 denied
    uint8_t assured
    uint8_t replied
    uint8_t unused[2]

# What one worker counted and told, as numpy arrays.
cdef object rule_rows(flow_account *a, uint32_t chunk)     # (RULES_CHUNK, 3): flows, packets, bytes
cdef object event_rows(flow_account *a)                    # takes the events out of the ring

cdef class FlowTable:
    cdef flow_table *table
    cdef readonly object settings
    cdef readonly int n_workers
    cdef list owned            # addresses of its memory
    cdef flow_account account  # of the control thread's own changes; sweeps nothing, tells no events
    cdef int make_bank(self, flow_bank *bank, uint32_t family, uint32_t capacity, uint32_t stride) except -1
