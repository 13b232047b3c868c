# What a packet does to the state of its flow, one protocol after the other.
#
# Owns: the state machines of TCP, UDP, ICMP queries, SCTP and everything else.
# Never: looks a flow up, judges, or forgets one.
# Invariants:
#   * A reset or an abort that cannot be verified never ends a flow.
#   * Who asked stays who asked: a segment of the answering side opens nothing.
# The names and the defaults of timeouts are Linux's (nf_conntrack); transitions are looser:
# windows are tracked by what each side acknowledged and offered, not segment by segment.

from libc.stdint cimport int32_t, uint8_t, uint32_t
from fastpath.buffer cimport packet
from fastpath.table.flow cimport (
    FLOW_ASSURED, FLOW_CLOSE, FLOW_CLOSE_WAIT, FLOW_COOKIE_ECHOED, FLOW_COOKIE_WAIT, FLOW_ESTABLISHED, FLOW_FIN_ORIGINAL,
    FLOW_FIN_REPLY, FLOW_FIN_WAIT, FLOW_GENERIC, FLOW_ICMP, FLOW_LAST_ACK, FLOW_REPLIED, FLOW_SCTP_CLOSED,
    FLOW_SCTP_ESTABLISHED, FLOW_SHUTDOWN, FLOW_SYN_RECV, FLOW_SYN_SENT, FLOW_TIME_WAIT, FLOW_UDP, FLOW_UDP_STREAM, flow,
)
from fastpath.wire.octets cimport load16, load32
from fastpath.wire.transport cimport (
    PROTOCOL_SCTP, PROTOCOL_TCP, PROTOCOL_UDP, SCTP_BYTES, TCP_ACK, TCP_ACKNOWLEDGEMENT, TCP_BYTES, TCP_FIN, TCP_FLAGS,
    TCP_RST, TCP_SEQUENCE, TCP_SYN, TCP_WINDOW,
)

cdef enum follow_t:
    FOLLOW_PASS = 0
    FOLLOW_AGAIN = 1           # opens a new flow under the key of one that is over
    FOLLOW_INVALID = 2
    FOLLOW_BAD_RST = 3

cdef enum:
    SCALE_NONE = 15            # the side offered no window scaling
    SCALE_MAX = 14
    OPTION_END = 0
    OPTION_NOP = 1
    OPTION_SCALE = 3

cdef enum:                     # SCTP chunk types
    CHUNK_INIT = 1
    CHUNK_INIT_ACK = 2
    CHUNK_ABORT = 6
    CHUNK_SHUTDOWN = 7
    CHUNK_SHUTDOWN_ACK = 8
    CHUNK_COOKIE_ECHO = 10
    CHUNK_COOKIE_ACK = 11
    CHUNK_SHUTDOWN_COMPLETE = 14
    CHUNK_NONE = 255


# -- TCP -------------------------------------------------------------------------
cdef inline uint8_t tcp_scale(const uint8_t *h, uint32_t header) noexcept nogil:
    """The window shift a SYN offers. `header` bytes were checked to be there."""
    cdef uint32_t at = TCP_BYTES, size
    while at < header and h[at] != OPTION_END:
        if h[at] == OPTION_NOP:
            at += 1
            continue
        if at + 1 >= header:
            break
        size = h[at + 1]
        if size < 2 or size > header - at:
            break
        if h[at] == OPTION_SCALE and size == 3:
            return h[at + 2] if h[at + 2] < SCALE_MAX else <uint8_t>SCALE_MAX
        at += size
    return SCALE_NONE

cdef inline uint8_t scale_of(const flow *f, uint32_t side) noexcept nogil:
    return f.scales >> 4 if side else f.scales & 15

cdef inline void scale_set(flow *f, uint32_t side, uint8_t scale) noexcept nogil:
    f.scales = <uint8_t>((f.scales & 0x0F) | scale << 4) if side else <uint8_t>((f.scales & 0xF0) | scale)

