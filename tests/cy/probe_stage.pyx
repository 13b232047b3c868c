# One stage at a time over a prepared burst, for the benchmark of what each costs.
#
# Owns: a burst with its bytes, laid out anew before each round, and the tables the stages read.
# Never: times two stages as one; laying out is timed by itself and can be taken off.
# Invariant: after a round of a stage every packet passed, or `run` raises: a
# stage that drops is cheaper than one that does its work.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset
from fastpath.buffer cimport burst, packet, BURST_CAPACITY, HEADROOM
from fastpath.counters cimport counters
from fastpath.encap.registry cimport encap_put
from fastpath.port.port cimport datagram, port
from fastpath.reason cimport VERDICT_PASS
from fastpath.records cimport adjacency_record, peer_record, port_record
from fastpath.stage.decap cimport decap
from fastpath.stage.guard cimport guard
from fastpath.stage.hop cimport hop
from fastpath.stage.lookup cimport routes
from fastpath.stage.parse cimport parse_burst
from fastpath.stage.route cimport route, tunnel_ports
from fastpath.system cimport monotonic_ns
from fastpath.table.adjacency cimport adjacency
from fastpath.table.detour cimport detours
from fastpath.table.fib cimport Fib, fib4_current, fib6_current
from fastpath.table.peer cimport peer_table
from fastpath.table.qsbr cimport Reclaimer

STAGES = ("decap", "parse", "guard", "route", "hop", "encap")

cdef enum:
    DECAP, PARSE, GUARD, ROUTE, HOP, ENCAP
    NOTHING = 255              # lay out, and do nothing
    KEY = 7
    SLOTS = 2                  # adjacency 1; 0 means none


