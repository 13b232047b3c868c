# track: to which flow does a packet belong, and what was decided about it?
#
# Owns: the key of a packet, the way from a packet to its record, the matching of
# ICMP errors and of later fragments, and what a flow remembers of its route.
# Never: decides what may be (police does) or where a new flow goes (route does).
# Invariants:
#   * A packet of a known flow is not judged again, unless the policy changed and
#     flows are to be revalidated: then once, in the direction of its opener.
#   * Nothing passes without a flow that could open a connection: what has no
#     state (an ICMP message that is neither query nor error) is judged each time.
#   * An ICMP error passes for the flow it quotes, and for no other reason, unless nobody it concerns is judged here.
#     A flow that is still to be judged once more is none for it: errors say nothing that could not be said again.
#   * A denied packet leaves no record, so that denials cost no memory.
#
# Packets are taken 32 at a time, and what they need is asked for before it is read. Where the last packet with the same
# flow_hash (parse) found its flow is remembered; only the rest is hashed, by the table's own hash, and searched for.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset
from fastpath.buffer cimport (
    BURST_CAPACITY, PACKET_FRAGMENT, PACKET_FROM_HOST, PACKET_FROM_TUNNEL, PACKET_LATER_FRAGMENT, PACKET_MORE_FRAGMENTS,
    burst, packet, packet_drop,
)
from fastpath.reason cimport (
    REASON_FLOW_BAD_RST, REASON_FLOW_INVALID, REASON_FLOW_FULL, REASON_ICMP_BAD_QUOTE, REASON_NONE, REASON_POLICY_DENY,
    VERDICT_PASS,
)
from fastpath.simd.tags cimport prefetch
from fastpath.stage.police cimport police, police_denied, police_verdict
from fastpath.stage.states cimport FOLLOW_AGAIN, FOLLOW_BAD_RST, FOLLOW_INVALID, FOLLOW_PASS, state_follow, state_open
from fastpath.table.adjacency cimport adjacency, adjacency_at
from fastpath.table.flow cimport (
    FLOW_AT_ONCE, FLOW_DENIED, FLOW_EVENT_NEW, FLOW_NONE, FLOW_ORIGIN_HIGH, FLOW_TUNNEL_ORIGINAL, FLOW_TUNNEL_REPLY,
    FLOW_WAYS, ORIGIN_EITHER, ORIGIN_HIGH, ORIGIN_LOW, ORIGIN_NONE, flow, flow_account, flow_at, flow_bank,
    flow_bank_of, flow_bucket, flow_count, flow_direction, flow_event_put, flow_expect, flow_expired, flow_find,
    flow_find_near, flow_fits4, flow_fits6, flow_hash, flow_hold, flow_insert, flow_is, flow_key, flow_lock,
    flow_release, flow_rest, flow_search, flow_stripe, flow_sweep, flow_table, flow_unlock, rule_at, rule_counter,
    rules_credit,
)
from fastpath.table.fragments cimport fragment_first, fragment_key, fragment_later, fragment_table
from fastpath.table.policy cimport policy_memo, policy_view
from fastpath.wire.icmp cimport (
    ICMP4_FRAGMENTATION_NEEDED, ICMP4_UNREACHABLE, ICMP6_TOO_BIG, icmp4_is_error, icmp6_is_error,
)
from fastpath.wire.ipv4 cimport (
    IPV4_BYTES, IPV4_DESTINATION, IPV4_FRAGMENT, IPV4_OFFSET, IPV4_PROTOCOL, IPV4_SOURCE, ipv4_header_bytes,
)
from fastpath.wire.ipv6 cimport IPV6_BYTES, IPV6_DESTINATION, IPV6_SOURCE, ipv6_chain, ipv6_walk
from fastpath.wire.octets cimport load16, load32, load64
from fastpath.wire.transport cimport (
    ICMP4_ECHO, ICMP4_ECHO_REPLY, ICMP6_ECHO, ICMP6_ECHO_REPLY, ICMP_BYTES, ICMP_ID, PROTOCOL_ICMP, PROTOCOL_ICMPV6,
    PROTOCOL_SCTP, PROTOCOL_TCP, PROTOCOL_UDP, PROTOCOL_UDPLITE,
)

