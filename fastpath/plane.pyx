"""What Python holds of the data plane: ports, tables, workers, counters.

Owns: the workers and the published tables; everything that is replaced goes
through one release store here and to the reclaimer afterwards.
Never: sees a packet.
Invariant: one control thread changes it at a time; readers (the workers) are
never stopped for a change.
"""

import os
import struct
import threading
from dataclasses import dataclass
from ipaddress import ip_network

import numpy as np

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy
from posix.unistd cimport close as close_descriptor

from fastpath.atomic cimport (
    atomic_load32_relaxed, atomic_load_acquire, atomic_pointer_load, atomic_pointer_store, atomic_store32_release,
    atomic_store_release,
)
from fastpath.buffer cimport ARENA_BYTES
from fastpath.counters cimport ADJACENCIES_MAX, EVENT_COUNT, PORTS_MAX
from fastpath.port.port cimport port
from fastpath.reason cimport REASON_COUNT
from fastpath.records cimport adjacency_record, peer_record, port_record
from fastpath.stage.reply cimport gateway, reply_limits_init
from fastpath.stage.route cimport tunnel_ports, TUNNEL_PORTS_MAX
from fastpath.system cimport (
    epoll_create1, epoll_ctl, epoll_event, eventfd, read, write,
    timerfd_create, CLOCK_MONOTONIC, TFD_CLOEXEC, TFD_NONBLOCK, EFD_CLOEXEC, EFD_NONBLOCK, EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLLIN,
)
from fastpath.table.adjacency cimport adjacency
from fastpath.table.detour cimport detour, detours, DETOUR_SLOTS
from fastpath.table.fib cimport Fib
from fastpath.table.flow cimport (
    EVENT_RING, FlowTable, RULES_CHUNK, RULES_CHUNKS, event_rows, flow_account, flow_event, rule_counter, rule_rows,
)
from fastpath.table.policy cimport MEMO_SETS, PolicyImage, ROW_OUTSIDE, memo_entry, policy_view
from fastpath.table.qsbr cimport Reclaimer
from fastpath.transmit cimport notice, NOTICE_PATH_MTU, NOTICES_MAX
from fastpath.worker cimport (
    tables, worker, worker_run, worker_turn, INPUT_CONTROL, INPUT_TIMER, REPLY_ARENA_BYTES,
)

from fastpath.port.port import check_addresses
from fastpath.port.sockets import segments_of_kernel
from fastpath.events import EVENT_NAMES
from fastpath.reasons import REASONS
from fastpath.records import check_adjacency
from fastpath.values import FLOW_EVENTS, Deliver, Encapsulate, Spread

WORKERS_MAX = 64
BUSY_POLL_MAX = 10_000  # microseconds
DETOURS_MAGIC = b"detours1"
DETOURS_KEY_BYTES = 16
DETOURS_HEAD_BYTES = len(DETOURS_MAGIC) + DETOURS_KEY_BYTES
DETOUR = struct.Struct("=IQQ")  # slot, mark, when it was last used


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


