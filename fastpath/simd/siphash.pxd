# SipHash of one input and of many, the kernel for many chosen at import; declarations of siphash.h.
#
# Owns: which kernel is in use.
# Invariant: all kernels give the same hashes; only their speed differs.

from libc.stddef cimport size_t
from libc.stdint cimport uint64_t

cdef extern from "fastpath/simd/siphash.h" nogil:
    ctypedef void (*siphash_kernel)(const uint64_t *key, const uint64_t *inputs, size_t stride, size_t words,
                                    uint64_t *hashes, size_t n) noexcept nogil
    siphash_kernel siphash_named(const char *name) noexcept
    uint64_t siphash_words(const uint64_t *key, const uint64_t *words, size_t n) noexcept

# Word w of input i stands at inputs[w * stride + i]; `stride` is a multiple of 8, and arrays are as long as it.
cdef siphash_kernel siphash_many() noexcept nogil