cdef enum:
    RECENT = 4096              # flows whose slots a worker remembers, by flow_hash; power of two
    FLOW_ANSWERS = 0x80000000  # packet.flow: the packet goes against its opener
    MTU4_MIN = 576             # an ICMP error may not ask for less (RFC 791), an IPv6 one not for less than 1280
    MTU6_MIN = 1280
    SWEEP_SHIFT = 7            # every bucket is looked at within 2^7 ticks: 17 s
    SWEEP_MAX = 2048           # buckets of one turn

cdef enum message_t:           # what an ICMP message is
    MESSAGE_NONE = 0           # no ICMP
    MESSAGE_QUERY = 1
    MESSAGE_ANSWER = 2
    MESSAGE_ERROR = 3
    MESSAGE_OTHER = 4          # judged each time
    MESSAGE_UNREAD = 5         # nobody has looked: with what is remembered of the packet's flow, none need

# Where a flow was found last. A hint: the record says whose it is.
cdef struct recent:
    uint32_t flow_hash         # of the packet
    uint32_t place             # slot + 1; 0: none

# What one worker keeps for tracking.
cdef struct tracker:
    flow_table *flows
    recent recents[RECENT]
    flow_account account
    policy_memo memo
    fragment_table fragments

# The tables as one turn sees them.
cdef struct track_view:
    const policy_view *policy  # NULL: nothing is tracked
    adjacency **adjacencies
    uint32_t routes            # generation
    uint32_t tick
    uint64_t now_ns
    uint32_t n_workers
    uint32_t worker

# -- from packet to key ----------------------------------------------------------
cdef inline uint32_t message_kind(uint32_t family, uint32_t protocol, uint32_t type_) noexcept nogil:
    if family == 4 and protocol == PROTOCOL_ICMP:
        if type_ == ICMP4_ECHO:
            return MESSAGE_QUERY
        if type_ == ICMP4_ECHO_REPLY:
            return MESSAGE_ANSWER
        return MESSAGE_ERROR if icmp4_is_error(type_) else MESSAGE_OTHER
    if family == 6 and protocol == PROTOCOL_ICMPV6:
        if type_ == ICMP6_ECHO:
            return MESSAGE_QUERY
        if type_ == ICMP6_ECHO_REPLY:
            return MESSAGE_ANSWER
        return MESSAGE_ERROR if icmp6_is_error(type_) else MESSAGE_OTHER
    return MESSAGE_NONE

cdef inline bint has_ports(uint32_t protocol) noexcept nogil:
    return protocol == PROTOCOL_TCP or protocol == PROTOCOL_UDP or protocol == PROTOCOL_SCTP \
        or protocol == PROTOCOL_UDPLITE

cdef inline void key_addresses4(flow_key *k, uint32_t source, uint32_t destination) noexcept nogil:
    k.family, k.hash, k.originator = 4, 0, 0
    k.from_high = source > destination
    k.low[0] = k.high[0] = 0
    k.low[1] = destination if k.from_high else source
    k.high[1] = source if k.from_high else destination

cdef inline void key_addresses6(flow_key *k, const uint8_t *source, const uint8_t *destination) noexcept nogil:
    cdef uint64_t s0 = load64(source), s1 = load64(source + 8)
    cdef uint64_t d0 = load64(destination), d1 = load64(destination + 8)
    k.family, k.hash, k.originator = 6, 0, 0
    k.from_high = s0 > d0 or (s0 == d0 and s1 > d1)
    if k.from_high:
        k.low[0], k.low[1], k.high[0], k.high[1] = d0, d1, s0, s1
    else:
        k.low[0], k.low[1], k.high[0], k.high[1] = s0, s1, d0, d1

