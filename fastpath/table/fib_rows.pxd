# Prefixes, and the routes that a change of the table is made of.
#
# Owns: what a prefix is to the table, and `Rows`: the routes of one change of one
# family, with the values they replace.
# Never: changes a table.
# Invariant: rows that exist are right in themselves: every length, every bit behind it and
# every value was looked at. Nothing about them can fail any more.

from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    FIB_VALUE_MAX = 0x7fffffff

# A prefix of either family; IPv4 in the top 32 bits of `high`.
cdef struct prefix:
    uint64_t high, low
    uint32_t length

cdef inline bint host_bits(const prefix *p) noexcept nogil:
    """Whether bits are set behind the length."""
    if p.length >= 64:
        return p.length < 128 and (p.low & (~<uint64_t>0 >> (p.length - 64))) != 0
    return p.low != 0 or (p.high & (~<uint64_t>0 >> p.length)) != 0

# Copy and check as many prefixes as there are lengths; ValueError names the first that is wrong.
cdef int read_prefixes(int version, object addresses, object lengths, prefix *p) except -1

cdef class Rows:
    cdef readonly int version
    cdef readonly uint64_t n
    cdef prefix *prefixes
    cdef uint32_t *values      # 0: to be withdrawn
    cdef readonly object before  # array of the values they replace, 0 where there was no route; the change fills it
    cdef uint32_t[::1] old     # the same

# Rows from arrays as Fib.load takes them. `least` is the smallest value allowed.
cdef Rows rows_of(int version, object addresses, object lengths, object values, uint32_t least)
