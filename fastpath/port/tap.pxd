# The shortcut of a VXLAN tunnel: packets with their outer headers, as one frame into a TAP device.
#
# What is written there leaves by the device of the underlay. If that cuts
# tunnelled super-packets, or hands them on whole, TCP goes there uncut: no
# socket, no routing, no segment made here. Otherwise a train of datagrams is
# one frame, as it would be one send: no socket, no routing.
#
# Owns: the frame's outer Ethernet, IP and UDP headers and its virtio header.
# Never: waits longer than a socket's send does, or reads from the device.
# Invariants:
#   * A packet either goes this way completely or comes back as it was: only its headroom was written.
#   * The frame of a super-packet says of each segment what its own datagram would
#     have said: ports, addresses and class are those of the tunnel's sockets.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from fastpath.buffer cimport (
    iovec, packet, GSO_UDP, HEADROOM, PACKET_FRAGMENT, PACKET_MAX, PACKET_NEEDS_CHECKSUM, SEGMENTS_MAX,
)
from fastpath.encap.vxlan cimport VXLAN_HEADER
from fastpath.port.port cimport port, train, train_pieces
from fastpath.port.socket cimport SEND_TRIES, wait_for_room
from fastpath.system cimport writev, errno, EAGAIN, EINTR, ENOBUFS, ENOMEM
from fastpath.table.adjacency cimport adjacency
from fastpath.wire.checksum cimport checksum_fold
from fastpath.wire.ethernet cimport ETHERNET_BYTES, ETHERNET_TYPE, ETHERTYPE_IPV4, ETHERTYPE_IPV6
from fastpath.wire.ipv4 cimport IPV4_BYTES, IPV4_DF, ipv4_pseudo, ipv4_put
from fastpath.wire.ipv6 cimport IPV6_BYTES, ipv6_pseudo, ipv6_put
from fastpath.wire.octets cimport store16
from fastpath.wire.transport cimport PROTOCOL_TCP, PROTOCOL_UDP, UDP_BYTES, UDP_CHECKSUM, UDP_LENGTH
from fastpath.wire.virtio cimport (
    VIRTIO_BYTES_MAX, VIRTIO_CHECKSUM_OFFSET, VIRTIO_CHECKSUM_START, VIRTIO_GSO_SIZE, VIRTIO_GSO_TYPE,
    VIRTIO_HEADER_BYTES, VIRTIO_INNER_NETWORK, VIRTIO_NEEDS_CHECKSUM, VIRTIO_OUTER_TRANSPORT, VIRTIO_TUNNEL_CHECKSUM,
    VIRTIO_TUNNEL_IPV4, VIRTIO_TUNNEL_IPV6, virtio_store16,
)

cdef enum:
    OUTER_TTL = 64             # as the sockets'
    SOCKET_PORT = 2            # where the port stands in sockaddr_in and sockaddr_in6
    SOCKET_IPV4 = 4            # and the address in each
    SOCKET_IPV6 = 8
    FRAME_HEADER_MAX = VIRTIO_BYTES_MAX + ETHERNET_BYTES + IPV6_BYTES + UDP_BYTES


cdef inline uint32_t outer_bytes(uint32_t family) noexcept nogil:
    """Of the outer IP and UDP headers."""
    return UDP_BYTES + (IPV4_BYTES if family == 4 else IPV6_BYTES)


cdef inline bint shortcut_carries(const port *tunnel, const adjacency *to, uint32_t datagram) noexcept nogil:
    """Whether a datagram of that many bytes fits the device. What does not, it would drop without a word."""
    return datagram + outer_bytes(tunnel.tunnel.outer_family) <= to.shortcut_mtu


cdef inline bint tap_takes(const port *tunnel, const adjacency *to, const packet *p) noexcept nogil:
    """Whether a packet goes uncut by the shortcut. All TCP of a flow does, so that its order is that of one queue.

    But what must be fragmented, was joined of pieces, or is too long with the
    headers before it, which no pod sends that is left as it was made.
    """
    return (
        to.has_shortcut and to.shortcut_cuts and p.protocol == PROTOCOL_TCP and p.flags & PACKET_FRAGMENT == 0 and p.n_tail == 0
        and (p.gso_size != 0 or p.length <= to.mtu)
        and p.length + VXLAN_HEADER + outer_bytes(tunnel.tunnel.outer_family) <= PACKET_MAX
        and shortcut_carries(tunnel, to, VXLAN_HEADER + (p.length if p.gso_size == 0 else p.payload + <uint32_t>p.gso_size))
    )


