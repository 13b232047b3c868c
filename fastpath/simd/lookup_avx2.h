/* Bulk lookups with AVX2.
 *
 * Owns: what the passes (lookup_passes.h) do to eight lanes, and searches of a block in one comparison.
 * Never: runs where the dispatch table did not find AVX2, or gathers.
 */
#ifndef FASTPATH_SIMD_LOOKUP_AVX2_H
#define FASTPATH_SIMD_LOOKUP_AVX2_H

#include <immintrin.h>
#include <string.h>

#include "fastpath/simd/lookup_scalar.h"

#define AVX2 __attribute__((target("avx2,popcnt,bmi,bmi2")))

enum {
    AVX2_LANES = 8,
    AVX2_PART = 512,
    PASSES_FEW = 16 /* less than one of so many addresses is not worth a pass over all */
};

AVX2 static inline __m256i avx2_read(const uint32_t *lanes) { return _mm256_loadu_si256((const __m256i *)lanes); }

AVX2 static inline void avx2_write(uint32_t *lanes, __m256i e) { _mm256_storeu_si256((__m256i *)lanes, e); }

AVX2 static inline __m256i avx2_lower(__m256i e) { return _mm256_and_si256(e, _mm256_set1_epi32(0xffff)); }

AVX2 static inline __m256i avx2_right(__m256i e, int bits) { return _mm256_srli_epi32(e, bits); }

AVX2 static inline int avx2_load(const uint8_t *place)
{
    int four;
    memcpy(&four, place, sizeof four);
    return four;
}

/* Four bytes from each of eight places. On Zen 4 a gather of eight takes half as long again. */
AVX2 static inline __m256i avx2_load_all(const uint8_t *base, const uint32_t *places)
{
    return _mm256_setr_epi32(avx2_load(base + places[0]), avx2_load(base + places[1]), avx2_load(base + places[2]),
                             avx2_load(base + places[3]), avx2_load(base + places[4]), avx2_load(base + places[5]),
                             avx2_load(base + places[6]), avx2_load(base + places[7]));
}

AVX2 static inline uint32_t avx2_signs(__m256i e) { return (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(e)); }

/* -- IPv4 ------------------------------------------------------------------------ */

AVX2 static inline __m256i avx2_root4(const struct fib4 *fib, const uint32_t *addresses)
{
    const uint16_t *halves = (const uint16_t *)addresses; /* x86: the upper half comes second */
    const uint32_t *root = fib->root;
    return _mm256_setr_epi32((int)root[halves[1]], (int)root[halves[3]], (int)root[halves[5]], (int)root[halves[7]],
                             (int)root[halves[9]], (int)root[halves[11]], (int)root[halves[13]], (int)root[halves[15]]);
}

/* Where in the arrays that lanes of `e` refer to the elements for `bits` are; line 0, which is no array's, for values.
 * Bits 29..31 of an entry choose from a table of eight: below 4 it is a value, above it a reference with its width. */
AVX2 static inline __m256i avx2_place4(__m256i e, __m256i bits)
{
    const __m256i widths = _mm256_setr_epi32(0, 0, 0, 0, 0, 1, 2, 0);
    __m256i at = _mm256_srlv_epi32(bits, _mm256_and_si256(e, _mm256_set1_epi32(FIB4_SHIFT)));
    at = _mm256_sllv_epi32(at, _mm256_permutevar8x32_epi32(widths, _mm256_srli_epi32(e, FIB4_WIDTH_AT)));
    at = _mm256_add_epi32(at, _mm256_and_si256(e, _mm256_set1_epi32(FIB4_OFFSET)));
    return _mm256_and_si256(at, _mm256_srai_epi32(e, 31));
}

/* The elements, of what was loaded there; values stay. */
AVX2 static inline __m256i avx2_element4(__m256i e, __m256i loaded)
{
    const __m256i masks = _mm256_setr_epi32(-1, -1, -1, -1, 0xff, 0xffff, -1, -1);
    loaded = _mm256_and_si256(loaded, _mm256_permutevar8x32_epi32(masks, _mm256_srli_epi32(e, FIB4_WIDTH_AT)));
    return _mm256_castps_si256(
        _mm256_blendv_ps(_mm256_castsi256_ps(e), _mm256_castsi256_ps(loaded), _mm256_castsi256_ps(e)));
}

/* The second arrays of n entries, some of which are still references. */
AVX2 static void avx2_rest4(const struct fib4 *fib, const uint32_t *addresses, uint32_t *values, size_t n)
{
    uint32_t places[AVX2_LANES];
    for (size_t i = 0; i < n; i += AVX2_LANES) {
        __m256i e = avx2_read(values + i);
        if (!avx2_signs(e))
            continue; /* as a rule: one element in a thousand is a reference in a real table */
        __m256i left = _mm256_and_si256(avx2_root4(fib, addresses + i), _mm256_set1_epi32(FIB4_SHIFT));
        __m256i outside = _mm256_sllv_epi32(_mm256_set1_epi32(-1), left);
        avx2_write(places, avx2_place4(e, _mm256_andnot_si256(outside, avx2_read(addresses + i))));
        avx2_write(values + i, avx2_element4(e, avx2_load_all(fib->base, places)));
    }
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

/* Word `w` (0 = the first 32 bits) of eight addresses, in the order 0 2 4 6 1 3 5 7. */
AVX2 static inline __m256i avx2_word(const uint64_t *addresses, int w)
{
    const __m256i *some = (const __m256i *)addresses;
    __m256i a = _mm256_loadu_si256(some), b = _mm256_loadu_si256(some + 1);
    __m256i c = _mm256_loadu_si256(some + 2), d = _mm256_loadu_si256(some + 3);
    __m256i ab = w < 2 ? _mm256_unpacklo_epi64(a, b) : _mm256_unpackhi_epi64(a, b);
    __m256i cd = w < 2 ? _mm256_unpacklo_epi64(c, d) : _mm256_unpackhi_epi64(c, d);
    __m256 x = _mm256_castsi256_ps(ab), y = _mm256_castsi256_ps(cd);
    return _mm256_castps_si256(w % 2 ? _mm256_shuffle_ps(x, y, 0x88) : _mm256_shuffle_ps(x, y, 0xdd));
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
AVX2 static inline __m256i avx2_in_arrays(__m256i e)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)(FIB_REF | FIB_BLOCK)), e);
}

