# parse: from bytes to a packet whose offsets can be trusted.
#
# Owns: every check of one packet that needs no table, and the fields of
# `packet` marked "found by parse".
# Never: writes packet bytes, remembers a packet, or verifies a transport checksum.
# Invariants:
#   * A packet that keeps verdict PASS has length == what its IP header says,
#     transport <= payload <= length, and virtio metadata that agrees with it.
#   * n_segments is 1 for every packet that is dropped here; whoever counts
#     received packets counts them after parse.
#   * Both directions run it: on what a port reads and on what a tunnel carried.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp
from fastpath.buffer cimport (
    burst, packet, packet_drop, GSO_NONE, PACKET_DONT_FRAGMENT, PACKET_FRAGMENT, PACKET_LATER_FRAGMENT,
    PACKET_MORE_FRAGMENTS,
)
from fastpath.reason cimport (
    VERDICT_PASS, REASON_NONE, REASON_TRUNCATED, REASON_VNET_HEADER, REASON_IP_VERSION, REASON_FRAGMENT_TINY,
    REASON_MARTIAN, REASON_LAND, REASON_MULTICAST,
)
from fastpath.wire.fragment cimport fragment_check
from fastpath.wire.ipv4 cimport (
    IPV4_CLASS, IPV4_DESTINATION, IPV4_DF, IPV4_FRAGMENT, IPV4_ID, IPV4_MF, IPV4_OFFSET, IPV4_PROTOCOL, IPV4_SOURCE,
    IPV4_TOTAL, ipv4_check, ipv4_header_bytes, ipv4_is_group, ipv4_is_link_local, ipv4_is_martian, ipv4_is_ordinary,
)
from fastpath.wire.ipv6 cimport (
    IPV6_BYTES, IPV6_DESTINATION, IPV6_PAYLOAD, IPV6_SOURCE, ipv6_chain, ipv6_check, ipv6_class, ipv6_is_group,
    ipv6_is_martian, ipv6_walk,
)
from fastpath.wire.octets cimport load16, load32, load64
from fastpath.wire.transport cimport transport_check, transport_ports
from fastpath.wire.virtio cimport virtio_agrees

cdef extern from *:
    """
    /* Both halves of a 64 x 64 bit product, folded: every input bit reaches every output bit. */
    static inline uint64_t towpath_mix(uint64_t a, uint64_t b) {
        unsigned __int128 product = (unsigned __int128)a * b;
        return (uint64_t)product ^ (uint64_t)(product >> 64);
    }
    """
    uint64_t mix "towpath_mix"(uint64_t a, uint64_t b) noexcept nogil


cdef inline void parse_burst(burst *b, uint64_t key) noexcept nogil:
    parse_all(b.packets, b.n, key)


cdef inline void parse_all(packet *packets, uint32_t n, uint64_t key) noexcept nogil:
    """Parse those that nobody has dropped. The worker's one way in: so the compiler makes one function of all below."""
    cdef uint32_t i
    for i in range(n):
        if packets[i].verdict == VERDICT_PASS:
            parse(&packets[i], key)


cdef inline void parse(packet *p, uint64_t key) noexcept nogil:
    """Check `length` bytes at `data` and the virtio metadata; fill in what was found, or drop."""
    cdef int reason = parse_headers(p)
    p.n_segments = 1
    if reason != REASON_NONE:
        packet_drop(p, reason)
        return
    if p.gso_size != 0:
        parse_segments(p)
    p.flow_hash = flow_hash(p, key)


cdef inline int parse_headers(packet *p) noexcept nogil:
    cdef int reason
    p.flags &= <uint8_t>~(PACKET_FRAGMENT | PACKET_LATER_FRAGMENT | PACKET_DONT_FRAGMENT | PACKET_MORE_FRAGMENTS)
    if p.length == 0:
        return REASON_TRUNCATED
    if p.data[0] >> 4 == 4:
        reason = parse_ipv4(p)
    elif p.data[0] >> 4 == 6:
        reason = parse_ipv6(p)
    else:
        return REASON_IP_VERSION
    if reason == REASON_NONE and p.flags & PACKET_LATER_FRAGMENT == 0:
        reason = parse_transport(p)
    if reason == REASON_NONE:
        reason = virtio_agrees(p)
    return reason


cdef inline int parse_ipv4(packet *p) noexcept nogil:
    cdef const uint8_t *h = p.data
    cdef uint32_t fragment, header
    cdef int reason = ipv4_check(h, p.length)
    if reason != REASON_NONE:
        return reason
    reason = parse_addresses4(p, load32(h + IPV4_SOURCE), load32(h + IPV4_DESTINATION))
    if reason == REASON_NONE:
        reason = parse_trim(p, load16(h + IPV4_TOTAL))
    if reason != REASON_NONE:
        return reason
    header = ipv4_header_bytes(h)
    p.family = 4
    p.protocol = h[IPV4_PROTOCOL]
    p.traffic_class = h[IPV4_CLASS]
    p.transport = <uint16_t>header
    p.payload = <uint16_t>header
    fragment = load16(h + IPV4_FRAGMENT)
    if fragment & IPV4_DF != 0:
        p.flags |= PACKET_DONT_FRAGMENT
    if fragment & (IPV4_MF | IPV4_OFFSET) == 0:
        return REASON_NONE
    p.flags |= PACKET_FRAGMENT
    p.identification = load16(h + IPV4_ID)
    p.position = <uint16_t>((fragment & IPV4_OFFSET) << 3)
    p.carried = <uint16_t>(p.length - header)
    if p.position != 0:
        p.flags |= PACKET_LATER_FRAGMENT
    if fragment & IPV4_MF != 0:
        p.flags |= PACKET_MORE_FRAGMENTS
    return fragment_check((fragment & IPV4_OFFSET) << 3, fragment & IPV4_MF != 0, p.length - header, header)