cdef inline bint tap_takes_train(const port *tunnel, const train *t) noexcept nogil:
    """Whether a train goes by the shortcut: then everything to its peer does."""
    return t.to.has_shortcut and not t.to.shortcut_cuts and shortcut_carries(tunnel, t.to, t.datagram_bytes)


cdef inline void outer_put(
    uint8_t *ip, const port *tunnel, const adjacency *to, uint32_t sender, uint32_t traffic_class, uint32_t datagram,
) noexcept nogil:
    """The IP and UDP headers of `datagram` bytes, UDP's included, without UDP's checksum."""
    cdef uint8_t *udp = ip + outer_bytes(tunnel.tunnel.outer_family) - UDP_BYTES
    store16(udp, tunnel.source_ports[sender])
    memcpy(udp + 2, to.remote + SOCKET_PORT, 2)
    store16(udp + UDP_LENGTH, datagram)
    store16(udp + UDP_CHECKSUM, 0)
    if tunnel.tunnel.outer_family == 4:
        ipv4_put(ip, tunnel.tunnel.local + 12, to.remote + SOCKET_IPV4, PROTOCOL_UDP, IPV4_BYTES + datagram,
                 traffic_class, 0, IPV4_DF, OUTER_TTL)
    else:
        ipv6_put(ip, tunnel.tunnel.local, to.remote + SOCKET_IPV6, PROTOCOL_UDP, datagram, traffic_class, 0, OUTER_TTL)


cdef inline void outer_checksum_pend(uint8_t *ip, uint32_t family, uint32_t datagram) noexcept nogil:
    """UDP's checksum as whoever completes it wants it: the sum of the pseudo-header."""
    cdef uint64_t pseudo
    if family == 4:
        pseudo = ipv4_pseudo(ip, PROTOCOL_UDP, datagram)
    else:
        pseudo = ipv6_pseudo(ip, PROTOCOL_UDP, datagram)
    store16(ip + outer_bytes(family) - UDP_BYTES + UDP_CHECKSUM, checksum_fold(pseudo))


cdef inline void tunnel_virtio_put(uint8_t *h, const packet *p, uint32_t family) noexcept nogil:
    """The virtio header of the frame, `family` being the outer one."""
    cdef uint32_t outer = ETHERNET_BYTES + outer_bytes(family) - UDP_BYTES
    cdef uint32_t inner = outer + UDP_BYTES + VXLAN_HEADER
    memset(h, 0, VIRTIO_BYTES_MAX)
    if p.gso_size != 0:
        h[0] = VIRTIO_NEEDS_CHECKSUM if family == 4 else VIRTIO_NEEDS_CHECKSUM | VIRTIO_TUNNEL_CHECKSUM
        h[VIRTIO_GSO_TYPE] = p.gso_type | (VIRTIO_TUNNEL_IPV4 if family == 4 else VIRTIO_TUNNEL_IPV6)
        virtio_store16(h + VIRTIO_HEADER_BYTES, inner + p.payload)
        virtio_store16(h + VIRTIO_GSO_SIZE, p.gso_size)
        virtio_store16(h + VIRTIO_OUTER_TRANSPORT, outer)
        virtio_store16(h + VIRTIO_INNER_NETWORK, inner)
    if p.flags & PACKET_NEEDS_CHECKSUM:
        h[0] |= VIRTIO_NEEDS_CHECKSUM
        virtio_store16(h + VIRTIO_CHECKSUM_START, inner + p.checksum_start)
        virtio_store16(h + VIRTIO_CHECKSUM_OFFSET, p.checksum_offset)
    elif family == 6:          # one checksum can be pending: the inner one was completed before
        h[0] = VIRTIO_NEEDS_CHECKSUM
        virtio_store16(h + VIRTIO_CHECKSUM_START, outer)
        virtio_store16(h + VIRTIO_CHECKSUM_OFFSET, UDP_CHECKSUM)


