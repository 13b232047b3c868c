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

/* Where in the arrays that lanes of `e` refer to the elements for `bits` are. Bits 29..31 of an entry choose from
 * tables of eight: below 4 it is a value, above it a reference with its width. */
AVX512 static inline __m512i avx512_place4(__m512i e, __m512i bits)
{
    const __m512i widths = _mm512_set_epi32(0, 2, 1, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0);
    __m512i at = _mm512_srlv_epi32(bits, _mm512_and_si512(e, _mm512_set1_epi32(FIB4_SHIFT)));
    at = _mm512_sllv_epi32(at, _mm512_permutexvar_epi32(_mm512_srli_epi32(e, FIB4_WIDTH_AT), widths));
    return _mm512_add_epi32(at, _mm512_and_si512(e, _mm512_set1_epi32(FIB4_OFFSET)));
}

/* The elements, of what was loaded there; values stay. */
AVX512 static inline __m512i avx512_element4(__m512i e, __m512i loaded)
{
    const __m512i masks = _mm512_set_epi32(-1, -1, 0xffff, 0xff, -1, -1, -1, -1, -1, -1, 0xffff, 0xff, -1, -1, -1, -1);
    __m512i mask = _mm512_permutexvar_epi32(_mm512_srli_epi32(e, FIB4_WIDTH_AT), masks);
    return _mm512_mask_and_epi32(e, _mm512_movepi32_mask(e), loaded, mask);
}

AVX512 static inline __m512i avx512_gather4(const struct fib4 *fib, __m512i e, __m512i bits)
{
    __m512i at = avx512_place4(e, bits);
    return avx512_element4(e, _mm512_mask_i32gather_epi32(e, _mm512_movepi32_mask(e), at, fib->base, 1));
}

AVX512 static inline __m512i avx512_root4(const struct fib4 *fib, const uint32_t *addresses)
{
    return _mm512_i32gather_epi32(_mm512_srli_epi32(_mm512_loadu_si512(addresses), 16), fib->root, 4);
}

/* The second arrays of a stride, of which some element was a reference. */
AVX512 static void avx512_rest4(const struct fib4 *fib, const uint32_t *addresses, uint32_t *values)
{
    for (size_t i = 0; i < AVX512_STRIDE; i += AVX512_LANES) {
        __m512i e = _mm512_loadu_si512(values + i);
        if (!_mm512_movepi32_mask(e))
            continue; /* a gather costs its full time even with an empty mask */
        __m512i left = _mm512_and_si512(avx512_root4(fib, addresses + i), _mm512_set1_epi32(FIB4_SHIFT));
        __m512i outside = _mm512_sllv_epi32(_mm512_set1_epi32(-1), left);
        __m512i bits = _mm512_andnot_si512(outside, _mm512_loadu_si512(addresses + i));
        _mm512_storeu_si512(values + i, avx512_gather4(fib, e, bits));
    }
}

/* The root entries of a stride are loaded while the stride before is in its arrays: two misses under way for each lane. */
AVX512 static void avx512_find4(const struct fib4 *fib, const uint32_t *addresses, uint32_t *values, size_t n)
{
    const __m512i half = _mm512_set1_epi32(0xffff);
    size_t whole = n & ~(size_t)(AVX512_STRIDE - 1);
    __m512i root[AVX512_VECTORS];
    for (int j = 0; whole && j < AVX512_VECTORS; j++)
        root[j] = avx512_root4(fib, addresses + AVX512_LANES * j);
    for (size_t i = 0; i < whole; i += AVX512_STRIDE) {
        size_t next = i + AVX512_STRIDE < whole ? i + AVX512_STRIDE : i;
        __mmask16 more = 0;
        for (int j = 0; j < AVX512_VECTORS; j++) {
            __m512i e = root[j], a = _mm512_loadu_si512(addresses + i + AVX512_LANES * j);
            root[j] = avx512_root4(fib, addresses + next + AVX512_LANES * j);
            e = avx512_gather4(fib, e, _mm512_and_si512(a, half));
            more |= _mm512_movepi32_mask(e);
            _mm512_storeu_si512(values + i + AVX512_LANES * j, e);
        }
        if (__builtin_expect(more != 0, 0))
            avx512_rest4(fib, addresses + i, values + i);
    }
    find4_scalar(fib, addresses + whole, values + whole, n - whole);
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

/* Word `w` (0 = the first 32 bits) of sixteen addresses, each four words in host order by halves. */
AVX512 static inline __m512i avx512_word(const uint64_t *addresses, int w)
{
    const __m512i every4 = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 28, 24, 20, 16, 12, 8, 4, 0);
    const __m512i pick = _mm512_add_epi32(every4, _mm512_set1_epi32(w ^ 1));
    __m512i low = _mm512_permutex2var_epi32(_mm512_loadu_si512(addresses), pick, _mm512_loadu_si512(addresses + 8));
    __m512i high = _mm512_permutex2var_epi32(_mm512_loadu_si512(addresses + 16), pick, _mm512_loadu_si512(addresses + 24));
    return _mm512_inserti64x4(low, _mm512_castsi512_si256(high), 1);
}

