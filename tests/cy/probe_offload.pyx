# Python entrances to fastpath/offload for the tests and benches.
#
# Owns: copying every input into a heap block of exactly its size, so that a
# sanitizer sees each byte read or written beyond it, and parsing it as the loop
# would. Never: judges a result.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport malloc, free
from libc.string cimport memcpy, memset

from fastpath.buffer cimport (
    BURST_CAPACITY, GSO_TCP4, GSO_TCP6, GSO_UDP, PACKET_NEEDS_CHECKSUM, burst, packet,
)
from fastpath.reason cimport VERDICT_MERGED, VERDICT_PASS
from fastpath.simd.checksum cimport checksum_words, checksum_words_scalar, checksum_words_avx2, checksum_has_avx2
from fastpath.offload.complete cimport complete as complete_inline
from fastpath.offload.fragment cimport fragment as fragment_t, fragment_begin, fragment_next
from fastpath.offload.merge cimport merge_begin, merge_finish, merge_local, merge_other, merge as merge_inline, merger
from fastpath.offload.restore cimport restore as restore_inline
from fastpath.offload.split cimport SPLIT_HEADER_MAX, split as split_t, split_begin, split_next
from fastpath.stage.parse cimport parse

HAS_AVX2 = bool(checksum_has_avx2)
CAPACITY = BURST_CAPACITY

cdef enum:
    HASH_KEY = 0x5eed
    DEAD = 0xdb


cdef uint8_t *block(Py_ssize_t size) except NULL:
    cdef uint8_t *memory = <uint8_t *>malloc(max(size, 1))
    if memory == NULL:
        raise MemoryError
    return memory


cdef uint8_t *block_of(bytes data) except NULL:
    cdef uint8_t *memory = block(len(data))
    memcpy(memory, <const uint8_t *>data, len(data))
    return memory


cdef void arrive(packet *p, uint8_t *data, uint32_t length, bint pending, uint32_t gso_size) except *:
    """Fill in a packet as a port and parse do."""
    cdef uint32_t family = data[0] >> 4
    cdef uint32_t protocol
    memset(p, 0, sizeof(packet))
    p.data = data
    p.length = length
    parse(p, HASH_KEY)
    if p.verdict != VERDICT_PASS:
        raise ValueError(f"parse dropped it for reason {p.reason}")
    protocol = p.protocol
    if pending or gso_size:
        p.flags |= PACKET_NEEDS_CHECKSUM
        p.checksum_start = p.transport
        p.checksum_offset = 16 if protocol == 6 else 6
    if gso_size:
        p.gso_size = <uint16_t>gso_size
        p.gso_type = GSO_UDP if protocol == 17 else GSO_TCP4 if family == 4 else GSO_TCP6
        parse(p, HASH_KEY)
        if p.verdict != VERDICT_PASS:
            raise ValueError(f"parse dropped it for reason {p.reason}")
        p.gso_size = <uint16_t>gso_size    # parse turns a super-packet of one segment into a plain one


cdef dict fields(packet *p):
    return {
        "verdict": p.verdict, "gso_size": p.gso_size, "gso_type": p.gso_type, "n_segments": p.n_segments,
        "pending": bool(p.flags & PACKET_NEEDS_CHECKSUM), "checksum_start": p.checksum_start,
        "checksum_offset": p.checksum_offset, "n_tail": p.n_tail, "tail_bytes": p.tail_bytes,
        "data": p.data[:p.length],
    }


# -- checksums ---------------------------------------------------------------

def checksum(bytes data, str kernel, unsigned int skip = 0):
    """Sum of data[skip:], so that `skip` chooses the alignment."""
    cdef uint8_t *memory = block_of(data)
    cdef uint32_t n = <uint32_t>len(data) - skip
    try:
        if kernel == "scalar":
            return checksum_words_scalar(memory + skip, n)
        if kernel == "avx2":
            return checksum_words_avx2(memory + skip, n)
        return checksum_words(memory + skip, n)
    finally:
        free(memory)


def time_checksum(bytes data, str kernel, unsigned int rounds):
    """Sum the same bytes `rounds` times; returns a value that depends on all of them."""
    cdef uint8_t *memory = block_of(data)
    cdef uint32_t n = <uint32_t>len(data)
    cdef uint64_t total = 0
    cdef uint32_t i
    cdef bint scalar = kernel == "scalar"
    with nogil:
        for i in range(rounds):
            memory[0] = <uint8_t>i     # or the compiler takes the sum out of the loop
            total += checksum_words_scalar(memory, n) if scalar else checksum_words(memory, n)
    free(memory)
    return total


def complete(bytes data):
    """A packet whose checksum is pending, completed; and whether it still is."""
    cdef packet p
    cdef uint8_t *memory = block_of(data)
    try:
        arrive(&p, memory, <uint32_t>len(data), True, 0)
        complete_inline(&p)
        return p.data[:p.length], bool(p.flags & PACKET_NEEDS_CHECKSUM)
    finally:
        free(memory)


# -- split -------------------------------------------------------------------

def split(bytes data, unsigned int gso_size):
    """All segments of a super-packet, each as one bytes."""
    cdef packet p
    cdef split_t s
    cdef const uint8_t *payload
    cdef uint8_t *header
    cdef uint32_t n, i
    cdef uint8_t *memory = block_of(data)
    segments = []
    try:
        arrive(&p, memory, <uint32_t>len(data), True, gso_size)
        split_begin(&s, &p)
        assert s.n_segments == p.n_segments and s.header_length <= SPLIT_HEADER_MAX
        for i in range(s.n_segments):
            header = block(s.header_length)
            n = split_next(&s, header, &payload)
            segments.append(header[:s.header_length] + payload[:n])
            free(header)
        assert split_next(&s, NULL, &payload) == 0
        return segments
    finally:
        free(memory)


