# transmit: packets that have an adjacency -> ports.
#
# Owns: the last step of the way out. Local ports get super-packets whole;
# towards a tunnel, packets of one size to one peer leave as one train, a
# super-packet is split at this last moment, headers into scratch memory and
# payload by reference. To a peer with a shortcut TCP leaves whole, or all trains
# leave by it instead of a socket.
# Never: waits for more packets to fill a train; what the burst holds is sent.
# Invariant: packets of one flow leave in the order they came. A flow has one way
# and one sender; a train remembers its flows in a Bloom filter, and before a flow
# continues in another train or by a shortcut, every train that may hold an earlier packet is sent.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from fastpath.atomic cimport atomic_load_acquire, atomic_store_release
from fastpath.buffer cimport (
    burst, packet, packet_bytes, packet_drop, iovec, GSO_UDP, GSO_ECN, HEADROOM, PACKET_NEEDS_CHECKSUM,
    SEGMENTS_MAX,
)
from fastpath.counters cimport (
    counters, port_counters, EVENT_FRAGMENTED, EVENT_SHORTCUT_REFUSED, EVENT_SHORTCUT_SENT, EVENT_SUPER_SPLIT, PORTS_MAX,
)
from fastpath.encap.registry cimport encap_put
from fastpath.encap.tunnel cimport tunnel
from fastpath.offload.complete cimport complete
from fastpath.offload.fragment cimport fragment, fragment_begin, fragment_next
from fastpath.offload.split cimport split, split_begin, split_next
from fastpath.port.memory cimport memory_send, memory_send_train
from fastpath.port.pace cimport pace_pass
from fastpath.port.port cimport port, port_at, train, ENCAP_HEADER_MAX, PORT_MEMORY, PORT_RAW, PORT_TUN, PORT_UDP
from fastpath.port.raw cimport raw_send
from fastpath.port.tap cimport tap_send, tap_send_train, tap_takes, tap_takes_train
from fastpath.port.tun cimport tun_send
from fastpath.port.udp cimport udp_send
from fastpath.reason cimport (
    VERDICT_PASS, VERDICT_SENT, REASON_PORT_GONE, REASON_RATE, REASON_TX_ERROR, REASON_TX_FULL, REASON_TX_TOO_BIG,
)
from fastpath.system cimport EAGAIN, EINVAL, EMSGSIZE, ENOBUFS, ENOMEM
from fastpath.table.adjacency cimport adjacency, ADJACENCY_ENCAPSULATE

cdef extern from * nogil:
    """
    #define lowest_bit(set) ((uint32_t)__builtin_ctz(set))
    """
    uint32_t lowest_bit(uint32_t set)  # of a set that is not empty

cdef enum:
    TRAINS_MAX = 16            # open at a time: mixed sizes and destinations of one burst
    TRAIN_BYTES_MAX = 65507    # payload of one UDP send (IPv4: 65,535 - 20 - 8)
    CUT_HEADER_MAX = 416       # encapsulation + IPv6 with 256 bytes of extensions + TCP with options
    ALL_TRAINS = (1 << TRAINS_MAX) - 1
    NOTICES_MAX = 64           # power of two

cdef enum notice_kind:         # what a worker asks the control plane to look at
    NOTICE_PATH_MTU = 1        # a single datagram did not fit: number of the adjacency
    NOTICE_PORT_ERROR = 2      # a device broke: number of the port
    NOTICE_SHORTCUT = 3        # the device of a shortcut takes nothing: number of the adjacency

cdef struct notice:
    uint32_t kind
    uint32_t number

cdef struct transmitter:
    port **ports
    uint64_t *due              # of each port's ingress pace, shared by the workers
    uint64_t now_ns
    counters *count
    uint64_t noticed           # notices written so far, by the worker
    uint64_t notices_taken     # notices read so far, by Python
    notice notices[NOTICES_MAX]
    uint32_t open              # bit i: train i holds something
    uint64_t opened            # trains opened so far
    uint64_t order[TRAINS_MAX] # when each was opened
    train trains[TRAINS_MAX]
    train cut                  # of the super-packet being split, or the packet being fragmented
    uint8_t headers[(SEGMENTS_MAX + 1) * CUT_HEADER_MAX]
    uint8_t linear[HEADROOM + 65536]

