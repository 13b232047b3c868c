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

/* Word `w` (0 = the first 32 bits) of sixteen addresses, each four words in host order by halves. */
AVX512 static inline __m512i avx512_words(const uint64_t *addresses, int w)
{
    const __m512i every4 = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 28, 24, 20, 16, 12, 8, 4, 0);
    const __m512i pick = _mm512_add_epi32(every4, _mm512_set1_epi32(w ^ 1));
    __m512i low = _mm512_permutex2var_epi32(_mm512_loadu_si512(addresses), pick, _mm512_loadu_si512(addresses + 8));
    __m512i high = _mm512_permutex2var_epi32(_mm512_loadu_si512(addresses + 16), pick, _mm512_loadu_si512(addresses + 24));
    return _mm512_inserti64x4(low, _mm512_castsi512_si256(high), 1);
}

/* Lanes that are references to nodes. */
AVX512 static inline __mmask16 avx512_nodes(__m512i e)
{
    return _mm512_mask_cmplt_epu32_mask(_mm512_movepi32_mask(e), e, _mm512_set1_epi32((int)(FIB_REF | FIB_BLOCK)));
}

/* `vectors` times sixteen addresses from the root to values or blocks. A level is done for
 * all before the next: the loads of one are independent, those of two levels are not. */
AVX512 __attribute__((always_inline)) static inline void avx512_descend(const struct fib6 *fib, int vectors,
                                                                        const uint64_t *addresses, __m512i *e)
{
    const __m512i byte = _mm512_set1_epi32(255), number = _mm512_set1_epi32(FIB_INDEX);
    __m512i word[AVX512_VECTORS];
    __mmask16 any = 0;
    for (int j = 0; j < vectors; j++) {
        word[j] = avx512_words(addresses + 32 * j, 0);
        e[j] = _mm512_i32gather_epi32(_mm512_srli_epi32(word[j], 16), fib->root, 4);
        any |= avx512_nodes(e[j]);
    }
    for (int depth = 2; any && depth < 16; depth++) {
        const __m128i shift = _mm_cvtsi32_si128(24 - depth % 4 * 8);
        any = 0;
        for (int j = 0; j < vectors; j++) {
            if (depth % 4 == 0)
                word[j] = avx512_words(addresses + 32 * j, depth / 4);
            __m512i slot = _mm512_and_si512(_mm512_srl_epi32(word[j], shift), byte);
            slot = _mm512_add_epi32(_mm512_slli_epi32(_mm512_and_si512(e[j], number), 4), slot);
            e[j] = _mm512_mask_i32gather_epi32(e[j], avx512_nodes(e[j]), slot, fib->base, 4);
            any |= avx512_nodes(e[j]);
        }
    }
}

/* Store sixteen entries; those that are blocks go on the list, and are fetched. */
AVX512 static inline size_t avx512_list(const struct fib6 *fib, __m512i e, size_t i, uint32_t *values, uint32_t *list, size_t n_list)
{
    const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    __mmask16 more = _mm512_movepi32_mask(e);
    size_t end = n_list + (size_t)__builtin_popcount(more);
    _mm512_storeu_si512(values + i, e);
    _mm512_storeu_si512(list + n_list, _mm512_maskz_compress_epi32(more, _mm512_add_epi32(lanes, _mm512_set1_epi32((int)i))));
    for (; n_list < end; n_list++)
        avx512_prefetch(fib, values[list[n_list]]);
    return end;
}

AVX512 static void find6_avx512(const struct fib6 *fib, const uint64_t *addresses, uint32_t *values, size_t n)
{
    uint32_t list[avx512_CHUNK + AVX512_LANES];
    while (n >= AVX512_LANES) {
        size_t part = n < avx512_CHUNK ? n & ~(size_t)(AVX512_LANES - 1) : avx512_CHUNK, n_list = 0, i = 0;
        __m512i e[AVX512_VECTORS];
        for (; i + AVX512_STRIDE <= part; i += AVX512_STRIDE) {
            avx512_descend(fib, AVX512_VECTORS, addresses + 2 * i, e);
            for (int j = 0; j < AVX512_VECTORS; j++)
                n_list = avx512_list(fib, e[j], i + (size_t)(AVX512_LANES * j), values, list, n_list);
        }
        for (; i < part; i += AVX512_LANES) {
            avx512_descend(fib, 1, addresses + 2 * i, e);
            n_list = avx512_list(fib, e[0], i, values, list, n_list);
        }
        avx512_resolve(fib, addresses, values, list, n_list);
        addresses += 2 * part, values += part, n -= part;
    }
    find6_scalar(fib, addresses, values, n);
}

#endif
