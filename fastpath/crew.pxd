# The workers of one plane: see crew.pyx.

from libc.stdint cimport uint32_t, uint64_t
from fastpath.table.flow cimport FlowTable
from fastpath.worker cimport tables, worker

cdef class Crew:
    cdef worker **members
    cdef readonly int size         # of them
    cdef readonly int bell         # readable when `take_notices` has something
    cdef list threads

    cdef int prepare(self, worker *w, uint32_t i, int workers, uint64_t key, uint64_t busy_poll_ns) except -1
    cdef int prepare_tracker(self, worker *w, FlowTable flows) except -1
    cdef void serve(self, tables *shared) noexcept
    cdef int poll(self, uint32_t number, int which, int fd) except -1
    cdef void poll_no_more(self, uint32_t number, int which, int fd) noexcept
    cdef worker *server_of(self, uint32_t number, int which) noexcept
