# What guard and route look up: the published FIB and the adjacency slots.
#
# Owns: the view of one burst. The worker loads it once per burst, so that all
# packets of the burst are judged by the same version of the routes.

from libc.stdint cimport uint32_t, uint64_t
from fastpath.table.adjacency cimport adjacency
from fastpath.table.detour cimport detours
from fastpath.table.fib cimport fib4, fib6, fib4_find, fib6_find

cdef struct routes:
    const fib4 *four
    const fib6 *six
    adjacency **adjacencies
    detours *detours           # connections whose replies the host must see
    uint32_t host              # adjacency of the host port for them; 0: the host may not speak as a pod
    uint64_t now_ns

cdef inline uint32_t lookup4(const routes *r, uint32_t address) noexcept nogil:
    return fib4_find(r.four, address)

cdef inline uint32_t lookup6(const routes *r, uint64_t high, uint64_t low) noexcept nogil:
    return fib6_find(r.six, high, low)
