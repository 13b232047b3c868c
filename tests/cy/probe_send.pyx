"""The last steps of the way out, one at a time: what a send does when there is no room, and order within a burst.

Owns: the packets, whose records it chooses itself.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from fastpath.buffer cimport BURST_CAPACITY, HEADROOM, burst, iovec, packet
from fastpath.counters cimport EVENT_SEND_RETRY, PORTS_MAX, counters
from fastpath.port.port cimport port
from fastpath.port.socket cimport socket_send
from fastpath.port.tap cimport tap_write
from fastpath.reason cimport VERDICT_PASS
from fastpath.records cimport adjacency_record, port_record
from fastpath.system cimport msghdr
from fastpath.table.adjacency cimport adjacency
from fastpath.transmit cimport transmit, transmitter

cdef enum:
    RECORDS = 2
    ROOM = HEADROOM + 256      # of a packet


def send_to_socket(int fd, bytes data):
    """(errno, how often it was tried again) of one datagram."""
    cdef counters *count = <counters *>calloc(1, sizeof(counters))
    cdef msghdr message
    cdef iovec piece
    cdef int failed
    if count == NULL:
        raise MemoryError
    memset(&message, 0, sizeof(message))
    piece.iov_base, piece.iov_len = <void *><const char *>data, len(data)
    message.msg_iov, message.msg_iovlen = &piece, 1
    with nogil:
        failed = socket_send(fd, &message, count)
    retries = count.events[EVENT_SEND_RETRY]
    free(count)
    return failed, retries


def write_to_tap(int fd, bytes data):
    """The errno of one frame."""
    cdef iovec frame
    cdef int failed
    frame.iov_base, frame.iov_len = <void *><const char *>data, len(data)
    with nogil:
        failed = tap_write(fd, &frame, 1)
    return failed


def transmit_by(through, value, packets):
    """Send IPv4 packets of one flow as one burst by memory port `through`: (which of two records of one number, bytes) each."""
    cdef transmitter *x = <transmitter *>calloc(1, sizeof(transmitter))
    cdef burst *b = <burst *>calloc(1, sizeof(burst))
    cdef uint8_t *memory = <uint8_t *>calloc(BURST_CAPACITY, ROOM)
    cdef adjacency *records[RECORDS]
    cdef packet *p
    if x == NULL or b == NULL or memory == NULL:
        raise MemoryError
    x.count = <counters *>calloc(1, sizeof(counters))
    x.ports = <port **>calloc(PORTS_MAX, sizeof(port *))
    x.ports[1] = port_record(1, through, through.addresses, 1500)
    for i in range(RECORDS):
        records[i] = adjacency_record(1, value, {1: through})
    for record, data in packets:
        p = &b.packets[b.n]
        p.data, p.length = memory + b.n * ROOM + HEADROOM, len(data)
        memcpy(p.data, <const char *>data, len(data))
        p.family, p.n_segments, p.verdict, p.flow_hash = 4, 1, VERDICT_PASS, 7
        p.adjacency = records[<uint32_t>record]
        b.n += 1
    with nogil:
        transmit(x, b)
    for i in range(RECORDS):
        free(records[i])
    free(x.ports[1])
    free(x.ports)
    free(x.count)
    free(memory)
    free(b)
    free(x)