AVX2 static inline uint32_t avx2_arrays(__m256i e) { return avx2_signs(avx2_in_arrays(e)); }

/* Where in the arrays that lanes of `e` refer to the elements for the lowest byte of `bytes` are; line 0, which is no
 * array's, for other entries. */
AVX2 static inline __m256i avx2_place6(__m256i e, __m256i bytes)
{
    __m256i width = _mm256_and_si256(_mm256_srli_epi32(e, FIB6_WIDTH_AT), _mm256_set1_epi32(3));
    __m256i shift = _mm256_and_si256(e, _mm256_set1_epi32(FIB6_SHIFT));
    __m256i at = _mm256_srlv_epi32(_mm256_and_si256(bytes, _mm256_set1_epi32(255)), shift);
    at = _mm256_sllv_epi32(at, width);
    at = _mm256_add_epi32(at, _mm256_and_si256(e, _mm256_set1_epi32(FIB6_OFFSET)));
    return _mm256_and_si256(at, avx2_in_arrays(e));
}

/* The elements, of what was loaded there; other entries stay. */
AVX2 static inline __m256i avx2_element6(__m256i e, __m256i loaded)
{
    const __m256i masks = _mm256_setr_epi32(0xff, 0xffff, -1, -1, 0xff, 0xffff, -1, -1);
    loaded = _mm256_and_si256(loaded, _mm256_permutevar8x32_epi32(masks, _mm256_srli_epi32(e, FIB6_WIDTH_AT)));
    return _mm256_blendv_epi8(e, loaded, avx2_in_arrays(e));
}

#define PASSES_TARGET AVX2
#define PASSES_NAME(name) avx2_##name
#define PASSES_VECTOR __m256i
#define PASSES_LANES AVX2_LANES
#define PASSES_PART AVX2_PART
#define PASSES_CHUNK avx2_CHUNK
#include "fastpath/simd/lookup_passes.h"

/* Row `mask`: the numbers of its set bits, a byte each, in order. (pext does it too, but is slow before Zen 3.) */
static uint64_t avx2_rows[256];

__attribute__((constructor)) static void avx2_fill_rows(void)
{
    for (uint32_t mask = 0; mask < 256; mask++)
        for (uint32_t lane = 0, n = 0; lane < AVX2_LANES; lane++)
            if (mask >> lane & 1u)
                avx2_rows[mask] |= (uint64_t)lane << (8u * n++);
}

/* Put n entries in the order of their addresses and list those that are blocks; arrays, for the byte `depth`, are followed. */
AVX2 static inline size_t avx2_list(const struct fib6 *fib, const uint64_t *addresses, uint32_t *values, size_t n,
                                    uint32_t depth, uint32_t *list)
{
    size_t n_list = 0;
    for (size_t i = 0; i < n; i += AVX2_LANES) {
        __m256i e = _mm256_permutevar8x32_epi32(avx2_read(values + i), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        avx2_write(values + i, e);
        for (uint32_t deep = avx2_arrays(e); __builtin_expect(deep != 0, 0); deep &= deep - 1) {
            size_t k = i + (size_t)__builtin_ctz(deep);
            values[k] = fib6_follow(fib, values[k], depth, addresses[2 * k], addresses[2 * k + 1]);
        }
        uint32_t blocks = avx2_signs(_mm256_and_si256(e, _mm256_slli_epi32(e, 1)));
        __m256i lanes = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)avx2_rows[blocks]));
        avx2_write(list + n_list, _mm256_add_epi32(lanes, _mm256_set1_epi32((int)i)));
        n_list += (size_t)__builtin_popcount(blocks);
    }
    return n_list;
}

AVX2 static void avx2_find6(const struct fib6 *fib, const uint64_t *addresses, uint32_t *values, size_t n)
{
    uint32_t list[avx2_CHUNK];
    while (n >= AVX2_LANES) {
        size_t part = n < avx2_CHUNK ? n & ~(size_t)(AVX2_LANES - 1) : avx2_CHUNK;
        uint32_t depth = avx2_pass_down(fib, addresses, values, part);
        size_t n_list = avx2_list(fib, addresses, values, part, depth, list);
        avx2_resolve(fib, addresses, values, part, list, n_list);
        addresses += 2 * part, values += part, n -= part;
    }
    find6_scalar(fib, addresses, values, n);
}

#endif
