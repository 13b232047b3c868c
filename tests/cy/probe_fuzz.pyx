# What the fuzzers call: one entry for each parser of packet bytes.
#
# Owns: the entries, and the oracles that need no second implementation.
# Never: draws random numbers; libFuzzer, or the driver's own loop, does.
# Invariant: an input is copied into a heap block of exactly its size, and any
# broken promise ends in abort(), so that the input which broke it is kept.
#
# An input is a virtio header (10 bytes), one byte of choices, and a packet; of
# decap_any: five bytes of choices and a tunnel payload. tests/fuzz/inputs.py writes them.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdio cimport fprintf, stderr
from libc.stdlib cimport abort, free, malloc
from libc.string cimport memcmp, memcpy, memset
from fastpath.buffer cimport packet, GSO_NONE
from fastpath.encap.registry cimport encap_match, encap_strip
from fastpath.encap.tunnel cimport tunnel
from fastpath.reason cimport REASON_COUNT, REASON_NONE, VERDICT_DROP, VERDICT_PASS
from fastpath.stage.parse cimport parse
from fastpath.stage.reply cimport REPLY6_MAX, REPLY4_MAX, gateway, reply_build, reply_limits, reply_limits_init
from fastpath.wire.ipv4 cimport IPV4_BYTES, ipv4_header_bytes, ipv4_seal
from fastpath.wire.virtio cimport VIRTIO_BYTES, virtio_put, virtio_read

cdef enum:
    CHOICE_SEAL = 1            # repair the IPv4 header checksum, or nothing behind it is ever reached
    CHOICE_METADATA = 2        # the virtio header counts
    KEY = 0x5bd1e995


cdef inline void require(bint holds, const char *what) noexcept nogil:
    if not holds:
        fprintf(stderr, b"broken promise: %s\n", what)
        abort()


cdef void require_sound(const packet *p, uint32_t given) noexcept nogil:
    """What every stage behind parse relies on."""
    require(p.verdict == VERDICT_PASS or p.verdict == VERDICT_DROP, b"a verdict")
    require(p.n_segments >= 1, b"at least one segment")
    if p.verdict == VERDICT_DROP:
        require(p.reason != REASON_NONE and p.reason < REASON_COUNT, b"a drop has a reason")
        return
    require(p.length <= given, b"length within the bytes given")
    require(p.transport <= p.payload and p.payload <= p.length, b"offsets in order and within the packet")
    require(p.transport >= (20 if p.family == 4 else 40), b"the transport starts behind the IP header")
    require((p.gso_size == 0) == (p.gso_type == GSO_NONE), b"a size with a type")
    require((p.gso_size == 0) == (p.n_segments == 1), b"a super-packet has several segments")


cdef uint8_t *admit(packet *p, const uint8_t *data, size_t n, uint32_t family) noexcept nogil:
    """The packet of an input, parsed in a block of its own (which the caller frees); NULL when there is none."""
    cdef uint8_t *block
    cdef size_t head = VIRTIO_BYTES + 1
    if n <= head or n - head > 65535:
        return NULL
    block = <uint8_t *>malloc(n - head)
    require(block != NULL, b"memory for an input")
    memcpy(block, data + head, n - head)
    memset(p, 0, sizeof(packet))
    p.data = block
    p.length = <uint32_t>(n - head)
    if data[VIRTIO_BYTES] & CHOICE_METADATA and virtio_read(data, p) != REASON_NONE:
        free(block)
        return NULL
    if family != 0:
        block[0] = <uint8_t>(family << 4 | block[0] & 15)
    if data[VIRTIO_BYTES] & CHOICE_SEAL and block[0] >> 4 == 4 and p.length >= IPV4_BYTES \
            and ipv4_header_bytes(block) >= IPV4_BYTES and ipv4_header_bytes(block) <= p.length:
        ipv4_seal(block)
    parse(p, KEY)
    return block


cdef void wire(const uint8_t *data, size_t n, uint32_t family) noexcept nogil:
    """parse is total, leaves the bytes alone, and finds the same in what it found."""
    cdef packet p, again
    cdef uint8_t header[VIRTIO_BYTES]
    cdef uint8_t *block = admit(&p, data, n, family)
    if block == NULL:
        return
    require_sound(&p, <uint32_t>(n - VIRTIO_BYTES - 1))
    if p.verdict == VERDICT_PASS:
        memcpy(&again, &p, sizeof(packet))
        virtio_put(header, VIRTIO_BYTES, &p)
        require(virtio_read(header, &again) == REASON_NONE, b"what virtio_put writes, virtio_read takes")
        again.flow_hash = 0
        parse(&again, KEY)
        require(memcmp(&again, &p, sizeof(packet)) == 0, b"parsing twice changes nothing")
    free(block)


