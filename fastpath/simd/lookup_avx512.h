/* Bulk lookups with AVX-512.
 *
 * Owns: gathers of 4 x 16 lanes for IPv4; for IPv6 a comparison with all keys of a block at once.
 * Never: runs where the dispatch table did not find F, BW, VL and DQ.
 */
#ifndef FASTPATH_SIMD_LOOKUP_AVX512_H
#define FASTPATH_SIMD_LOOKUP_AVX512_H

#include <immintrin.h>

#include "fastpath/simd/lookup_scalar.h"

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,popcnt,bmi,bmi2")))

enum { AVX512_VECTORS = 4, AVX512_LANES = 16, AVX512_STRIDE = AVX512_VECTORS * AVX512_LANES };

/* -- IPv4 ------------------------------------------------------------------------ */

/* Elements of the arrays that lanes of `e` refer to; `at` indexes them, other lanes keep their value.
 * A gather costs its full time even with an empty mask. */
AVX512 static inline __m512i avx512_element(const struct fib4 *fib, __m512i e, __mmask16 more, __m512i at)
{
    const __m512i full = _mm512_set1_epi32(-1);
    if (!more)
        return e;
    __m512i width = _mm512_and_si512(_mm512_srli_epi32(e, FIB4_WIDTH_AT), _mm512_set1_epi32(3));
    at = _mm512_sllv_epi32(_mm512_srlv_epi32(at, _mm512_and_si512(e, _mm512_set1_epi32(FIB4_SHIFT))), width);
    at = _mm512_add_epi32(at, _mm512_and_si512(e, _mm512_set1_epi32(FIB4_OFFSET)));
    __m512i unused = _mm512_sub_epi32(_mm512_set1_epi32(32), _mm512_sllv_epi32(_mm512_set1_epi32(8), width));
    __m512i found = _mm512_mask_i32gather_epi32(e, more, at, fib->base, 1);
    return _mm512_mask_and_epi32(e, more, found, _mm512_srlv_epi32(full, unused));
}

/* The second array, for lanes whose element of the first was a reference: what the first left of the address. */
AVX512 static inline __m512i avx512_rest(const struct fib4 *fib, __m512i first, __m512i e, __mmask16 more, __m512i a)
{
    __m512i left = _mm512_and_si512(first, _mm512_set1_epi32(FIB4_SHIFT));
    __m512i outside = _mm512_sllv_epi32(_mm512_set1_epi32(-1), left);
    return avx512_element(fib, e, more, _mm512_andnot_si512(outside, a));
}

AVX512 static void find4_avx512(const struct fib4 *fib, const uint32_t *addresses, uint32_t *values, size_t n)
{
    const __m512i half = _mm512_set1_epi32(0xffff);
    size_t i = 0;
    for (; i + AVX512_STRIDE <= n; i += AVX512_STRIDE) {
        __m512i a[AVX512_VECTORS], first[AVX512_VECTORS], e[AVX512_VECTORS];
        for (int j = 0; j < AVX512_VECTORS; j++) {
            a[j] = _mm512_loadu_si512(addresses + i + AVX512_LANES * j);
            first[j] = _mm512_i32gather_epi32(_mm512_srli_epi32(a[j], 16), fib->root, 4);
        }
        for (int j = 0; j < AVX512_VECTORS; j++)
            e[j] = avx512_element(fib, first[j], _mm512_movepi32_mask(first[j]), _mm512_and_si512(a[j], half));
        for (int j = 0; j < AVX512_VECTORS; j++) {
            e[j] = avx512_rest(fib, first[j], e[j], _mm512_movepi32_mask(e[j]), a[j]);
            _mm512_storeu_si512(values + i + AVX512_LANES * j, e[j]);
        }
    }
    find4_scalar(fib, addresses + i, values + i, n - i);
}

/* -- IPv6 -------------------------------------------------------------------------- */

AVX512 static inline uint32_t avx512_rank(const struct fib_block *block, uint32_t key)
{
    __m256i keys = _mm256_loadu_si256((const __m256i *)block->keys);
    __mmask8 below = _mm256_cmple_epu32_mask(keys, _mm256_set1_epi32((int)key));
    return (uint32_t)__builtin_popcount(below) - 1;
}

#define LISTS_TARGET AVX512
#define LISTS_NAME(name) avx512_##name
#define LISTS_RANK(block, key) avx512_rank(block, key)
#include "fastpath/simd/lookup_lists.h"
#undef LISTS_TARGET
#undef LISTS_NAME
#undef LISTS_RANK

AVX512 static void find6_avx512(const struct fib6 *fib, const uint64_t *addresses, uint32_t *values, size_t n)
{
    avx512_find6(fib, addresses, values, n);
}

#endif