cdef class Plane:
    """The data plane of one node. See plane.pyi for the contract of every method."""

    cdef readonly Reclaimer reclaimer
    cdef readonly Fib fib
    cdef readonly int n_workers
    cdef int wanted_workers        # while they are being made
    cdef tables *shared
    cdef worker **workers
    cdef int bell
    cdef bytes key
    cdef dict ports                # number -> open port
    cdef dict adjacencies          # number -> value
    cdef dict spreads              # of these, the Spread ones
    cdef list spare_ports          # numbers to use again, after a grace period
    cdef list spare_adjacencies
    cdef list threads
    cdef unsigned int *references  # routes of each adjacency number
    cdef readonly FlowTable flow_table
    cdef readonly object policy    # the image in force, None when there is none
    cdef readonly unsigned int policy_generation
    cdef list told_suppressed      # flow events, by worker

    def __cinit__(self, *, int workers=1, bytes hash_key=None, flows=None, int busy_poll=0):
        if not 1 <= workers <= WORKERS_MAX:
            raise ValueError(f"workers must be 1..{WORKERS_MAX}, not {workers}")
        if not 0 <= busy_poll <= BUSY_POLL_MAX:
            raise ValueError(f"busy_poll must be 0..{BUSY_POLL_MAX} us, not {busy_poll}")
        self.key = os.urandom(8) if hash_key is None else hash_key
        if len(self.key) != 8:
            raise ValueError(f"hash_key must be 8 bytes, not {len(self.key)}")
        self.wanted_workers = workers
        self.reclaimer = Reclaimer(workers=workers)
        self.fib = Fib(self.reclaimer)
        self.ports, self.adjacencies, self.spreads = {}, {}, {}
        self.spare_ports, self.spare_adjacencies = [], []
        self.threads = []
        self.told_suppressed = [0] * workers
        self.flow_table = FlowTable(flows, workers=workers, hash_key=hash_key)
        self.bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        self.shared = <tables *>calloc(1, sizeof(tables))
        self.references = <unsigned int *>calloc(ADJACENCIES_MAX, sizeof(unsigned int))
        self.workers = <worker **>calloc(workers, sizeof(worker *))
        if self.shared == NULL or self.references == NULL or self.workers == NULL:
            raise MemoryError
        self.shared.four = &self.fib.ipv4
        self.shared.six = &self.fib.ipv6
        self.shared.detours = <detours *>calloc(1, sizeof(detours))
        if self.shared.detours == NULL:
            raise MemoryError
        self.set_detour_key(os.urandom(DETOURS_KEY_BYTES))
        for i in range(workers):
            self.workers[i] = self.make_worker(i)
            self.workers[i].waiting.limit_ns = <uint64_t>busy_poll * 1000
            self.n_workers += 1
        self.set_gateway(None, None)
        self.publish_tunnel_ports()
        self.set_policy(None)

    cdef worker *make_worker(self, uint32_t i) except NULL:
        cdef worker *w = <worker *>calloc(1, sizeof(worker))
        if w == NULL:
            raise MemoryError
        w.shared = self.shared
        w.readers = self.reclaimer.readers
        w.reader = i
        w.key = int.from_bytes(self.key)
        w.bell = self.bell
        w.udp_segments = segments_of_kernel()
        w.memory.base = w.bytes
        w.memory.size = ARENA_BYTES
        w.reply_memory.base = w.reply_bytes
        w.reply_memory.size = REPLY_ARENA_BYTES
        w.out.ports = self.shared.ports
        w.out.count = &w.count
        w.n_workers = self.wanted_workers
        reply_limits_init(&w.limits, w.key)
        self.make_tracker(w)
        w.epoll = epoll_create1(EPOLL_CLOEXEC)
        w.wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        if w.epoll < 0 or w.wake < 0:
            raise OSError("no descriptor for a worker: raise the limit of open files (ulimit -n)")
        watch(w.epoll, w.wake, INPUT_CONTROL)
        w.resting.timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
        if w.resting.timer < 0:
            raise OSError("no timer for a worker: raise the limit of open files (ulimit -n)")
        watch(w.epoll, w.resting.timer, INPUT_TIMER)
        w.out.due = self.shared.due_ns
        return w

    cdef int make_tracker(self, worker *w) except -1:
        settings = self.flow_table.settings
        w.tracking.flows = self.flow_table.table
        w.tracking.fragments.key[0], w.tracking.fragments.key[1] = w.key, ~w.key * <uint64_t>0x9E3779B97F4A7C15
        w.tracking.memo.entries = <memo_entry *>calloc(2 * MEMO_SETS, sizeof(memo_entry))
        if w.tracking.memo.entries == NULL:
            raise MemoryError
        for name in settings.events:
            w.tracking.account.wanted |= FLOW_EVENTS[name]
        if w.tracking.account.wanted:
            w.tracking.account.events = <flow_event *>calloc(EVENT_RING, sizeof(flow_event))
            if w.tracking.account.events == NULL:
                raise MemoryError
        w.tracking.account.pace_ns = 1000000000 // settings.events_per_second if settings.events_per_second > 0 else 0
        return 0

    def __dealloc__(self):
        for i in range(self.n_workers):
            free(self.workers[i].tracking.memo.entries)
            free(self.workers[i].tracking.account.events)
            for k in range(RULES_CHUNKS):
                free(self.workers[i].tracking.account.rules[k])
            close_descriptor(self.workers[i].epoll)
            close_descriptor(self.workers[i].wake)
            close_descriptor(self.workers[i].resting.timer)
            free(self.workers[i])
        free(self.workers)
        if self.shared != NULL:
            for i in range(PORTS_MAX):
                free(self.shared.ports[i])
            for i in range(ADJACENCIES_MAX):
                free(self.shared.adjacencies[i])
            free(self.shared.peers)
            free(self.shared.gateways)
            free(self.shared.tunnels)
            free(self.shared.policy)

            free(self.shared.detours)
        free(self.shared)
        free(self.references)
        if self.bell > 0:
            close_descriptor(self.bell)

    cdef int publish(self, void *slot, void *record) except -1:
        """Store a record where the workers find it; what stood there is freed when none can hold it."""
        cdef void *before = atomic_pointer_load(slot)
        atomic_pointer_store(slot, record)
        if before != NULL:
            self.reclaimer.retire(before)
        self.reclaimer.reclaim()
        return 0

    # -- ports -----------------------------------------------------------
    def attach(self, opened):
        if opened.kind == "memory" and self.n_workers > 1:
            raise ValueError("a memory port's rings have one reader and one writer: use a plane with one worker")
        number = self.take_number(self.ports, self.spare_ports, PORTS_MAX, 0, "ports")
        cdef port *record = port_record(number, opened, opened.addresses, opened.mtu)
        self.publish(&self.shared.ports[number], record)
        self.ports[number] = opened
        try:
            self.publish_tunnel_ports()
            for which, fd in enumerate(opened.inputs):
                watch(self.workers[number % self.n_workers].epoll, fd, number | which << 16)
        except BaseException:
            self.detach(number)
            raise
        return number

    def detach(self, int number):
        opened = self.port(number)
        users = [n for n, value in self.adjacencies.items() if getattr(value, "port", None) == number]
        if users:
            raise ValueError(f"port {number} is used by adjacency {users[0]}: remove it first")
        for fd in opened.inputs:
            epoll_ctl(self.workers[number % self.n_workers].epoll, EPOLL_CTL_DEL, fd, NULL)
        self.publish(&self.shared.ports[number], NULL)
        del self.ports[number]
        self.publish_tunnel_ports()
        self.reclaimer.synchronize()
        self.spare_ports.append(number)

    def update_port(self, int number, *, addresses=None, mtu=None, bandwidth=None):
        opened = self.port(number)
        addresses = opened.addresses if addresses is None else check_addresses(addresses)
        mtu = opened.mtu if mtu is None else mtu
        opened.bandwidth = opened.bandwidth if bandwidth is None else bandwidth
        cdef port *record = port_record(number, opened, addresses, mtu)
        self.publish(&self.shared.ports[number], record)
        opened.addresses, opened.mtu = addresses, mtu

    cdef object port(self, int number):
        """The open port behind a number; KeyError when there is none."""
        if number not in self.ports:
            raise KeyError(f"there is no port {number}")
        return self.ports[number]

    cdef int publish_tunnel_ports(self) except -1:
        """The UDP ports that no pod's packet may be sent to in our name."""
        cdef tunnel_ports *record = <tunnel_ports *>calloc(1, sizeof(tunnel_ports))
        if record == NULL:
            raise MemoryError
        used = {p.tunnel.port for p in self.ports.values() if p.tunnel is not None and p.tunnel.port}
        if len(used) > TUNNEL_PORTS_MAX:
            free(record)
            raise ValueError(f"tunnels use {len(used)} different UDP ports; {TUNNEL_PORTS_MAX} are supported")
        for each in sorted(used):
            record.ports[record.n] = each
            record.n += 1
        self.publish(&self.shared.tunnels, record)
        self.routes_changed()
        return 0

    cdef int take_number(self, dict used, list spare, int limit, int first, str what) except -1:
        """A number no worker can remember: a fresh one, or one whose grace period is over."""
        for number in range(first + len(used) + len(spare), limit):
            if number not in used and number not in spare:
                return number
        if not spare:
            raise ValueError(f"there are already {limit - first} {what}")
        self.reclaimer.synchronize()
        return spare.pop()

    # -- adjacencies -----------------------------------------------------
    def set_adjacency(self, value, number=None):
        check_adjacency(value, self.ports, self.adjacencies)
        if number is None:
            number = self.take_number(self.adjacencies, self.spare_adjacencies, ADJACENCIES_MAX, 1, "adjacencies")
        elif not 1 <= number < ADJACENCIES_MAX:
            raise ValueError(f"an adjacency number is 1..{ADJACENCIES_MAX - 1}, not {number}")
        elif isinstance(value, Spread) and self.groups_of(number):
            raise ValueError(f"adjacency {number} is a member of a Spread and cannot become one")
        cdef adjacency *record = adjacency_record(number, value, self.ports)
        self.publish(&self.shared.adjacencies[<uint32_t>number], record)
        self.adjacencies[number] = value
        self.spreads.pop(number, None)
        if isinstance(value, Spread):
            self.spreads[number] = value
        self.routes_changed()
        return number

    def remove_adjacency(self, int number):
        if number not in self.adjacencies:
            raise KeyError(f"there is no adjacency {number}")
        if self.references[number]:
            raise ValueError(f"adjacency {number} is used by {self.references[number]} routes: remove them first")
        if self.groups_of(number):
            raise ValueError(f"adjacency {number} is a member of Spread {self.groups_of(number)[0]}")
        self.publish(&self.shared.adjacencies[number], NULL)
        del self.adjacencies[number]
        self.spreads.pop(number, None)
        self.spare_adjacencies.append(number)
        self.routes_changed()

    cdef list groups_of(self, int number):
        """The Spread adjacencies that have this one as a member."""
        return [n for n, value in self.spreads.items() if number in value.members]

    # -- routes ----------------------------------------------------------
    def set_route(self, prefix, int adjacency):
        if adjacency not in self.adjacencies:
            raise ValueError(f"there is no adjacency {adjacency}")
        before = self.fib.get(prefix)
        self.fib.insert(prefix, adjacency)
        self.references[adjacency] += 1
        if before:
            self.references[<uint32_t>before] -= 1
        self.routes_changed()
        self.reclaimer.reclaim()

    cdef void routes_changed(self):
        """What flows remember of their routes counts no longer. After the change, so that none learns the old."""
        atomic_store32_release(&self.shared.route_changes, self.shared.route_changes + 1)

    def remove_route(self, prefix):
        before = self.fib.get(prefix)
        if not before:
            raise KeyError(f"there is no route for {prefix}")
        self.fib.remove(prefix)
        self.references[<uint32_t>before] -= 1
        self.routes_changed()
        self.reclaimer.reclaim()

    def set_routes(self, int version, addresses, lengths, adjacencies):
        numbers, uses = np.unique(adjacencies, return_counts=True)
        for number in numbers.tolist():
            if number and number not in self.adjacencies:
                raise ValueError(f"there is no adjacency {number}")
        before = self.fib.change(version, addresses, lengths, adjacencies)
        for number, n in zip(numbers.tolist(), uses.tolist()):
            if number:
                self.references[<uint32_t>number] += <uint32_t>n
        numbers, uses = np.unique(before, return_counts=True)
        for number, n in zip(numbers.tolist(), uses.tolist()):
            if number:
                self.references[<uint32_t>number] -= <uint32_t>n
        self.routes_changed()
        self.reclaimer.reclaim()

    def routes(self):
        return dict(self.fib.items())

    def lookup(self, address):
        return self.fib.longest(address)

    # -- peers and gateways ----------------------------------------------
    def set_peers(self, peers):
        self.publish(&self.shared.peers, peer_record(peers, int.from_bytes(self.key)))

    def set_gateway(self, ipv4, ipv6):
        cdef gateway *record = <gateway *>calloc(1, sizeof(gateway))
        cdef bytes packed
        if record == NULL:
            raise MemoryError
        if ipv4 is not None:
            packed = ipv4.packed
            record.has4 = True
            memcpy(record.gateway4, <const char *>packed, 4)
        if ipv6 is not None:
            packed = ipv6.packed
            record.has6 = True
            memcpy(record.gateway6, <const char *>packed, 16)
        self.publish(&self.shared.gateways, record)

    # -- policy and flows --------------------------------------------------
    def set_policy(self, PolicyImage image):
        cdef policy_view *view = NULL
        cdef uint32_t words = image.image.n_words if image is not None else 0
        before = self.policy
        if image is not None:
            self.make_counters(image.n_counters)
        if self.flow_table.settings.track == "always" or (image is not None and image.selects):
            view = <policy_view *>calloc(1, sizeof(policy_view) + 3 * <size_t>words * self.wanted_workers * 8)
            if view == NULL:
                raise MemoryError
            view.image = &image.image if image is not None else NULL
            view.generation = self.policy_generation + 1
        self.policy = image
        self.policy_generation += 1
        self.publish(&self.shared.policy, view)
        if before is not None:
            self.reclaimer.retire_object(before)

    cdef int make_counters(self, uint32_t count) except -1:
        """Rule counters up to `count`, for every worker, before an image can name them. They are never taken away."""
        cdef worker *w
        cdef void *chunk
        if count > RULES_CHUNK * RULES_CHUNKS:
            raise ValueError(f"counters are numbered below {RULES_CHUNK * RULES_CHUNKS}, not {count - 1}")
        for i in range(self.n_workers):
            w = self.workers[i]
            for k in range((count + RULES_CHUNK - 1) // RULES_CHUNK):
                if w.tracking.account.rules[k] == NULL:
                    chunk = calloc(RULES_CHUNK, sizeof(rule_counter))
                    if chunk == NULL:
                        raise MemoryError
                    atomic_pointer_store(&w.tracking.account.rules[k], chunk)
        return 0

    def judge(self, source, destination, int protocol, int source_port=0, int destination_port=0):
        if self.policy is None:
            return (<uint32_t>ROW_OUTSIDE, <uint32_t>ROW_OUTSIDE)
        return self.policy.judge(source, destination, protocol, source_port, destination_port)

    def flows(self, cursor=0, limit=4096):
        return self.flow_table.listing(cursor, limit)

    def has_flow(self, source, destination, int protocol, int source_port=0, int destination_port=0):
        return self.flow_table.has(source, destination, protocol, source_port, destination_port)

    def forget_flows(self, address):
        return self.flow_table.forget(address)

    def export_flows(self):
        return self.flow_table.export()

    def import_flows(self, data):
        return self.flow_table.load(data)

    def rule_counters(self):
        count = self.policy.n_counters if self.policy is not None else 0
        total = np.zeros((count, 3), np.uint64)
        for i in range(self.n_workers):
            for k in range((count + RULES_CHUNK - 1) // RULES_CHUNK):
                rows = rule_rows(&self.workers[i].tracking.account, k)
                total[k * RULES_CHUNK : (k + 1) * RULES_CHUNK] += rows[: count - k * RULES_CHUNK]
        packets, octets = self.flow_table.live_rules(count)
        return total[:, 0], total[:, 1] + packets, total[:, 2] + octets

    def take_flow_events(self):
        cdef flow_account *a
        suppressed = 0
        found = []
        for i in range(self.n_workers):
            a = &self.workers[i].tracking.account
            found.append(event_rows(a))
            suppressed += a.suppressed - self.told_suppressed[i]
            self.told_suppressed[i] = a.suppressed
        return np.concatenate(found), suppressed

    def flow_counters(self):
        cdef flow_account *a
        total = dict.fromkeys(("opened", "expired", "evicted", "memo_hits", "scans", "suppressed_events"), 0)
        for i in range(self.n_workers):
            a = &self.workers[i].tracking.account
            total["opened"] += a.opened
            total["expired"] += a.expired
            total["evicted"] += a.evicted
            total["memo_hits"] += self.workers[i].tracking.memo.hits
            total["scans"] += self.workers[i].tracking.memo.scans
            total["suppressed_events"] += a.suppressed
        return {"live": len(self.flow_table), "capacity": self.flow_table.capacity, **total}

    # -- detours ---------------------------------------------------------
    def set_detour(self, adjacency):
        if adjacency is not None and not isinstance(self.adjacencies.get(adjacency), Deliver):
            raise ValueError(f"adjacency {adjacency} does not lead to a local port")
        atomic_store32_release(&self.shared.host, 0 if adjacency is None else adjacency)

    cdef int set_detour_key(self, bytes key) except -1:
        memcpy(self.shared.detours.key, <const char *>key, DETOURS_KEY_BYTES)
        return 0

    def export_detours(self):
        cdef detour *slot
        found = [DETOURS_MAGIC, (<char *>self.shared.detours.key)[:DETOURS_KEY_BYTES]]
        for i in range(DETOUR_SLOTS):
            slot = &self.shared.detours.slots[i]
            if slot.mark:
                found.append(DETOUR.pack(i, slot.mark, slot.used_ns))
        return b"".join(found)

    def import_detours(self, bytes data):
        head, entries = data[:DETOURS_HEAD_BYTES], data[DETOURS_HEAD_BYTES:]
        if not head.startswith(DETOURS_MAGIC) or len(head) < DETOURS_HEAD_BYTES or len(entries) % DETOUR.size:
            raise ValueError("these are no detours of this version")
        given = list(DETOUR.iter_unpack(entries))
        if any(i >= DETOUR_SLOTS or not mark for i, mark, _ in given):
            raise ValueError("these are no detours of this version")
        self.set_detour_key(head[len(DETOURS_MAGIC):])
        for i, mark, used_ns in given:
            self.shared.detours.slots[<uint32_t>i].mark = mark
            self.shared.detours.slots[<uint32_t>i].used_ns = used_ns
            self.shared.detours.taken += 1

    # -- life ------------------------------------------------------------
    def start(self):
        if self.threads:
            raise RuntimeError("the workers run already")
        for i in range(self.n_workers):
            self.workers[i].stopping = 0
            thread = threading.Thread(target=self.run, args=(i,), name=f"towpath-worker-{i}", daemon=True)
            self.threads.append(thread)
            thread.start()

    def run(self, int i):
        """The body of worker thread `i`: returns after `stop`."""
        with nogil:
            worker_run(self.workers[i])

    def stop(self):
        for i in range(self.n_workers):
            atomic_store32_release(&self.workers[i].stopping, 1)
            wake(self.workers[i])
        for thread in self.threads:
            thread.join()
        self.threads = []

    def turn(self):
        cdef uint32_t received = 0
        if self.threads:
            raise RuntimeError("turn() while the workers run: stop() them first")
        for i in range(self.n_workers):
            received += worker_turn(self.workers[i], 0)
        return received

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    # -- observing -------------------------------------------------------
    def fileno(self):
        """Readable when `take_events` has something; for the control plane's poll loop."""
        return self.bell

    def take_events(self):
        cdef uint64_t rung, i
        cdef notice *n
        cdef worker *w
        read(self.bell, &rung, 8)
        found = []
        for k in range(self.n_workers):
            w = self.workers[k]
            for i in range(w.out.notices_taken, atomic_load_acquire(&w.out.noticed)):
                n = &w.out.notices[i & (NOTICES_MAX - 1)]
                found.append(("path-mtu" if n.kind == NOTICE_PATH_MTU else "port-error", n.number))
                atomic_store_release(&w.out.notices_taken, i + 1)
        return found

    def counters(self):
        return Counters(
            received=self.total(&self.workers[0].count.received),
            created=self.total(&self.workers[0].count.created),
            sent=self.total(&self.workers[0].count.sent),
            drops=self.named([reason.name for reason in REASONS], &self.workers[0].count.drops[0]),
            events=self.named(EVENT_NAMES, &self.workers[0].count.events[0]),
            ports={number: self.port_counters(number) for number in self.ports},
            adjacencies={number: self.adjacency_counters(number) for number in self.adjacencies},
        )

    cdef uint64_t total(self, uint64_t *first) noexcept:
        """Sum over the workers of the counter that worker 0 keeps at `first`."""
        cdef size_t offset = <char *>first - <char *>self.workers[0]
        cdef uint64_t found = 0
        for i in range(self.n_workers):
            found += (<uint64_t *>(<char *>self.workers[i] + offset))[0]
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

    cdef object port_counters(self, uint32_t number):
        cdef uint64_t *at = <uint64_t *>&self.workers[0].count.ports[number]
        return PortCounters(
            self.total(at), self.total(at + 1), self.total(at + 2), self.total(at + 3), self.total(at + 4)
        )

    cdef object adjacency_counters(self, uint32_t number):
        cdef uint64_t *at = <uint64_t *>&self.workers[0].count.adjacencies[number]
        return (self.total(at), self.total(at + 1))


cdef int watch(int epoll, int fd, uint64_t tag) except -1:
    cdef epoll_event event
    event.events = EPOLLIN
    event.data.u64 = tag
    if epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0:
        raise OSError(f"descriptor {fd} cannot be polled")
    return 0


cdef void wake(worker *w) noexcept:
    cdef uint64_t one = 1
    write(w.wake, &one, 8)
