/* Bulk lookups with AVX2.
 *
 * Owns: for IPv4 plain loads of the root and gathers of eight lanes below it; for IPv6
 * plain loads of the arrays, then searches of a block in one comparison.
 * Never: runs where the dispatch table did not find AVX2, or branches on an address's first array.
 */
#ifndef FASTPATH_SIMD_LOOKUP_AVX2_H
#define FASTPATH_SIMD_LOOKUP_AVX2_H

#include <immintrin.h>
#include <string.h>

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

/* Bits 0..31 (`upper`) and 32..63 of eight addresses, in the order 0 2 4 6 1 3 5 7. */
AVX2 static inline __m256i avx2_word(const uint64_t *addresses, int upper)
{
    const __m256i *pairs = (const __m256i *)addresses;
    __m256i a = _mm256_unpacklo_epi64(_mm256_loadu_si256(pairs), _mm256_loadu_si256(pairs + 1));
    __m256i b = _mm256_unpacklo_epi64(_mm256_loadu_si256(pairs + 2), _mm256_loadu_si256(pairs + 3));
    __m256 x = _mm256_castsi256_ps(a), y = _mm256_castsi256_ps(b);
    return _mm256_castps_si256(upper ? _mm256_shuffle_ps(x, y, 0xdd) : _mm256_shuffle_ps(x, y, 0x88));
}

/* Eight root entries in that order. */
AVX2 static inline __m256i avx2_root6(const struct fib6 *fib, const uint64_t *addresses)
{
    const uint16_t *quarters = (const uint16_t *)addresses; /* x86: the uppermost comes last of four */
    const uint32_t *root = fib->root;
    return _mm256_setr_epi32((int)root[quarters[3]], (int)root[quarters[19]], (int)root[quarters[35]],
                             (int)root[quarters[51]], (int)root[quarters[11]], (int)root[quarters[27]],
                             (int)root[quarters[43]], (int)root[quarters[59]]);
}

/* All bits in lanes that are references to arrays. */
AVX2 static inline __m256i avx2_arrays(__m256i e)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)(FIB_REF | FIB_BLOCK)), e);
}

AVX2 static inline int avx2_load(const uint8_t *place)
{
    int four;
    memcpy(&four, place, sizeof four);
    return four;
}

/* Elements of the arrays that lanes of `e` refer to for the next byte of their addresses; other entries stay, and load from line 0. */
AVX2 static inline __m256i avx2_next(const struct fib6 *fib, __m256i e, __m256i byte)
{
    const __m256i masks = _mm256_setr_epi32(0xff, 0xffff, -1, -1, 0xff, 0xffff, -1, -1);
    const uint8_t *base = fib->base;
    __m256i more = avx2_arrays(e), kind = _mm256_srli_epi32(e, FIB6_WIDTH_AT);
    __m256i shift = _mm256_and_si256(_mm256_srli_epi32(e, FIB6_SHIFT_AT), _mm256_set1_epi32(7));
    __m256i place = _mm256_srlv_epi32(_mm256_and_si256(byte, _mm256_set1_epi32(255)), shift);
    place = _mm256_sllv_epi32(place, _mm256_and_si256(kind, _mm256_set1_epi32(3)));
    place = _mm256_add_epi32(place, _mm256_slli_epi32(_mm256_and_si256(e, _mm256_set1_epi32(FIB_INDEX)), 6));
    uint32_t at[AVX2_LANES];
    _mm256_storeu_si256((__m256i *)at, _mm256_and_si256(place, more));
    __m256i found = _mm256_setr_epi32(avx2_load(base + at[0]), avx2_load(base + at[1]), avx2_load(base + at[2]),
                                      avx2_load(base + at[3]), avx2_load(base + at[4]), avx2_load(base + at[5]),
                                      avx2_load(base + at[6]), avx2_load(base + at[7]));
    return _mm256_blendv_epi8(e, _mm256_and_si256(found, _mm256_permutevar8x32_epi32(masks, kind)), more);
}

/* The next level of n entries, whose byte begins `left` bits from the end of `words`. A level is done for all
 * before the next: the loads of one are independent, those of two levels are not. */
