# The first bytes of TCP, UDP, SCTP and ICMP headers.
#
# Owns: where their headers end, and the ports or echo identifier in them.
# Never: verifies a transport checksum; that is the receiver's business, or
# offload's before it merges.
# Invariant: transport_check() passed means that the header it measured is all there.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from fastpath.reason cimport (
    REASON_NONE, REASON_TRUNCATED, REASON_UDP_LENGTH, REASON_TCP_OFFSET, REASON_LAND,
)
from fastpath.wire.octets cimport load16, load32

cdef enum:                     # IP protocol numbers
    PROTOCOL_ICMP = 1
    PROTOCOL_IPIP = 4
    PROTOCOL_TCP = 6
    PROTOCOL_UDP = 17
    PROTOCOL_IPV6 = 41
    PROTOCOL_GRE = 47
    PROTOCOL_ICMPV6 = 58
    PROTOCOL_SCTP = 132
    PROTOCOL_UDPLITE = 136

cdef enum:
    TCP_BYTES = 20
    TCP_SEQUENCE = 4
    TCP_ACKNOWLEDGEMENT = 8
    TCP_OFFSET = 12
    TCP_FLAGS = 13
    TCP_WINDOW = 14
    TCP_CHECKSUM = 16
    TCP_URGENT = 18

cdef enum:                     # of the byte at TCP_FLAGS
    TCP_FIN = 1
    TCP_SYN = 2
    TCP_RST = 4
    TCP_PSH = 8
    TCP_ACK = 16
    TCP_URG = 32
    TCP_ECE = 64
    TCP_CWR = 128

cdef enum:
    UDP_BYTES = 8
    UDP_LENGTH = 4
    UDP_CHECKSUM = 6
    SCTP_BYTES = 12
    ICMP_BYTES = 8
    ICMP_CHECKSUM = 2
    ICMP_ID = 4

cdef enum:                     # queries whose identifier names a flow
    ICMP4_ECHO_REPLY = 0
    ICMP4_ECHO = 8
    ICMP6_ECHO = 128
    ICMP6_ECHO_REPLY = 129


cdef inline int transport_check(const uint8_t *h, uint32_t n, uint32_t family, uint32_t protocol,
                                bint is_fragment, uint32_t *header) noexcept nogil:
    """Measure the header at the start of `n` bytes: the bytes in front of the payload, 0 when unknown.

    Port 0 is no port (RFC 6335), except as a UDP source that wants no answer.
    """
    header[0] = 0
    if protocol == PROTOCOL_TCP:
        if n < TCP_BYTES:
            return REASON_TRUNCATED
        header[0] = tcp_header_bytes(h)
        if header[0] < TCP_BYTES:
            return REASON_TCP_OFFSET
        if header[0] > n:
            return REASON_TRUNCATED if is_fragment else REASON_TCP_OFFSET
        if load16(h) == 0 or load16(h + 2) == 0:
            return REASON_LAND
    elif protocol == PROTOCOL_UDP:
        if n < UDP_BYTES:
            return REASON_TRUNCATED
        header[0] = UDP_BYTES
        if load16(h + UDP_LENGTH) < UDP_BYTES or (load16(h + UDP_LENGTH) > n and not is_fragment):
            return REASON_UDP_LENGTH
        if load16(h + 2) == 0:
            return REASON_LAND
    elif protocol == PROTOCOL_UDPLITE:
        if n < UDP_BYTES:
            return REASON_TRUNCATED
        header[0] = UDP_BYTES
        if load16(h + 2) == 0:
            return REASON_LAND
    elif protocol == PROTOCOL_SCTP:
        if n < SCTP_BYTES:
            return REASON_TRUNCATED
        header[0] = SCTP_BYTES
        if load16(h) == 0 or load16(h + 2) == 0:
            return REASON_LAND
    elif protocol == <uint32_t>(PROTOCOL_ICMP if family == 4 else PROTOCOL_ICMPV6):
        if n < ICMP_BYTES:
            return REASON_TRUNCATED
        header[0] = ICMP_BYTES
    return REASON_NONE


cdef inline uint32_t tcp_header_bytes(const uint8_t *h) noexcept nogil:
    return (h[TCP_OFFSET] & 0xf0) >> 2


cdef inline uint32_t transport_ports(const uint8_t *h, uint32_t family, uint32_t protocol) noexcept nogil:
    """Source port << 16 | destination port, or the echo identifier, or 0, of a checked header."""
    if protocol == PROTOCOL_TCP or protocol == PROTOCOL_UDP or protocol == PROTOCOL_SCTP \
            or protocol == PROTOCOL_UDPLITE:
        return load32(h)
    if family == 4:
        if protocol == PROTOCOL_ICMP and (h[0] == ICMP4_ECHO or h[0] == ICMP4_ECHO_REPLY):
            return load16(h + ICMP_ID)
    elif protocol == PROTOCOL_ICMPV6 and (h[0] == ICMP6_ECHO or h[0] == ICMP6_ECHO_REPLY):
        return load16(h + ICMP_ID)
    return 0


cdef inline uint32_t transport_checksum_offset(uint32_t protocol) noexcept nogil:
    """Where a checksum that the sender left pending is completed; 0 when it cannot be pending."""
    if protocol == PROTOCOL_TCP:
        return TCP_CHECKSUM
    if protocol == PROTOCOL_UDP:
        return UDP_CHECKSUM
    return 0
