/* The first place where three bitmaps meet, and the rank of a number in a sorted block.
 *
 * Owns: both, plain and with AVX2, and the choice between them.
 * Never: reads beyond the words it was told of.
 */
#ifndef FASTPATH_SIMD_MEET_H
#define FASTPATH_SIMD_MEET_H

#include <stddef.h>
#include <stdint.h>

typedef size_t (*meet_kernel)(const uint64_t *a, const uint64_t *b, const uint64_t *c, size_t from, size_t to);

/* The first word from `from` on and before `to` in which all three have a bit in common, or `to`. */
static size_t meet_scalar(const uint64_t *a, const uint64_t *b, const uint64_t *c, size_t from, size_t to)
{
    while (from < to && !(a[from] & b[from] & c[from]))
        from++;
    return from;
}

#if defined(__x86_64__)
#include <immintrin.h>

__attribute__((target("avx2")))
static size_t meet_avx2(const uint64_t *a, const uint64_t *b, const uint64_t *c, size_t from, size_t to)
{
    for (; from + 8 <= to; from += 8) {
        __m256i x = _mm256_and_si256(_mm256_loadu_si256((const __m256i *)(a + from)),
                                     _mm256_loadu_si256((const __m256i *)(b + from)));
        __m256i y = _mm256_and_si256(_mm256_loadu_si256((const __m256i *)(a + from + 4)),
                                     _mm256_loadu_si256((const __m256i *)(b + from + 4)));
        x = _mm256_and_si256(x, _mm256_loadu_si256((const __m256i *)(c + from)));
        y = _mm256_and_si256(y, _mm256_loadu_si256((const __m256i *)(c + from + 4)));
        __m256i both = _mm256_or_si256(x, y);
        if (!_mm256_testz_si256(both, both))
            break;
    }
    return meet_scalar(a, b, c, from, to);
}

/* NULL where this processor cannot run it. */
static meet_kernel meet_named(const char *name)
{
    __builtin_cpu_init();
    if (name[0] == 'a')
        return __builtin_cpu_supports("avx2") ? meet_avx2 : NULL;
    return meet_scalar;
}
#else
static meet_kernel meet_named(const char *name) { return name[0] == 'a' ? NULL : meet_scalar; }
#endif

/* How many of 16 ascending numbers are at most `x`: compilers make vectors of it. */
static inline uint32_t rank16(const uint32_t *block, uint32_t x)
{
    uint32_t rank = 0;
    for (int i = 0; i < 16; i++)
        rank += block[i] <= x;
    return rank;
}

#define bits_lowest64(x) ((uint32_t)__builtin_ctzll(x))

#endif
