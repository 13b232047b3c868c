/* Bulk lookups with AVX-512 for processors whose gathers are slow.
 *
 * Owns: the passes of the AVX2 kernels with sixteen lanes: one computes and stores places, the next loads from there.
 * Never: gathers.
 */
#ifndef FASTPATH_SIMD_LOOKUP_AVX512_LOADS_H
#define FASTPATH_SIMD_LOOKUP_AVX512_LOADS_H

#include "fastpath/simd/lookup_avx2.h"
#include "fastpath/simd/lookup_avx512.h"

enum { AVX512_PART = 4096 }; /* more than the L1 holds: in the L2 1.1 times the rate of 1,024, in the L1 0.97 */

AVX512 static inline __m512i avx512_pair(__m256i low, __m256i high)
{
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

AVX512 static inline __m512i avx512_loads(const uint8_t *base, const uint32_t *places)
{
    return avx512_pair(avx2_loads(base, places), avx2_loads(base, places + AVX2_LANES));
}

/* -- IPv4 ------------------------------------------------------------------------ */

/* n <= PART addresses, a multiple of LANES, in the passes of the AVX2 kernel. */
AVX512 static inline void avx512_part4(const struct fib4 *fib, const uint32_t *addresses, uint32_t *values, size_t n)
{
    const __m512i half = _mm512_set1_epi32(0xffff);
    uint32_t places[AVX512_PART];
    __mmask16 more = 0;
    for (size_t i = 0; i < n; i += AVX512_LANES) {
        __m512i e = avx512_pair(avx2_root4(fib, addresses + i), avx2_root4(fib, addresses + i + AVX2_LANES));
        __m512i at = avx512_place4(e, _mm512_and_si512(_mm512_loadu_si512(addresses + i), half));
        _mm512_storeu_si512(values + i, e);
        _mm512_storeu_si512(places + i, _mm512_maskz_mov_epi32(_mm512_movepi32_mask(e), at)); /* line 0 is no array's */
    }
    for (size_t i = 0; i < n; i += AVX512_LANES) {
        __m512i e = avx512_element4(_mm512_loadu_si512(values + i), avx512_loads(fib->base, places + i));
        more |= _mm512_movepi32_mask(e);
        _mm512_storeu_si512(values + i, e);
    }
    if (more)
        avx2_rest4(fib, addresses, values, n);
}

AVX512 static void find4_avx512_loads(const struct fib4 *fib, const uint32_t *addresses, uint32_t *values, size_t n)
{
    while (n >= AVX512_LANES) {
        size_t part = n < AVX512_PART ? n & ~(size_t)(AVX512_LANES - 1) : AVX512_PART;
        avx512_part4(fib, addresses, values, part);
        addresses += part, values += part, n -= part;
    }
    find4_scalar(fib, addresses, values, n);
}

/* -- IPv6 -------------------------------------------------------------------------- */

/* Sixteen root entries; the AVX2 kernel's come in another order. */
AVX512 static inline __m512i avx512_root6(const struct fib6 *fib, const uint64_t *addresses)
{
    const uint16_t *q = (const uint16_t *)addresses + 3; /* x86: the uppermost quarter of a half comes last */
    const int *root = (const int *)fib->root;
    return _mm512_setr_epi32(root[q[0]], root[q[8]], root[q[16]], root[q[24]], root[q[32]], root[q[40]], root[q[48]],
                             root[q[56]], root[q[64]], root[q[72]], root[q[80]], root[q[88]], root[q[96]], root[q[104]],
                             root[q[112]], root[q[120]]);
}

/* avx2_level with sixteen lanes. */
AVX512 static inline size_t avx512_level(const struct fib6 *fib, const uint32_t *words, int left, uint32_t *entries,
                                         uint32_t *places, size_t n)
{
    const __m128i shift = _mm_cvtsi32_si128(left);
    size_t n_more = 0;
    for (size_t i = 0; i < n; i += AVX512_LANES) {
        __m512i e = _mm512_loadu_si512(entries + i), loaded = avx512_loads(fib->base, places + i);
        e = avx512_element6(e, avx512_arrays(e), loaded);
        __mmask16 more = avx512_arrays(e);
        n_more += (size_t)__builtin_popcount(more);
        _mm512_storeu_si512(entries + i, e);
        _mm512_storeu_si512(places + i, avx512_place6(e, more, _mm512_srl_epi32(_mm512_loadu_si512(words + i), shift)));
    }
    return n_more;
}

/* avx2_descend with sixteen lanes, in the order of the addresses. */
AVX512 static inline uint32_t avx512_descend_loads(const struct fib6 *fib, const uint64_t *addresses, uint32_t *entries,
                                                   size_t n)
{
    uint32_t words[avx512_CHUNK], places[avx512_CHUNK], depth = 2;
    size_t n_more = 0;
    for (size_t i = 0; i < n; i += AVX512_LANES) {
        const uint64_t *some = addresses + 2 * i;
        __m512i word = avx512_word(some, 0), e = avx512_root6(fib, some);
        __mmask16 more = avx512_arrays(e);
        n_more += (size_t)__builtin_popcount(more);
        _mm512_storeu_si512(words + i, word);
        _mm512_storeu_si512(entries + i, e);
        _mm512_storeu_si512(places + i, avx512_place6(e, more, _mm512_srli_epi32(word, 8)));
    }
    for (; depth < 16 && n_more > n / FEW; depth++) {
        if ((depth + 1) % 4 == 0 && depth < 15)
            avx512_words(addresses, (int)(depth + 1) / 4, words, n);
        n_more = avx512_level(fib, words, (int)(24 - (depth + 1) % 4 * 8), entries, places, n);
    }
    return depth;
}

/* Entries that are arrays still, for the byte `depth`. */
AVX512 static inline void avx512_follow(const struct fib6 *fib, const uint64_t *addresses, uint32_t *entries, size_t n,
                                        uint32_t depth)
{
    for (size_t i = 0; i < n; i += AVX512_LANES)
        for (uint32_t more = avx512_arrays(_mm512_loadu_si512(entries + i)); more; more &= more - 1) {
            size_t k = i + (size_t)__builtin_ctz(more);
            entries[k] = fib6_follow(fib, entries[k], depth, addresses[2 * k], addresses[2 * k + 1]);
        }
}

AVX512 static void find6_avx512_loads(const struct fib6 *fib, const uint64_t *addresses, uint32_t *values, size_t n)
{
    uint32_t list[avx512_CHUNK];
    while (n >= AVX512_LANES) {
        size_t part = n < avx512_CHUNK ? n & ~(size_t)(AVX512_LANES - 1) : avx512_CHUNK;
        avx512_follow(fib, addresses, values, part, avx512_descend_loads(fib, addresses, values, part));
        avx512_resolve(fib, addresses, values, part, list, avx512_list(values, part, list));
        addresses += 2 * part, values += part, n -= part;
    }
    find6_scalar(fib, addresses, values, n);
}

#endif
