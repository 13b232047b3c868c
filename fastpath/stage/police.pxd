# police: may this connection be?
#
# Owns: the question a packet asks of the policy image, and what is counted about the answer.
# Never: remembers a verdict (track does, in the flow's record), or sees a packet of a known flow.
# Both sides are judged where both are endpoints of this node: egress first, ingress only if that allows.

from libc.stdint cimport uint32_t, uint64_t
from fastpath.table.flow cimport (
    FLOW_EVENT_DENIED, FLOW_EVENT_LOGGED, RULE_NONE, flow_account, flow_event_put, flow_key, rule_at, rule_counter,
)
from fastpath.table.policy cimport (
    ROW_NONE, ROW_NUMBERS, ROW_OUTSIDE, policy_answer, policy_image, policy_judge, policy_memo, policy_question,
    policy_view,
)

# A verdict as a flow's record keeps it.
cdef struct police_verdict:
    uint32_t rules[2]          # counters of the deciding rules: egress, ingress
    bint allowed
    bint judged                # at least one side is an endpoint of this node

cdef inline void police_ask(policy_question *q, const flow_key *k, bint reversed, uint32_t l4_key) noexcept nogil:
    """The connection that a packet with this key opens; the other way round when `reversed`."""
    cdef bint high = k.from_high != reversed
    q.family = k.family
    q.key = l4_key
    if high:
        q.source[0], q.source[1], q.source_port = k.high[0], k.high[1], k.high_port
        q.destination[0], q.destination[1] = k.low[0], k.low[1]
    else:
        q.source[0], q.source[1], q.source_port = k.low[0], k.low[1], k.low_port
        q.destination[0], q.destination[1] = k.high[0], k.high[1]

cdef inline uint32_t police_rule(const policy_image *m, uint32_t row) noexcept nogil:
    return m.counters[row] if row < ROW_NUMBERS else <uint32_t>RULE_NONE

cdef inline void police(const policy_view *v, policy_memo *memo, flow_account *a, const flow_key *k, bint reversed,
                        uint32_t l4_key, police_verdict *verdict) noexcept nogil:
    """Judge; a passed Log rule makes an event."""
    cdef policy_question q
    cdef policy_answer answer
    verdict.rules[0] = verdict.rules[1] = RULE_NONE
    verdict.allowed, verdict.judged = True, False
    if v.image == NULL:
        return
    police_ask(&q, k, reversed, l4_key)
    policy_judge(v.image, memo, v.generation, &q, &answer)
    verdict.allowed = answer.allowed
    verdict.judged = answer.row[0] != ROW_OUTSIDE or answer.row[1] != ROW_OUTSIDE
    verdict.rules[0], verdict.rules[1] = police_rule(v.image, answer.row[0]), police_rule(v.image, answer.row[1])
    if (answer.logged[0] & answer.logged[1]) != ROW_NONE:
        flow_event_put(a, FLOW_EVENT_LOGGED, k, NULL, NULL, police_rule(v.image, answer.logged[0]),
                       police_rule(v.image, answer.logged[1]))

cdef inline void police_denied(flow_account *a, const flow_key *k, const police_verdict *verdict, uint32_t packets,
                               uint32_t bytes) noexcept nogil:
    """Count what a rule keeps out; the one that denies is the last that was asked."""
    cdef rule_counter *c = rule_at(a, verdict.rules[1] if verdict.rules[1] != RULE_NONE else verdict.rules[0])
    if c != NULL:
        c.flows += 1
        c.packets += packets
        c.bytes += bytes
    flow_event_put(a, FLOW_EVENT_DENIED, k, NULL, NULL, verdict.rules[0], verdict.rules[1])
