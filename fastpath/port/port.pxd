# The port record and what passes through it: datagrams in, trains out.
#
# Owns: the layout every port kind fills in and every stage reads.
# Never: makes a system call; each kind's own file does.
# Invariant: a published port record is immutable. New addresses or a new MTU
# are a new record behind the same slot, sharing the descriptors.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from fastpath.atomic cimport atomic_pointer_load
from fastpath.buffer cimport iovec, SEGMENTS_MAX
from fastpath.encap.tunnel cimport tunnel
from fastpath.port.pace cimport pace
from fastpath.table.adjacency cimport adjacency

cdef enum port_kind:
    PORT_TUN = 1
    PORT_UDP = 2
    PORT_RAW = 3
    PORT_MEMORY = 4

cdef enum port_role:
    ROLE_POD = 1               # whoever sends here must use one of `addresses`
    ROLE_HOST = 2              # the node itself and what its kernel routes to us
    ROLE_TUNNEL = 3            # datagrams from and to peers

cdef enum:
    SENDERS_MAX = 16           # UDP source ports a tunnel port spreads flows over
    PORT_ADDRESSES_MAX = 16    # of one family
    INPUTS_MAX = 64            # descriptors to receive from: udp has one a worker (WORKERS_MAX of the plane at most), raw one a protocol
    ENCAP_HEADER_MAX = 32      # bytes between the outer UDP or IP header and the inner packet

cdef struct port:
    uint16_t index
    uint8_t kind
    uint8_t role
    uint8_t vnet_header        # bytes of the virtio header on a TUN: 0, 10, 12 or 24
    uint8_t takes_super        # the device accepts TCP super-packets
    uint8_t takes_super_udp    # and UDP ones (USO)
    uint8_t n_inputs
    uint8_t n_senders
    uint16_t n4
    uint16_t n6
    uint16_t segments_max      # of one UDP_SEGMENT send; 1 = no segmentation
    uint32_t mtu               # bytes, of the device or the largest inner packet
    int inputs[INPUTS_MAX]     # each is one worker's: input k of port n is served by worker (n + k) % workers
    int senders[SENDERS_MAX]   # udp: by flow hash; raw: protocol 4, protocol 41
    uint16_t source_ports[SENDERS_MAX]  # udp: of each sender
    uint32_t addresses4[PORT_ADDRESSES_MAX]
    uint64_t addresses6[PORT_ADDRESSES_MAX][2]
    pace egress                # what comes from a pod: read no faster
    pace ingress               # what goes to it: the rest is dropped
    tunnel tunnel
    void *memory               # memory ports: their two queues

# One receive from a tunnel port: one or (UDP_GRO) several datagrams of a source.
cdef struct datagram:
    uint8_t *data
    uint32_t length
    uint32_t segment_bytes     # size of each datagram in it but maybe the last
    uint64_t source_high       # outer source address, IPv4 as ::ffff:a.b.c.d
    uint64_t source_low
    uint8_t traffic_class      # of the outer header
    uint8_t inner_family       # what the outer protocol announces; 0 = anything
    uint8_t truncated

# Datagrams of equal size (the last may be shorter) to one peer, sent in one call.
cdef struct train:
    const adjacency *to
    uint64_t flows             # Bloom filter of the flow hashes inside
    uint8_t header[ENCAP_HEADER_MAX]  # its end is what stands before each inner packet
    uint32_t bit               # that stands for it in the transmitter's set of open ones
    uint32_t sender            # index into port.senders
    uint32_t n_datagrams
    uint32_t n_left            # how many more it takes: none behind one that was shorter
    uint32_t datagram_bytes
    uint32_t total_bytes
    uint32_t pieces_each       # 1: whole datagrams; 2: header and payload slices
    uint8_t traffic_class      # outer DSCP and ECN
    uint8_t family             # of the inner packets
    iovec pieces[2 * SEGMENTS_MAX]

cdef inline uint32_t train_pieces(const train *t) noexcept nogil:
    return t.n_datagrams * t.pieces_each

cdef inline const port *port_at(port **slots, uint32_t index) noexcept nogil:
    return <const port *>atomic_pointer_load(&slots[index])

cdef inline bint port_owns4(const port *at, uint32_t address) noexcept nogil:
    cdef uint32_t i
    for i in range(at.n4):
        if at.addresses4[i] == address:
            return True
    return False

cdef inline bint port_owns6(const port *at, uint64_t high, uint64_t low) noexcept nogil:
    cdef uint32_t i
    for i in range(at.n6):
        if at.addresses6[i][0] == high and at.addresses6[i][1] == low:
            return True
    return False
