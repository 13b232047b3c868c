"""Names and words of the events the workers count: things that end no packet.

Owns: the words behind `event_t` in counters.pxd, in its order.
Invariant: EVENTS[n] describes event n; a test reads counters.pxd and compares.
"""

from __future__ import annotations

EVENTS: tuple[tuple[str, str], ...] = (
    ("wake", "returns from poll with work"),
    ("super_read", "super-packets read from local ports"),
    ("super_split", "super-packets split for a tunnel or a device that cannot take them"),
    ("super_merged", "super-packets made of what came through a tunnel"),
    ("segment_merged", "packets that became part of such a super-packet"),
    ("train_sent", "sends that carried several datagrams (UDP_SEGMENT)"),
    ("send", "sends towards tunnels altogether"),
    ("gso_refused", "trains the kernel refused, sent again as single datagrams"),
    ("send_retry", "sends tried again after ENOBUFS or EAGAIN"),
    ("partial_restored", "pending checksums recognised behind a socket"),
    ("super_restored", "unsegmented datagrams turned back into super-packets"),
    ("fragmented", "packets cut into IPv4 fragments"),
    ("reply_limited", "ICMP messages not written because of their rate"),
    ("ecn_odd", "ECN marks outside of a packet that carries none inside"),
    ("awake", "times that a worker looked for work before it slept, and found some"),
    ("shortcut_sent", "frames that went past the sockets: a packet, a super-packet or a train each"),
    ("shortcut_refused", "frames that the shortcut's device refused; what was in them went through a socket"),
)
EVENT_NAMES: tuple[str, ...] = tuple(name for name, _ in EVENTS)
