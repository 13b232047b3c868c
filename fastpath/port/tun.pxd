# The TUN port: one super-packet a read, one a write, each behind its virtio header.
#
# Owns: the translation between virtio metadata and packet fields.
# Never: believes the metadata beyond bounds (parse judges it with the packet).
# Invariant: what a local port cannot take whole is never written to it; the
# sender splits or completes first.

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy, memset
from fastpath.buffer cimport (
    arena, arena_room, arena_take, iovec, packet, BURST_CAPACITY, GSO_ECN, PACKET_MAX, PACKET_NEEDS_CHECKSUM,
)
from fastpath.port.port cimport port
from fastpath.system cimport read, writev, errno, EAGAIN, EINTR, ENOBUFS, ENOMEM

cdef enum:
    VNET_NEEDS_CHECKSUM = 1    # virtio_net_hdr.flags
    TAILS_WRITTEN_MAX = BURST_CAPACITY  # pieces besides the two headers: merge makes no more

# virtio_net_hdr (10 bytes, host-endian): flags, gso_type, hdr_len, gso_size, csum_start, csum_offset
cdef inline void vnet_read(const uint8_t *header, packet *p) noexcept nogil:
    cdef uint16_t words[4]     # hdr_len (unreliable for forwarded packets), gso_size, start, offset
    memcpy(words, header + 2, 8)
    p.gso_type = header[1]
    p.gso_size = words[1] if header[1] & ~<uint32_t>GSO_ECN else 0
    if header[0] & VNET_NEEDS_CHECKSUM:
        p.flags |= PACKET_NEEDS_CHECKSUM
        p.checksum_start = words[2]
        p.checksum_offset = words[3]

cdef inline void vnet_write(uint8_t *header, uint32_t size, const packet *p) noexcept nogil:
    cdef uint16_t words[4]
    memset(header, 0, size)
    memset(words, 0, 8)
    if p.flags & PACKET_NEEDS_CHECKSUM:
        header[0] = VNET_NEEDS_CHECKSUM
        words[2] = p.checksum_start
        words[3] = p.checksum_offset
    if p.gso_size:
        header[1] = p.gso_type
        words[0] = p.payload
        words[1] = p.gso_size
    memcpy(header + 2, words, 8)

cdef inline int tun_receive(const port *source, arena *memory, packet *p) noexcept nogil:
    """Read one packet into the arena. 1: got one, 0: none waiting, < 0: -errno of a broken device."""
    cdef uint8_t *room = arena_room(memory, PACKET_MAX)
    cdef long n
    if room == NULL:
        return 0
    while True:
        # The virtio header lands in the headroom, the packet at `room`.
        n = read(source.inputs[0], room - source.vnet_header, PACKET_MAX + source.vnet_header)
        if n >= 0 or errno != EINTR:
            break
    if n < 0:
        return 0 if errno == EAGAIN else -errno
    memset(p, 0, sizeof(packet))
    p.n_segments = 1
    p.port = source.index
    p.data = room
    if n > source.vnet_header:
        p.length = <uint32_t>(n - source.vnet_header)
        if source.vnet_header:
            vnet_read(room - source.vnet_header, p)
    arena_take(memory, room + p.length)
    return 1

cdef inline int tun_send(const port *target, const packet *p) noexcept nogil:
    """Write one packet or super-packet. 0, or the errno."""
    cdef iovec pieces[TAILS_WRITTEN_MAX + 2]
    cdef uint8_t header[24]
    cdef int n_pieces = 0
    cdef uint32_t i
    if target.vnet_header:
        vnet_write(header, target.vnet_header, p)
        pieces[0].iov_base = header
        pieces[0].iov_len = target.vnet_header
        n_pieces = 1
    pieces[n_pieces].iov_base = p.data
    pieces[n_pieces].iov_len = p.length
    n_pieces += 1
    for i in range(p.n_tail):
        pieces[n_pieces] = p.tail[i]
        n_pieces += 1
    while True:
        if writev(target.inputs[0], pieces, n_pieces) >= 0:
            return 0
        if errno != EINTR:
            return errno