# One source of header-and-payload pieces: the segments of a super-packet, or
# the fragments of a packet.
cdef struct cutter:
    bint fragments
    split segments
    fragment pieces

cdef inline void notify(transmitter *x, uint32_t kind, uint32_t number) noexcept nogil:
    """Remember something for the control plane, once; what overflows will happen again."""
    cdef uint64_t taken = atomic_load_acquire(&x.notices_taken)
    cdef uint64_t i
    cdef notice *n
    for i in range(taken, x.noticed):
        n = &x.notices[i & (NOTICES_MAX - 1)]
        if n.kind == kind and n.number == number:
            return
    if x.noticed - taken < NOTICES_MAX:
        n = &x.notices[x.noticed & (NOTICES_MAX - 1)]
        n.kind = kind
        n.number = number
        atomic_store_release(&x.noticed, x.noticed + 1)

cdef inline int reason_of(int error) noexcept nogil:
    if error == EAGAIN or error == ENOBUFS or error == ENOMEM:
        return REASON_TX_FULL
    return REASON_TX_TOO_BIG if error == EMSGSIZE else REASON_TX_ERROR

# -- trains ------------------------------------------------------------------

cdef inline void shortcut_refused(transmitter *x, const adjacency *to, int error) noexcept nogil:
    """The device of a shortcut did not take a frame, and not for want of room: the sockets have to."""
    x.count.events[EVENT_SHORTCUT_REFUSED] += 1
    if error != EINVAL:        # which is about the frame
        notify(x, NOTICE_SHORTCUT, to.number)

cdef inline uint32_t datagrams_send(transmitter *x, const port *target, const train *t, int *error) noexcept nogil:
    """By the shortcut or through the socket. How many datagrams went, and the errno of the others."""
    if tap_takes_train(target, t):
        error[0] = tap_send_train(target, t)
        if error[0] == 0:
            x.count.events[EVENT_SHORTCUT_SENT] += 1
            return t.n_datagrams
        if reason_of(error[0]) == REASON_TX_FULL:
            return 0
        shortcut_refused(x, t.to, error[0])
        error[0] = 0
    return udp_send(target, t, x.count, error)

cdef inline void train_send(transmitter *x, train *t) noexcept nogil:
    """Send a train and account for each of its datagrams."""
    cdef const port *target = port_at(x.ports, t.to.port)
    cdef port_counters *at = &x.count.ports[t.to.port]
    cdef uint32_t sent = 0, lost
    cdef uint64_t bytes
    cdef int error = 0
    if target == NULL:
        x.count.drops[REASON_PORT_GONE] += t.n_datagrams
        return
    if target.kind == PORT_UDP:
        sent = datagrams_send(x, target, t, &error)
    elif target.kind == PORT_RAW:
        sent = raw_send(target, t, x.count, &error)
    else:
        sent = memory_send_train(target, t)
        error = ENOBUFS
    lost = t.n_datagrams - sent
    bytes = t.total_bytes if lost == 0 else <uint64_t>sent * t.datagram_bytes
    x.count.sent += sent
    at.sent_packets += sent
    at.sent_bytes += bytes
    x.count.adjacencies[t.to.number].packets += sent
    x.count.adjacencies[t.to.number].bytes += bytes
    if lost:
        x.count.drops[reason_of(error)] += lost
        at.dropped_packets += lost
        if error == EMSGSIZE:
            notify(x, NOTICE_PATH_MTU, t.to.number)

