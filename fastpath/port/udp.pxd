# The UDP tunnel port: one datagram train a send (UDP_SEGMENT), one buffer of
# merged datagrams a receive (UDP_GRO).
#
# Owns: the two system calls and what to do when the kernel refuses a train.
# Never: reads a payload.
# Invariant: every datagram of a train is either sent or reported unsent with an errno;
# a refused train is sent again as single datagrams before anything is given up.

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memset
from fastpath.buffer cimport arena, iovec
from fastpath.counters cimport counters, EVENT_GSO_REFUSED, EVENT_TRAIN_SENT
from fastpath.port.port cimport datagram, port, train, train_pieces
from fastpath.port.socket cimport CONTROL_BYTES, control_write, socket_receive, socket_send
from fastpath.system cimport msghdr, EINVAL, EIO, EMSGSIZE

cdef inline int udp_receive(const port *source, uint32_t which, arena *memory, datagram *d) noexcept nogil:
    """1: a datagram (or several of one source), 0: none waiting or no room, < 0: -errno."""
    return socket_receive(source, which, memory, d)

cdef inline uint32_t udp_send_singles(
    const port *target, const train *t, msghdr *message, uint8_t *control, counters *count, int *error,
) noexcept nogil:
    """Every datagram of a train by itself; returns how many went."""
    cdef uint32_t i, sent = 0
    cdef int failed
    control_write(message, control, t, target.tunnel.outer_family, False)
    for i in range(t.n_datagrams):
        message.msg_iov = <iovec *>&t.pieces[i * t.pieces_each]
        message.msg_iovlen = t.pieces_each
        failed = socket_send(target.senders[t.sender], message, count)
        if failed:
            error[0] = failed
        else:
            sent += 1
    return sent

cdef inline uint32_t udp_send(const port *target, const train *t, counters *count, int *error) noexcept nogil:
    """Send a train; returns how many of its datagrams went, and the errno of those that did not."""
    cdef uint8_t control[CONTROL_BYTES]
    cdef msghdr message
    cdef int failed
    memset(&message, 0, sizeof(message))
    message.msg_name = <void *>t.to.remote
    message.msg_namelen = t.to.remote_length
    if t.n_datagrams > 1:
        control_write(&message, control, t, target.tunnel.outer_family, True)
        message.msg_iov = <iovec *>t.pieces
        message.msg_iovlen = train_pieces(t)
        failed = socket_send(target.senders[t.sender], &message, count)
        if failed == 0:
            count.events[EVENT_TRAIN_SENT] += 1
            return t.n_datagrams
        if failed != EINVAL and failed != EIO and failed != EMSGSIZE:
            error[0] = failed
            return 0
        count.events[EVENT_GSO_REFUSED] += 1
    return udp_send_singles(target, t, &message, control, count, error)
