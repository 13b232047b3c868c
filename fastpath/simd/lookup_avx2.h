/* Bulk lookups with AVX2.
 *
 * Owns: for IPv4 plain loads of the root and gathers of eight lanes below it; for IPv6
 * searches of a block in one comparison.
 * Never: runs where the dispatch table did not find AVX2, or branches on an address's first array.
 */
#ifndef FASTPATH_SIMD_LOOKUP_AVX2_H
#define FASTPATH_SIMD_LOOKUP_AVX2_H

#include <immintrin.h>

#include "fastpath/simd/lookup_scalar.h"

#define AVX2 __attribute__((target("avx2,popcnt,bmi,bmi2")))

enum { AVX2_VECTORS = 4, AVX2_LANES = 8, AVX2_STRIDE = AVX2_VECTORS * AVX2_LANES, AVX2_FEW = 3 };

/* -- IPv4 ------------------------------------------------------------------------ */

/* Eight root entries. Plain loads beat a gather here: they need no index in a register. */
AVX2 static inline __m256i avx2_root4(const struct fib4 *fib, const uint32_t *addresses)
{
    const uint16_t *halves = (const uint16_t *)addresses; /* x86: the upper half comes second */
    const uint32_t *root = fib->root;
    return _mm256_setr_epi32((int)root[halves[1]], (int)root[halves[3]], (int)root[halves[5]], (int)root[halves[7]],
                             (int)root[halves[9]], (int)root[halves[11]], (int)root[halves[13]], (int)root[halves[15]]);
}

/* Elements of the arrays that lanes of `e` refer to, indexed by `at`; values stay. Bits 29..31 of an entry choose from
 * tables of eight: below 4 it is a value, above it a reference with its width. */
AVX2 static inline __m256i avx2_element(const struct fib4 *fib, __m256i e, __m256i at)
{
    const __m256i widths = _mm256_setr_epi32(0, 0, 0, 0, 0, 1, 2, 0);
    const __m256i masks = _mm256_setr_epi32(-1, -1, -1, -1, 0xff, 0xffff, -1, -1);
    __m256i kind = _mm256_srli_epi32(e, FIB4_WIDTH_AT);
    at = _mm256_srlv_epi32(at, _mm256_and_si256(e, _mm256_set1_epi32(FIB4_SHIFT)));
    at = _mm256_sllv_epi32(at, _mm256_permutevar8x32_epi32(widths, kind));
    at = _mm256_add_epi32(at, _mm256_and_si256(e, _mm256_set1_epi32(FIB4_OFFSET)));
    __m256i found = _mm256_mask_i32gather_epi32(e, (const int *)fib->base, at, e, 1);
    return _mm256_and_si256(found, _mm256_permutevar8x32_epi32(masks, kind));
}

/* The second arrays of a stride, where `more` has a bit for each lane whose element is a reference. Few in a
 * thousand in real tables, then one by one; where hosts have routes of their own, all at once. */
AVX2 static void avx2_rest4(const struct fib4 *fib, const uint32_t *addresses, uint32_t *values, uint32_t more)
{
    if (__builtin_popcount(more) <= AVX2_FEW) {
        for (; more; more &= more - 1) {
            uint32_t i = (uint32_t)__builtin_ctz(more), left = fib->root[addresses[i] >> 16] & FIB4_SHIFT;
            values[i] = fib4_rest(fib->base, values[i], left, addresses[i]);
        }
        return;
    }
    for (int j = 0; j < AVX2_STRIDE; j += AVX2_LANES) {
        __m256i a = _mm256_loadu_si256((const __m256i *)(addresses + j));
        __m256i left = _mm256_and_si256(avx2_root4(fib, addresses + j), _mm256_set1_epi32(FIB4_SHIFT));
        __m256i rest = _mm256_andnot_si256(_mm256_sllv_epi32(_mm256_set1_epi32(-1), left), a);
        __m256i e = _mm256_loadu_si256((const __m256i *)(values + j));
        _mm256_storeu_si256((__m256i *)(values + j), avx2_element(fib, e, rest));
    }
}

AVX2 static void find4_avx2(const struct fib4 *fib, const uint32_t *addresses, uint32_t *values, size_t n)
{
    size_t i = 0;
    for (; i + AVX2_STRIDE <= n; i += AVX2_STRIDE) {
        __m256i e[AVX2_VECTORS];
        uint32_t more = 0;
        for (int j = 0; j < AVX2_VECTORS; j++)
            e[j] = avx2_root4(fib, addresses + i + AVX2_LANES * j);
        for (int j = 0; j < AVX2_VECTORS; j++) {
            __m256i a = _mm256_loadu_si256((const __m256i *)(addresses + i + AVX2_LANES * j));
            e[j] = avx2_element(fib, e[j], _mm256_and_si256(a, _mm256_set1_epi32(0xffff)));
            more |= (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(e[j])) << (AVX2_LANES * j);
            _mm256_storeu_si256((__m256i *)(values + i + AVX2_LANES * j), e[j]);
        }
        if (__builtin_expect(more != 0, 0))
            avx2_rest4(fib, addresses + i, values + i, more);
    }
    find4_scalar(fib, addresses + i, values + i, n - i);
}

/* -- IPv6 -------------------------------------------------------------------------- */

/* Without an unsigned comparison: key >= k exactly where max(key, k) == key. */
AVX2 static inline uint32_t avx2_rank(const struct fib_block *block, uint32_t key)
{
    __m256i wanted = _mm256_set1_epi32((int)key), keys = _mm256_loadu_si256((const __m256i *)block->keys);
    __m256i below = _mm256_cmpeq_epi32(_mm256_max_epu32(wanted, keys), wanted);
    return (uint32_t)__builtin_popcount((uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(below))) - 1;
}

#define LISTS_TARGET AVX2
#define LISTS_NAME(name) avx2_##name
#define LISTS_RANK(block, key) avx2_rank(block, key)
#include "fastpath/simd/lookup_lists.h"
#undef LISTS_TARGET
#undef LISTS_NAME
#undef LISTS_RANK

AVX2 static void find6_avx2(const struct fib6 *fib, const uint64_t *addresses, uint32_t *values, size_t n)
{
    avx2_find6(fib, addresses, values, n);
}

#endif
