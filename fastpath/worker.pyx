"""The loop of one thread. See worker.pxd for what it owns; read worker_burst first."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from fastpath.atomic cimport atomic_load32_acquire, atomic_pointer_load
from fastpath.buffer cimport (
    arena_room, arena_take, burst, packet, BURST_CAPACITY, PACKET_CREATED, SEGMENTS_MAX,
)
from fastpath.counters cimport (
    counters, EVENT_AWAKE, EVENT_REPLY_LIMITED, EVENT_SEGMENT_MERGED, EVENT_SUPER_MERGED, EVENT_SUPER_READ, EVENT_WAKE,
    PORTS_MAX,
)
from fastpath.offload.merge cimport merge
from fastpath.patience cimport core_is_wanted, found_work, looked_in_vain, slept, SHARED_NS
from fastpath.port.memory cimport memory_receive, memory_receive_datagram
from fastpath.port.pace cimport pace_after, pace_ready
from fastpath.port.port cimport datagram, port, port_at, PORT_MEMORY, PORT_RAW, PORT_TUN, ROLE_TUNNEL
from fastpath.port.raw cimport raw_receive
from fastpath.port.tun cimport tun_receive
from fastpath.port.udp cimport udp_receive
from fastpath.reason cimport REPLY_NONE, VERDICT_DROP, VERDICT_PASS
from fastpath.stage.decap cimport decap
from fastpath.stage.guard cimport guard
from fastpath.stage.hop cimport hop
from fastpath.stage.parse cimport parse_burst
from fastpath.stage.reply cimport gateway, reply_build
from fastpath.stage.route cimport route, tunnel_ports
from fastpath.stage.track cimport track, track_routes, track_sweep
from fastpath.system cimport (
    epoll_ctl, epoll_event, epoll_wait, itimerspec, monotonic_ns, read, sched_yield, time_t, timerfd_settime, write,
    EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLLIN, TFD_TIMER_ABSTIME,
)
from fastpath.table.fib cimport fib4_current, fib6_current
from fastpath.table.flow cimport TICK_SHIFT
from fastpath.table.peer cimport peer_table
from fastpath.table.policy cimport policy_view
from fastpath.table.qsbr cimport qsbr_offline, qsbr_online
from fastpath.transmit cimport notify, transmit, NOTICE_PORT_ERROR

cdef enum:
    EVENTS_MAX = 64
    SEGMENT_HEADER = 52        # bytes: IPv4 and TCP with timestamps


# -- the way of a packet -------------------------------------------------------

cdef uint32_t worker_burst(worker *w, const port *source, uint32_t which) noexcept nogil:
    """Receive one burst from a port and carry every packet of it to its end."""
    cdef burst *b = &w.packets
    receive(w, source, which)
    parse_burst(b, w.key)
    count_received(&w.count, b, source)
    guard(b, source, &w.seen.routes)
    if w.seen.flows.policy != NULL:
        track(b, &w.tracking, &w.seen.flows)
    route(b, &w.seen.routes, w.seen.tunnels)
    if w.seen.flows.policy != NULL:
        track_routes(b, &w.tracking, &w.seen.flows)
    hop(b, &w.count)
    if source.role == ROLE_TUNNEL:
        merge(&w.joining, b, w.udp_segments)
        count_merged(&w.count, b)
    transmit(&w.out, b)
    settle(w)
    return b.n


cdef void settle(worker *w) noexcept nogil:
    """Count the drops, and answer those that ask for an ICMP message."""
    cdef const packet *p
    cdef uint32_t i
    w.replies.n = 0
    w.replies.n_tails = 0
    w.reply_memory.used = 0
    for i in range(w.packets.n):
        p = &w.packets.packets[i]
        if p.verdict == VERDICT_DROP:
            w.count.drops[p.reason] += p.n_segments
            if p.reply != REPLY_NONE:
                reply_one(w, p, &w.replies)
    w.count.events[EVENT_REPLY_LIMITED] += w.limits.suppressed
    w.limits.suppressed = 0
    if w.replies.n:
        send_replies(w, &w.replies)


cdef void send_replies(worker *w, burst *answers) noexcept nogil:
    """The answers take the way of any packet."""
    w.count.created += answers.n
    parse_burst(answers, w.key)
    route(answers, &w.seen.routes, w.seen.tunnels)
    hop(answers, &w.count)
    transmit(&w.out, answers)
    count_drops(&w.count, answers)


cdef void reply_one(worker *w, const packet *p, burst *answers) noexcept nogil:
    cdef uint8_t *room = arena_room(&w.reply_memory, REPLY_BYTES)
    cdef uint32_t length = 0
    cdef packet *answer
    if answers.n >= REPLIES_MAX or room == NULL:
        w.count.events[EVENT_REPLY_LIMITED] += 1
        return
    if not reply_build(p, &w.limits, w.seen.gateways, w.now_ns, room, REPLY_BYTES, &length):
        return
    answer = &answers.packets[answers.n]
    answers.n += 1
    memset(answer, 0, sizeof(packet))
    answer.data = room
    answer.length = length
    answer.n_segments = 1
    answer.port = p.port
    answer.flags = PACKET_CREATED
    arena_take(&w.reply_memory, room + length)


# -- receiving -------------------------------------------------------------------

cdef void receive(worker *w, const port *source, uint32_t which) noexcept nogil:
    """Fill the burst from a port until it has no more, or the burst or the arena is full."""
    w.packets.n = 0
    w.packets.n_tails = 0
    w.memory.used = 0
    if source.role == ROLE_TUNNEL:
        receive_datagrams(w, source, which)
    else:
        receive_packets(w, source)


cdef void receive_packets(worker *w, const port *source) noexcept nogil:
    cdef packet *p = w.packets.packets
    cdef const packet *end = p + BURST_CAPACITY
    cdef uint64_t bytes = 0
    cdef int got = 0
    while p != end and not (source.egress.ps_per_byte and must_rest(w, source)):
        if source.kind == PORT_TUN:
            got = tun_receive(source, &w.memory, p)
        else:
            got = memory_receive(source, &w.memory, p)
        if got <= 0:
            break
        bytes += p.length
        if source.egress.ps_per_byte:
            pay(w, source, p)
        p.link_local = True    # may have such an address: parse and guard judge
        p += 1
    w.packets.n = <uint32_t>(p - w.packets.packets)
    w.count.ports[source.index].received_bytes += bytes
    if got < 0:
        port_broke(w, source, 0)


# -- the pace of pods ------------------------------------------------------------

cdef void pay(worker *w, const port *source, const packet *p) noexcept nogil:
    """What was read counts, a super-packet with the headers that its segments will have."""
    cdef uint32_t bytes = p.length
    if p.gso_size:
        bytes += p.length // p.gso_size * SEGMENT_HEADER
    w.resting.due_ns[source.index] = pace_after(&source.egress, w.resting.due_ns[source.index], bytes, w.now_ns)


cdef bint must_rest(worker *w, const port *source) noexcept nogil:
    """Whether the port has sent enough for now: then it is not read until time has paid for it, and its pod waits."""
    cdef uint64_t at = pace_ready(&source.egress, w.resting.due_ns[source.index])
    cdef epoll_event nothing
    if at <= w.now_ns:
        return False
    nothing.events = 0
    nothing.data.u64 = source.index
    if w.resting.n < PORTS_MAX and epoll_ctl(w.epoll, EPOLL_CTL_MOD, source.inputs[0], &nothing) == 0:
        w.resting.ports[w.resting.n] = source.index
        w.resting.at_ns[w.resting.n] = at
        w.resting.n += 1
        set_alarm(w)
    return True


cdef bint is_resting(const worker *w, const port *source) noexcept nogil:
    cdef uint32_t i
    for i in range(w.resting.n):
        if w.resting.ports[i] == source.index:
            return True
    return False


cdef void set_alarm(worker *w) noexcept nogil:
    """The timer rings when the first rest is over."""
    cdef itimerspec when
    cdef uint64_t first = <uint64_t>-1
    cdef uint32_t i
    for i in range(w.resting.n):
        if w.resting.at_ns[i] < first:
            first = w.resting.at_ns[i]
    memset(&when, 0, sizeof(when))
    if w.resting.n:
        when.it_value.tv_sec = <time_t>(first // 1000000000)
        when.it_value.tv_nsec = <long>(first % 1000000000)
    timerfd_settime(w.resting.timer, TFD_TIMER_ABSTIME, &when, NULL)


cdef void end_rests(worker *w) noexcept nogil:
    """Poll again those whose time has come. One that was detached meanwhile is no longer polled at all."""
    cdef epoll_event again
    cdef const port *source
    cdef uint64_t rung
    cdef uint32_t i = 0
    read(w.resting.timer, &rung, 8)
    while i < w.resting.n:
        if w.resting.at_ns[i] > w.now_ns:
            i += 1
            continue
        source = port_at(w.shared.ports, w.resting.ports[i])
        if source != NULL:
            again.events = EPOLLIN
            again.data.u64 = source.index
            epoll_ctl(w.epoll, EPOLL_CTL_MOD, source.inputs[0], &again)
        w.resting.n -= 1
        w.resting.ports[i] = w.resting.ports[w.resting.n]
        w.resting.at_ns[i] = w.resting.at_ns[w.resting.n]
    set_alarm(w)


cdef void receive_datagrams(worker *w, const port *source, uint32_t which) noexcept nogil:
    cdef datagram d
    cdef int got
    while w.packets.n + SEGMENTS_MAX <= BURST_CAPACITY:
        if source.kind == PORT_MEMORY:
            got = memory_receive_datagram(source, &w.memory, &d)
        elif source.kind == PORT_RAW:
            got = raw_receive(source, which, &w.memory, &d)
        else:
            got = udp_receive(source, which, &w.memory, &d)
        if got < 0:
            port_broke(w, source, which)
        if got <= 0:
            return
        w.count.ports[source.index].received_bytes += d.length
        decap(&w.packets, &d, source, w.seen.peers, w.key, w.udp_segments)


cdef void port_broke(worker *w, const port *source, uint32_t which) noexcept nogil:
    """The device is gone: stop listening, or poll would return at once for ever, and tell the control plane."""
    epoll_ctl(w.epoll, EPOLL_CTL_DEL, source.inputs[which], NULL)
    notify(&w.out, NOTICE_PORT_ERROR, source.index)


# -- counting --------------------------------------------------------------------

cdef void count_received(counters *count, const burst *b, const port *source) noexcept nogil:
    cdef uint64_t packets = 0
    cdef uint32_t i
    for i in range(b.n):
        packets += b.packets[i].n_segments
        if b.packets[i].gso_size and source.role != ROLE_TUNNEL:
            count.events[EVENT_SUPER_READ] += 1
    count.received += packets
    count.ports[source.index].received_packets += packets


cdef void count_merged(counters *count, const burst *b) noexcept nogil:
    cdef uint32_t i
    for i in range(b.n):
        if b.packets[i].verdict == VERDICT_PASS and b.packets[i].n_segments > 1:
            count.events[EVENT_SUPER_MERGED] += 1
            count.events[EVENT_SEGMENT_MERGED] += b.packets[i].n_segments - 1


cdef void count_drops(counters *count, const burst *b) noexcept nogil:
    cdef uint32_t i
    for i in range(b.n):
        if b.packets[i].verdict == VERDICT_DROP:
            count.drops[b.packets[i].reason] += b.packets[i].n_segments


# -- waiting ---------------------------------------------------------------------

cdef void look(worker *w) noexcept nogil:
    """Load the tables' present versions for one turn."""
    # Before the routes: a flow may remember an older generation with newer routes, never the reverse.
    w.seen.flows.routes = atomic_load32_acquire(&w.shared.route_changes)
    w.seen.routes.four = fib4_current(w.shared.four)
    w.seen.routes.six = fib6_current(w.shared.six)
    w.seen.routes.adjacencies = w.shared.adjacencies
    w.seen.peers = <const peer_table *>atomic_pointer_load(&w.shared.peers)
    w.seen.gateways = <const gateway *>atomic_pointer_load(&w.shared.gateways)
    w.seen.tunnels = <const tunnel_ports *>atomic_pointer_load(&w.shared.tunnels)
    w.now_ns = monotonic_ns()
    w.out.now_ns = w.now_ns
    w.seen.routes.detours = w.shared.detours
    w.seen.routes.host = atomic_load32_acquire(&w.shared.host)
    w.seen.routes.now_ns = w.now_ns
    look_at_policy(w)


