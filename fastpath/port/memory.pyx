"""Memory ports: a port whose two ends are Python and a worker, without any privilege.

Owns: the rings (memory.pxd) and their Python ends: inject and drain.
Never: shares a ring between two workers; a plane with memory ports has one.
"""

import os
import random
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from fastpath.buffer cimport PACKET_MAX, PACKET_NEEDS_CHECKSUM
from fastpath.port.memory cimport (
    memory_record, memory_ring, memory_rings, record_bytes, ring_commit, ring_end, ring_peek, ring_release, ring_reserve,
)

from fastpath.port.port import Port

CAPACITY = 4 << 20  # bytes of each ring
CAPACITY_MIN = 1 << 18  # an empty ring takes a largest packet wherever it stands: the end skipped is shorter than a record


@dataclass(frozen=True, slots=True)
class Datagram:
    """What a tunnel port sent: payload, the peer it went to, outer traffic class, and which source port sent it."""

    payload: bytes
    remote: object
    remote_port: int
    traffic_class: int
    sender: int


@dataclass(frozen=True, slots=True)
class Super:
    """A packet with its virtio metadata, as `inject` takes and `drain(whole=True)` gives it."""

    data: bytes
    gso_type: int = 0
    gso_size: int = 0
    checksum_start: int = 0
    checksum_offset: int = 0
    needs_checksum: bool = False


class Faults:
    """A seeded source of trouble: what `inject` and `drain` do to a list of packets.

    Each of drop, duplicate, reorder, corrupt and truncate is a probability per
    packet. The same seed gives the same trouble.
    """

    def __init__(self, seed, *, drop=0.0, duplicate=0.0, reorder=0.0, corrupt=0.0, truncate=0.0):
        self.drop, self.duplicate, self.reorder = drop, duplicate, reorder
        self.corrupt, self.truncate = corrupt, truncate
        self.random = random.Random(seed)

    def apply(self, packets):
        """The packets that survive, changed and in their new order."""
        out = []
        for packet in packets:
            if self.happens(self.drop):
                continue
            for _ in range(2 if self.happens(self.duplicate) else 1):
                at = self.random.randrange(len(out) + 1) if self.happens(self.reorder) else len(out)
                out.insert(at, self.damage(packet))
        return out

    def happens(self, probability):
        return probability > 0 and self.random.random() < probability

    def damage(self, packet):
        if packet and self.happens(self.corrupt):
            at = self.random.randrange(len(packet))
            packet = packet[:at] + bytes([packet[at] ^ 1 << self.random.randrange(8)]) + packet[at + 1:]
        if packet and self.happens(self.truncate):
            packet = packet[: self.random.randrange(len(packet))]
        return packet


cdef class Rings:
    """The memory of a port's two rings; freed with the last reference."""

    cdef memory_rings rings
    cdef readonly int bell
    cdef bint has_bell

    def __cinit__(self, uint64_t capacity):
        for ring in range(2):
            self.ring(ring).capacity = capacity
            self.ring(ring).bytes = <uint8_t *>calloc(capacity, 1)
            if self.ring(ring).bytes == NULL:
                raise MemoryError
        self.bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.has_bell = True

    cdef memory_ring *ring(self, int which) noexcept:
        return &self.rings.sent if which else &self.rings.received

    def __dealloc__(self):
        free(self.rings.received.bytes)
        free(self.rings.sent.bytes)
        if self.has_bell:
            os.close(self.bell)

    @property
    def address(self):
        return <size_t>&self.rings

    cdef memory_record *reserve(self, uint64_t *head, uint32_t length) except NULL:
        cdef memory_ring *ring = &self.rings.received
        cdef memory_record *record
        head[0] = ring.head
        record = ring_reserve(ring, head, ring_end(ring), length)
        if record == NULL:
            raise BufferError("the memory port is full: turn the plane, or drain it, before injecting more")
        return record

    def put_packet(self, item):
        """A packet (bytes-like or Super) for the worker."""
        whole = item if isinstance(item, Super) else Super(bytes(item))
        cdef bytes data = whole.data
        cdef memory_record *record
        cdef uint64_t head
        if len(data) > PACKET_MAX:
            raise ValueError(f"a packet has at most {PACKET_MAX} bytes, not {len(data)}")
        record = self.reserve(&head, len(data))
        memcpy(record_bytes(record), <const char *>data, len(data))
        record.gso_type = whole.gso_type
        record.gso_size = whole.gso_size
        record.checksum_start = whole.checksum_start
        record.checksum_offset = whole.checksum_offset
        record.flags = PACKET_NEEDS_CHECKSUM if whole.needs_checksum else 0
        ring_commit(&self.rings.received, head)

    def put_rows(self, const uint8_t[:, ::1] rows):
        """Equal-length packets, one a row: shape (n, bytes), uint8."""
        cdef memory_record *record
        cdef uint64_t head
        cdef Py_ssize_t i
        for i in range(rows.shape[0]):
            record = self.reserve(&head, <uint32_t>rows.shape[1])
            memcpy(record_bytes(record), &rows[i, 0], rows.shape[1])
            ring_commit(&self.rings.received, head)

    def put_datagram(self, data, source, uint8_t traffic_class, uint32_t segment_bytes):
        """Bytes as a tunnel's socket would deliver them: from `source`, merged by `segment_bytes` or single (0)."""
        cdef bytes payload = bytes(data)
        cdef memory_record *record
        cdef uint64_t head
        packed = source.packed if source.version == 6 else b"\0" * 10 + b"\xff\xff" + source.packed
        if len(payload) > PACKET_MAX:
            raise ValueError(f"a datagram has at most {PACKET_MAX} bytes, not {len(payload)}")
        record = self.reserve(&head, len(payload))
        memcpy(record_bytes(record), <const char *>payload, len(payload))
        record.high = int.from_bytes(packed[:8])
        record.low = int.from_bytes(packed[8:])
        record.traffic_class = traffic_class
        record.segment_bytes = segment_bytes
        ring_commit(&self.rings.received, head)

    def take(self, as_datagram):
        """Everything sent so far, as Datagram or Super values, oldest first."""
        cdef memory_record *record = ring_peek(&self.rings.sent)
        found = []
        while record != NULL:
            found.append(datagram_of(record) if as_datagram else super_of(record))
            ring_release(&self.rings.sent, record)
            record = ring_peek(&self.rings.sent)
        return found

    def discard(self):
        """Empty the sent ring; how many records there were."""
        cdef memory_record *record = ring_peek(&self.rings.sent)
        cdef uint64_t n = 0
        while record != NULL:
            n += 1
            ring_release(&self.rings.sent, record)
            record = ring_peek(&self.rings.sent)
        return n