cdef inline int parse_addresses4(packet *p, uint32_t source, uint32_t destination) noexcept nogil:
    """Whether a packet may have them, and whether one is link-local."""
    if ipv4_is_ordinary(source) and ipv4_is_ordinary(destination):
        p.link_local = False
    elif ipv4_is_group(destination):
        return REASON_MULTICAST
    elif not parse_link_local(p, source, destination):
        return REASON_MARTIAN
    return REASON_LAND if source == destination else REASON_NONE


cdef inline bint parse_link_local(const packet *p, uint32_t source, uint32_t destination) noexcept nogil:
    """Between a pod and a service of its own host one end may be link-local, the other being an ordinary address."""
    if not p.link_local:
        return False
    if ipv4_is_link_local(source):
        return not ipv4_is_martian(destination)
    return ipv4_is_link_local(destination) and not ipv4_is_martian(source)


cdef inline int parse_ipv6(packet *p) noexcept nogil:
    cdef const uint8_t *h = p.data
    cdef ipv6_chain chain
    cdef int reason = ipv6_check(h, p.length)
    p.link_local = False
    if reason != REASON_NONE:
        return reason
    if ipv6_is_group(h + IPV6_DESTINATION):
        return REASON_MULTICAST
    if ipv6_is_martian(h + IPV6_SOURCE) or ipv6_is_martian(h + IPV6_DESTINATION):
        return REASON_MARTIAN
    if memcmp(h + IPV6_SOURCE, h + IPV6_DESTINATION, 16) == 0:
        return REASON_LAND
    reason = parse_trim(p, IPV6_BYTES + load16(h + IPV6_PAYLOAD))
    if reason != REASON_NONE:
        return reason
    reason = ipv6_walk(h, p.length, &chain)
    if reason != REASON_NONE:
        return reason
    p.family = 6
    p.protocol = chain.protocol
    p.traffic_class = <uint8_t>ipv6_class(h)
    p.transport = <uint16_t>chain.offset
    p.payload = <uint16_t>chain.offset
    p.flags |= PACKET_DONT_FRAGMENT
    if chain.is_fragment:
        p.flags |= PACKET_FRAGMENT
        p.identification = chain.identification
        p.position, p.carried = <uint16_t>chain.position, <uint16_t>chain.carried
        if chain.is_later:
            p.flags |= PACKET_LATER_FRAGMENT
        if chain.is_more:
            p.flags |= PACKET_MORE_FRAGMENTS
    return REASON_NONE


cdef inline int parse_trim(packet *p, uint32_t total) noexcept nogil:
    """Cut what link layers pad short frames with. The kernel pads no super-packet."""
    if total != p.length and (p.gso_size != 0 or p.gso_type != GSO_NONE):
        return REASON_VNET_HEADER
    p.length = total
    return REASON_NONE


cdef inline int parse_transport(packet *p) noexcept nogil:
    cdef uint32_t header
    cdef bint is_fragment = p.flags & PACKET_FRAGMENT != 0
    cdef int reason = transport_check(p.data + p.transport, p.length - p.transport, p.family, p.protocol,
                                      is_fragment, &header)
    if reason == REASON_TRUNCATED and is_fragment:
        return REASON_FRAGMENT_TINY   # a tiny first fragment: its header goes on in the next
    if reason == REASON_NONE:
        p.payload = <uint16_t>(p.transport + header)
    return reason


cdef inline void parse_segments(packet *p) noexcept nogil:
    """How many wire packets the super-packet stands for; one of a single segment is none."""
    p.n_segments = <uint16_t>((p.length - p.payload + p.gso_size - 1) // p.gso_size)
    if p.n_segments == 1:
        p.gso_size = 0
        p.gso_type = GSO_NONE


cdef inline uint32_t flow_hash(const packet *p, uint64_t key) noexcept nogil:
    """Keyed, so that nobody outside can aim flows at one bucket or one path.

    All fragments of a datagram agree, because only addresses are hashed of a
    fragment: the later ones have no ports, and behind IPv6 extension headers
    not even the same protocol number.
    """
    cdef const uint8_t *h = p.data
    cdef uint64_t key2 = key * 0x9e3779b97f4a7c15ULL ^ 0xd1b54a32d192ed03ULL
    cdef uint64_t tail = 0
    cdef uint64_t hash
    if p.flags & PACKET_FRAGMENT == 0:
        tail = <uint64_t>p.protocol << 32 | transport_ports(h + p.transport, p.family, p.protocol)
    if p.family == 4:
        hash = mix(load64(h + IPV4_SOURCE) ^ key, tail ^ key2)
    else:
        hash = mix(load64(h + IPV6_SOURCE) ^ key, load64(h + IPV6_SOURCE + 8) ^ key2)
        hash = mix(load64(h + IPV6_DESTINATION) ^ hash ^ key, load64(h + IPV6_DESTINATION + 8) ^ key2)
        hash = mix(hash ^ key, tail ^ key2)
    return <uint32_t>(mix(hash ^ key2, 0xa0761d6478bd642fULL) >> 32)
