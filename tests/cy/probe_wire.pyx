# Python faces of the inline functions of wire/ and stage/parse, for tests.
#
# Every input is copied into a heap block of exactly its size, so that a build
# with AddressSanitizer sees each byte read too far.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from fastpath.buffer cimport (
    burst, packet, PACKET_DONT_FRAGMENT, PACKET_FRAGMENT, PACKET_LATER_FRAGMENT, PACKET_NEEDS_CHECKSUM,
)
from fastpath.reason cimport VERDICT_DROP, VERDICT_PASS
from fastpath.stage.parse cimport flow_hash, parse, parse_burst
from fastpath.wire cimport checksum, ethernet, icmp, ipv4, ipv6, octets, virtio


cdef uint8_t *copy(bytes data) except NULL:
    cdef uint8_t *block = <uint8_t *>malloc(len(data) or 1)
    if block == NULL:
        raise MemoryError
    memcpy(block, <const uint8_t *>data, len(data))
    return block


def loads(bytes data):
    cdef uint8_t *block = copy(data)
    try:
        return octets.load16(block), octets.load32(block), octets.load64(block)
    finally:
        free(block)


def stores(uint64_t value):
    cdef uint8_t block[14]
    octets.store16(block, <uint32_t>(value & 0xffff))
    octets.store32(block + 2, <uint32_t>(value & 0xffffffff))
    octets.store64(block + 6, value)
    return <bytes>block[:14]


def checksum_add(uint64_t sum, bytes data):
    cdef uint8_t *block = copy(data)
    try:
        return checksum.checksum_add(sum, block, <uint32_t>len(data))
    finally:
        free(block)


def checksum_right20(bytes data):
    assert len(data) == 20
    return bool(checksum.checksum_right20(data))


def checksum_fold(uint64_t sum):
    return checksum.checksum_fold(sum)


def checksum_finish_udp(uint64_t sum):
    return checksum.checksum_finish_udp(sum)


def checksum_replace16(field, old, new):
    return checksum.checksum_replace16(field, old, new)


def checksum_replace32(field, old, new):
    return checksum.checksum_replace32(field, old, new)


def replace16_disagreements(uint32_t field, uint32_t old):
    """How many of the 65,536 new words the incremental update gets wrong, against summing anew.

    The covered bytes are one word that makes `field` right, and `old`.
    """
    cdef uint32_t new, wrong = 0
    cdef uint64_t rest = <uint64_t>(~field & 0xffff) + (~old & 0xffff)
    for new in range(0x10000):
        if checksum.checksum_replace16(field, old, new) != checksum.checksum_finish(rest + new):
            wrong += 1
    return wrong


def ethernet_check(bytes data):
    cdef uint8_t *block = copy(data)
    try:
        return ethernet.ethernet_check(block, <uint32_t>len(data))
    finally:
        free(block)


def ethernet_put(bytes destination, bytes source, family):
    cdef uint8_t block[14]
    ethernet.ethernet_put(block, destination, source, family)
    return <bytes>block[:14], ethernet.ethernet_family(block), bool(ethernet.ethernet_is_group(block))


def ipv4_put(bytes source, bytes destination, protocol, total, traffic_class, identification, fragment, ttl):
    cdef uint8_t block[20]
    ipv4.ipv4_put(block, source, destination, protocol, total, traffic_class, identification, fragment, ttl)
    return <bytes>block[:20]


def ipv6_put(bytes source, bytes destination, next_header, payload, traffic_class, flow_label, hops):
    cdef uint8_t block[40]
    ipv6.ipv6_put(block, source, destination, next_header, payload, traffic_class, flow_label, hops)
    return <bytes>block[:40]


def set_class(bytes header, traffic_class):
    cdef uint8_t *block = copy(header)
    try:
        if block[0] >> 4 == 4:
            ipv4.ipv4_set_class(block, traffic_class)
        else:
            ipv6.ipv6_set_class(block, traffic_class)
        return <bytes>block[:len(header)]
    finally:
        free(block)


