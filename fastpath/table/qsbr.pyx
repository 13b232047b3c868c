"""The queue of retired memory and objects behind the reader slots of qsbr.pxd.

Owns: the slots, who holds which, and everything retired until it is freed.
Never: waits inside a retirement; only `synchronize` waits.
Invariant: one thread at a time retires and reclaims (in CPython the GIL sees to
that: no method here gives it up while the queue is being changed).
"""

import time

from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stdlib cimport free, realloc
from libc.string cimport memset
from posix.stdlib cimport posix_memalign


cdef void release_memory(void *owner, uint64_t item) noexcept:
    free(owner)


cdef void release_object(void *owner, uint64_t item) noexcept:
    Py_DECREF(<object>owner)


cdef class Reclaimer:
    """Holds what was replaced until no reader can still see it.

    `workers` slots, 0 to workers - 1, belong to threads that report themselves;
    bulk lookups of Python threads claim one of the others for each call.
    """

    def __cinit__(self, *, int workers=0):
        cdef void *place = NULL
        if not 0 <= workers <= QSBR_READERS:
            raise ValueError(f"workers must be 0..{QSBR_READERS}, not {workers}")
        if posix_memalign(&place, 64, sizeof(qsbr)) != 0:
            raise MemoryError
        memset(place, 0, sizeof(qsbr))
        self.readers = <qsbr *>place
        self.readers.epoch = 1
        self.claimed = ~<uint64_t>0 if workers == 64 else (<uint64_t>1 << workers) - 1

    def __dealloc__(self):
        # Nobody is left who could read: whoever reads holds a reference to us.
        while self.first != self.after:
            self.free_one()
        free(self.queue)
        free(self.readers)

    # -- retiring ----------------------------------------------------------
    cdef int reserve(self, uint64_t more) except -1:
        """Make room for `more` entries, so that `defer` cannot fail after a publication."""
        cdef uint64_t waiting = self.after - self.first
        cdef uint64_t capacity = self.capacity if self.capacity else 256
        cdef uint64_t i
        cdef retired *queue
        if waiting + more <= self.capacity:
            return 0
        while capacity < waiting + more:
            capacity *= 2
        queue = <retired *>realloc(NULL, capacity * sizeof(retired))
        if queue == NULL:
            raise MemoryError
        for i in range(waiting):
            queue[i] = self.queue[(self.first + i) & (self.capacity - 1)]
        free(self.queue)
        self.queue, self.capacity = queue, capacity
        self.first, self.after = 0, waiting
        return 0

    cdef void defer(self, uint64_t token, release_t release, void *owner, uint64_t item) noexcept:
        """Call release(owner, item) once `token` has passed. Room was reserved before."""
        cdef retired *entry = &self.queue[self.after & (self.capacity - 1)]
        entry.token, entry.release, entry.owner, entry.item = token, release, owner, item
        self.after += 1

    cdef uint64_t advance(self) noexcept:
        return qsbr_advance(self.readers)

    cdef int retire(self, void *memory) except -1:
        """`memory` (from malloc) was just unpublished: free it when nobody can read it."""
        self.reserve(1)
        self.defer(self.advance(), release_memory, memory, 0)
        return 0

    cdef int retire_object(self, object value) except -1:
        """Keep a reference to `value` until no reader can use what it owns."""
        self.reserve(1)
        Py_INCREF(value)
        self.defer(self.advance(), release_object, <void *>value, 0)
        return 0

    # -- freeing -----------------------------------------------------------
    cdef void free_one(self) noexcept:
        # The entry leaves the queue first: releasing an object may run Python code that comes back here.
        cdef retired entry = self.queue[self.first & (self.capacity - 1)]
        self.first += 1
        entry.release(entry.owner, entry.item)

    cdef uint64_t free_passed(self) noexcept:
        """Free all whose token has passed; how many still wait."""
        cdef uint64_t oldest
        if self.first != self.after:
            oldest = qsbr_oldest(self.readers, self.claimed)
            while self.first != self.after and \
                    self.queue[self.first & (self.capacity - 1)].token <= oldest:
                self.free_one()
        return self.after - self.first

    def reclaim(self) -> int:
        """Free what no reader can see any more, without waiting; how many things still wait."""
        return self.free_passed()

    def synchronize(self, timeout: float = 5.0) -> None:
        """Wait until everything retired so far is freed. TimeoutError when a reader stays too long."""
        cdef uint64_t token = self.advance()
        deadline = time.monotonic() + timeout
        while qsbr_oldest(self.readers, self.claimed) < token:
            if time.monotonic() > deadline:
                raise TimeoutError(f"readers {self.lagging(token)} did not report within {timeout} s")
            time.sleep(0.0001)
        self.free_passed()

    def lagging(self, uint64_t token) -> list[int]:
        """Slots of the online readers that have not reported since `token`."""
        return [i for i in range(QSBR_READERS)
                if 0 < atomic_load_acquire(&self.readers.readers[i].seen) < token]

    @property
    def waiting(self) -> int:
        """How many things wait to be freed."""
        return self.after - self.first

    # -- slots -------------------------------------------------------------
    cdef int claim_slot(self) noexcept:
        """A free slot, or -1. With the GIL held, as for `release_slot`."""
        cdef int i
        for i in range(QSBR_READERS - 1, -1, -1):
            if not self.claimed >> i & 1:
                self.claimed |= <uint64_t>1 << i
                return i
        return -1

    cdef int hold(self, const void *one, const void *other) noexcept:
        """Claim a slot for a reader of two versions that are published now, and come online; -1 when all are taken."""
        cdef int slot = self.claim_slot()
        if slot >= 0:
            self.held[slot][0], self.held[slot][1] = one, other
            self.holding |= <uint64_t>1 << slot
            qsbr_online(self.readers, <uint32_t>slot)
        return slot

    cdef bint is_held(self, const void *version) noexcept:
        """Whether a reader said that it holds the version."""
        cdef uint64_t slots = self.holding
        cdef uint32_t i
        while slots:
            i = bits_lowest(slots)
            slots &= slots - 1
            if self.held[i][0] == version or self.held[i][1] == version:
                return True
        return False

    cdef uint64_t oldest_unknown(self) noexcept:
        """The oldest epoch of the readers that did not say what they hold."""
        return qsbr_oldest(self.readers, self.claimed & ~self.holding)

    cdef void release_slot(self, int slot) noexcept:
        """Give back a slot whose reader is offline."""
        self.claimed &= ~(<uint64_t>1 << slot)
        self.holding &= ~(<uint64_t>1 << slot)

    def claim(self) -> int:
        """Take a reader slot of one's own; RuntimeError when all 64 are taken."""
        cdef int slot = self.claim_slot()
        if slot < 0:
            raise RuntimeError(f"all {QSBR_READERS} reader slots are taken")
        return slot

    def release(self, int slot) -> None:
        """Give back a slot from `claim`; the reader is offline for good."""
        if not 0 <= slot < QSBR_READERS or not self.claimed >> slot & 1:
            raise ValueError(f"slot {slot} is not taken")
        qsbr_offline(self.readers, <uint32_t>slot)
        self.release_slot(slot)
