# What the workers counted, as one: see tally.pyx.

from libc.stdint cimport uint32_t, uint64_t
from fastpath.crew cimport Crew
from fastpath.table.flow cimport FlowTable, flow_account

cdef class Tally:
    cdef Crew crew
    cdef FlowTable flow_table
    cdef list told_suppressed      # flow events, by worker
    cdef object told_rules         # (n, 3): the most that was told of each

    cdef uint64_t total(self, uint64_t *first) noexcept
    cdef object named(self, names, uint64_t *first)
    cdef object of_port(self, uint32_t number)
    cdef object of_adjacency(self, uint32_t number)
    cdef flow_account *account_of(self, int i) noexcept
    cdef int make_room(self, uint32_t count) except -1
