"""Choosing the bulk lookup kernels once, at import.

Owns: the choice. `FASTPATH_SIMD=scalar|avx2|avx512-loads|avx512` in the environment makes it.
Otherwise each family takes what is fastest in a measurement of less than a
millisecond for both: AVX-512 can gather, which is slow on some processors.
Never: changes the choice while tables are being read, except by `use`.
"""

import os

from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

cdef extern from "fastpath/simd/lookup.h" nogil:
    const lookup_kernels *lookup_row(int i, int *runs) noexcept

cdef extern from "fastpath/simd/fib.h" nogil:
    enum: FIB_REF, FIB_LINE, FIB_FANOUT, FIB6_WIDTH_AT
    struct fib4_layout "fib4":
        const void *base
        uint32_t root[65536]
    struct fib6_layout "fib6":
        const void *base
        uint32_t root[65536]

cdef enum:
    TRIAL_ADDRESSES = 1024
    TRIAL_PASSES = 9
    TRIAL_SHIFT = 10           # IPv4 arrays of one line: 64 elements of one byte
    TRIAL_LINES = 4096         # room for four levels of IPv6 nodes
    TRIAL_NODES = 64           # entries of the root that are asked for; arrays, and IPv6 nodes of each level
    NODE_BYTES = 1024
    TRIAL_MARGIN = 8           # a row before the one found so far has to be an eighth faster: rows come narrow first, and
                               # a large table asks for more loads at once than a trial's

cdef const lookup_kernels *chosen4 = NULL
cdef const lookup_kernels *chosen6 = NULL

cdef const lookup_kernels *lookup_ipv4() noexcept nogil:
    return chosen4

cdef const lookup_kernels *lookup_ipv6() noexcept nogil:
    return chosen6


cdef const lookup_kernels *lookup_named(str name):
    cdef int i = 0, runs = 0
    cdef const lookup_kernels *row = lookup_row(0, &runs)
    while row != NULL and not (runs and row.name.decode() == name):
        i += 1
        row = lookup_row(i, &runs)
    return row


def available() -> list[str]:
    """Names of the kernels this processor can run, narrow vectors first."""
    cdef int i = 0, runs = 0
    cdef const lookup_kernels *row = lookup_row(0, &runs)
    names = []
    while row != NULL:
        if runs:
            names.append(row.name.decode())
        i += 1
        row = lookup_row(i, &runs)
    return names


def in_use() -> dict[str, str]:
    """Names of the kernels that answer bulk lookups, by family."""
    return {"ipv4": chosen4.name.decode(), "ipv6": chosen6.name.decode()}


def use(name: str | None) -> None:
    """Take the kernels called `name` for both families, or choose again when None."""
    global chosen4, chosen6
    cdef const lookup_kernels *row
    if name is None:
        chosen4, chosen6 = fastest(4), fastest(6)
        return
    row = lookup_named(name)
    if row == NULL:
        raise ValueError(f"no lookup kernels {name!r} on this processor: choose from {', '.join(available())}")
    chosen4 = chosen6 = row

# -- measuring ---------------------------------------------------------------------
# Small tables, so that code is compared, not memory.

cdef struct trial:
    fib4_layout ipv4
    fib6_layout ipv6
    uint64_t addresses[2 * TRIAL_ADDRESSES]
    uint32_t values[TRIAL_ADDRESSES]
    uint8_t lines[64 * TRIAL_LINES + 64]


cdef inline uint64_t step(uint64_t *state) noexcept nogil:
    state[0] ^= state[0] << 13
    state[0] ^= state[0] >> 7
    state[0] ^= state[0] << 17
    return state[0]


cdef void fill_ipv4(trial *t) noexcept:
    """Every address goes through one array."""
    cdef uint32_t i
    t.ipv4.base = t.lines
    for i in range(TRIAL_NODES):
        t.ipv4.root[i] = <uint32_t>FIB_REF | i * FIB_LINE | TRIAL_SHIFT


cdef void fill_ipv6(trial *t, uint64_t *state) noexcept:
    """Up to four arrays below the root; three of four addresses go from each to the next."""
    cdef uint32_t *elements = <uint32_t *>t.lines
    cdef uint32_t i, node
    cdef uint32_t entry = <uint32_t>FIB_REF | 2u << FIB6_WIDTH_AT
    t.ipv6.base = t.lines
    for i in range(TRIAL_NODES):
        t.ipv6.root[i] = entry | i * NODE_BYTES
    for i in range(3 * TRIAL_NODES * FIB_FANOUT):
        node = (i // (TRIAL_NODES * FIB_FANOUT) + 1) * TRIAL_NODES + <uint32_t>(step(state) >> 32) % TRIAL_NODES
        elements[i] = entry | node * NODE_BYTES if step(state) & 3 else 1


cdef uint64_t now_ns() noexcept:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <uint64_t>t.tv_sec * 1000000000 + <uint64_t>t.tv_nsec


cdef uint64_t best_ns(const lookup_kernels *row, trial *t, int version) noexcept:
    cdef uint64_t best = ~<uint64_t>0, start
    for _ in range(TRIAL_PASSES):
        start = now_ns()
        if version == 4:
            row.find4(<const fib4 *>&t.ipv4, <const uint32_t *>t.addresses, t.values, TRIAL_ADDRESSES)
        else:
            row.find6(<const fib6 *>&t.ipv6, t.addresses, t.values, TRIAL_ADDRESSES)
        best = min(best, now_ns() - start)
    return best


cdef const lookup_kernels *fastest(int version) except NULL:
    cdef const lookup_kernels *row
    cdef const lookup_kernels *best = NULL
    cdef uint64_t least = ~<uint64_t>0, took, state = 0x9e3779b97f4a7c15
    cdef uint64_t near = 0x003fffff003fffff if version == 4 else 0x003fffffffffffff   # the first TRIAL_NODES of the root
    cdef trial *t = <trial *>calloc(1, sizeof(trial))
    if t == NULL:
        raise MemoryError
    for i in range(2 * TRIAL_ADDRESSES):
        t.addresses[i] = step(&state) & near
    if version == 4:
        fill_ipv4(t)
    else:
        fill_ipv6(t, &state)
    for name in reversed(available()):
        row = lookup_named(name)
        took = best_ns(row, t, version)
        if took + took // TRIAL_MARGIN < least:
            least, best = took, row
    free(t)
    return best


use(os.environ.get("FASTPATH_SIMD") or None)
