# The scan kernel of policy, chosen at import; declarations of meet.h.
#
# Owns: which kernel is in use.
# Invariant: all kernels give the same answers; only their speed differs.

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t

cdef extern from "fastpath/simd/meet.h" nogil:
    ctypedef size_t (*meet_kernel)(const uint64_t *a, const uint64_t *b, const uint64_t *c, size_t first,
                                   size_t end) noexcept nogil
    meet_kernel meet_named(const char *name) noexcept
    uint32_t rank16(const uint32_t *block, uint32_t x) noexcept         # how many of 16 are at most x
    uint32_t bits_lowest64(uint64_t bits) noexcept                      # bits != 0

# The first word from `first` on and before `end` where all three have a bit in common, or `end`.
cdef meet_kernel meet() noexcept nogil