cdef inline void tcp_note(flow *f, uint32_t side, const uint8_t *h) noexcept nogil:
    """What this side has received and how much more it takes."""
    cdef uint32_t shift = scale_of(f, side), acknowledged, window
    if not h[TCP_FLAGS] & TCP_ACK:
        return
    if h[TCP_FLAGS] & TCP_SYN or shift == SCALE_NONE or scale_of(f, 1 - side) == SCALE_NONE:
        shift = 0
    acknowledged = load32(h + TCP_ACKNOWLEDGEMENT)
    window = load16(h + TCP_WINDOW) << shift
    if f.window[side] == 0 or <int32_t>(acknowledged - f.next[side]) > 0:
        f.next[side] = acknowledged
    if window > f.window[side]:
        f.window[side] = window
    elif f.window[side] == 0:
        f.window[side] = 1

cdef inline bint tcp_in_window(const flow *f, uint32_t side, uint32_t sequence) noexcept nogil:
    """Whether the other side would take a segment of this one that starts there."""
    cdef uint32_t other = 1 - side
    if f.window[other] == 0:   # it has not spoken: all that is known is the SYN sent to it
        return sequence - f.next[other] + 1 <= 1
    return sequence - f.next[other] <= f.window[other]

cdef inline int tcp_open(flow *f, const uint8_t *h, uint32_t header, bint pickup) noexcept nogil:
    cdef uint8_t flags = h[TCP_FLAGS] & (TCP_SYN | TCP_ACK | TCP_FIN | TCP_RST)
    if flags == TCP_SYN:
        f.state = FLOW_SYN_SENT
        f.scales = <uint8_t>(SCALE_NONE << 4 | tcp_scale(h, header))
        f.next[1] = load32(h + TCP_SEQUENCE) + 1
        return FOLLOW_PASS
    if not pickup or flags & (TCP_SYN | TCP_RST) or not flags & TCP_ACK:
        return FOLLOW_INVALID
    f.state = FLOW_FIN_WAIT if flags & TCP_FIN else FLOW_ESTABLISHED
    if flags & TCP_FIN:
        f.flags |= FLOW_FIN_ORIGINAL
    f.scales = SCALE_MAX << 4 | SCALE_MAX      # nobody knows: the largest
    tcp_note(f, 0, h)
    return FOLLOW_PASS

cdef inline int tcp_syn(flow *f, uint32_t side, const uint8_t *h, uint32_t header) noexcept nogil:
    """A SYN without ACK."""
    if f.state == FLOW_TIME_WAIT or f.state == FLOW_CLOSE:
        return FOLLOW_AGAIN
    if side == 0:
        if f.state == FLOW_SYN_SENT:           # once more, or another attempt from the same port
            scale_set(f, 0, tcp_scale(h, header))
            f.next[1] = load32(h + TCP_SEQUENCE) + 1
        return FOLLOW_PASS
    if f.state != FLOW_SYN_SENT and f.state != FLOW_SYN_RECV:
        return FOLLOW_INVALID                  # it would open a connection nobody judged
    scale_set(f, 1, tcp_scale(h, header))      # both opened at once
    f.next[0] = load32(h + TCP_SEQUENCE) + 1
    f.state = FLOW_SYN_RECV
    return FOLLOW_PASS

cdef inline int tcp_rst(flow *f, uint32_t side, const uint8_t *h) noexcept nogil:
    cdef bint known = f.window[1 - side] != 0 or f.next[1 - side] != 0
    if f.state == FLOW_SYN_SENT and side == 1:
        if not h[TCP_FLAGS] & TCP_ACK or load32(h + TCP_ACKNOWLEDGEMENT) != f.next[1]:
            return FOLLOW_BAD_RST
        f.state = FLOW_CLOSE
        return FOLLOW_PASS
    if not known:
        return FOLLOW_PASS                     # nothing to measure it by: it may pass, and changes nothing
    if not tcp_in_window(f, side, load32(h + TCP_SEQUENCE)):
        return FOLLOW_BAD_RST
    f.state = FLOW_CLOSE
    return FOLLOW_PASS

