/* Bulk lookups with AVX2.
 *
 * Owns: gathers of eight lanes for IPv4, searches of a block in one comparison for IPv6.
 * Never: runs where the dispatch table did not find AVX2.
 */
#ifndef FASTPATH_SIMD_LOOKUP_AVX2_H
#define FASTPATH_SIMD_LOOKUP_AVX2_H

#include <immintrin.h>

#include "fastpath/simd/lookup_scalar.h"

#define AVX2 __attribute__((target("avx2,popcnt,bmi,bmi2")))

/* One level of eight addresses: lanes of `e` with the top bit set go to node `index`. */
AVX2 static inline __m256i avx2_step(const void *nodes, int narrow, __m256i e, __m256i byte)
{
    const __m256i number = _mm256_set1_epi32(narrow ? FIB_NARROW_INDEX : FIB_INDEX);
    __m256i slot = _mm256_or_si256(_mm256_slli_epi32(_mm256_and_si256(e, number), 8), byte);
    if (!narrow)
        return _mm256_mask_i32gather_epi32(e, (const int *)nodes, slot, e, 4);
    /* A narrow flag moves to the top bit, as every step expects it; leaves have no upper half. */
    __m256i found = _mm256_and_si256(_mm256_i32gather_epi32((const int *)nodes, slot, 2), _mm256_set1_epi32(0xffff));
    __m256i flag = _mm256_slli_epi32(_mm256_and_si256(found, _mm256_set1_epi32(FIB_NARROW_REF)), 16);
    return _mm256_blendv_epi8(e, _mm256_or_si256(found, flag), _mm256_srai_epi32(e, 31));
}

AVX2 static inline void find4_avx2_width(const struct fib4 *fib, int narrow, const uint32_t *addresses,
                                         uint32_t *values, size_t n)
{
    const void *nodes = narrow ? (const void *)fib->narrow : (const void *)fib->wide;
    const __m256i byte = _mm256_set1_epi32(255);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256i a = _mm256_loadu_si256((const __m256i *)(addresses + i));
        __m256i e = _mm256_i32gather_epi32((const int *)fib->top, _mm256_srli_epi32(a, 24), 4);
        e = avx2_step(nodes, narrow, e, _mm256_and_si256(_mm256_srli_epi32(a, 16), byte));
        e = avx2_step(nodes, narrow, e, _mm256_and_si256(_mm256_srli_epi32(a, 8), byte));
        if (_mm256_movemask_ps(_mm256_castsi256_ps(e)))
            e = avx2_step(nodes, narrow, e, _mm256_and_si256(a, byte));
        _mm256_storeu_si256((__m256i *)(values + i), e);
    }
    find4_scalar(fib, addresses + i, values + i, n - i);
}

AVX2 static void find4_avx2(const struct fib4 *fib, const uint32_t *addresses, uint32_t *values, size_t n)
{
    if (fib->narrow)
        find4_avx2_width(fib, 1, addresses, values, n);
    else
        find4_avx2_width(fib, 0, addresses, values, n);
}

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

/* From the first level to a value or a block. */
AVX2 static inline uint32_t avx2_descend(const struct fib6 *fib, uint64_t high, uint64_t low)
{
    uint32_t e = fib->top[high >> 56];
    for (uint32_t depth = 1; (e & (FIB_REF | FIB_BLOCK)) == FIB_REF; depth++)
        e = fib->nodes[(size_t)(e & FIB_INDEX) << 8 | fib_byte(high, low, depth)];
    return e;
}

AVX2 static void find6_avx2(const struct fib6 *fib, const uint64_t *addresses, uint32_t *values, size_t n)
{
    uint32_t list[avx2_CHUNK];
    while (n) {
        size_t part = n < avx2_CHUNK ? n : avx2_CHUNK, n_list = 0;
        for (size_t i = 0; i < part; i++) {
            values[i] = avx2_descend(fib, addresses[2 * i], addresses[2 * i + 1]);
            list[n_list] = (uint32_t)i;
            n_list += values[i] >> 31;
        }
        avx2_resolve(fib, addresses, values, list, n_list);
        addresses += 2 * part, values += part, n -= part;
    }
}

#endif
