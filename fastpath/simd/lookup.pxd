# The bulk lookups, through one dispatch table chosen at import.
#
# Owns: which kernels are in use.
# Never: knows who publishes a table; a caller passes a version it may read.
# Invariant: all kernels give the same answers; only their speed differs.

from libc.stdint cimport uint32_t, uint64_t

cdef extern from "fastpath/simd/fib.h" nogil:
    struct fib4:
        pass
    struct fib6:
        pass

cdef extern from "fastpath/simd/lookup.h" nogil:
    struct lookup_kernels:
        const char *name
        void (*find4)(const fib4 *fib, const uint32_t *addresses, uint32_t *values, size_t n) noexcept nogil
        void (*find6)(const fib6 *fib, const uint64_t *addresses, uint32_t *values, size_t n) noexcept nogil

# The kernels in use for each family; never NULL.
cdef const lookup_kernels *lookup_ipv4() noexcept nogil
cdef const lookup_kernels *lookup_ipv6() noexcept nogil
# The kernels called `name` for tests and benchmarks, NULL where this processor cannot run them.
cdef const lookup_kernels *lookup_named(str name)
