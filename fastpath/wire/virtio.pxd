# The virtio-net header in front of every packet of a TUN device.
#
# Owns: its layout (10, 12 or 24 bytes; little-endian, which the TUN port asks
# for with TUNSETVNETLE) and the part of its check that needs no packet.
# Never: trusts it: virtio_agrees() is called by parse once the headers are known.
# Invariant: after both, a pending checksum lies inside the packet in the field
# where the transport keeps it (or wholly in the payload, for a tunnel of the
# pod's own), and a super-packet has at least two segments.

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memset
from fastpath.buffer cimport (
    packet, GSO_NONE, GSO_TCP4, GSO_TCP6, GSO_UDP, GSO_ECN, PACKET_FRAGMENT, PACKET_NEEDS_CHECKSUM, SEGMENTS_MAX,
)
from fastpath.reason cimport REASON_NONE, REASON_VNET_HEADER
from fastpath.wire.octets cimport load16
from fastpath.wire.transport cimport PROTOCOL_TCP, PROTOCOL_UDP, UDP_LENGTH, transport_checksum_offset

cdef enum:
    VIRTIO_BYTES = 10          # the header every kernel knows
    VIRTIO_BYTES_MAX = 24      # with the fields of tunnel offloads
    VIRTIO_GSO_TYPE = 1
    VIRTIO_HEADER_BYTES = 2
    VIRTIO_GSO_SIZE = 4
    VIRTIO_CHECKSUM_START = 6
    VIRTIO_CHECKSUM_OFFSET = 8

    VIRTIO_OUTER_TRANSPORT = 20  # of a tunnelled super-packet: where its outer UDP header starts
    VIRTIO_INNER_NETWORK = 22    # and its inner IP header

cdef enum:                     # of the first byte
    VIRTIO_NEEDS_CHECKSUM = 1
    VIRTIO_DATA_VALID = 2
    VIRTIO_TUNNEL_CHECKSUM = 8 # the outer UDP checksum is pending too

cdef enum:                     # beside the type of the inner super-packet
    VIRTIO_TUNNEL_IPV4 = 0x20
    VIRTIO_TUNNEL_IPV6 = 0x40

cdef enum:
    # Linux splits TCP no finer (TCP_MIN_GSO_SIZE); less is an attempt to multiply packets.
    GSO_TCP_SIZE_MIN = 8


cdef inline uint32_t virtio_load16(const uint8_t *at) noexcept nogil:
    return <uint32_t>at[1] << 8 | at[0]


cdef inline void virtio_store16(uint8_t *at, uint32_t value) noexcept nogil:
    at[0] = <uint8_t>value
    at[1] = <uint8_t>(value >> 8)


cdef inline int virtio_read(const uint8_t *h, packet *p) noexcept nogil:
    """Take the header's fields into the packet; of its flags only NEEDS_CHECKSUM is touched."""
    cdef uint32_t kind = h[VIRTIO_GSO_TYPE] & ~<uint32_t>GSO_ECN
    p.gso_type = GSO_NONE
    p.gso_size = 0
    p.checksum_start = 0
    p.checksum_offset = 0
    p.flags &= <uint8_t>~PACKET_NEEDS_CHECKSUM
    if h[0] & ~<uint32_t>(VIRTIO_NEEDS_CHECKSUM | VIRTIO_DATA_VALID) != 0:
        return REASON_VNET_HEADER
    if h[0] & VIRTIO_NEEDS_CHECKSUM != 0:
        p.flags |= PACKET_NEEDS_CHECKSUM
        p.checksum_start = <uint16_t>virtio_load16(h + VIRTIO_CHECKSUM_START)
        p.checksum_offset = <uint16_t>virtio_load16(h + VIRTIO_CHECKSUM_OFFSET)
    if kind == GSO_NONE:
        return REASON_NONE
    if kind != GSO_TCP4 and kind != GSO_TCP6 and kind != GSO_UDP:
        return REASON_VNET_HEADER
    p.gso_type = h[VIRTIO_GSO_TYPE]
    p.gso_size = <uint16_t>virtio_load16(h + VIRTIO_GSO_SIZE)
    return REASON_NONE if p.gso_size != 0 else REASON_VNET_HEADER


cdef inline void virtio_put(uint8_t *h, uint32_t n, const packet *p) noexcept nogil:
    """Write a header of `n` bytes for a parsed packet."""
    memset(h, 0, n)
    if p.flags & PACKET_NEEDS_CHECKSUM != 0:
        h[0] = VIRTIO_NEEDS_CHECKSUM
        virtio_store16(h + VIRTIO_CHECKSUM_START, p.checksum_start)
        virtio_store16(h + VIRTIO_CHECKSUM_OFFSET, p.checksum_offset)
    if p.gso_size != 0:
        h[VIRTIO_GSO_TYPE] = p.gso_type
        virtio_store16(h + VIRTIO_HEADER_BYTES, p.payload)
        virtio_store16(h + VIRTIO_GSO_SIZE, p.gso_size)


cdef inline int virtio_agrees(const packet *p) noexcept nogil:
    """The metadata of a packet whose headers were checked does not contradict them."""
    if p.flags & PACKET_NEEDS_CHECKSUM != 0 and not virtio_checksum_agrees(p):
        return REASON_VNET_HEADER
    if (p.gso_size != 0 or p.gso_type != GSO_NONE) and not virtio_gso_agrees(p):
        return REASON_VNET_HEADER
    return REASON_NONE


cdef inline bint virtio_checksum_agrees(const packet *p) noexcept nogil:
    """Completing it writes the transport's own checksum field, or behind the transport header.

    Anything else would let a pod rewrite, after policy has read them, the
    ports or addresses of its packet.
    """
    cdef uint32_t start = p.checksum_start
    cdef uint32_t field = start + p.checksum_offset
    cdef uint32_t own = transport_checksum_offset(p.protocol)
    if p.flags & PACKET_FRAGMENT != 0 or field + 2 > p.length:
        return False
    if start == p.transport and own != 0:
        return p.checksum_offset == own
    return start >= p.payload and start > p.transport


cdef inline bint virtio_gso_agrees(const packet *p) noexcept nogil:
    cdef uint32_t kind = p.gso_type & ~<uint32_t>GSO_ECN
    cdef uint32_t payload = p.length - p.payload
    if p.flags & PACKET_NEEDS_CHECKSUM == 0 or p.flags & PACKET_FRAGMENT != 0:
        return False
    if p.checksum_start != p.transport or p.gso_size == 0 or p.gso_size > payload:
        return False
    if kind == GSO_UDP:
        return (p.gso_type == GSO_UDP and p.protocol == PROTOCOL_UDP
                and payload <= <uint32_t>p.gso_size * SEGMENTS_MAX
                and load16(p.data + p.transport + UDP_LENGTH) == p.length - p.transport)
    return (kind == <uint32_t>(GSO_TCP4 if p.family == 4 else GSO_TCP6) and p.protocol == PROTOCOL_TCP
            and p.gso_size >= GSO_TCP_SIZE_MIN)
