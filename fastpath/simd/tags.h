/* Eight 16-bit tags compared at once: one bucket of a hash table.
 *
 * Owns: the comparison. SSE2 is part of every x86-64; elsewhere the plain loop
 * does the same.
 */
#ifndef FASTPATH_SIMD_TAGS_H
#define FASTPATH_SIMD_TAGS_H

#include <stdint.h>

#if defined(__SSE2__)
#include <emmintrin.h>

/* Bit i: tags[i] == tag. `tags` is aligned to 16 bytes. */
static inline uint32_t tags_equal(const uint16_t *tags, uint16_t tag)
{
    __m128i same = _mm_cmpeq_epi16(_mm_load_si128((const __m128i *)tags), _mm_set1_epi16((short)tag));
    return (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(same, _mm_setzero_si128()));
}
#else
static inline uint32_t tags_equal(const uint16_t *tags, uint16_t tag)
{
    uint32_t found = 0;
    for (int i = 0; i < 8; i++)
        found |= (uint32_t)(tags[i] == tag) << i;
    return found;
}
#endif

/* How many of eight bits are set. */
static inline uint32_t bits_count8(uint32_t x)
{
    x -= x >> 1 & 0x55;
    x = (x & 0x33) + (x >> 2 & 0x33);
    return (x + (x >> 4)) & 0x0F;
}

#define bits_first(x) ((uint32_t)__builtin_ctz(x))

/* Not __builtin_prefetch: gcc takes a function that does nothing else for one without effect, and drops its calls. */
#if defined(__x86_64__)
#define prefetch(place) __asm__ volatile("prefetcht0 %0" : : "m"(*(const char *)(place)))
#else
#define prefetch(place) __builtin_prefetch((place), 0, 3)
#endif

#endif