cdef void look_at_policy(worker *w) noexcept nogil:
    cdef const policy_view *policy = <const policy_view *>atomic_pointer_load(&w.shared.policy)
    w.seen.flows.policy = policy
    if policy == NULL:
        return
    w.seen.flows.adjacencies = w.shared.adjacencies
    w.seen.flows.now_ns = w.now_ns
    w.seen.flows.tick = <uint32_t>(w.now_ns >> TICK_SHIFT)
    w.seen.flows.n_workers, w.seen.flows.worker = w.n_workers, w.reader
    if policy.image != NULL:   # scratch memory of this worker's own
        w.tracking.memo.bitmaps = <uint64_t *>&policy.scratch[0] + 3 * <size_t>w.reader * policy.image.n_words
    track_sweep(&w.tracking, &w.seen.flows)


cdef void ring_bell(worker *w) noexcept nogil:
    cdef uint64_t one = 1
    write(w.bell, &one, 8)


cdef uint32_t serve(worker *w, uint64_t tag) noexcept nogil:
    """One ready descriptor: tag is the port's number, and above it which of its inputs."""
    cdef uint64_t woken
    cdef const port *source
    if tag == INPUT_CONTROL:
        read(w.wake, &woken, 8)
        return 0
    if tag == INPUT_TIMER:
        end_rests(w)
        return 0
    source = port_at(w.shared.ports, <uint32_t>(tag & 0xFFFF))
    if source == NULL:
        return 0
    if source.kind == PORT_MEMORY:
        return serve_memory(w, source)
    return worker_burst(w, source, <uint32_t>(tag >> 16))


