# The compiled forwarding tables (FIB) and their one writer.
#
# Owns: the published versions of both families, and the routes they were compiled from.
# Never: changes what readers see; a change makes a new version and stores one pointer.
# Invariant: `ipv4` and `ipv6` always point to a complete version, which stays
# readable until every reader online at the time has reported to the Reclaimer.
#
# A reader, between qsbr_online and the next report:
#     cdef const fib4 *fib = fib4_current(&table.ipv4)
#     value = fib4_find(fib, address)            # host order; 0 = no route
# One loaded pointer is one consistent version of the whole table.

from libc.stdint cimport uint32_t, uint64_t
from fastpath.atomic cimport atomic_pointer_load
from fastpath.table.qsbr cimport Reclaimer
from fastpath.table.fib_pool cimport edition, pool, trie
from fastpath.table.fib_rows cimport Rows, prefix
from fastpath.table.rib cimport rib, rib_match, rib_route

cdef extern from "fastpath/simd/fib.h" nogil:
    struct fib4:
        pass
    struct fib6:
        pass
    uint32_t fib4_find(const fib4 *fib, uint32_t address) noexcept
    uint32_t fib6_find(const fib6 *fib, uint64_t high, uint64_t low) noexcept

cdef inline const fib4 *fib4_current(fib4 **slot) noexcept nogil:
    return <const fib4 *>atomic_pointer_load(slot)

cdef inline const fib6 *fib6_current(fib6 **slot) noexcept nogil:
    return <const fib6 *>atomic_pointer_load(slot)

cdef struct family:            # the writer's side of one family
    rib routes
    trie compiled
    edition *published
    trie fresh                 # compiled anew, to replace `compiled` when the change is committed; or no pieces
    uint64_t owed              # entries of the reclaimer's queue that committing will take
    bint broken                # pieces of `compiled` belong to nobody: the next change compiles anew

cdef class Fib:
    cdef fib4 *ipv4            # published; readers load these two with acquire
    cdef fib6 *ipv6
    cdef readonly Reclaimer reclaimer
    cdef family v4, v6
    cdef family *family_of(self, int version) noexcept
    # `version` is 4 or 6; `value` is 1 .. FIB_VALUE_MAX. Each call is one transaction: it happens as a
    # whole for every reader of a family, in both families or neither, or raises (MemoryError) and leaves the
    # table as it was. A reader of both families loads two pointers, and may meet one changed before the other.
    cdef uint32_t put(self, int version, const prefix *p, uint32_t value) except? 0xffffffff   # the value before, or 0
    cdef uint32_t take(self, int version, const prefix *p) except? 0xffffffff                  # the value removed, or 0
    cdef int put_many(self, int version, const prefix *p, const uint32_t *values, uint64_t n, uint32_t *old) except -1
    cdef int put_rows(self, Rows one, Rows other) except -1    # `other`: None, or of the other family
    # The steps of one: everything that can fail, then one of the two that cannot.
    cdef int prepare(self, int version, const prefix *p, const uint32_t *values, uint64_t n, uint32_t *old) except -1
    cdef void commit(self, int version) noexcept
    cdef void abandon(self, int version, const prefix *p, const uint32_t *old, uint64_t n) noexcept
    cdef int compile(self, int version, const prefix *p, uint64_t n) except -1
    cdef int compile_anew(self, int version) except -1
    cdef int rebuild(self, int version) except -1
    cdef int reserve(self, family *f, uint64_t n) except -1
    cdef void collect_editions(self, pool *p) noexcept
    cdef void publish(self, int version) noexcept
    cdef void publish_fresh(self, int version) noexcept
    cdef void discard_making(self, family *f) noexcept
    cdef void retire_table(self, family *old) noexcept
    cdef void discard(self, int version) noexcept
    cdef void **slot_of(self, int version) noexcept
