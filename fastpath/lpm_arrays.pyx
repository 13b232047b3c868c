"""Arrays of addresses, of routes, and of the numbers that lookups answer with; see lpm_arrays.pxd.

Owns: which shapes are taken, and who reads which version while the GIL is away.
Never: changes a table.
Invariant: a bulk lookup is answered from one version, whatever other threads change meanwhile.
"""

import numpy

from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer,
)
from libc.stdint cimport uint8_t, uint64_t
from fastpath.lpm_key cimport load_be64
from fastpath.simd.lookup cimport fib4 as kernel_fib4, fib6 as kernel_fib6, lookup_ipv4, lookup_ipv6
from fastpath.table.qsbr cimport Reclaimer, qsbr_offline

cdef enum:
    GIL_BATCH = 1024           # smaller lookups take less time than giving up the GIL
    CHUNK = 1024               # addresses converted at a time: as many as a kernel takes at once

cdef enum:
    KEYS_IPV4, KEYS_PAIRS, KEYS_OCTETS

# -- addresses in, numbers out --------------------------------------------------------

cdef int keys_shape(const Py_buffer *view, object keys) except -1:
    """Which of the three shapes an array of addresses has."""
    cdef char kind = view.format[0] if view.format != NULL and view.format[1] == 0 else 0
    if view.ndim == 1 and view.itemsize == 4 and kind in b"IL":
        return KEYS_IPV4
    if view.ndim == 2 and view.itemsize == 8 and kind in b"LQ" and view.shape[1] == 2:
        return KEYS_PAIRS
    if view.ndim == 2 and kind == c"B" and view.shape[1] == 16:
        return KEYS_OCTETS
    shape = tuple(view.shape[i] for i in range(view.ndim))
    raise TypeError("addresses are uint32 of shape (n,), uint64 of shape (n, 2) or uint8 of shape (n, 16), "
                    f"not {getattr(keys, 'dtype', type(keys).__name__)} of shape {shape}")


cdef int check_values(const Py_buffer *view, const Py_buffer *addresses, object out) except -1:
    cdef Py_ssize_t n = addresses.shape[0]
    cdef const uint8_t *values = <const uint8_t *>view.buf
    cdef const uint8_t *read = <const uint8_t *>addresses.buf
    if view.ndim != 1 or view.itemsize != 4 or view.format == NULL or view.format[1] != 0 or view.format[0] not in b"IL":
        raise TypeError(f"out must be uint32 of shape ({n},), not {getattr(out, 'dtype', type(out).__name__)}")
    if view.shape[0] != n:
        raise ValueError(f"out has {view.shape[0]} elements for {n} addresses")
    if values < read + addresses.len and read < values + view.len:
        raise ValueError("out overlaps the addresses: give it memory of its own")
    return 0


cdef void find_octets(const fib6 *fib, const uint8_t *octets, uint32_t *values, size_t n) noexcept nogil:
    cdef uint64_t pairs[2 * CHUNK]
    cdef size_t part, i
    while n:
        part = min(n, <size_t>CHUNK)
        for i in range(2 * part):
            pairs[i] = load_be64(octets + 8 * i)
        lookup_ipv6().find6(<const kernel_fib6 *>fib, pairs, values, part)
        octets += 16 * part
        values += part
        n -= part


cdef void find_all(int shape, const fib4 *four, const fib6 *six, const void *keys, uint32_t *values, size_t n) noexcept nogil:
    if shape == KEYS_IPV4:
        lookup_ipv4().find4(<const kernel_fib4 *>four, <const uint32_t *>keys, values, n)
    elif shape == KEYS_PAIRS:
        lookup_ipv6().find6(<const kernel_fib6 *>six, <const uint64_t *>keys, values, n)
    else:
        find_octets(six, <const uint8_t *>keys, values, n)


cdef int find_released(Fib fib, int shape, const void *keys, uint32_t *values, size_t n) except -1:
    """A bulk lookup without the GIL, as a reader of its own. With all slots taken, the GIL is kept instead."""
    cdef Reclaimer reclaimer = fib.reclaimer
    cdef const fib4 *four = fib.ipv4
    cdef const fib6 *six = fib.ipv6
    cdef int slot = reclaimer.hold(four, six)
    if slot < 0:
        find_all(shape, four, six, keys, values, n)
        return 0
    with nogil:
        find_all(shape, four, six, keys, values, n)
        qsbr_offline(reclaimer.readers, slot)
    reclaimer.release_slot(slot)
    return 0


cdef object find_array(Fib fib, const fib4 *four, const fib6 *six, object keys, object out):
    """Bulk lookup in one version: the given one, or with NULL the one now published."""
    cdef Py_buffer addresses, numbers
    cdef Py_ssize_t n
    cdef int shape
    PyObject_GetBuffer(keys, &addresses, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS)
    try:
        shape = keys_shape(&addresses, keys)
        n = addresses.shape[0]
        if out is None:
            out = numpy.empty(n, numpy.uint32)
        PyObject_GetBuffer(out, &numbers, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE)
        try:
            check_values(&numbers, &addresses, out)
            if four != NULL:
                with nogil:
                    find_all(shape, four, six, addresses.buf, <uint32_t *>numbers.buf, n)
            elif n < GIL_BATCH:
                find_all(shape, fib.ipv4, fib.ipv6, addresses.buf, <uint32_t *>numbers.buf, n)
            else:
                find_released(fib, shape, addresses.buf, <uint32_t *>numbers.buf, n)
        finally:
            PyBuffer_Release(&numbers)
    finally:
        PyBuffer_Release(&addresses)
    return out


cdef list resolve_numbers(list values, object numbers):
    cdef const uint32_t[::1] given = numbers
    cdef Py_ssize_t i
    cdef uint32_t most = len(values)
    found = []
    for i in range(given.shape[0]):
        if given[i] >= most:
            raise ValueError(f"number {given[i]} at {i} is none of this table's")
        found.append(values[given[i]])
    return found

# -- routes ------------------------------------------------------------------------

cdef object as_pairs(object addresses):
    """(4 or 6, array of uint32 (n,) or uint64 (n, 2))"""
    cdef Py_buffer view
    cdef int shape
    PyObject_GetBuffer(addresses, &view, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS)
    try:
        shape = keys_shape(&view, addresses)
    finally:
        PyBuffer_Release(&view)
    if shape == KEYS_OCTETS:
        addresses = numpy.asarray(addresses).view(">u8").astype(numpy.uint64)
    return (4 if shape == KEYS_IPV4 else 6), addresses
