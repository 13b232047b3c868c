# One version of a route table, held for several calls.

from libc.stdint cimport uint32_t
from fastpath.lpm_values cimport Values
from fastpath.table.fib cimport Fib, fib4, fib6

cdef class Snapshot:
    cdef Fib fib
    cdef Values store
    cdef const fib4 *ipv4
    cdef const fib6 *ipv6
    cdef int slot              # -1 when closed
    cdef int close_slot(self) noexcept
    cdef int check_open(self) except -1
