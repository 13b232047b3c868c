"""The workers of one plane: their memory, their descriptors, their threads.

Owns: making, starting, waking, stopping and freeing them; what they tell the control plane.
Never: publishes a table, or reads what they count (`tally` does).
Invariant: a thread that runs holds the plane, and with it all that its worker reads.
"""

import threading

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from posix.unistd cimport close as close_descriptor

from fastpath.atomic cimport atomic_load_acquire, atomic_store32_release, atomic_store_release
from fastpath.buffer cimport ARENA_BYTES
from fastpath.stage.reply cimport reply_limits_init
from fastpath.system cimport (
    epoll_create1, epoll_ctl, epoll_event, eventfd, read, write,
    timerfd_create, CLOCK_MONOTONIC, TFD_CLOEXEC, TFD_NONBLOCK, EFD_CLOEXEC, EFD_NONBLOCK, EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLLIN,
)
from fastpath.table.flow cimport EVENT_RING, FlowTable, RULES_CHUNKS, flow_event
from fastpath.table.policy cimport MEMO_SETS, memo_entry
from fastpath.table.qsbr cimport Reclaimer
from fastpath.transmit cimport notice, NOTICE_PATH_MTU, NOTICE_PORT_ERROR, NOTICE_SHORTCUT, NOTICES_MAX
from fastpath.worker cimport tables, worker, worker_run, worker_turn, INPUT_CONTROL, INPUT_TIMER, REPLY_ARENA_BYTES

from fastpath.port.sockets import segments_of_kernel
from fastpath.values import FLOW_EVENTS

NOTICES = {NOTICE_PATH_MTU: "path-mtu", NOTICE_PORT_ERROR: "port-error", NOTICE_SHORTCUT: "shortcut"}


cdef class Crew:
    """As many workers as are asked for; they read no table before `serve` names the tables."""

    def __cinit__(self, Reclaimer reclaimer, FlowTable flows, *, int workers, uint64_t key, uint64_t busy_poll_ns):
        self.threads = []
        self.members = <worker **>calloc(workers, sizeof(worker *))
        if self.members == NULL:
            raise MemoryError
        self.bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        if self.bell < 0:
            raise OSError("no descriptor for the workers' bell: raise the limit of open files (ulimit -n)")
        for i in range(workers):
            self.members[i] = without_descriptors()
            self.size += 1
            self.members[i].readers = reclaimer.readers
            self.prepare(self.members[i], i, workers, key, busy_poll_ns)
            self.prepare_tracker(self.members[i], flows)

    cdef int prepare(self, worker *w, uint32_t i, int workers, uint64_t key, uint64_t busy_poll_ns) except -1:
        w.reader = i
        w.n_workers = workers
        w.key = key
        w.bell = self.bell
        w.udp_segments = segments_of_kernel()
        w.memory.base, w.memory.size = w.bytes, ARENA_BYTES
        w.reply_memory.base, w.reply_memory.size = w.reply_bytes, REPLY_ARENA_BYTES
        w.out.count = &w.count
        w.waiting.limit_ns = busy_poll_ns
        reply_limits_init(&w.limits, key)
        w.epoll = epoll_create1(EPOLL_CLOEXEC)
        w.wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        if w.epoll < 0 or w.wake < 0:
            raise OSError("no descriptor for a worker: raise the limit of open files (ulimit -n)")
        watch(w.epoll, w.wake, INPUT_CONTROL)
        w.resting.timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
        if w.resting.timer < 0:
            raise OSError("no timer for a worker: raise the limit of open files (ulimit -n)")
        watch(w.epoll, w.resting.timer, INPUT_TIMER)
        return 0

    cdef int prepare_tracker(self, worker *w, FlowTable flows) except -1:
        settings = flows.settings
        w.tracking.flows = flows.table
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

    cdef void serve(self, tables *shared) noexcept:
        for i in range(self.size):
            self.members[i].shared = shared
            self.members[i].out.ports = shared.ports
            self.members[i].out.due = shared.due_ns

    def __dealloc__(self):
        cdef worker *w
        if self.members == NULL:   # nothing was made: `bell` is still 0, which is somebody's descriptor
            return
        for i in range(self.size):
            w = self.members[i]
            free(w.tracking.memo.entries)
            free(w.tracking.account.events)
            for k in range(RULES_CHUNKS):
                free(w.tracking.account.rules[k])
            close_if_open(w.epoll)
            close_if_open(w.wake)
            close_if_open(w.resting.timer)
            free(w)
        free(self.members)
        close_if_open(self.bell)

    # -- what they wait for ----------------------------------------------
    cdef int poll(self, uint32_t number, int which, int fd) except -1:
        """Have one worker receive from input `which` of port `number`: the inputs of a port are for as many workers."""
        return watch(self.server_of(number, which).epoll, fd, number | which << 16)

    cdef void poll_no_more(self, uint32_t number, int which, int fd) noexcept:
        epoll_ctl(self.server_of(number, which).epoll, EPOLL_CTL_DEL, fd, NULL)

    cdef worker *server_of(self, uint32_t number, int which) noexcept:
        return self.members[(number + which) % self.size]

    # -- life ------------------------------------------------------------
    def start(self, plane):
        if self.threads:
            raise RuntimeError("the workers run already")
        for i in range(self.size):
            self.members[i].stopping = 0
            thread = threading.Thread(target=self.run, args=(i, plane), name=f"towpath-worker-{i}", daemon=True)
            self.threads.append(thread)
            thread.start()

    def run(self, int i, plane):
        """The body of worker thread `i`: returns after `stop`. It holds `plane`, whose tables it reads."""
        with nogil:
            worker_run(self.members[i])

    def stop(self):
        for i in range(self.size):
            atomic_store32_release(&self.members[i].stopping, 1)
            wake(self.members[i])
        for thread in self.threads:
            thread.join()
        self.threads = []

    def turn(self):
        cdef uint32_t received = 0
        if self.threads:
            raise RuntimeError("turn() while the workers run: stop() them first")
        for i in range(self.size):
            received += worker_turn(self.members[i], 0)
        return received

    # -- what they tell --------------------------------------------------
    def take_notices(self):
        """See plane.pyi, `take_events`."""
        cdef uint64_t rung, i
        cdef notice *n
        cdef worker *w
        read(self.bell, &rung, 8)
        found = []
        for k in range(self.size):
            w = self.members[k]
            for i in range(w.out.notices_taken, atomic_load_acquire(&w.out.noticed)):
                n = &w.out.notices[i & (NOTICES_MAX - 1)]
                found.append((NOTICES[n.kind], n.number))
                atomic_store_release(&w.out.notices_taken, i + 1)
        return found


cdef worker *without_descriptors() except NULL:
    """A worker of zeros, which can be freed at any time."""
    cdef worker *w = <worker *>calloc(1, sizeof(worker))
    if w == NULL:
        raise MemoryError
    w.epoll = w.wake = w.resting.timer = -1
    return w


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


cdef void close_if_open(int fd) noexcept:
    if fd >= 0:
        close_descriptor(fd)
