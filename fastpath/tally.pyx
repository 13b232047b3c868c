"""What the workers counted, as one: sums over them, by name.

Owns: the sums, the values they are told in, and each worker's room for the counters of rules.
Never: resets a counter; workers alone write them.
Invariant: a sum is of each worker's counter at some moment of the call, and never goes down.
"""

from dataclasses import dataclass

import numpy as np

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc

from fastpath.atomic cimport atomic_pointer_store
from fastpath.crew cimport Crew
from fastpath.table.flow cimport (
    FlowTable, RULES_CHUNK, RULES_CHUNKS, event_rows, flow_account, rule_counter, rule_rows,
)
from fastpath.worker cimport worker

from fastpath.events import EVENT_NAMES
from fastpath.reasons import REASONS


@dataclass(frozen=True, slots=True)
class PortCounters:
    received_packets: int
    received_bytes: int
    sent_packets: int
    sent_bytes: int
    dropped_packets: int


@dataclass(frozen=True, slots=True)
class Counters:
    received: int
    created: int
    sent: int
    drops: dict
    ports: dict
    adjacencies: dict
    events: dict


cdef class Tally:
    """See tally.pyi."""

    def __cinit__(self, Crew crew, FlowTable flows):
        self.crew, self.flow_table = crew, flows
        self.told_suppressed = [0] * crew.size
        self.told_rules = np.zeros((0, 3), np.uint64)

    # -- packets ---------------------------------------------------------
    def counters(self, ports, adjacencies):
        cdef worker *first = self.crew.members[0]
        return Counters(
            received=self.total(&first.count.received),
            created=self.total(&first.count.created),
            sent=self.total(&first.count.sent),
            drops=self.named([reason.name for reason in REASONS], &first.count.drops[0]),
            events=self.named(EVENT_NAMES, &first.count.events[0]),
            ports={number: self.of_port(number) for number in ports},
            adjacencies={number: self.of_adjacency(number) for number in adjacencies},
        )

    cdef uint64_t total(self, uint64_t *first) noexcept:
        """Sum over the workers of the counter that worker 0 keeps at `first`."""
        cdef size_t offset = <char *>first - <char *>self.crew.members[0]
        cdef uint64_t found = 0
        for i in range(self.crew.size):
            found += (<uint64_t *>(<char *>self.crew.members[i] + offset))[0]
        return found

    cdef object named(self, names, uint64_t *first):
        """The non-zero counters of an array, by name."""
        cdef uint64_t value
        found = {}
        for i, name in enumerate(names):
            value = self.total(first + <size_t>i)
            if value:
                found[name] = value
        return found

    cdef object of_port(self, uint32_t number):
        cdef uint64_t *at = <uint64_t *>&self.crew.members[0].count.ports[number]
        return PortCounters(
            self.total(at), self.total(at + 1), self.total(at + 2), self.total(at + 3), self.total(at + 4)
        )

    cdef object of_adjacency(self, uint32_t number):
        cdef uint64_t *at = <uint64_t *>&self.crew.members[0].count.adjacencies[number]
        return (self.total(at), self.total(at + 1))

    # -- rules and flows -------------------------------------------------
    cdef int make_room(self, uint32_t count) except -1:
        """Rule counters up to `count`, for every account, before an image can name them. They are never taken away."""
        cdef flow_account *a
        cdef void *chunk
        if count > RULES_CHUNK * RULES_CHUNKS:
            raise ValueError(f"counters are numbered below {RULES_CHUNK * RULES_CHUNKS}, not {count - 1}")
        for i in range(self.crew.size + 1):
            a = self.account_of(i)
            for k in range((count + RULES_CHUNK - 1) // RULES_CHUNK):
                if a.rules[k] == NULL:
                    chunk = calloc(RULES_CHUNK, sizeof(rule_counter))
                    if chunk == NULL:
                        raise MemoryError
                    atomic_pointer_store(&a.rules[k], chunk)
        return 0

    cdef flow_account *account_of(self, int i) noexcept:
        """Of worker `i`; the last is that of the control thread, which forgets flows."""
        return &self.crew.members[i].tracking.account if i < self.crew.size else &self.flow_table.account

    def rules(self, count):
        total = np.zeros((count, 3), np.uint64)
        for i in range(self.crew.size + 1):
            for k in range((count + RULES_CHUNK - 1) // RULES_CHUNK):
                rows = rule_rows(self.account_of(i), k)
                total[k * RULES_CHUNK : (k + 1) * RULES_CHUNK] += rows[: count - k * RULES_CHUNK]
        packets, octets = self.flow_table.live_rules(count)
        total[:, 1] += packets
        total[:, 2] += octets
        return tuple(self.not_less_than_told(total).T)

    def not_less_than_told(self, total):
        """A flow that ended between its worker's account and the table being read is in neither: what was told stands."""
        if len(self.told_rules) < len(total):
            self.told_rules = np.pad(self.told_rules, ((0, len(total) - len(self.told_rules)), (0, 0)))
        told = self.told_rules[: len(total)]
        np.maximum(told, total, out=told)
        return told.copy()

    def take_flow_events(self):
        cdef flow_account *a
        suppressed = 0
        found = []
        for i in range(self.crew.size):
            a = &self.crew.members[i].tracking.account
            found.append(event_rows(a))
            suppressed += a.suppressed - self.told_suppressed[i]
            self.told_suppressed[i] = a.suppressed
        return np.concatenate(found), suppressed

    def flows(self):
        cdef worker *w
        total = dict.fromkeys(("opened", "expired", "evicted", "memo_hits", "scans", "suppressed_events"), 0)
        for i in range(self.crew.size):
            w = self.crew.members[i]
            total["opened"] += w.tracking.account.opened
            total["expired"] += w.tracking.account.expired
            total["evicted"] += w.tracking.account.evicted
            total["memo_hits"] += w.tracking.memo.hits
            total["scans"] += w.tracking.memo.scans
            total["suppressed_events"] += w.tracking.account.suppressed
        return {"live": len(self.flow_table), "capacity": self.flow_table.capacity, **total}
