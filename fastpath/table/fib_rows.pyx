"""The routes of one change, checked; see fib_rows.pxd."""

import numpy

from libc.stdint cimport uint8_t
from libc.stdlib cimport free, malloc


cdef class Rows:
    """Routes of one family and the values they are to have; made by what takes arrays of them."""

    def __dealloc__(self):
        free(self.prefixes)
        free(self.values)


cdef Rows rows_of(int version, object addresses, object lengths, object values, uint32_t least):
    cdef Rows rows = Rows()
    if version not in (4, 6):
        raise ValueError(f"version must be 4 or 6, not {version}")
    if not len(addresses) == len(lengths) == len(values):
        raise ValueError(f"{len(addresses)} addresses, {len(lengths)} lengths and {len(values)} values")
    rows.version, rows.n = version, len(lengths)
    rows.old = rows.before = numpy.zeros(rows.n, numpy.uint32)
    rows.prefixes = <prefix *>malloc((rows.n + 1) * sizeof(prefix))
    rows.values = <uint32_t *>malloc((rows.n + 1) * sizeof(uint32_t))
    if rows.prefixes == NULL or rows.values == NULL:
        raise MemoryError
    read_prefixes(version, addresses, lengths, rows.prefixes)
    read_values(values, least, rows.values)
    return rows


cdef int read_prefixes(int version, object addresses, object lengths, prefix *p) except -1:
    cdef const uint32_t[::1] short_addresses
    cdef const uint64_t[:, ::1] long_addresses
    cdef const uint8_t[::1] bits = lengths
    cdef uint64_t i
    cdef uint32_t longest = 32 if version == 4 else 128
    if version == 4:
        short_addresses = addresses
    else:
        long_addresses = addresses
        if long_addresses.shape[1] != 2:
            raise ValueError(f"an IPv6 address is two halves, not {long_addresses.shape[1]}")
    for i in range(<uint64_t>bits.shape[0]):
        if version == 4:
            p[i].high, p[i].low = <uint64_t>short_addresses[i] << 32, 0
        else:
            p[i].high, p[i].low = long_addresses[i, 0], long_addresses[i, 1]
        p[i].length = bits[i]
        if bits[i] > longest:
            raise ValueError(f"route {i}: length {bits[i]} is not 0..{longest}")
        if host_bits(&p[i]):
            raise ValueError(f"route {i}: bits set behind the prefix length {bits[i]}")
    return 0


cdef int read_values(object values, uint32_t least, uint32_t *numbers) except -1:
    cdef const uint32_t[::1] given = values
    cdef uint64_t i
    for i in range(<uint64_t>given.shape[0]):
        if not least <= given[i] <= FIB_VALUE_MAX:
            raise ValueError(f"route {i}: value {given[i]} is not {least}..{FIB_VALUE_MAX}")
        numbers[i] = given[i]
    return 0
