# An IPv4 packet becomes its fragments (RFC 791): headers written, payload pointed at.
#
# Owns: offset, MF, lengths and options of each fragment.
# Never: copies payload, fragments IPv6 (a router does not) or a super-packet
# (split does that), or looks at DF (hop does).
# Invariants:
#   * Relies on parse: the header and its options can be walked.
#   * Every fragment's header has the length of the packet's: options that only
#     the first may carry become no-operations in the others.
#   * A pending checksum is completed first; it covers what is then cut apart.
#   * The packet may itself be a fragment; its offset and MF carry on.

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy, memset
from fastpath.buffer cimport packet
from fastpath.offload.complete cimport complete
from fastpath.wire.ipv4 cimport (
    IPV4_BYTES, IPV4_FRAGMENT, IPV4_MF, IPV4_TOTAL, OPTION_END, OPTION_NOP, ipv4_header_bytes, ipv4_seal,
)
from fastpath.wire.octets cimport load16, store16

cdef enum:
    OPTION_COPIED = 0x80       # in an option's type: every fragment carries it

cdef struct fragment:
    const uint8_t *whole
    const uint8_t *payload     # of the next fragment
    uint32_t left              # payload bytes from there on
    uint32_t header_length
    uint32_t step              # payload bytes of every fragment but the last, a multiple of 8
    uint32_t word              # flags and offset of the next fragment, MF as the packet has it


cdef inline void fragment_begin(fragment *f, packet *p, uint32_t mtu) noexcept nogil:
    """Without a single fragment if `mtu` leaves no room for one, or the packet is not IPv4."""
    complete(p)
    f.whole = p.data
    f.header_length = ipv4_header_bytes(p.data)
    f.payload = p.data + f.header_length
    f.word = load16(p.data + IPV4_FRAGMENT)
    f.step = 0
    f.left = 0
    if p.family == 4 and mtu >= f.header_length + 8:
        f.step = (mtu - f.header_length) & ~<uint32_t>7
        f.left = p.length - f.header_length


cdef inline uint32_t fragment_next(fragment *f, uint8_t *header, const uint8_t **payload) noexcept nogil:
    """Write the next fragment's header (f.header_length bytes) and say where its payload lies.

    Returns the payload bytes, 0 when there is none left.
    """
    cdef uint32_t n = f.left if f.left < f.step else f.step
    if n == 0:
        return 0
    memcpy(header, f.whole, f.header_length)
    if f.payload != f.whole + f.header_length:
        blank_options(header + IPV4_BYTES, f.header_length - IPV4_BYTES)
    store16(header + IPV4_TOTAL, f.header_length + n)
    store16(header + IPV4_FRAGMENT, f.word | IPV4_MF if n < f.left else f.word)
    ipv4_seal(header)
    payload[0] = f.payload
    f.payload += n
    f.left -= n
    f.word += n >> 3
    return n


cdef inline void blank_options(uint8_t *option, uint32_t n) noexcept nogil:
    """Overwrite what only the first fragment carries."""
    cdef const uint8_t *end = option + n
    cdef uint32_t size
    while option < end and option[0] != OPTION_END:
        size = 1 if option[0] == OPTION_NOP else option[1]
        if option[0] & OPTION_COPIED == 0:
            memset(option, OPTION_NOP, size)
        option += size
