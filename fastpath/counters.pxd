# What one worker counts.
#
# Owns: the counters' layout. Written by their worker alone, read by Python
# without a lock: every field is one aligned 64-bit word.
# Never: sums over workers (tally.pyx does) or names a counter (reasons.py does).
# Invariant: received + created == sent + sum(drops) whenever no burst is under way.

from libc.stdint cimport uint64_t
from fastpath.reason cimport REASON_COUNT

cdef enum:
    PORTS_MAX = 1024           # 250 pods with several networks each, and room
    ADJACENCIES_MAX = 65536

# Things that happened to no packet in particular, or did not end one.
cdef enum:                     # events
    EVENT_WAKE = 0             # returns from poll with work
    EVENT_SUPER_READ           # super-packets read from a local port
    EVENT_SUPER_SPLIT          # super-packets split for a tunnel
    EVENT_SUPER_MERGED         # super-packets made by merging
    EVENT_SEGMENT_MERGED       # packets that became part of an earlier one
    EVENT_TRAIN_SENT           # sends that carried several datagrams
    EVENT_SEND                 # sends altogether (trains and singles)
    EVENT_GSO_REFUSED          # UDP_SEGMENT failed and the train went as singles
    EVENT_SEND_RETRY           # ENOBUFS or EAGAIN, tried again
    EVENT_PARTIAL_RESTORED     # pending checksum recognised behind a socket
    EVENT_SUPER_RESTORED       # unsegmented datagram turned back into a super-packet
    EVENT_FRAGMENTED           # packets cut into fragments
    EVENT_REPLY_LIMITED        # ICMP replies not written for their rate
    EVENT_ECN_ODD              # outer ECT over inner Not-ECT (RFC 6040: legal, but worth a look)
    EVENT_AWAKE                # looked for work before sleeping, and found some
    EVENT_SHORTCUT_SENT        # frames written past the sockets
    EVENT_SHORTCUT_REFUSED     # frames the device refused: the packet went through a socket
    EVENT_COUNT

cdef struct port_counters:
    uint64_t received_packets
    uint64_t received_bytes
    uint64_t sent_packets
    uint64_t sent_bytes
    uint64_t dropped_packets   # refused by the port's own queue or device

cdef struct flow_counters:
    uint64_t packets
    uint64_t bytes

cdef struct counters:
    uint64_t received
    uint64_t created
    uint64_t sent
    uint64_t drops[REASON_COUNT]
    uint64_t events[EVENT_COUNT]
    port_counters ports[PORTS_MAX]
    flow_counters adjacencies[ADJACENCIES_MAX]