cdef inline uint32_t key_transport(flow_key *k, uint32_t protocol, const uint8_t *h) noexcept nogil:
    """Ports or identifier, and whose query it is; `h` has 8 bytes. Returns what ICMP message it is."""
    cdef uint32_t message = message_kind(k.family, protocol, h[0])
    cdef uint32_t first = 0, second = 0
    k.protocol = <uint8_t>protocol
    k.origin = ORIGIN_EITHER
    if has_ports(protocol):
        first, second = load16(h), load16(h + 2)
    elif message == MESSAGE_QUERY or message == MESSAGE_ANSWER:
        first = second = load16(h + ICMP_ID)
        # An answer belongs to a query of the other side: a query of one's own is another flow.
        k.origin = ORIGIN_HIGH if k.from_high == (message == MESSAGE_QUERY) else ORIGIN_LOW
    elif message != MESSAGE_NONE:
        k.origin = ORIGIN_NONE # without an identifier, its ports are those of the query with identifier 0
    k.low_port = <uint16_t>(second if k.from_high else first)
    k.high_port = <uint16_t>(first if k.from_high else second)
    return message

cdef inline uint32_t key_of(flow_key *k, const packet *p) noexcept nogil:
    """The key of a packet with a transport header, and what ICMP message it is."""
    if p.family == 4:
        key_addresses4(k, load32(p.data + IPV4_SOURCE), load32(p.data + IPV4_DESTINATION))
    else:
        key_addresses6(k, p.data + IPV6_SOURCE, p.data + IPV6_DESTINATION)
    if p.payload == p.transport:               # a protocol without a header we know
        k.protocol = p.protocol
        k.origin = ORIGIN_EITHER
        k.low_port = k.high_port = 0
        return MESSAGE_NONE
    return key_transport(k, p.protocol, p.data + p.transport)

cdef inline uint32_t l4_key(const flow_key *k, const packet *p, bint reversed) noexcept nogil:
    """What policy asks about: protocol and destination port, or ICMP type and code."""
    cdef uint32_t key = <uint32_t>p.protocol << 16
    cdef uint32_t message
    if has_ports(p.protocol):
        return key | (k.high_port if k.from_high == reversed else k.low_port)
    if p.protocol != PROTOCOL_ICMP and p.protocol != PROTOCOL_ICMPV6:
        return key
    if p.payload == p.transport:
        return key | 0xFFFF    # of the other family: no type that a rule can name
    if reversed and p.family == 4:
        return key | <uint32_t>ICMP4_ECHO << 8
    if reversed:
        return key | <uint32_t>ICMP6_ECHO << 8
    return key | load16(p.data + p.transport)

cdef inline uint32_t wire_bytes(const packet *p) noexcept nogil:
    """IP bytes of all the wire packets a super-packet stands for."""
    return p.length + (<uint32_t>p.n_segments - 1) * p.payload

# -- where flows were ----------------------------------------------------------------
cdef inline uint32_t remembered(const tracker *t, const packet *p) noexcept nogil:
    """The slot that the flow of a packet was found in last, asked for; FLOW_NONE when nothing is remembered."""
    cdef const recent *r = &t.recents[p.flow_hash & (RECENT - 1)]
    cdef const flow_bank *b = flow_bank_of(t.flows, p.family)
    if r.flow_hash != p.flow_hash or r.place == 0:
        return FLOW_NONE
    prefetch(b.records + <size_t>(r.place - 1) * b.stride)
    return r.place - 1

cdef inline void remember(tracker *t, const packet *p, uint32_t slot) noexcept nogil:
    cdef recent *r = &t.recents[p.flow_hash & (RECENT - 1)]
    r.flow_hash, r.place = p.flow_hash, slot + 1

