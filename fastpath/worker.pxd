# One thread of the data plane: its memory, its tables' view, its loop.
#
# Owns: the order of the stages, which is the way of a packet, and the worker's
# own memory (arenas, bursts, trains, counters).
# Never: opens or closes anything, takes a lock, or allocates.
# Invariants:
#   * received + created == sent + sum(drops) after every turn.
#   * The worker is offline (qsbr) while it waits and quiescent between turns;
#     nothing loaded from `tables` outlives a turn.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from fastpath.buffer cimport arena, burst, ARENA_BYTES, HEADROOM
from fastpath.counters cimport counters, ADJACENCIES_MAX, PORTS_MAX
from fastpath.offload.merge cimport merger
from fastpath.patience cimport patience
from fastpath.port.port cimport port
from fastpath.stage.lookup cimport routes
from fastpath.stage.reply cimport gateway, reply_limits
from fastpath.stage.route cimport tunnel_ports
from fastpath.stage.track cimport track_view, tracker
from fastpath.table.adjacency cimport adjacency
from fastpath.table.detour cimport detours
from fastpath.table.fib cimport fib4, fib6
from fastpath.table.peer cimport peer_table
from fastpath.table.policy cimport policy_view
from fastpath.table.qsbr cimport qsbr
from fastpath.transmit cimport transmitter

cdef enum:
    REPLIES_MAX = 32           # ICMP messages of one turn
    REPLY_BYTES = 1280         # the largest of them (RFC 4443, section 2.4)
    REPLY_ARENA_BYTES = 65536
    INPUT_CONTROL = 0xFFFF     # epoll tag of the wake-up descriptor
    INPUT_TIMER = 0xFFFE       # and of the timer that ends rests

# What every worker reads. Each pointer is replaced by one release store.
cdef struct tables:
    port *ports[PORTS_MAX]
    adjacency *adjacencies[ADJACENCIES_MAX]
    fib4 **four                # the Fib's published versions
    fib6 **six
    peer_table *peers
    gateway *gateways
    tunnel_ports *tunnels
    policy_view *policy        # NULL: nothing is tracked
    uint32_t route_changes     # generation of routes and adjacencies, advanced after each change
    uint64_t due_ns[PORTS_MAX] # of each port's ingress pace
    detours *detours
    uint32_t host              # adjacency for detours; 0: there are none

# The tables as one turn sees them.
cdef struct view:
    routes routes
    const peer_table *peers
    const gateway *gateways
    const tunnel_ports *tunnels
    track_view flows

# Ports whose pods have sent as much as they may for now: not polled until `at_ns`.
cdef struct rests:
    int timer
    uint32_t n
    uint16_t ports[PORTS_MAX]
    uint64_t at_ns[PORTS_MAX]
    uint64_t due_ns[PORTS_MAX] # of each port's egress pace; one worker reads a port

cdef struct worker:
    tables *shared
    qsbr *readers
    uint32_t reader            # this worker's slot in `readers`
    int epoll
    int wake                   # eventfd: written by Python to end a wait
    int bell                   # eventfd: written by the worker when there are notices
    uint32_t stopping
    patience waiting
    uint32_t udp_segments      # of one UDP super-packet, as this kernel takes them
    uint64_t key               # of the flow hash
    uint64_t now_ns
    arena memory
    arena reply_memory
    view seen
    transmitter out
    reply_limits limits
    rests resting
    counters count
    merger joining
    tracker tracking
    uint32_t n_workers
    burst packets
    burst replies
    uint8_t bytes[ARENA_BYTES]
    uint8_t reply_bytes[REPLY_ARENA_BYTES]

cdef uint32_t worker_turn(worker *w, int timeout_ms) noexcept nogil
cdef void worker_run(worker *w) noexcept nogil