cdef inline void train_start(
    train *t, const packet *p, const adjacency *to, const port *target, uint8_t outer_class, uint32_t sender, uint32_t pieces_each,
) noexcept nogil:
    encap_put(&target.tunnel, to.mac, p.family, t.header + ENCAP_HEADER_MAX)
    t.to = to
    t.flows = 0
    t.sender = sender
    t.n_datagrams = 0
    t.total_bytes = 0
    t.pieces_each = pieces_each
    t.traffic_class = outer_class
    t.family = p.family

cdef inline void train_measure(train *t, const port *target, uint32_t size) noexcept nogil:
    """The first datagram, of `size` bytes, says how many there may be; it goes alone if it has to."""
    cdef uint32_t n = TRAIN_BYTES_MAX // size if size <= TRAIN_BYTES_MAX else 1
    t.datagram_bytes = size
    t.n_left = n if n < target.segments_max else target.segments_max

cdef inline bint train_takes(const train *t, uint32_t size) noexcept nogil:
    """Whether a datagram of `size` bytes may follow: no larger one, none after a smaller one."""
    return t.n_left != 0 and size <= t.datagram_bytes

cdef inline void train_count(train *t, uint32_t size) noexcept nogil:
    """One datagram more, its pieces being in place."""
    t.n_datagrams += 1
    t.total_bytes += size
    t.n_left = t.n_left - 1 if size == t.datagram_bytes else 0

cdef inline void train_add(train *t, uint8_t *start, uint32_t size) noexcept nogil:
    """Append one whole datagram."""
    t.pieces[t.n_datagrams].iov_base = start
    t.pieces[t.n_datagrams].iov_len = size
    train_count(t, size)

cdef inline void flush(transmitter *x, train *t) noexcept nogil:
    train_send(x, t)
    x.open &= ~t.bit

cdef inline uint32_t oldest(const transmitter *x, uint32_t among) noexcept nogil:
    """The train opened first of those in the set; TRAINS_MAX when it is empty."""
    cdef uint32_t i, found = TRAINS_MAX
    while among:
        i = lowest_bit(among)
        among &= among - 1
        if found == TRAINS_MAX or x.order[i] < x.order[found]:
            found = i
    return found

cdef inline uint32_t holding(
    const transmitter *x, uint32_t among, const packet *p, const adjacency *to, uint32_t sender,
) noexcept nogil:
    """Those of the open trains that may hold an earlier packet of p's flow: it always takes the same way and sender.

    The way has one number; its record may have been replaced since that packet was routed.
    """
    cdef uint64_t flow = <uint64_t>1 << (p.flow_hash & 63)
    cdef const train *t
    cdef uint32_t found = 0
    while among:
        t = &x.trains[lowest_bit(among)]
        if t.flows & flow and t.to.number == to.number and t.sender == sender:
            found |= among & (0 - among)
        among &= among - 1
    return found

cdef inline void flush_all(transmitter *x, uint32_t among) noexcept nogil:
    """Send the trains of the set, oldest first."""
    cdef uint32_t i
    while among:
        i = oldest(x, among)
        among &= ~(<uint32_t>1 << i)
        flush(x, &x.trains[i])

cdef inline train *train_open(transmitter *x) noexcept nogil:
    """A free train, to be filled; the oldest is sent when all are open."""
    cdef uint32_t i
    if x.open == ALL_TRAINS:
        flush(x, &x.trains[oldest(x, x.open)])
    i = lowest_bit(~x.open)
    x.opened += 1
    x.order[i] = x.opened
    x.trains[i].bit = <uint32_t>1 << i
    x.open |= x.trains[i].bit
    return &x.trains[i]

cdef inline train *train_for(
    transmitter *x, const adjacency *to, uint8_t outer_class, uint8_t family, uint32_t sender, uint32_t size,
) noexcept nogil:
    """An open train this datagram fits into, equal size first; NULL when none.

    An open train takes one more: send_single sends what is full.
    """
    cdef train *t
    cdef train *found = NULL
    cdef uint32_t among = x.open
    while among:
        t = &x.trains[lowest_bit(among)]
        among &= among - 1
        if (
            t.to == to and t.sender == sender and t.traffic_class == outer_class
            and t.family == family and size <= t.datagram_bytes
        ):
            if t.datagram_bytes == size:
                return t
            found = t
    return found

