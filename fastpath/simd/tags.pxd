# Comparing the tags of one bucket, and asking for memory early: declarations of tags.h.

from libc.stdint cimport uint16_t, uint32_t

cdef extern from "fastpath/simd/tags.h" nogil:
    uint32_t tags_equal(const uint16_t *tags, uint16_t tag) noexcept    # bit i: tags[i] == tag, of 8
    uint32_t bits_count8(uint32_t bits) noexcept                        # of eight
    uint32_t bits_first(uint32_t bits) noexcept                         # bits != 0
    void prefetch(const void *place) noexcept