cdef inline void tcp_fin(flow *f, uint32_t side, const uint8_t *h) noexcept nogil:
    if f.window[1 - side] != 0 and not tcp_in_window(f, side, load32(h + TCP_SEQUENCE)):
        return
    f.flags |= FLOW_FIN_REPLY if side else FLOW_FIN_ORIGINAL
    if f.flags & FLOW_FIN_ORIGINAL and f.flags & FLOW_FIN_REPLY:
        if f.state != FLOW_TIME_WAIT:
            f.state = FLOW_LAST_ACK
    elif f.state == FLOW_ESTABLISHED or f.state == FLOW_SYN_RECV:
        f.state = FLOW_FIN_WAIT

cdef inline void tcp_ack(flow *f, uint32_t side) noexcept nogil:
    """A segment with ACK, and neither SYN, FIN nor RST."""
    if f.state == FLOW_SYN_RECV and side == 0:
        f.state = FLOW_ESTABLISHED
    elif f.state == FLOW_FIN_WAIT and f.flags & (FLOW_FIN_ORIGINAL if side else FLOW_FIN_REPLY):
        f.state = FLOW_CLOSE_WAIT
    elif f.state == FLOW_LAST_ACK:
        f.state = FLOW_TIME_WAIT

cdef inline int tcp_follow(flow *f, uint32_t side, const uint8_t *h, uint32_t header) noexcept nogil:
    cdef uint8_t flags = h[TCP_FLAGS] & (TCP_SYN | TCP_ACK | TCP_FIN | TCP_RST)
    if flags == TCP_SYN:
        return tcp_syn(f, side, h, header)
    if flags & TCP_RST:
        return FOLLOW_INVALID if flags & (TCP_SYN | TCP_FIN) else tcp_rst(f, side, h)
    if not flags & TCP_ACK or (flags & TCP_SYN and flags & TCP_FIN):
        return FOLLOW_INVALID
    if flags & TCP_SYN:
        if side == 1 and f.state == FLOW_SYN_SENT:
            if load32(h + TCP_ACKNOWLEDGEMENT) != f.next[1]:
                return FOLLOW_INVALID
            scale_set(f, 1, tcp_scale(h, header))
            f.state = FLOW_SYN_RECV
            f.next[0] = load32(h + TCP_SEQUENCE) + 1
        elif f.state == FLOW_TIME_WAIT or f.state == FLOW_CLOSE:
            return FOLLOW_INVALID
        tcp_note(f, side, h)
        return FOLLOW_PASS
    tcp_note(f, side, h)
    if flags & TCP_FIN:
        tcp_fin(f, side, h)
    else:
        tcp_ack(f, side)
    return FOLLOW_PASS

# -- SCTP --------------------------------------------------------------------------
cdef inline uint32_t sctp_chunk(const packet *p) noexcept nogil:
    """The type of the first chunk."""
    return p.data[p.transport + SCTP_BYTES] if p.length - p.transport >= SCTP_BYTES + 4 else <uint32_t>CHUNK_NONE

cdef inline uint32_t sctp_tag(const packet *p) noexcept nogil:
    return load32(p.data + p.transport + 4)

cdef inline uint32_t sctp_initiate_tag(const packet *p) noexcept nogil:
    """Of an INIT or INIT ACK: what the packets sent to its sender must carry."""
    return load32(p.data + p.transport + SCTP_BYTES + 4) if p.length - p.transport >= SCTP_BYTES + 8 else 0

cdef inline int sctp_open(flow *f, const packet *p, bint pickup) noexcept nogil:
    cdef uint32_t chunk = sctp_chunk(p)
    if chunk == CHUNK_INIT:
        f.state = FLOW_COOKIE_WAIT
        f.next[1] = sctp_initiate_tag(p)
        return FOLLOW_PASS
    if not pickup or chunk == CHUNK_INIT_ACK or chunk == CHUNK_ABORT or chunk == CHUNK_SHUTDOWN_COMPLETE \
            or chunk == CHUNK_NONE:
        return FOLLOW_INVALID
    f.state = FLOW_SCTP_ESTABLISHED
    f.next[0] = sctp_tag(p)
    return FOLLOW_PASS