# -- fragments ---------------------------------------------------------------------
cdef inline void fragment_key_of(fragment_key *k, const packet *p) noexcept nogil:
    memset(k, 0, sizeof(fragment_key))
    if p.family == 4:
        k.source[1], k.destination[1] = load32(p.data + IPV4_SOURCE), load32(p.data + IPV4_DESTINATION)
        k.what = <uint64_t>4 << 40 | <uint64_t>p.protocol << 32 | p.identification
    else:                      # behind extension headers not even the protocol is the same in all
        k.source[0], k.source[1] = load64(p.data + IPV6_SOURCE), load64(p.data + IPV6_SOURCE + 8)
        k.destination[0], k.destination[1] = load64(p.data + IPV6_DESTINATION), load64(p.data + IPV6_DESTINATION + 8)
        k.what = <uint64_t>6 << 40 | p.identification

cdef inline int track_later(packet *p, tracker *t, const track_view *v) noexcept nogil:
    cdef fragment_key k
    fragment_key_of(&k, p)
    return fragment_later(&t.fragments, &k, p.position, p.carried, not p.flags & PACKET_MORE_FRAGMENTS, v.now_ns)

cdef inline int track_first(packet *p, tracker *t, const track_view *v) noexcept nogil:
    cdef fragment_key k
    fragment_key_of(&k, p)
    return fragment_first(&t.fragments, &k, p.carried, v.now_ns)

# -- ICMP errors ----------------------------------------------------------------------
cdef inline bint quote_key(flow_key *k, const packet *p) noexcept nogil:
    """The key of the packet an ICMP error quotes, as that packet went; False when it is none that was sent by whom it goes to."""
    cdef const uint8_t *h = p.data + p.transport + ICMP_BYTES
    cdef uint32_t n = p.length - p.transport - ICMP_BYTES, header, protocol
    cdef ipv6_chain chain
    if p.family == 4:
        if n < IPV4_BYTES or h[0] >> 4 != 4:
            return False
        header = ipv4_header_bytes(h)
        if header < IPV4_BYTES or n < header + 8 or load16(h + IPV4_FRAGMENT) & IPV4_OFFSET:
            return False
        if load32(h + IPV4_SOURCE) != load32(p.data + IPV4_DESTINATION):
            return False
        protocol = h[IPV4_PROTOCOL]
        key_addresses4(k, load32(h + IPV4_SOURCE), load32(h + IPV4_DESTINATION))
    else:
        if n < IPV6_BYTES or h[0] >> 4 != 6 or ipv6_walk(h, n, &chain) != REASON_NONE or chain.is_later:
            return False
        header, protocol = chain.offset, chain.protocol
        if n < header + 8 or load64(h + IPV6_SOURCE) != load64(p.data + IPV6_DESTINATION) \
                or load64(h + IPV6_SOURCE + 8) != load64(p.data + IPV6_DESTINATION + 8):
            return False
        key_addresses6(k, h + IPV6_SOURCE, h + IPV6_DESTINATION)
    return key_transport(k, protocol, h + header) < MESSAGE_ERROR

cdef inline bint quote_mtu_possible(const packet *p) noexcept nogil:
    cdef const uint8_t *h = p.data + p.transport
    cdef uint32_t mtu
    if p.family == 4:
        mtu = load16(h + 6)
        return h[0] != ICMP4_UNREACHABLE or h[1] != ICMP4_FRAGMENTATION_NEEDED or mtu == 0 or mtu >= MTU4_MIN
    return h[0] != ICMP6_TOO_BIG or load32(h + 4) >= MTU6_MIN

cdef inline bint is_judged(const flow_key *k, const packet *p, tracker *t, const track_view *v) noexcept nogil:
    """Whether one of the two ends is an endpoint of this node. Flows of others need not be known."""
    cdef police_verdict verdict
    police(v.policy, &t.memo, &t.account, k, False, l4_key(k, p, False), &verdict)
    return verdict.judged

