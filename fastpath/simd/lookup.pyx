"""Choosing the bulk lookup kernels once, at import.

Owns: the choice. `FASTPATH_SIMD=scalar|avx2|avx512` in the environment makes it.
Otherwise IPv4 takes the widest vectors but where narrower ones, or none, are
clearly faster in a measurement of well under a millisecond, because gathers are slow
on some processors that have them; IPv6, whose time goes into comparing keys, takes
the widest vectors there are.
Never: changes the choice while tables are being read, except by `use`.
"""

import os

from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

cdef extern from "fastpath/simd/lookup.h" nogil:
    const lookup_kernels *lookup_row(int i, int *runs) noexcept

cdef extern from "fastpath/simd/fib.h" nogil:
    enum: FIB_REF, FIB_LINE
    struct fib4_layout "fib4":
        const void *base
        uint32_t root[65536]

cdef enum:
    TRIAL_ADDRESSES = 1024
    TRIAL_PASSES = 9
    TRIAL_SHIFT = 10           # arrays of one line: 64 elements of one byte
    TRIAL_LINES = 4096
    TRIAL_MARGIN = 8           # an eighth: the trial's table is small, and in a large one wider gathers have more loads under way

cdef const lookup_kernels *chosen4 = NULL
cdef const lookup_kernels *chosen6 = NULL

cdef const lookup_kernels *lookup_ipv4() noexcept nogil:
    return chosen4

cdef const lookup_kernels *lookup_ipv6() noexcept nogil:
    return chosen6


cdef const lookup_kernels *lookup_named(str name):
    cdef int i = 0, runs = 0
    cdef const lookup_kernels *row = lookup_row(0, &runs)
    while row != NULL:
        if runs and row.name.decode() == name:
            return row
        i += 1
        row = lookup_row(i, &runs)
    return NULL


def available() -> list[str]:
    """Names of the kernels this processor can run."""
    return [name for name in ("scalar", "avx2", "avx512") if lookup_named(name) != NULL]


def in_use() -> dict[str, str]:
    """Names of the kernels that answer bulk lookups, by family."""
    return {"ipv4": chosen4.name.decode(), "ipv6": chosen6.name.decode()}


def use(name: str | None) -> None:
    """Take the kernels called `name` for both families, or choose again when None."""
    global chosen4, chosen6
    cdef const lookup_kernels *row
    if name is None:
        chosen4, chosen6 = fastest4(), lookup_named(available().pop())
        return
    row = lookup_named(name)
    if row == NULL:
        raise ValueError(f"no lookup kernels {name!r} on this processor: choose from {', '.join(available())}")
    chosen4 = chosen6 = row

# -- measuring ---------------------------------------------------------------------

cdef struct trial:
    fib4_layout fib
    uint32_t addresses[TRIAL_ADDRESSES]
    uint32_t values[TRIAL_ADDRESSES]
    uint8_t lines[64 * TRIAL_LINES + 64]


cdef void fill_trial(trial *t) noexcept:
    """Every address goes through one array; a small table, so that code is compared, not memory."""
    cdef uint64_t state = 0x9e3779b97f4a7c15
    cdef uint32_t i
    t.fib.base = t.lines
    for i in range(65536):
        t.fib.root[i] = <uint32_t>FIB_REF | (i % TRIAL_LINES) * FIB_LINE | TRIAL_SHIFT
    for i in range(TRIAL_ADDRESSES):
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        t.addresses[i] = <uint32_t>state


cdef uint64_t now_ns() noexcept:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <uint64_t>t.tv_sec * 1000000000 + <uint64_t>t.tv_nsec


cdef uint64_t best_ns(const lookup_kernels *row, trial *t) noexcept:
    cdef uint64_t best = ~<uint64_t>0, start
    for _ in range(TRIAL_PASSES):
        start = now_ns()
        row.find4(<const fib4 *>&t.fib, t.addresses, t.values, TRIAL_ADDRESSES)
        best = min(best, now_ns() - start)
    return best


cdef const lookup_kernels *fastest4() except NULL:
    cdef const lookup_kernels *row
    cdef const lookup_kernels *best = NULL
    cdef uint64_t least = ~<uint64_t>0, took
    cdef trial *t = <trial *>calloc(1, sizeof(trial))
    if t == NULL:
        raise MemoryError
    fill_trial(t)
    for name in reversed(available()):
        row = lookup_named(name)
        took = best_ns(row, t)
        if took + took // TRIAL_MARGIN < least:
            least, best = took, row
    free(t)
    return best


use(os.environ.get("FASTPATH_SIMD") or None)
