# The raw tunnel port: IP protocols 4 and 41, one packet a datagram.
#
# Owns: the two raw sockets' system calls. The kernel writes and reassembles the
# outer header; there is no segmentation offload for these protocols.
# Invariant: senders[0] and inputs[0] carry inner IPv4 (protocol 4), [1] inner IPv6 (41).

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memset
from fastpath.buffer cimport arena, iovec, SEGMENTS_MAX
from fastpath.counters cimport counters, EVENT_SEND, EVENT_SEND_RETRY
from fastpath.port.port cimport datagram, port, train
from fastpath.port.socket cimport CONTROL_BYTES, SEND_TRIES, SEND_WAIT_MS, control_write, socket_receive
from fastpath.system cimport (
    mmsghdr, sendmmsg, poll, pollfd, POLLOUT, MSG_DONTWAIT, MSG_NOSIGNAL, errno, EAGAIN, EINTR, ENOBUFS,
)

cdef inline int raw_receive(const port *source, uint32_t which, arena *memory, datagram *d) noexcept nogil:
    """As socket_receive; an IPv4 socket delivers the outer header too, which is read and stepped over."""
    cdef int got = socket_receive(source, which, memory, d)
    cdef uint32_t header
    if got != 1:
        return got
    d.inner_family = 4 if which == 0 else 6
    if source.tunnel.outer_family == 4:
        header = (d.data[0] & 15) * 4 if d.length >= 20 else d.length
        if header > d.length:
            header = d.length
        d.traffic_class = d.data[1] if d.length >= 20 else 0
        d.data += header
        d.length -= header
        d.segment_bytes = d.length
    return 1

cdef inline uint32_t raw_send(const port *target, const train *t, counters *count, int *error) noexcept nogil:
    """Send every datagram of a train; returns how many went, and the errno of those that did not."""
    cdef mmsghdr messages[SEGMENTS_MAX]
    cdef uint8_t control[CONTROL_BYTES]
    cdef pollfd waiting
    cdef uint32_t i, done = 0, sent = 0, tries = 0
    cdef int n
    memset(messages, 0, t.n_datagrams * sizeof(mmsghdr))
    for i in range(t.n_datagrams):
        messages[i].msg_hdr.msg_name = <void *>t.to.remote
        messages[i].msg_hdr.msg_namelen = t.to.remote_length
        messages[i].msg_hdr.msg_iov = <iovec *>&t.pieces[i * t.pieces_each]
        messages[i].msg_hdr.msg_iovlen = t.pieces_each
        control_write(&messages[i].msg_hdr, control, t, target.tunnel.outer_family, False)
    waiting.fd = target.senders[t.sender]
    waiting.events = POLLOUT
    while done < t.n_datagrams:
        count.events[EVENT_SEND] += 1
        n = sendmmsg(waiting.fd, &messages[done], t.n_datagrams - done, MSG_DONTWAIT | MSG_NOSIGNAL)
        if n > 0:
            done += <uint32_t>n
            sent += <uint32_t>n
            tries = 0
        elif (errno == EAGAIN or errno == ENOBUFS or errno == EINTR) and tries < SEND_TRIES:
            tries += 1
            count.events[EVENT_SEND_RETRY] += 1
            poll(&waiting, 1, SEND_WAIT_MS)
        else:
            error[0] = errno
            done += 1              # the one that failed; the rest may still go
            tries = 0
    return sent
