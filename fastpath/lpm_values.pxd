# Python values by number: what stands behind the 31 bits of a route.

from libc.stdint cimport uint32_t, uint64_t
from fastpath.table.qsbr cimport Reclaimer

cdef struct number_use:
    uint32_t routes            # that have the number, and calls that are about to set one
    uint32_t queued            # times it waits for readers to pass

cdef class Values:
    cdef list values           # number -> value; number 0 is None, "no route"
    cdef dict numbers          # what makes a value itself -> number
    cdef list free
    cdef number_use *uses
    cdef uint64_t room
    cdef uint32_t acquire(self, object value) except 0
    cdef uint32_t add(self, object value) except 0
    cdef void keep(self, uint32_t number) noexcept
    cdef int grow(self, uint64_t number) except -1
    cdef void leave(self, uint32_t number, Reclaimer reclaimer) noexcept
    cdef void forget(self, uint32_t number) noexcept