cdef class StageBench:
    """Packets of a pod on their way out, or datagrams of a peer on their way in, and one stage to try."""

    cdef burst *b
    cdef burst *before
    cdef uint8_t *memory
    cdef bytes image
    cdef uint32_t stride, head, n
    cdef port *source
    cdef port *target
    cdef peer_table *peers
    cdef adjacency *slots[SLOTS]
    cdef routes seen
    cdef tunnel_ports own
    cdef counters *count
    cdef Reclaimer reclaimer
    cdef Fib fib
    cdef datagram received

    def __cinit__(self, opened, through, adjacency_value, prefixes, peers, list packets, uint32_t header=0):
        """They come from memory port `opened`, leave `through` another, and start with `header` bytes of tunnel."""
        cdef uint32_t i
        if not 1 <= len(packets) <= BURST_CAPACITY or len({len(data) for data in packets}) != 1:
            raise ValueError(f"1 to {BURST_CAPACITY} packets of one size")
        self.n, self.head = <uint32_t>len(packets), header
        self.b, self.before = <burst *>calloc(1, sizeof(burst)), <burst *>calloc(1, sizeof(burst))
        self.count = <counters *>calloc(1, sizeof(counters))
        # In a tunnel's datagram packets lie end to end, in what a port reads each has its headroom.
        self.stride = <uint32_t>len(packets[0]) + (0 if header else HEADROOM)
        self.image = b"".join((b"" if header else bytes(HEADROOM)) + data for data in packets)
        self.memory = <uint8_t *>malloc(len(self.image))
        if self.b == NULL or self.before == NULL or self.count == NULL or self.memory == NULL:
            raise MemoryError
        self.source = port_record(0, opened, opened.addresses, 1500)
        self.target = port_record(1, through, through.addresses, 1500)
        self.slots[1] = adjacency_record(1, adjacency_value, {0: opened, 1: through})
        self.peers = peer_record(peers, 1)
        self.reclaimer = Reclaimer(workers=1)
        self.fib = Fib(self.reclaimer)
        for prefix in prefixes:
            self.fib.insert(prefix, 1)
        self.seen.four, self.seen.six = fib4_current(&self.fib.ipv4), fib6_current(&self.fib.ipv6)
        self.seen.adjacencies = self.slots
        self.seen.detours = <detours *>calloc(1, sizeof(detours))
        if self.seen.detours == NULL:
            raise MemoryError
        for i in range(self.n):
            self.before.packets[i].data = self.memory + i * self.stride + (0 if header else HEADROOM)
            self.before.packets[i].length = <uint32_t>len(packets[i])
            self.before.packets[i].n_segments = 1
        if header:
            self.receive(int(next(iter(peers))))
        else:
            self.before.n = self.n

    cdef receive(self, address):
        """One receive that UDP_GRO has filled with all the datagrams."""
        memset(&self.received, 0, sizeof(datagram))
        self.received.data = self.memory
        self.received.length = <uint32_t>len(self.image)
        self.received.segment_bytes = self.stride
        self.received.source_high = 0
        self.received.source_low = <uint64_t>0xFFFF00000000 | <uint64_t>address

    def __dealloc__(self):
        free(self.b)
        free(self.before)
        free(self.count)
        free(self.memory)
        free(self.source)
        free(self.target)
        free(self.peers)
        free(self.slots[1])
        free(self.seen.detours)

    cdef void lay_out(self) noexcept nogil:
        """The packets as the stage finds them: bytes that a stage may have written, and what is known of each."""
        cdef uint32_t i
        for i in range(self.before.n):
            memcpy(self.before.packets[i].data, self.original(i), 40)
        memcpy(self.b, self.before, <size_t>(<uint8_t *>&self.b.packets[self.before.n] - <uint8_t *>self.b))

    cdef const uint8_t *original(self, uint32_t i) noexcept nogil:
        return self.base + (self.before.packets[i].data - self.memory)

    cdef const uint8_t *base

    cdef void stage(self, uint32_t which) noexcept nogil:
        cdef uint32_t i
        if which == DECAP:
            decap(self.b, &self.received, self.source, self.peers, KEY, 0)
        elif which == PARSE:
            parse_burst(self.b, KEY)
        elif which == GUARD:
            guard(self.b, self.source, &self.seen)
        elif which == ROUTE:
            route(self.b, &self.seen, &self.own)
        elif which == HOP:
            hop(self.b, self.count)
        elif which == ENCAP:
            for i in range(self.b.n):
                encap_put(&self.target.tunnel, self.slots[1].mac, self.b.packets[i].family, self.b.packets[i].data)

    cdef require_passed(self, name):
        cdef uint32_t i
        for i in range(self.b.n):
            if self.b.packets[i].verdict != VERDICT_PASS:
                raise RuntimeError(f"{name} dropped packet {i} for reason {self.b.packets[i].reason}")
        if self.b.n != self.n:
            raise RuntimeError(f"{name} left {self.b.n} of {self.n} packets")

    def reach(self, name):
        """Bring the burst to where stage `name` takes it up: every stage before it is done once."""
        cdef uint32_t which
        self.base = <const uint8_t *>self.image
        memcpy(self.memory, self.base, len(self.image))
        memcpy(self.b, self.before, sizeof(burst))
        for which in range(STAGES.index(name)):
            if which == DECAP and not self.head:
                continue
            self.stage(which)
            self.require_passed(STAGES[which])
        memcpy(self.before, self.b, sizeof(burst))
        self.image = (<uint8_t *>self.memory)[:len(self.image)]
        self.base = <const uint8_t *>self.image

    def run(self, name, uint32_t rounds):
        """Nanoseconds a packet of laying out and stage `name`, and of laying out alone. After `reach(name)`."""
        cdef uint32_t which = STAGES.index(name)
        both = self.rounds_of(which, rounds)
        self.require_passed(name)
        return both, self.rounds_of(NOTHING, rounds)

    cdef double rounds_of(self, uint32_t which, uint32_t rounds):
        cdef uint32_t i
        cdef uint64_t began
        with nogil:
            began = monotonic_ns()
            for i in range(rounds):
                self.lay_out()
                self.stage(which)
            began = monotonic_ns() - began
        return <double>began / rounds / self.n