def time_split(bytes data, unsigned int gso_size, unsigned int rounds):
    """Split the same super-packet `rounds` times; returns the segments made."""
    cdef packet p
    cdef split_t s
    cdef const uint8_t *payload
    cdef uint8_t header[SPLIT_HEADER_MAX]
    cdef uint64_t total = 0
    cdef uint32_t i, j
    cdef uint8_t *memory = block_of(data)
    arrive(&p, memory, <uint32_t>len(data), True, gso_size)
    with nogil:
        for i in range(rounds):
            split_begin(&s, &p)
            for j in range(s.n_segments):
                split_next(&s, header, &payload)
            total += s.n_segments
    free(memory)
    return total


# -- fragment and restore ----------------------------------------------------

def fragment(bytes data, unsigned int mtu, bint pending = False):
    """All fragments of a packet, each as one bytes."""
    cdef packet p
    cdef fragment_t f
    cdef const uint8_t *payload
    cdef uint8_t *header
    cdef uint32_t n
    cdef uint8_t *memory = block_of(data)
    fragments = []
    try:
        arrive(&p, memory, <uint32_t>len(data), pending, 0)
        fragment_begin(&f, &p, mtu)
        while True:
            header = block(f.header_length)
            n = fragment_next(&f, header, &payload)
            if n:
                fragments.append(header[:f.header_length] + payload[:n])
            free(header)
            if n == 0:
                return fragments
    finally:
        free(memory)


def restore(bytes data, unsigned int mtu):
    """What restore makes of a packet from a tunnel, as a dict with its reason."""
    cdef packet p
    cdef uint8_t *memory = block_of(data)
    try:
        arrive(&p, memory, <uint32_t>len(data), False, 0)
        reason = restore_inline(&p, mtu)
        return {"reason": reason, **fields(&p)}
    finally:
        free(memory)


# -- merge -------------------------------------------------------------------

cdef class Burst:
    """Packets laid out in one exact block with dead bytes in front of each."""

    cdef burst *b
    cdef merger *m
    cdef uint8_t *memory
    cdef bytes image
    cdef burst *before

    def __cinit__(self):
        self.b = <burst *>block(sizeof(burst))
        self.before = <burst *>block(sizeof(burst))
        self.m = <merger *>block(sizeof(merger))
        self.memory = NULL

    def __dealloc__(self):
        free(self.b)
        free(self.before)
        free(self.m)
        free(self.memory)

    def __init__(self, entries):
        """`entries` have data, gap, pending, checksum_start, gso_size, adjacency, verdict, reply."""
        cdef uint32_t at = 0, i
        cdef packet *p
        image = b"".join(bytes([DEAD]) * entry.gap + entry.data for entry in entries)
        self.image = image
        self.memory = block_of(image)
        self.b.n = <uint32_t>len(entries)
        self.b.n_tails = 0
        for i, entry in enumerate(entries):
            p = &self.b.packets[i]
            at += entry.gap
            arrive(p, self.memory + at, <uint32_t>len(entry.data), entry.pending, entry.gso_size)
            if entry.checksum_start:
                p.flags |= PACKET_NEEDS_CHECKSUM
                p.checksum_start = entry.checksum_start
            p.adjacency = <void *><uint64_t>entry.adjacency
            p.verdict = entry.verdict
            p.reply = entry.reply
            at += <uint32_t>len(entry.data)
        memcpy(self.before, self.b, sizeof(burst))

    def merge(self, unsigned int udp_segments):
        merge_inline(self.m, self.b, udp_segments)

    def merge_some(self, unsigned int udp_segments, local):
        """Only the packets whose number is in `local` go to local ports."""
        cdef uint32_t i
        merge_begin(self.m, self.b, udp_segments)
        for i in range(self.b.n):
            if i in local:
                merge_local(self.m, self.b, i)
            else:
                merge_other(self.m, self.b, i)
        merge_finish(self.m, self.b)

    def reverse(self):
        """Let the burst's order be the opposite of the memory's."""
        cdef uint32_t i
        for i in range(self.b.n):
            self.b.packets[i] = self.before.packets[self.b.n - 1 - i]

    def packets(self):
        """Each packet as a dict; absorbed ones without data."""
        cdef uint32_t i, k
        cdef packet *p
        result = []
        for i in range(self.b.n):
            p = &self.b.packets[i]
            entry = fields(p)
            if p.verdict == VERDICT_MERGED:
                entry["data"] = b""
            for k in range(p.n_tail):
                entry["data"] += (<uint8_t *>p.tail[k].iov_base)[:p.tail[k].iov_len]
            result.append(entry)
        return result

    def time_merge(self, unsigned int udp_segments, unsigned int rounds, bint only_prepare):
        """Lay the burst out anew and merge it, `rounds` times; `only_prepare` leaves the merge out."""
        cdef uint32_t i
        cdef const uint8_t *image = self.image
        cdef size_t size = len(self.image)
        cdef size_t head = <size_t>(<uint8_t *>&self.b.packets[self.b.n] - <uint8_t *>self.b)
        with nogil:
            for i in range(rounds):
                memcpy(self.memory, image, size)
                memcpy(self.b, self.before, head)
                if not only_prepare:
                    merge_inline(self.m, self.b, udp_segments)