cdef inline int track_error(packet *p, tracker *t, const track_view *v) noexcept nogil:
    cdef flow_key k
    cdef flow_bank *b = flow_bank_of(t.flows, p.family)
    cdef uint32_t *held = NULL
    cdef const flow *f
    cdef uint32_t slot
    cdef bint known = False
    if p.flags & PACKET_FRAGMENT or not quote_mtu_possible(p) or not quote_key(&k, p):
        return REASON_ICMP_BAD_QUOTE
    flow_hash(t.flows, &k)
    if t.flows.shared:
        held = flow_stripe(t.flows, flow_bucket(b, k.hash))
        flow_lock(held)
    slot = flow_find(t.flows, b, &k)
    if slot != FLOW_NONE:
        f = flow_at(b, slot)
        known = not flow_expired(t.flows, f, v.tick) and not f.flags & FLOW_DENIED \
            and (f.policy == v.policy.generation or not t.flows.revalidate)
    if held != NULL:
        flow_unlock(held)
    if known:
        return REASON_NONE
    if not is_judged(&k, p, t, v):
        key_of(&k, p)          # who speaks of others' packets may be somebody who is judged
        if not is_judged(&k, p, t, v):
            return REASON_NONE
    return REASON_ICMP_BAD_QUOTE

# -- known flows -------------------------------------------------------------------------
cdef inline bint cached_route(packet *p, const flow *f, uint32_t side, const track_view *v) noexcept nogil:
    """Give the packet the adjacency its flow had, if nothing about routes changed and it comes from where it did."""
    cdef uint32_t from_tunnel = FLOW_TUNNEL_REPLY if side else FLOW_TUNNEL_ORIGINAL
    cdef const adjacency *to
    if f.routes != v.routes or f.adjacency[side] == 0 or p.flags & (PACKET_FRAGMENT | PACKET_FROM_HOST) \
            or (f.flags & from_tunnel != 0) != (p.flags & PACKET_FROM_TUNNEL != 0):
        return False
    to = adjacency_at(v.adjacencies, f.adjacency[side])
    p.adjacency = <void *>to
    return to != NULL

cdef inline void revalidate(flow *f, flow_rest *rest, uint32_t side, const packet *p, tracker *t,
                            const track_view *v) noexcept nogil:
    """Judge a flow once more, as its opener's first packet was."""
    cdef police_verdict verdict
    cdef flow_key k
    key_of(&k, p)
    police(v.policy, &t.memo, &t.account, &k, side == 1, l4_key(&k, p, side == 1), &verdict)
    f.policy = v.policy.generation
    rules_credit(&t.account, f, rest)
    rest.rules[0], rest.rules[1] = verdict.rules[0], verdict.rules[1]
    if verdict.allowed:
        f.flags &= <uint8_t>~FLOW_DENIED
    else:
        f.flags |= FLOW_DENIED

cdef inline int track_known(packet *p, uint32_t from_high, flow_bank *b, uint32_t slot, tracker *t,
                            const track_view *v) noexcept nogil:
    """The reason to drop a packet of a flow, or REASON_NONE; -1 when it opens another one in its place."""
    cdef flow *f = flow_at(b, slot)
    cdef flow_rest *rest = &b.rests[slot]
    cdef uint32_t side = flow_direction(f, from_high)
    cdef int found
    if f.policy != v.policy.generation and (t.flows.revalidate or f.flags & FLOW_DENIED):
        revalidate(f, rest, side, p, t, v)
    if f.flags & FLOW_DENIED:
        f.seen = v.tick
        return REASON_POLICY_DENY
    found = state_follow(f, side, p)
    if found == FOLLOW_AGAIN:
        return -1
    if found != FOLLOW_PASS:
        return REASON_FLOW_BAD_RST if found == FOLLOW_BAD_RST else REASON_FLOW_INVALID
    f.seen = v.tick
    flow_count(f, rest, side, p.n_segments, wire_bytes(p))
    if not cached_route(p, f, side, v):
        p.flow = (slot + 1) | (<uint32_t>FLOW_ANSWERS if side else 0)
    return REASON_NONE