AVX2 static inline void avx2_level(const struct fib6 *fib, const uint32_t *words, int left, uint32_t *entries, size_t n)
{
    for (size_t i = 0; i < n; i += AVX2_LANES) {
        __m256i word = _mm256_loadu_si256((const __m256i *)(words + i));
        __m256i *e = (__m256i *)(entries + i);
        _mm256_storeu_si256(e, avx2_next(fib, _mm256_loadu_si256(e), _mm256_srli_epi32(word, left)));
    }
}

/* n <= CHUNK addresses, a multiple of AVX2_LANES, from the root to values, blocks, or what is in an array behind bit
 * 48, each eight in the order of avx2_word. */
AVX2 static inline void avx2_descend(const struct fib6 *fib, const uint64_t *addresses, uint32_t *entries, size_t n)
{
    uint32_t words[avx2_CHUNK];
    for (size_t i = 0; i < n; i += AVX2_LANES) {
        _mm256_storeu_si256((__m256i *)(words + i), avx2_word(addresses + 2 * i, 1));
        _mm256_storeu_si256((__m256i *)(entries + i), avx2_root6(fib, addresses + 2 * i));
    }
    avx2_level(fib, words, 8, entries, n);
    avx2_level(fib, words, 0, entries, n);
    for (size_t i = 0; i < n; i += AVX2_LANES)
        _mm256_storeu_si256((__m256i *)(words + i), avx2_word(addresses + 2 * i, 0));
    avx2_level(fib, words, 24, entries, n);
    avx2_level(fib, words, 16, entries, n);
}

/* Row `mask`: the numbers of its set bits, a byte each, in order. (pext does it too, but is slow before Zen 3.) */
static uint64_t avx2_rows[256];

__attribute__((constructor)) static void avx2_fill_rows(void)
{
    for (uint32_t mask = 0; mask < 256; mask++)
        for (uint32_t lane = 0, n = 0; lane < AVX2_LANES; lane++)
            if (mask >> lane & 1u)
                avx2_rows[mask] |= (uint64_t)lane << (8u * n++);
}

/* Put n entries in the order of their addresses and list those that are blocks; arrays are followed. */
AVX2 static inline size_t avx2_list(const struct fib6 *fib, const uint64_t *addresses, uint32_t *values, size_t n, uint32_t *list)
{
    size_t n_list = 0;
    for (size_t i = 0; i < n; i += AVX2_LANES) {
        __m256i e = _mm256_loadu_si256((const __m256i *)(values + i));
        e = _mm256_permutevar8x32_epi32(e, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        _mm256_storeu_si256((__m256i *)(values + i), e);
        uint32_t deep = (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(avx2_arrays(e)));
        for (; __builtin_expect(deep != 0, 0); deep &= deep - 1) {
            size_t k = i + (size_t)__builtin_ctz(deep);
            values[k] = fib6_find(fib, addresses[2 * k], addresses[2 * k + 1]);
        }
        uint32_t blocks = (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_and_si256(e, _mm256_slli_epi32(e, 1))));
        __m256i lanes = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)avx2_rows[blocks]));
        lanes = _mm256_add_epi32(lanes, _mm256_set1_epi32((int)i));
        _mm256_storeu_si256((__m256i *)(list + n_list), lanes);
        n_list += (size_t)__builtin_popcount(blocks);
    }
    return n_list;
}

AVX2 static void find6_avx2(const struct fib6 *fib, const uint64_t *addresses, uint32_t *values, size_t n)
{
    uint32_t list[avx2_CHUNK + AVX2_LANES];
    while (n >= AVX2_LANES) {
        size_t part = n < avx2_CHUNK ? n & ~(size_t)(AVX2_LANES - 1) : avx2_CHUNK;
        avx2_descend(fib, addresses, values, part);
        avx2_resolve(fib, addresses, values, list, avx2_list(fib, addresses, values, part, list));
        addresses += 2 * part, values += part, n -= part;
    }
    find6_scalar(fib, addresses, values, n);
}

#endif