cdef uint32_t serve_memory(worker *w, const port *source) noexcept nogil:
    """A memory port's eventfd says "something was injected" once; ring it again when a burst left some."""
    cdef uint64_t one = 1
    cdef uint32_t got
    read(source.inputs[0], &one, 8)
    got = worker_burst(w, source, 0)
    if got or is_resting(w, source):
        one = 1
        write(source.inputs[0], &one, 8)
    return got


cdef uint32_t worker_turn(worker *w, int timeout_ms) noexcept nogil:
    """Wait for ready ports and serve each one burst. Returns how many packets arrived."""
    cdef epoll_event ready[EVENTS_MAX]
    cdef uint32_t received = 0
    cdef uint64_t noticed = w.out.noticed
    cdef int i, n
    n = epoll_wait(w.epoll, ready, EVENTS_MAX, timeout_ms)
    if n <= 0:
        return 0
    qsbr_online(w.readers, w.reader)
    look(w)
    w.count.events[EVENT_WAKE] += 1
    for i in range(n):
        received += serve(w, ready[i].data.u64)
    qsbr_offline(w.readers, w.reader)
    if w.out.noticed != noticed:
        ring_bell(w)
    return received


cdef bint look_for_work(worker *w) noexcept nogil:
    """Turn without sleeping until something arrives (True), the budget is spent or another wants the core."""
    cdef uint64_t began = monotonic_ns(), before = began, now = began
    while now - began < w.waiting.budget_ns and not atomic_load32_acquire(&w.stopping):
        if worker_turn(w, 0):
            found_work(&w.waiting)
            w.count.events[EVENT_AWAKE] += 1
            return True
        before = monotonic_ns()
        sched_yield()
        now = monotonic_ns()
        if now - before > SHARED_NS:
            core_is_wanted(&w.waiting)
            return False
    looked_in_vain(&w.waiting)
    return False


cdef void worker_run(worker *w) noexcept nogil:
    """Turn until told to stop. With patience, what is left after a turn is served before anything is waited for."""
    cdef uint64_t before
    while not atomic_load32_acquire(&w.stopping):
        if w.waiting.limit_ns == 0:
            worker_turn(w, -1)
        elif not worker_turn(w, 0) and not look_for_work(w):
            before = monotonic_ns()
            worker_turn(w, -1)
            slept(&w.waiting, w.now_ns - before)