# -- new flows ------------------------------------------------------------------------------
cdef inline void flow_begin(flow *f, flow_rest *rest, const flow *fresh, const flow_key *k, const police_verdict *verdict,
                            const packet *p, tracker *t, const track_view *v) noexcept nogil:
    cdef rule_counter *c
    cdef uint32_t i
    f[0] = fresh[0]
    f.flags |= FLOW_ORIGIN_HIGH if k.from_high else 0
    f.seen = v.tick
    f.policy = v.policy.generation
    rest.rules[0], rest.rules[1] = verdict.rules[0], verdict.rules[1]
    for i in range(2):
        c = rule_at(&t.account, verdict.rules[i])
        if c != NULL:
            c.flows += 1
    flow_count(f, rest, 0, p.n_segments, wire_bytes(p))

cdef inline int track_insert(packet *p, const flow_key *k, flow_bank *b, const flow *fresh,
                             const police_verdict *verdict, tracker *t, const track_view *v) noexcept nogil:
    cdef uint32_t *held = NULL
    cdef uint32_t slot = 0
    cdef int reason
    if t.flows.shared:
        held = flow_stripe(t.flows, flow_bucket(b, k.hash))
        flow_lock(held)
        slot = flow_find(t.flows, b, k)
        if slot != FLOW_NONE:  # another worker was faster
            reason = track_known(p, k.from_high, b, slot, t, v)
            flow_unlock(held)
            return REASON_FLOW_INVALID if reason < 0 else reason
    reason = flow_insert(t.flows, b, k, v.tick, &t.account, &slot)
    if reason == REASON_NONE:
        flow_begin(flow_at(b, slot), &b.rests[slot], fresh, k, verdict, p, t, v)
        remember(t, p, slot)
        p.flow = slot + 1
    if held != NULL:
        flow_unlock(held)
    if reason == REASON_NONE:
        flow_event_put(&t.account, FLOW_EVENT_NEW, k, NULL, NULL, verdict.rules[0], verdict.rules[1])
    return reason

cdef inline int track_new(packet *p, const flow_key *k, flow_bank *b, uint32_t message, tracker *t,
                          const track_view *v) noexcept nogil:
    """Judge what no flow is known of; allowed, it becomes one."""
    cdef police_verdict verdict
    cdef flow fresh
    cdef int reason
    memset(&fresh, 0, sizeof(flow))
    police(v.policy, &t.memo, &t.account, k, False, l4_key(k, p, False), &verdict)
    if not verdict.allowed:
        police_denied(&t.account, k, &verdict, p.n_segments, wire_bytes(p))
        return REASON_POLICY_DENY
    if message == MESSAGE_ANSWER or message == MESSAGE_OTHER:
        return REASON_NONE     # it opens nothing
    if state_open(&fresh, p, message == MESSAGE_QUERY, t.flows.pickup) != FOLLOW_PASS:
        return REASON_FLOW_INVALID if verdict.judged else REASON_NONE
    reason = track_insert(p, k, b, &fresh, &verdict, t, v)
    # What nobody judges may travel untracked; of what was judged, the answers would be strangers.
    return reason if verdict.judged or reason == REASON_POLICY_DENY else REASON_NONE

# -- a packet, a burst --------------------------------------------------------------------------
cdef inline int track_flow(packet *p, flow_key *k, uint32_t guess, uint32_t message, tracker *t,
                           const track_view *v) noexcept nogil:
    cdef flow_bank *b = flow_bank_of(t.flows, p.family)
    cdef uint32_t *held = NULL
    cdef uint32_t slot
    cdef int reason = -1
    if t.flows.shared:
        held = flow_hold(t.flows, b, k, &guess)
    slot = flow_find_near(t.flows, b, k, guess)
    if slot != FLOW_NONE:
        if flow_expired(t.flows, flow_at(b, slot), v.tick):
            t.account.expired += 1
        else:
            reason = track_known(p, k.from_high, b, slot, t, v)
        if reason < 0:
            flow_release(t.flows, b, slot, &t.account)
        elif k.hash:           # it was searched for
            remember(t, p, slot)
    if held != NULL:
        flow_unlock(held)
    if reason >= 0:
        return reason
    if k.hash == 0:
        flow_hash(t.flows, k)
    return track_new(p, k, b, message, t, v)