# -- towards a tunnel ----------------------------------------------------------

cdef inline uint8_t outer_class_of(const packet *p, const port *target) noexcept nogil:
    """RFC 6040 normal mode: ECN copied; DSCP copied (RFC 2983 uniform model) unless configured away."""
    return p.traffic_class if target.tunnel.copy_dscp else p.traffic_class & 3

cdef inline uint32_t sender_of(const packet *p, const port *target) noexcept nogil:
    """Which source of the port: by inner family on raw sockets, by flow on UDP ones."""
    if target.kind == PORT_RAW:
        return 0 if p.family == 4 else 1
    return <uint32_t>((<uint64_t>p.flow_hash * target.n_senders) >> 32)

cdef inline void send_single(transmitter *x, packet *p, const adjacency *to, const port *target) noexcept nogil:
    """One packet that fits: into a train, with the train's header in its headroom."""
    cdef uint32_t size = target.tunnel.header_bytes + p.length
    cdef uint32_t sender = sender_of(p, target)
    cdef uint8_t outer_class = outer_class_of(p, target)
    cdef train *t = train_for(x, to, outer_class, p.family, sender, size)
    cdef uint32_t others = x.open & ~t.bit if t != NULL else x.open
    if p.flags & PACKET_NEEDS_CHECKSUM:
        complete(p)
    if others:
        flush_all(x, holding(x, others, p, to, sender))
    if t == NULL:
        t = train_open(x)
        train_start(t, p, to, target, outer_class, sender, 1)
        train_measure(t, target, size)
    memcpy(p.data - ENCAP_HEADER_MAX, t.header, ENCAP_HEADER_MAX)
    train_add(t, p.data + p.length - size, size)
    t.flows |= <uint64_t>1 << (p.flow_hash & 63)
    if t.n_left == 0:
        flush(x, t)

# -- cutting: super-packets into segments, packets into fragments -----------------

cdef inline uint32_t cut_begin(cutter *c, packet *p, uint32_t mtu) noexcept nogil:
    """Returns the bytes of one piece's IP and transport headers."""
    c.fragments = p.gso_size == 0
    if c.fragments:
        fragment_begin(&c.pieces, p, mtu)
        return c.pieces.header_length
    split_begin(&c.segments, p)
    return c.segments.header_length

cdef inline uint32_t cut_next(cutter *c, uint8_t *header, const uint8_t **payload) noexcept nogil:
    """The next piece: its headers written, its payload by reference; 0 when there is none left."""
    if c.fragments:
        return fragment_next(&c.pieces, header, payload)
    return split_next(&c.segments, header, payload)

cdef inline void cut_account(transmitter *x, const packet *p, uint32_t n) noexcept nogil:
    """`n` wire packets leave where `n_segments` were counted in: the difference was made here."""
    x.count.events[EVENT_SUPER_SPLIT if p.gso_size else EVENT_FRAGMENTED] += 1
    if n > p.n_segments:
        x.count.created += n - p.n_segments
    elif n < p.n_segments:
        x.count.drops[REASON_TX_ERROR] += p.n_segments - n