cdef inline void train_virtio_put(uint8_t *h, const train *t, uint32_t family) noexcept nogil:
    """The virtio header of a train's frame, which is a super-packet if it has more than one datagram."""
    cdef uint32_t outer = ETHERNET_BYTES + outer_bytes(family) - UDP_BYTES
    memset(h, 0, VIRTIO_BYTES_MAX)
    h[0] = VIRTIO_NEEDS_CHECKSUM
    virtio_store16(h + VIRTIO_CHECKSUM_START, outer)
    virtio_store16(h + VIRTIO_CHECKSUM_OFFSET, UDP_CHECKSUM)
    if t.n_datagrams > 1:
        h[VIRTIO_GSO_TYPE] = GSO_UDP
        virtio_store16(h + VIRTIO_HEADER_BYTES, outer + UDP_BYTES)
        virtio_store16(h + VIRTIO_GSO_SIZE, t.datagram_bytes)


cdef inline int tap_write(int fd, const iovec *pieces, uint32_t n_pieces) noexcept nogil:
    """writev of one frame that waits a bounded time for room. 0, or the errno."""
    cdef int attempt, failed = 0
    for attempt in range(SEND_TRIES):
        if failed == EAGAIN:
            wait_for_room(fd)
        if writev(fd, pieces, <int>n_pieces) >= 0:
            return 0
        failed = errno
        if failed != EAGAIN and failed != ENOBUFS and failed != ENOMEM and failed != EINTR:
            break
    return failed


cdef inline void link_put(uint8_t *ethernet, const adjacency *to, uint32_t family) noexcept nogil:
    memcpy(ethernet, to.link, 12)
    store16(ethernet + ETHERNET_TYPE, ETHERTYPE_IPV4 if family == 4 else ETHERTYPE_IPV6)


cdef inline int tap_send(
    const port *tunnel, const adjacency *to, const packet *p, uint32_t sender, uint32_t traffic_class,
) noexcept nogil:
    """Send a packet that `tap_takes` and that has its VXLAN header in front. 0, or the errno.

    Over IPv6 a packet that is no super-packet comes with its checksum completed. Over IPv4 there is no outer one.
    """
    cdef uint32_t family = tunnel.tunnel.outer_family
    cdef uint32_t datagram = UDP_BYTES + VXLAN_HEADER + p.length
    cdef uint8_t *ip = p.data - VXLAN_HEADER - outer_bytes(family)
    cdef uint8_t *ethernet = ip - ETHERNET_BYTES
    cdef uint8_t *virtio = ethernet - VIRTIO_BYTES_MAX
    cdef iovec frame
    outer_put(ip, tunnel, to, sender, traffic_class, datagram)
    if family == 6:
        outer_checksum_pend(ip, family, datagram)
    link_put(ethernet, to, family)
    tunnel_virtio_put(virtio, p, family)
    frame.iov_base = virtio
    frame.iov_len = <size_t>(p.data + p.length - virtio)
    return tap_write(to.tap, &frame, 1)


cdef inline int tap_send_train(const port *tunnel, const train *t) noexcept nogil:
    """Send all datagrams of a train as one frame. 0, or the errno."""
    cdef uint32_t family = tunnel.tunnel.outer_family
    cdef uint32_t datagram = UDP_BYTES + t.total_bytes
    cdef uint8_t header[FRAME_HEADER_MAX]
    cdef uint8_t *ethernet = header + VIRTIO_BYTES_MAX
    cdef uint8_t *ip = ethernet + ETHERNET_BYTES
    cdef iovec frame[2 * SEGMENTS_MAX + 1]
    outer_put(ip, tunnel, t.to, t.sender, t.traffic_class, datagram)
    outer_checksum_pend(ip, family, datagram)
    link_put(ethernet, t.to, family)
    train_virtio_put(header, t, family)
    frame[0].iov_base = header
    frame[0].iov_len = VIRTIO_BYTES_MAX + ETHERNET_BYTES + outer_bytes(family)
    memcpy(&frame[1], t.pieces, train_pieces(t) * sizeof(iovec))
    return tap_write(t.to.tap, frame, train_pieces(t) + 1)