AVX512 static inline void avx512_words(const uint64_t *addresses, int w, uint32_t *words, size_t n)
{
    for (size_t i = 0; i < n; i += AVX512_LANES)
        _mm512_storeu_si512(words + i, avx512_word(addresses + 2 * i, w));
}

/* Lanes that are references to arrays. */
AVX512 static inline __mmask16 avx512_arrays(__m512i e)
{
    return _mm512_mask_cmplt_epu32_mask(_mm512_movepi32_mask(e), e, _mm512_set1_epi32((int)(FIB_REF | FIB_BLOCK)));
}

/* Where in the arrays that lanes `more` of `e` refer to the elements for the lowest byte of `bytes` are; line 0, which
 * is no array's, for the others. */
AVX512 static inline __m512i avx512_place6(__m512i e, __mmask16 more, __m512i bytes)
{
    __m512i width = _mm512_and_si512(_mm512_srli_epi32(e, FIB6_WIDTH_AT), _mm512_set1_epi32(3));
    __m512i shift = _mm512_and_si512(e, _mm512_set1_epi32(FIB6_SHIFT));
    __m512i at = _mm512_srlv_epi32(_mm512_and_si512(bytes, _mm512_set1_epi32(255)), shift);
    at = _mm512_sllv_epi32(at, width);
    return _mm512_maskz_add_epi32(more, at, _mm512_and_si512(e, _mm512_set1_epi32(FIB6_OFFSET)));
}

/* The elements, of what was loaded there; lanes but `more` stay. */
AVX512 static inline __m512i avx512_element6(__m512i e, __mmask16 more, __m512i loaded)
{
    const __m512i masks = _mm512_set_epi32(-1, -1, 0xffff, 0xff, -1, -1, 0xffff, 0xff, -1, -1, 0xffff, 0xff, -1, -1, 0xffff, 0xff);
    return _mm512_mask_and_epi32(e, more, loaded, _mm512_permutexvar_epi32(_mm512_srli_epi32(e, FIB6_WIDTH_AT), masks));
}

/* n <= CHUNK addresses, a multiple of AVX512_LANES, from the root to values or blocks. A level is done for
 * all before the next: the loads of one are independent, those of two levels are not. */
AVX512 static inline void avx512_descend(const struct fib6 *fib, const uint64_t *addresses, uint32_t *values, size_t n)
{
    uint32_t words[avx512_CHUNK];
    __mmask16 any = 0;
    for (size_t i = 0; i < n; i += AVX512_LANES) {
        __m512i word = avx512_word(addresses + 2 * i, 0);
        __m512i e = _mm512_i32gather_epi32(_mm512_srli_epi32(word, 16), fib->root, 4);
        any |= avx512_arrays(e);
        _mm512_storeu_si512(words + i, word);
        _mm512_storeu_si512(values + i, e);
    }
    for (int depth = 2; any && depth < 16; depth++) {
        const __m128i shift = _mm_cvtsi32_si128(24 - depth % 4 * 8);
        if (depth % 4 == 0)
            avx512_words(addresses, depth / 4, words, n);
        any = 0;
        for (size_t i = 0; i < n; i += AVX512_LANES) {
            __m512i e = _mm512_loadu_si512(values + i), word = _mm512_loadu_si512(words + i);
            __mmask16 more = avx512_arrays(e);
            if (!more)
                continue; /* as a rule from bit 48 on: a gather costs its full time even with an empty mask */
            __m512i at = avx512_place6(e, more, _mm512_srl_epi32(word, shift));
            e = avx512_element6(e, more, _mm512_mask_i32gather_epi32(e, more, at, fib->base, 1));
            any |= avx512_arrays(e);
            _mm512_storeu_si512(values + i, e);
        }
    }
}

/* The list of those of n entries that are blocks. */
AVX512 static inline size_t avx512_list(const uint32_t *values, size_t n, uint32_t *list)
{
    __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    size_t n_list = 0;
    for (size_t i = 0; i < n; i += AVX512_LANES) {
        __mmask16 more = _mm512_movepi32_mask(_mm512_loadu_si512(values + i));
        _mm512_storeu_si512(list + n_list, _mm512_maskz_compress_epi32(more, lanes));
        n_list += (size_t)__builtin_popcount(more);
        lanes = _mm512_add_epi32(lanes, _mm512_set1_epi32(AVX512_LANES));
    }
    return n_list;
}

AVX512 static void avx512_find6(const struct fib6 *fib, const uint64_t *addresses, uint32_t *values, size_t n)
{
    uint32_t list[avx512_CHUNK];
    while (n >= AVX512_LANES) {
        size_t part = n < avx512_CHUNK ? n & ~(size_t)(AVX512_LANES - 1) : avx512_CHUNK;
        avx512_descend(fib, addresses, values, part);
        avx512_resolve(fib, addresses, values, part, list, avx512_list(values, part, list));
        addresses += 2 * part, values += part, n -= part;
    }
    find6_scalar(fib, addresses, values, n);
}

#endif