cdef inline void send_cut(transmitter *x, packet *p, const adjacency *to, const port *target) noexcept nogil:
    """A super-packet as its segments, or a packet as its fragments, in as few trains as it takes."""
    cdef cutter c
    cdef train *t = &x.cut
    cdef iovec *pieces
    cdef uint8_t *header = x.headers
    cdef const uint8_t *payload
    cdef uint32_t inner = cut_begin(&c, p, to.mtu)
    cdef uint32_t before = target.tunnel.header_bytes
    cdef uint32_t bytes, size, n = 0
    train_start(t, p, to, target, outer_class_of(p, target), sender_of(p, target), 2)
    flush_all(x, holding(x, x.open, p, to, t.sender))
    bytes = cut_next(&c, header + ENCAP_HEADER_MAX, &payload)
    while bytes:
        n += 1
        size = before + inner + bytes
        memcpy(header, t.header, ENCAP_HEADER_MAX)
        if t.n_datagrams and not train_takes(t, size):
            train_send(x, t)
            train_start(t, p, to, target, t.traffic_class, t.sender, 2)
            memcpy(x.headers, header, ENCAP_HEADER_MAX + inner)
            header = x.headers
        if t.n_datagrams == 0:
            train_measure(t, target, size)
        pieces = &t.pieces[2 * t.n_datagrams]
        pieces[0].iov_base = header + ENCAP_HEADER_MAX - before
        pieces[0].iov_len = before + inner
        pieces[1].iov_base = <void *>payload
        pieces[1].iov_len = bytes
        train_count(t, size)
        header += ENCAP_HEADER_MAX + inner
        bytes = cut_next(&c, header + ENCAP_HEADER_MAX, &payload)
    if t.n_datagrams:
        train_send(x, t)
    cut_account(x, p, n)

# -- past the sockets --------------------------------------------------------------

cdef inline void shortcut_account(transmitter *x, const packet *p, const adjacency *to, uint32_t header, bint sent) noexcept nogil:
    """As if each segment had been a datagram."""
    cdef port_counters *at = &x.count.ports[to.port]
    cdef uint64_t bytes = wire_bytes(p) + <uint64_t>p.n_segments * header
    if not sent:
        x.count.drops[REASON_TX_FULL] += p.n_segments
        at.dropped_packets += p.n_segments
        return
    x.count.events[EVENT_SHORTCUT_SENT] += 1
    x.count.sent += p.n_segments
    at.sent_packets += p.n_segments
    at.sent_bytes += bytes
    x.count.adjacencies[to.number].packets += p.n_segments
    x.count.adjacencies[to.number].bytes += bytes

cdef inline bint send_shortcut(transmitter *x, packet *p, const adjacency *to, const port *target) noexcept nogil:
    """One packet as a frame of the underlay's; False: the device refused it, and the sockets have to."""
    cdef uint32_t sender = sender_of(p, target)
    cdef uint32_t header = encap_put(&target.tunnel, to.mac, p.family, p.data)
    cdef int error
    flush_all(x, holding(x, x.open, p, to, sender))
    if p.gso_size == 0 and p.flags & PACKET_NEEDS_CHECKSUM and target.tunnel.outer_family == 6:
        complete(p)
    error = tap_send(target, to, p, sender, outer_class_of(p, target))
    if error and reason_of(error) != REASON_TX_FULL:
        shortcut_refused(x, to, error)
        return False
    shortcut_account(x, p, to, header, error == 0)
    return True

cdef inline void send_tunnel(transmitter *x, packet *p, const adjacency *to) noexcept nogil:
    cdef const port *target = port_at(x.ports, to.port)
    if target == NULL:
        packet_drop(p, REASON_PORT_GONE)
        return
    p.verdict = VERDICT_SENT
    if tap_takes(target, to, p) and send_shortcut(x, p, to, target):
        return
    if p.gso_size or p.length > to.mtu:
        send_cut(x, p, to, target)
    else:
        send_single(x, p, to, target)

# -- into a local port -----------------------------------------------------------

cdef inline int local_write(const port *target, const packet *p) noexcept nogil:
    """0, or the errno."""
    if target.kind == PORT_TUN:
        return tun_send(target, p)
    return 0 if memory_send(target, p) else ENOBUFS

cdef inline uint32_t wire_bytes(const packet *p) noexcept nogil:
    """IP bytes of all the wire packets a super-packet stands for."""
    return packet_bytes(p) + (<uint32_t>p.n_segments - 1) * p.payload