def decrement(bytes header):
    cdef uint8_t *block = copy(header)
    try:
        if block[0] >> 4 == 4:
            ipv4.ipv4_decrement_ttl(block)
        else:
            ipv6.ipv6_decrement_hops(block)
        return <bytes>block[:len(header)]
    finally:
        free(block)


def address4(uint32_t address):
    """What may be said of it: ordinary, group, martian."""
    return (bool(ipv4.ipv4_is_ordinary(address)), bool(ipv4.ipv4_is_group(address)),
            bool(ipv4.ipv4_is_martian(address)))


cdef dict described(const packet *p):
    if p.verdict == VERDICT_DROP:
        return {"verdict": "drop", "reason": p.reason, "n_segments": p.n_segments}
    return {
        "verdict": "pass",
        "length": p.length,
        "family": p.family,
        "protocol": p.protocol,
        "traffic_class": p.traffic_class,
        "transport": p.transport,
        "payload": p.payload,
        "fragment": bool(p.flags & PACKET_FRAGMENT),
        "later_fragment": bool(p.flags & PACKET_LATER_FRAGMENT),
        "dont_fragment": bool(p.flags & PACKET_DONT_FRAGMENT),
        "n_segments": p.n_segments,
        "gso_size": p.gso_size,
        "gso_type": p.gso_type,
        "flow_hash": p.flow_hash,
    }


def parse_packet(bytes data, uint64_t key=0, gso_type=0, gso_size=0, checksum_at=None):
    """What parse finds; `checksum_at` is (start, offset) of a pending checksum."""
    cdef packet p
    cdef uint8_t *block = copy(data)
    memset(&p, 0, sizeof(p))
    try:
        p.data = block
        p.length = <uint32_t>len(data)
        p.gso_type = gso_type
        p.gso_size = gso_size
        if checksum_at is not None:
            p.flags = PACKET_NEEDS_CHECKSUM
            p.checksum_start, p.checksum_offset = checksum_at
        parse(&p, key)
        assert data == <bytes>block[:len(data)], "parse wrote into the packet"
        return described(&p)
    finally:
        free(block)


def parse_many(list packets, uint64_t key=0):
    """The same through parse_burst; a None in the list is a packet dropped before."""
    cdef burst *b = <burst *>malloc(sizeof(burst))
    cdef list blocks = [bytes(data or b"") for data in packets]
    cdef uint32_t i
    if b == NULL:
        raise MemoryError
    memset(b, 0, sizeof(burst))
    try:
        b.n = <uint32_t>len(packets)
        for i in range(b.n):
            b.packets[i].data = <uint8_t *><const uint8_t *>(<bytes>blocks[i])
            b.packets[i].length = <uint32_t>len(blocks[i])
            b.packets[i].verdict = VERDICT_PASS if packets[i] is not None else VERDICT_DROP
        parse_burst(b, key)
        return [described(&b.packets[i]) for i in range(b.n)]
    finally:
        free(b)


def virtio_read(bytes header):
    """(reason, flags, gso_type, gso_size, checksum_start, checksum_offset)"""
    cdef packet p
    cdef uint8_t *block = copy(header)
    cdef int reason
    memset(&p, 0xff, sizeof(p))
    p.flags = 0
    try:
        reason = virtio.virtio_read(block, &p)
        return reason, p.flags, p.gso_type, p.gso_size, p.checksum_start, p.checksum_offset
    finally:
        free(block)


def virtio_put(n, flags, gso_type, gso_size, checksum_start, checksum_offset, payload):
    cdef packet p
    cdef uint8_t block[24]
    memset(&p, 0, sizeof(p))
    p.flags = flags
    p.gso_type = gso_type
    p.gso_size = gso_size
    p.checksum_start = checksum_start
    p.checksum_offset = checksum_offset
    p.payload = payload
    virtio.virtio_put(block, n, &p)
    return <bytes>block[:n]