cdef inline int sctp_abort(flow *f, uint32_t side, const packet *p) noexcept nogil:
    """The tag is the receiver's, or the sender's own with flag T (RFC 9260, 8.5.1)."""
    cdef bint reflected = p.data[p.transport + SCTP_BYTES + 1] & 1
    cdef uint32_t expected = f.next[1 - side] if reflected else f.next[side]
    if expected == 0:
        return FOLLOW_PASS
    if sctp_tag(p) != expected:
        return FOLLOW_BAD_RST
    f.state = FLOW_SCTP_CLOSED
    return FOLLOW_PASS

cdef inline int sctp_follow(flow *f, uint32_t side, const packet *p) noexcept nogil:
    cdef uint32_t chunk = sctp_chunk(p)
    if chunk == CHUNK_INIT:
        if f.state == FLOW_SCTP_CLOSED:
            return FOLLOW_AGAIN
        if side == 1:
            return FOLLOW_INVALID
        if f.state == FLOW_COOKIE_WAIT:
            f.next[1] = sctp_initiate_tag(p)
    elif chunk == CHUNK_INIT_ACK:
        if side == 0 or f.state != FLOW_COOKIE_WAIT:
            return FOLLOW_INVALID
        f.next[0] = sctp_initiate_tag(p)
    elif chunk == CHUNK_COOKIE_ECHO:
        if side == 0 and f.state == FLOW_COOKIE_WAIT:
            f.state = FLOW_COOKIE_ECHOED
    elif chunk == CHUNK_COOKIE_ACK:
        if side == 1 and f.state == FLOW_COOKIE_ECHOED:
            f.state = FLOW_SCTP_ESTABLISHED
    elif chunk == CHUNK_ABORT or chunk == CHUNK_SHUTDOWN_COMPLETE:
        return sctp_abort(f, side, p)
    elif chunk == CHUNK_SHUTDOWN or chunk == CHUNK_SHUTDOWN_ACK:
        if f.state == FLOW_SCTP_ESTABLISHED:
            f.state = FLOW_SHUTDOWN
    return FOLLOW_PASS

# -- all of them ----------------------------------------------------------------------
cdef inline int state_open(flow *f, const packet *p, bint is_query, bint pickup) noexcept nogil:
    """The first packet of a flow whose record is zero but for its key."""
    f.protocol = p.protocol
    if p.protocol == PROTOCOL_TCP:
        return tcp_open(f, p.data + p.transport, p.payload - p.transport, pickup)
    if p.protocol == PROTOCOL_SCTP:
        return sctp_open(f, p, pickup)
    f.state = FLOW_UDP if p.protocol == PROTOCOL_UDP else FLOW_ICMP if is_query else FLOW_GENERIC
    return FOLLOW_PASS

cdef inline int state_follow(flow *f, uint32_t side, const packet *p) noexcept nogil:
    """A further packet; `side` 1 answers."""
    cdef int found = FOLLOW_PASS
    if p.protocol == PROTOCOL_TCP:
        found = tcp_follow(f, side, p.data + p.transport, p.payload - p.transport)
    elif p.protocol == PROTOCOL_SCTP:
        found = sctp_follow(f, side, p)
    elif side == 0 and f.flags & FLOW_REPLIED:
        if f.state == FLOW_UDP:
            f.state = FLOW_UDP_STREAM
        if f.state != FLOW_ICMP:
            f.flags |= FLOW_ASSURED
    if found == FOLLOW_PASS and side == 1:
        f.flags |= FLOW_REPLIED
    if f.flags & FLOW_REPLIED and (f.state == FLOW_ESTABLISHED or f.state == FLOW_SCTP_ESTABLISHED):
        f.flags |= FLOW_ASSURED
    return found