cdef inline void local_send(transmitter *x, const port *target, const packet *p, const adjacency *to) noexcept nogil:
    """Write one packet and account for it."""
    cdef port_counters *at = &x.count.ports[target.index]
    cdef int error
    if target.ingress.ps_per_byte and not pace_pass(&target.ingress, &x.due[target.index], wire_bytes(p), x.now_ns):
        x.count.drops[REASON_RATE] += p.n_segments
        at.dropped_packets += p.n_segments
        return
    error = local_write(target, p)
    if error:
        x.count.drops[reason_of(error)] += p.n_segments
        at.dropped_packets += p.n_segments
        return
    x.count.sent += p.n_segments
    at.sent_packets += p.n_segments
    at.sent_bytes += packet_bytes(p)
    x.count.adjacencies[to.number].packets += p.n_segments
    x.count.adjacencies[to.number].bytes += packet_bytes(p)

cdef inline void make_linear(transmitter *x, packet *p) noexcept nogil:
    """Gather a merged packet's pieces into one, for a device that takes no super-packets."""
    cdef uint8_t *at = x.linear + HEADROOM
    cdef uint32_t i
    memcpy(at, p.data, p.length)
    p.data = at
    at += p.length
    for i in range(p.n_tail):
        memcpy(at, p.tail[i].iov_base, p.tail[i].iov_len)
        at += p.tail[i].iov_len
    p.length += p.tail_bytes
    p.tail_bytes = 0
    p.n_tail = 0

cdef inline void local_cut(transmitter *x, packet *p, const adjacency *to, const port *target) noexcept nogil:
    """Piece by piece into a device that cannot take the packet whole."""
    cdef cutter c
    cdef packet piece
    cdef iovec payload
    cdef const uint8_t *start
    cdef uint32_t inner, bytes, n = 0
    if p.n_tail:
        make_linear(x, p)
    inner = cut_begin(&c, p, to.mtu)
    bytes = cut_next(&c, x.headers, &start)
    while bytes:
        n += 1
        memset(&piece, 0, sizeof(packet))
        payload.iov_base = <void *>start
        payload.iov_len = bytes
        piece.data = x.headers
        piece.length = inner
        piece.tail = &payload
        piece.n_tail = 1
        piece.tail_bytes = bytes
        piece.n_segments = 1
        local_send(x, target, &piece, to)
        bytes = cut_next(&c, x.headers, &start)
    cut_account(x, p, n)

cdef inline bint takes_whole(const port *target, const packet *p) noexcept nogil:
    if p.gso_size == 0:
        return True
    return target.takes_super_udp if p.gso_type & ~<uint32_t>GSO_ECN == GSO_UDP else target.takes_super

cdef inline void send_local(transmitter *x, packet *p, const adjacency *to) noexcept nogil:
    cdef const port *target = port_at(x.ports, to.port)
    if target == NULL:
        packet_drop(p, REASON_PORT_GONE)
        return
    p.verdict = VERDICT_SENT
    if not takes_whole(target, p) or (p.gso_size == 0 and packet_bytes(p) > to.mtu):
        local_cut(x, p, to, target)
        return
    if p.flags & PACKET_NEEDS_CHECKSUM and not target.takes_super:
        complete(p)
    local_send(x, target, p, to)

# -- the whole burst ---------------------------------------------------------------

cdef inline void transmit(transmitter *x, burst *b) noexcept nogil:
    """Send every packet still on its way; nothing is left open afterwards."""
    cdef uint32_t i
    cdef packet *p
    cdef const adjacency *to
    for i in range(b.n):
        p = &b.packets[i]
        if p.verdict != VERDICT_PASS:
            continue
        to = <const adjacency *>p.adjacency
        if to.kind == ADJACENCY_ENCAPSULATE:
            send_tunnel(x, p, to)
        else:
            send_local(x, p, to)
    flush_all(x, x.open)
