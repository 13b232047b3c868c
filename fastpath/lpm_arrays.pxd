# Arrays of addresses, of routes, and of the numbers that lookups answer with.
#
# Owns: bulk lookups for Python, and reading arrays of routes.
# Never: knows Python values but as a list to index.

from libc.stdint cimport uint32_t
from fastpath.lpm_key cimport KEY_ADDRESS
from fastpath.table.fib cimport Fib, fib4, fib4_find, fib6, fib6_find
from fastpath.table.fib_rows cimport prefix

# Bulk lookup in one version: the given one, or with NULL the one now published. `out` may be None.
cdef object find_array(Fib fib, const fib4 *four, const fib6 *six, object keys, object out)
# The values of an array of numbers.
cdef list resolve_numbers(list values, object numbers)
# (4 or 6, array of uint32 (n,) or uint64 (n, 2))
cdef object as_pairs(object addresses)

cdef inline uint32_t find_one(const fib4 *four, const fib6 *six, int version, const prefix *p) noexcept nogil:
    if version & ~KEY_ADDRESS == 4:
        return fib4_find(four, <uint32_t>(p.high >> 32))
    return fib6_find(six, p.high, p.low)
