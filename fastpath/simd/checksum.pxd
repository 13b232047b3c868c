# The checksum kernels of checksum.h.
#
# Sums are of big-endian 16-bit words, folded to 16 bits, not complemented.
# checksum_words picks the kernel; the others are named for tests and benches.

from libc.stdint cimport uint8_t, uint32_t

cdef extern from "fastpath/simd/checksum.h" nogil:
    uint32_t checksum_words(const uint8_t *p, uint32_t n) noexcept
    uint32_t checksum_words_scalar(const uint8_t *p, uint32_t n) noexcept
    uint32_t checksum_words_avx2(const uint8_t *p, uint32_t n) noexcept
    int checksum_has_avx2