cdef inline int fits(const flow_bank *b, uint32_t slot, const packet *p) noexcept nogil:
    """Whether a packet with ports goes from the higher address in the flow of this slot; -1 when it is of another."""
    cdef uint64_t source[2]
    cdef uint64_t destination[2]
    cdef uint32_t ports = load32(p.data + p.transport)
    if p.family == 4:
        return flow_fits4(b, slot, p.protocol, load64(p.data + IPV4_SOURCE), ports)
    source[0], source[1] = load64(p.data + IPV6_SOURCE), load64(p.data + IPV6_SOURCE + 8)
    destination[0], destination[1] = load64(p.data + IPV6_DESTINATION), load64(p.data + IPV6_DESTINATION + 8)
    return flow_fits6(b, slot, p.protocol, source, destination, ports)

cdef inline int track_remembered(packet *p, uint32_t slot, tracker *t, const track_view *v) noexcept nogil:
    """As track_flow, where the last packet with this flow_hash found its flow; -1 when that is another's, or over."""
    cdef flow_bank *b = flow_bank_of(t.flows, p.family)
    cdef uint32_t *held = NULL
    cdef int from_high, reason = -1
    if t.flows.shared:
        held = flow_stripe(t.flows, slot // FLOW_WAYS)
        flow_lock(held)
    from_high = fits(b, slot, p)
    if from_high >= 0 and not flow_expired(t.flows, flow_at(b, slot), v.tick):
        reason = track_known(p, <uint32_t>from_high, b, slot, t, v)
    if held != NULL:
        flow_unlock(held)
    return reason

cdef inline void track_packet(packet *p, flow_key *k, uint32_t guess, uint32_t message, tracker *t,
                              const track_view *v) noexcept nogil:
    cdef int reason
    if message == MESSAGE_UNREAD:
        reason = track_remembered(p, guess, t, v)
        if reason < 0:
            message = key_of(k, p)
            flow_hash(t.flows, k)
            reason = track_flow(p, k, FLOW_NONE, message, t, v)
        if reason == REASON_NONE and p.flags & PACKET_FRAGMENT:
            reason = track_first(p, t, v)
    elif p.flags & PACKET_LATER_FRAGMENT:
        reason = track_later(p, t, v)
    elif message == MESSAGE_ERROR:
        reason = track_error(p, t, v)
    else:
        reason = track_flow(p, k, guess, message, t, v)
        if reason == REASON_NONE and p.flags & PACKET_FRAGMENT:
            reason = track_first(p, t, v)
    if reason != REASON_NONE:
        packet_drop(p, reason)

cdef inline void track_some(packet *packets, uint32_t n, tracker *t, const track_view *v) noexcept nogil:
    cdef flow_key keys[FLOW_AT_ONCE]
    cdef uint32_t messages[FLOW_AT_ONCE]
    cdef uint32_t guesses[FLOW_AT_ONCE]
    cdef uint8_t unknown[FLOW_AT_ONCE]
    cdef uint32_t i, n_unknown = 0
    for i in range(n):
        messages[i], guesses[i] = MESSAGE_NONE, FLOW_NONE
        if packets[i].verdict == VERDICT_PASS and not packets[i].flags & PACKET_LATER_FRAGMENT:
            guesses[i] = remembered(t, &packets[i])
            if guesses[i] != FLOW_NONE and has_ports(packets[i].protocol):
                messages[i] = MESSAGE_UNREAD
                continue
            messages[i] = key_of(&keys[i], &packets[i])
            if guesses[i] == FLOW_NONE and messages[i] != MESSAGE_ERROR:
                unknown[n_unknown] = <uint8_t>i
                n_unknown += 1
    if n_unknown:
        flow_search(t.flows, keys, unknown, n_unknown, guesses)
        flow_expect(t.flows, keys, unknown, n_unknown, guesses)
    for i in range(n):
        if packets[i].verdict == VERDICT_PASS:
            track_packet(&packets[i], &keys[i], guesses[i], messages[i], t, v)

cdef inline void track(burst *b, tracker *t, const track_view *v) noexcept nogil:
    """Judge every packet of a burst by its flow."""
    cdef uint32_t at = 0, n
    t.account.now_ns = v.now_ns
    if not t.flows.shared:
        flow_lock(&t.flows.locks[0].held)
    while at < b.n:
        n = b.n - at if b.n - at < FLOW_AT_ONCE else <uint32_t>FLOW_AT_ONCE
        track_some(&b.packets[at], n, t, v)
        at += n
    if not t.flows.shared:
        flow_unlock(&t.flows.locks[0].held)

cdef inline void learn(packet *p, tracker *t, const track_view *v) noexcept nogil:
    """Let the flow of a routed packet remember where it goes, if it still stands where it was."""
    cdef flow_bank *b = flow_bank_of(t.flows, p.family)
    cdef uint32_t slot = (p.flow & ~<uint32_t>FLOW_ANSWERS) - 1
    cdef uint32_t side = 1 if p.flow & <uint32_t>FLOW_ANSWERS else 0
    cdef uint32_t *held = flow_stripe(t.flows, slot // FLOW_WAYS)
    cdef uint8_t from_tunnel = FLOW_TUNNEL_REPLY if side else FLOW_TUNNEL_ORIGINAL
    cdef flow_key k
    cdef flow *f = flow_at(b, slot)
    key_of(&k, p)
    flow_lock(held)
    if b.tags[slot] and flow_is(b, slot, &k):
        if f.routes != v.routes:
            f.routes = v.routes
            f.adjacency[0] = f.adjacency[1] = 0
        f.adjacency[side] = <uint16_t>(<const adjacency *>p.adjacency).number
        f.flags &= <uint8_t>~from_tunnel
        if p.flags & PACKET_FROM_TUNNEL:
            f.flags |= from_tunnel
    flow_unlock(held)

cdef inline void track_routes(burst *b, tracker *t, const track_view *v) noexcept nogil:
    """After route: what flows need no lookup for next time."""
    cdef uint32_t i
    for i in range(b.n):
        if b.packets[i].flow and b.packets[i].verdict == VERDICT_PASS \
                and not b.packets[i].flags & (PACKET_FRAGMENT | PACKET_FROM_HOST):
            learn(&b.packets[i], t, v)

cdef inline void track_sweep(tracker *t, const track_view *v) noexcept nogil:
    """Once a turn: go on forgetting what expired, a few buckets at a time, each worker its own."""
    cdef uint32_t passed = v.tick - t.account.swept_tick, n, i, bucket, which
    cdef flow_bank *b
    cdef uint32_t *held
    if passed == 0:
        return
    t.account.swept_tick = v.tick
    for which in range(2):
        b = &t.flows.banks[which]
        n = ((b.mask >> SWEEP_SHIFT) + 1) * (passed if passed < SWEEP_MAX else <uint32_t>SWEEP_MAX)
        n = n if n < SWEEP_MAX else <uint32_t>SWEEP_MAX
        for i in range(n):
            bucket = ((t.account.swept + i) * v.n_workers + v.worker) & b.mask
            held = flow_stripe(t.flows, bucket)
            flow_lock(held)
            flow_sweep(t.flows, b, bucket, v.tick, &t.account)
            flow_unlock(held)
    t.account.swept += n
