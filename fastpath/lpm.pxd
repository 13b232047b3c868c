# The route table for Python programs; see lpm.pyx.

from libc.stdint cimport uint32_t, uint64_t
from fastpath.lpm_values cimport Values
from fastpath.table.fib cimport Fib
from fastpath.table.fib_rows cimport prefix
from fastpath.table.qsbr cimport Reclaimer
from fastpath.table.rib cimport rib

cdef class RouteTable:
    cdef Fib fib
    cdef Reclaimer reclaimer
    cdef Values store
    cdef uint64_t changes      # so that an iterator notices
    cdef object __weakref__
    cdef int put(self, int version, const prefix *p, object value) except -1
    cdef int take(self, int version, const prefix *p, object key) except -1
    cdef object match(self, int version, const prefix *p)
    cdef rib *routes_of(self, int version) noexcept
    cdef uint32_t number_at(self, object key) except? 0
    cdef int put_staged(self, int version, const prefix *p, const uint32_t *numbers, uint64_t n) except -1
