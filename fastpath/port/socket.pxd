# What the udp and raw ports share: receiving a datagram, socket addresses and control messages.
#
# Owns: the receive call, reading what it reports beside the bytes, building the
# control messages of a send, and the bounded patience of a send.
# Never: reads a payload.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from fastpath.buffer cimport arena, arena_room, arena_take, iovec, PACKET_MAX
from fastpath.counters cimport counters, EVENT_SEND, EVENT_SEND_RETRY
from fastpath.port.port cimport datagram, port, train
from fastpath.system cimport (
    msghdr, cmsghdr, CMSG_FIRSTHDR, CMSG_NXTHDR, CMSG_DATA, CMSG_LEN, CMSG_SPACE, recvmsg, sendmsg,
    poll, pollfd, POLLOUT, MSG_DONTWAIT, MSG_NOSIGNAL, MSG_TRUNC,
    errno, EAGAIN, EINTR, ENOBUFS, ECONNREFUSED,
    AF_INET, IPPROTO_IP, IPPROTO_IPV6, IP_TOS, IPV6_TCLASS, SOL_UDP, UDP_SEGMENT, UDP_GRO,
)
from fastpath.wire.octets cimport load32, load64

cdef enum:
    SEND_TRIES = 4             # ENOBUFS and EAGAIN pass quickly or not at all
    SEND_WAIT_MS = 1           # for room in a full socket buffer: bounded back-pressure
    CONTROL_BYTES = 128        # segment size, traffic class, and room
    ADDRESS_BYTES = 28         # sockaddr_in6

cdef inline void source_read(const uint8_t *address, datagram *d) noexcept nogil:
    """sockaddr_in or sockaddr_in6 -> 16 address bytes as two words."""
    cdef uint16_t family
    memcpy(&family, address, 2)
    if family == AF_INET:
        d.source_high = 0
        d.source_low = <uint64_t>0xFFFF00000000 | load32(address + 4)
    else:
        d.source_high = load64(address + 8)
        d.source_low = load64(address + 16)

cdef inline void control_read(msghdr *message, datagram *d) noexcept nogil:
    cdef cmsghdr *control = CMSG_FIRSTHDR(message)
    cdef int value
    while control != NULL:
        if control.cmsg_level == SOL_UDP and control.cmsg_type == UDP_GRO:
            memcpy(&value, CMSG_DATA(control), 4)
            if 0 < value < <int>d.length:
                d.segment_bytes = <uint32_t>value
        elif control.cmsg_level == IPPROTO_IP and control.cmsg_type == IP_TOS:
            d.traffic_class = CMSG_DATA(control)[0]
        elif control.cmsg_level == IPPROTO_IPV6 and control.cmsg_type == IPV6_TCLASS:
            memcpy(&value, CMSG_DATA(control), 4)
            d.traffic_class = <uint8_t>value
        control = CMSG_NXTHDR(message, control)

cdef inline void class_write(cmsghdr *control, uint32_t outer_family, int traffic_class) noexcept nogil:
    control.cmsg_level = IPPROTO_IP if outer_family == 4 else IPPROTO_IPV6
    control.cmsg_type = IP_TOS if outer_family == 4 else IPV6_TCLASS
    control.cmsg_len = CMSG_LEN(4)
    memcpy(CMSG_DATA(control), &traffic_class, 4)

cdef inline void control_write(msghdr *message, uint8_t *room, const train *t, uint32_t outer_family, bint segmented) noexcept nogil:
    """Control messages of a send into `room` (CONTROL_BYTES, zeroed here); none when none is needed.

    An IP-level message makes the kernel look the route up again, so that an
    outer class of 0, the usual one, sends none.
    """
    cdef cmsghdr *control
    cdef uint16_t size = <uint16_t>t.datagram_bytes
    cdef size_t used = 0
    memset(room, 0, CONTROL_BYTES)
    if segmented:
        control = <cmsghdr *>room
        control.cmsg_level = SOL_UDP
        control.cmsg_type = UDP_SEGMENT
        control.cmsg_len = CMSG_LEN(2)
        memcpy(CMSG_DATA(control), &size, 2)
        used = CMSG_SPACE(2)
    if t.traffic_class:
        class_write(<cmsghdr *>(room + used), outer_family, t.traffic_class)
        used += CMSG_SPACE(4)
    message.msg_control = room if used else NULL
    message.msg_controllen = used

cdef inline int socket_receive(const port *source, uint32_t which, arena *memory, datagram *d) noexcept nogil:
    """1: a datagram (or several of one source), 0: none waiting or no room, < 0: -errno."""
    cdef uint8_t address[ADDRESS_BYTES]
    cdef uint8_t control[CONTROL_BYTES]
    cdef msghdr message
    cdef iovec piece
    cdef long n
    d.data = arena_room(memory, PACKET_MAX)
    if d.data == NULL:
        return 0
    piece.iov_base = d.data
    piece.iov_len = PACKET_MAX
    memset(&message, 0, sizeof(message))
    message.msg_name = address
    message.msg_iov = &piece
    message.msg_iovlen = 1
    message.msg_control = control
    while True:
        message.msg_namelen = ADDRESS_BYTES
        message.msg_controllen = CONTROL_BYTES
        n = recvmsg(source.inputs[which], &message, MSG_DONTWAIT)
        if n >= 0 or (errno != EINTR and errno != ECONNREFUSED):
            break
    if n < 0:
        return 0 if errno == EAGAIN else -errno
    d.length = <uint32_t>n
    d.segment_bytes = d.length
    d.traffic_class = 0
    d.inner_family = 0
    d.truncated = message.msg_flags & MSG_TRUNC != 0
    source_read(address, d)
    control_read(&message, d)
    arena_take(memory, d.data + d.length)
    return 1

cdef inline void wait_for_room(int fd) noexcept nogil:
    cdef pollfd waiting
    waiting.fd = fd
    waiting.events = POLLOUT
    poll(&waiting, 1, SEND_WAIT_MS)

cdef inline int socket_send(int fd, msghdr *message, counters *count) noexcept nogil:
    """sendmsg that waits a bounded time for room. 0, or the errno."""
    cdef int attempt, failed = 0
    count.events[EVENT_SEND] += 1
    for attempt in range(SEND_TRIES):
        if attempt:
            count.events[EVENT_SEND_RETRY] += 1
        if failed == EAGAIN:
            wait_for_room(fd)
        if sendmsg(fd, message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0:
            return 0
        failed = errno
        if failed != EAGAIN and failed != ENOBUFS and failed != EINTR and failed != ECONNREFUSED:
            break
    return failed
