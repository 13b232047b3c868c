# The packet, the burst and the arena: the three structures every part shares.
#
# Owns: their layout and the few operations that do not read packet bytes.
# Never: interprets a header (wire/), decides anything (stage/).
# Invariants:
#   * A packet is a *super-packet*: with gso_size > 0 it stands for n_segments
#     wire packets that share one set of headers.
#   * data[0 .. length) is contiguous and inside the arena; HEADROOM bytes in
#     front of `data` may be overwritten by whoever sends the packet. Not so for what
#     one receive from a tunnel (GRO) brought: those packets lie end to end. Sending into
#     a tunnel relies on route, by whose rule nothing from a tunnel goes to a tunnel.
#   * Payload may go on in n_tail pieces (merge appends them, ports write
#     them); only the first `length` bytes are ever parsed.
#   * verdict is PASS until exactly one place sets DROP (with a reason) or SENT.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from fastpath.reason cimport VERDICT_PASS, VERDICT_DROP, VERDICT_SENT, VERDICT_MERGED

cdef extern from "<sys/uio.h>" nogil:
    cdef struct iovec:
        void *iov_base
        size_t iov_len

cdef enum:
    HEADROOM = 128             # bytes: VXLAN + Ethernet is 22, a tunnel-GSO frame 74
    PACKET_MAX = 65535         # bytes of one IP packet (RFC 791), super or not
    BURST_CAPACITY = 512       # packets of one burst
    ARENA_BYTES = 393216       # one worker's receive memory; stays inside a 1 MiB L2
    SEGMENTS_MAX = 128         # of one UDP_SEGMENT send and one USO write (Linux >= 6.9)

cdef enum:                     # packet.flags
    PACKET_NEEDS_CHECKSUM = 1  # transport field holds the pseudo-header sum only
    PACKET_FRAGMENT = 2        # any IP fragment, first or later
    PACKET_LATER_FRAGMENT = 4  # a fragment without a transport header
    PACKET_DONT_FRAGMENT = 8   # IPv4 DF, or IPv6
    PACKET_FROM_TUNNEL = 16
    PACKET_FROM_HOST = 32
    PACKET_CREATED = 64        # made here (an ICMP reply, a fragment), never received
    PACKET_MORE_FRAGMENTS = 128

cdef enum:                     # packet.gso_type: virtio_net.h, ECN bit apart
    GSO_NONE = 0
    GSO_TCP4 = 1
    GSO_TCP6 = 4
    GSO_UDP = 5                # UDP_L4, both families
    GSO_ECN = 0x80

cdef struct packet:
    uint8_t *data              # first byte of the IP header
    uint32_t length            # contiguous bytes at data
    uint32_t tail_bytes        # payload bytes in the tail pieces
    iovec *tail                # pieces in the worker's pool, NULL when none
    uint16_t n_tail
    uint16_t n_segments        # wire packets this one stands for, >= 1
    # virtio metadata, offsets relative to data
    uint16_t gso_size          # transport payload bytes a segment, 0 = not a super-packet
    uint16_t checksum_start    # valid with PACKET_NEEDS_CHECKSUM
    uint16_t checksum_offset
    uint8_t gso_type
    uint8_t flags
    # found by parse
    uint8_t family             # 4 or 6
    uint8_t protocol           # transport protocol behind all extension headers
    uint8_t traffic_class      # TOS / traffic class byte: DSCP << 2 | ECN
    uint8_t outer_class        # the same of the outer header it came in
    uint8_t link_local         # before parse: may have a 169.254/16 address; after it: has one, between a pod and the host
    uint16_t transport         # offset of the transport header
    uint16_t payload           # offset of the transport payload; = transport when unknown
    uint32_t flow_hash         # keyed by the worker; equal for all packets of a flow direction
    uint32_t identification    # of the datagram, valid with PACKET_FRAGMENT
    uint16_t position          # of a fragment: bytes into the datagram
    uint16_t carried           # and how many it brings, headers it still has included
    # context
    uint32_t peer              # peer it came from, valid with PACKET_FROM_TUNNEL
    uint16_t port              # index of the port it came in by
    uint8_t verdict
    uint8_t reason
    uint8_t reply              # REPLY_ number wanted for a drop
    uint16_t reply_mtu         # bytes, for REPLY_TOO_BIG
    uint32_t flow              # slot of its flow + 1 where track wants to learn the route, top bit: it answers; else 0
    void *adjacency            # const table.adjacency.adjacency *, set by track or route

cdef struct burst:
    uint32_t n
    uint32_t n_tails           # pieces taken from `tails`
    packet packets[BURST_CAPACITY]
    iovec tails[BURST_CAPACITY]

# A bump allocator over one worker's receive memory, emptied between bursts.
cdef struct arena:
    uint8_t *base
    uint32_t size
    uint32_t used

cdef inline uint8_t *arena_room(arena *a, uint32_t need) noexcept nogil:
    """Start of `need` free bytes behind a HEADROOM, or NULL when they are not there."""
    cdef uint32_t start = ((a.used + 63) & ~<uint32_t>63) + HEADROOM
    if start > a.size or need > a.size - start:
        return NULL
    return a.base + start

cdef inline void arena_take(arena *a, uint8_t *end) noexcept nogil:
    """Everything before `end` is in use until the arena is emptied."""
    a.used = <uint32_t>(end - a.base)

cdef inline void packet_drop(packet *p, int reason) noexcept nogil:
    p.verdict = VERDICT_DROP
    p.reason = <uint8_t>reason

cdef inline void packet_refuse(packet *p, int reason, int reply) noexcept nogil:
    """Drop, and ask for an ICMP message to the sender."""
    p.verdict = VERDICT_DROP
    p.reason = <uint8_t>reason
    p.reply = <uint8_t>reply

cdef inline uint32_t packet_bytes(const packet *p) noexcept nogil:
    return p.length + p.tail_bytes