cdef object datagram_of(memory_record *record):
    remote = <bytes>(<char *>record.remote)[:28]
    if record.family == 4:
        address = IPv4Address(remote[4:8])
    else:
        address = IPv6Address(remote[8:24])
    return Datagram(
        <bytes>(<char *>record_bytes(record))[:record.length], address, int.from_bytes(remote[2:4]),
        record.traffic_class, record.sender,
    )


cdef object super_of(memory_record *record):
    return Super(
        <bytes>(<char *>record_bytes(record))[:record.length], record.gso_type, record.gso_size,
        record.checksum_start, record.checksum_offset, record.flags & PACKET_NEEDS_CHECKSUM != 0,
    )


class MemoryPort(Port):
    """A pod's, the host's, or a tunnel's port in memory.

    With `super_packets` the port takes super-packets whole, as a TUN does;
    `drain` then returns `Super` values. `faults` applies to what is injected.
    Raises BufferError when a ring is full, ValueError for what cannot be a packet.
    """

    kind = "memory"

    def __init__(
        self, name, *, role="pod", addresses=(), mtu=1500, tunnel=None, super_packets=False, faults=None,
        sources=8, capacity=CAPACITY,
    ):
        if (role == "tunnel") != (tunnel is not None):
            raise ValueError("a tunnel port, and no other, is given its Tunnel")
        if capacity < CAPACITY_MIN or capacity & (capacity - 1):
            raise ValueError(f"capacity must be a power of two from {CAPACITY_MIN} on, not {capacity}")
        self._rings = Rings(capacity)
        super().__init__(
            name, role, inputs=(self._rings.bell,), senders=tuple(range(sources)) if tunnel is not None else (),
            addresses=addresses, mtu=mtu, tunnel=tunnel,
        )
        self.takes_super = self.takes_super_udp = super_packets
        self.segments_max = 128
        self.super_packets = super_packets
        self.faults = faults

    @property
    def rings(self):
        """Address of the C rings, for the plane."""
        return self._rings.address

    def inject(self, packets):
        """Packets for the plane to forward: one, or an iterable, of bytes or Super, or a uint8 array (n, bytes)."""
        if hasattr(packets, "ndim") and packets.ndim == 2:
            self._rings.put_rows(packets)
        else:
            single = isinstance(packets, bytes | bytearray | memoryview | Super)
            batch = [packets] if single else list(packets)
            for packet in batch if self.faults is None else self.faults.apply(batch):
                self._rings.put_packet(packet)
        os.eventfd_write(self._rings.bell, 1)

    def inject_datagram(self, payload, source, *, traffic_class=0, segment_bytes=0):
        """A datagram from the outer address `source`, into a tunnel port."""
        batch = [payload] if self.faults is None else self.faults.apply([payload])
        for each in batch:
            self._rings.put_datagram(each, source, traffic_class, segment_bytes)
        os.eventfd_write(self._rings.bell, 1)

    def drain(self):
        """What the plane sent here: Datagram values of a tunnel, Super values with `super_packets`, else bytes."""
        found = self._rings.take(self.role == "tunnel")
        return found if self.role == "tunnel" or self.super_packets else [each.data for each in found]

    def discard(self):
        """Throw away what the plane sent here; how many records that were."""
        return self._rings.discard()

    def close(self):
        """Nothing to close: the memory goes with the object."""