cdef public int fuzz_wire_ip4(const uint8_t *data, size_t n) noexcept nogil:
    wire(data, n, 4)
    return 0


cdef public int fuzz_wire_ip6_ext(const uint8_t *data, size_t n) noexcept nogil:
    wire(data, n, 6)
    return 0


cdef bint speaks_as_gateway(const packet *p, const gateway *own) noexcept nogil:
    """Whether the answer goes from the gateway to itself, which parse calls LAND."""
    if p.family == 4:
        return memcmp(p.data + 12, own.gateway4, 4) == 0
    return memcmp(p.data + 8, own.gateway6, 16) == 0


cdef public int fuzz_icmp_quote(const uint8_t *data, size_t n) noexcept nogil:
    """A message about any packet is within bounds, within its room, and itself a packet that parse passes."""
    cdef packet p, message
    cdef gateway own
    cdef reply_limits limits
    cdef uint8_t *out
    cdef uint32_t length = 0, room
    cdef uint8_t *block = admit(&p, data, n, 0)
    if block == NULL:
        return 0
    if p.verdict == VERDICT_PASS:
        memset(&own, 0, sizeof(gateway))
        own.has4 = own.has6 = True
        memcpy(own.gateway4, b"\x0a\xf4\x01\x01", 4)
        memcpy(own.gateway6, b"\xfd\x00\x00\x10\x02\x44\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01", 16)
        reply_limits_init(&limits, KEY)
        room = REPLY6_MAX - <uint32_t>(data[VIRTIO_BYTES] >> 5) * 160
        out = <uint8_t *>malloc(room)
        require(out != NULL, b"memory for an answer")
        p.verdict = VERDICT_DROP
        p.reply = data[VIRTIO_BYTES] >> 2 & 7
        p.reply_mtu = 1400
        if reply_build(&p, &limits, &own, 1, out, room, &length):
            require(length <= room and length <= (REPLY4_MAX if p.family == 4 else REPLY6_MAX), b"a short answer")
            memset(&message, 0, sizeof(packet))
            message.data = out
            message.length = length
            parse(&message, KEY)
            require(message.verdict == VERDICT_PASS or speaks_as_gateway(&p, &own), b"an answer that parses")
            require(not reply_build(&message, &limits, &own, 1, out, room, &length), b"no answer to an answer")
        free(out)
    free(block)
    return 0


cdef public int fuzz_decap_any(const uint8_t *data, size_t n) noexcept nogil:
    """What any encapsulation accepts lies inside the payload, and parse can be let loose on it."""
    cdef tunnel t
    cdef packet p
    cdef uint8_t *block
    if n < 5 or n - 5 > 65535:
        return 0
    memset(&t, 0, sizeof(tunnel))
    t.encapsulation = data[0] & 3
    t.outer_family = 6 if data[0] & 4 else 4
    t.strict_mac = data[0] >> 3 & 1
    t.reserved = (data[0] >> 4 & 3) % 3
    t.vni = <uint32_t>data[1] << 16 | <uint32_t>data[2] << 8 | data[3]
    t.mac[0] = 2
    t.mac[5] = data[4]
    block = <uint8_t *>malloc(n - 5 if n > 5 else 1)
    require(block != NULL, b"memory for an input")
    memcpy(block, data + 5, n - 5)
    if encap_match(&t, block, <uint32_t>(n - 5)) == REASON_NONE:
        memset(&p, 0, sizeof(packet))
        p.data = block
        p.length = <uint32_t>(n - 5)
        encap_strip(&t, &p)
        require(p.data >= block and p.data - block <= <long>(n - 5), b"the inner packet starts in the payload")
        require(p.length == n - 5 - <size_t>(p.data - block), b"and ends with it")
        n = p.length
        parse(&p, KEY)
        require_sound(&p, <uint32_t>n)
    free(block)
    return 0


def run(str target, bytes data):
    """One input through one entry, for the regression test."""
    cdef const uint8_t *start = data
    cdef size_t n = len(data)
    cdef dict known = {"wire_ip4": 0, "wire_ip6_ext": 1, "icmp_quote": 2, "decap_any": 3}
    cdef int which = known[target]
    with nogil:
        if which == 0:
            fuzz_wire_ip4(start, n)
        elif which == 1:
            fuzz_wire_ip6_ext(start, n)
        elif which == 2:
            fuzz_icmp_quote(start, n)
        else:
            fuzz_decap_any(start, n)
