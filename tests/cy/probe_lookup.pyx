# Calls one bulk kernel on exact-size copies, so that a sanitizer sees every overrun; and times them.

import numpy

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from fastpath.simd.lookup cimport fib4 as simd_fib4, fib6 as simd_fib6, lookup_kernels, lookup_named
from fastpath.table.fib cimport Fib, fib4_current, fib6_current, fib4_find, fib6_find


def find4(str kernel, Fib fib, const uint32_t[::1] addresses, uint32_t[::1] values):
    cdef const lookup_kernels *row = lookup_named(kernel)
    cdef size_t n = addresses.shape[0]
    cdef uint32_t *copy = <uint32_t *>malloc(4 * n)
    cdef uint32_t *out = <uint32_t *>malloc(4 * n)
    if n:
        memcpy(copy, &addresses[0], 4 * n)
    row.find4(<const simd_fib4 *>fib4_current(&fib.ipv4), copy, out, n)
    if n:
        memcpy(&values[0], out, 4 * n)
    free(copy)
    free(out)


def find6(str kernel, Fib fib, const uint64_t[:, ::1] addresses, uint32_t[::1] values):
    cdef const lookup_kernels *row = lookup_named(kernel)
    cdef size_t n = addresses.shape[0]
    cdef uint64_t *copy = <uint64_t *>malloc(16 * n)
    cdef uint32_t *out = <uint32_t *>malloc(4 * n)
    if n:
        memcpy(copy, &addresses[0, 0], 16 * n)
    row.find6(<const simd_fib6 *>fib6_current(&fib.ipv6), copy, out, n)
    if n:
        memcpy(&values[0], out, 4 * n)
    free(copy)
    free(out)


cdef uint64_t now_ns() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <uint64_t>t.tv_sec * 1000000000 + <uint64_t>t.tv_nsec


def time4(str kernel, Fib fib, const uint32_t[::1] addresses, uint32_t[::1] values, size_t batch):
    """Nanoseconds of each call with `batch` of the addresses; a median of them ignores preemption."""
    cdef const lookup_kernels *row = lookup_named(kernel)
    cdef size_t i, n = addresses.shape[0] // batch
    cdef uint64_t[::1] took = numpy.empty(n, numpy.uint64)
    cdef uint64_t start
    for i in range(n):
        start = now_ns()
        row.find4(<const simd_fib4 *>fib.ipv4, &addresses[i * batch], &values[0], batch)
        took[i] = now_ns() - start
    return numpy.asarray(took)


def time6(str kernel, Fib fib, const uint64_t[:, ::1] addresses, uint32_t[::1] values, size_t batch):
    cdef const lookup_kernels *row = lookup_named(kernel)
    cdef size_t i, n = addresses.shape[0] // batch
    cdef uint64_t[::1] took = numpy.empty(n, numpy.uint64)
    cdef uint64_t start
    for i in range(n):
        start = now_ns()
        row.find6(<const simd_fib6 *>fib.ipv6, &addresses[i * batch, 0], &values[0], batch)
        took[i] = now_ns() - start
    return numpy.asarray(took)
