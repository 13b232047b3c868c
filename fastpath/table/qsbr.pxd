# Quiescent-state based reclamation: when may memory that readers could still hold be freed?
#
# Owns: the epoch, one slot for each reader, and the five operations on them;
# `Reclaimer` adds the queue of what waits to be freed.
# Never: frees anything a reader that was online at the time may still read.
# Invariants:
#   * One writer publishes, *then* advances the epoch, and frees what it replaced
#     only when `qsbr_oldest` of all readers has come to the token that the advance returned.
#   * What was published as a whole (a version) may also be used again as soon as
#     every reader that has *not* said what it holds has reported, and no other holds it.
#     Whoever says so (`hold`) does it with the GIL, as the writer publishes and asks.
#   * A reader comes online before it loads a published pointer, and keeps
#     nothing it loaded across `qsbr_quiescent` or `qsbr_offline`.
#
# Why the orders suffice (modelled in tests/model/qsbr.pml):
#   publish is a release store, the reader's load of the pointer an acquire;
#   online stores the slot, then a sequentially consistent fence keeps the load
#   of the pointer behind it; the writer's advance is the matching fence between
#   its publication and its look at the slots. A quiescent state is a release
#   store, so that the writer, who polls with acquire, frees after the last read.

from libc.stdint cimport uint32_t, uint64_t
from fastpath.atomic cimport (
    atomic_add_ordered, atomic_fence_ordered, atomic_load_acquire, atomic_load_relaxed,
    atomic_store_relaxed, atomic_store_release,
)

cdef extern from *:
    """
    #define qsbr_lowest(x) ((uint32_t)__builtin_ctzll(x))
    """
    uint32_t bits_lowest "qsbr_lowest"(uint64_t x) noexcept nogil      # x != 0

cdef enum:
    QSBR_READERS = 64          # slots; a reader is a thread, never two at a time

cdef struct qsbr_reader:
    uint64_t seen              # epoch last reported, 0 while offline
    uint64_t padding[7]        # a cache line of its own: readers never disturb each other

cdef struct qsbr:
    uint64_t epoch             # starts at 1, so that 0 can mean offline
    uint64_t padding[7]
    qsbr_reader readers[QSBR_READERS]

cdef inline void qsbr_online(qsbr *q, uint32_t reader) noexcept nogil:
    """From here on the reader may load published pointers."""
    atomic_store_relaxed(&q.readers[reader].seen, atomic_load_acquire(&q.epoch))
    atomic_fence_ordered()

cdef inline void qsbr_offline(qsbr *q, uint32_t reader) noexcept nogil:
    """The reader holds nothing and may block for any time."""
    atomic_store_release(&q.readers[reader].seen, 0)

cdef inline void qsbr_quiescent(qsbr *q, uint32_t reader) noexcept nogil:
    """The reader holds nothing it loaded before, and goes on: once a burst."""
    atomic_store_release(&q.readers[reader].seen, atomic_load_acquire(&q.epoch))

cdef inline uint64_t qsbr_advance(qsbr *q) noexcept nogil:
    """Writer, after publishing: the token that must pass before what was replaced is freed."""
    cdef uint64_t token = atomic_add_ordered(&q.epoch, 1) + 1
    atomic_fence_ordered()
    return token

cdef inline uint64_t qsbr_oldest(qsbr *q, uint64_t slots) noexcept nogil:
    """The oldest epoch an online reader of these slots (bits) may still be in; the present one when all are offline."""
    cdef uint64_t oldest = atomic_load_relaxed(&q.epoch)
    cdef uint64_t seen
    cdef uint32_t i
    while slots:
        i = bits_lowest(slots)
        slots &= slots - 1
        seen = atomic_load_acquire(&q.readers[i].seen)
        if seen != 0 and seen < oldest:
            oldest = seen
    return oldest


ctypedef void (*release_t)(void *owner, uint64_t item) noexcept

cdef struct retired:
    uint64_t token
    release_t release
    void *owner
    uint64_t item

cdef class Reclaimer:
    cdef qsbr *readers                 # cache-line aligned, lives as long as this object
    cdef uint64_t claimed              # bit i: slot i belongs to somebody
    cdef uint64_t holding              # bit i: the owner of slot i said what it holds, in `held`
    cdef const void *held[QSBR_READERS][2]
    cdef retired *queue                # ring of `capacity` (a power of two), oldest token first
    cdef uint64_t first, after, capacity
    cdef int reserve(self, uint64_t more) except -1
    cdef void defer(self, uint64_t token, release_t release, void *owner, uint64_t item) noexcept
    cdef uint64_t advance(self) noexcept
    cdef int retire(self, void *memory) except -1
    cdef int retire_object(self, object value) except -1
    cdef void free_one(self) noexcept
    cdef uint64_t free_passed(self) noexcept
    cdef int claim_slot(self) noexcept
    cdef int hold(self, const void *one, const void *other) noexcept
    cdef bint is_held(self, const void *version) noexcept
    cdef uint64_t oldest_unknown(self) noexcept
    cdef void release_slot(self, int slot) noexcept
