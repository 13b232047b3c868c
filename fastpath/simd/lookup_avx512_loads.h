/* Bulk lookups with AVX-512 for processors whose gathers are slow.
 *
 * Owns: what the passes (lookup_passes.h) do to sixteen lanes.
 * Never: gathers.
 */
#ifndef FASTPATH_SIMD_LOOKUP_AVX512_LOADS_H
#define FASTPATH_SIMD_LOOKUP_AVX512_LOADS_H

#include "fastpath/simd/lookup_avx2.h"
#include "fastpath/simd/lookup_avx512.h"

enum { AVX512_PART = 4096 }; /* more than the L1 holds: in the L2 1.1 times the rate of 1,024, in the L1 0.97 */

AVX512 static inline __m512i avx512_loads_read(const uint32_t *lanes) { return _mm512_loadu_si512(lanes); }

AVX512 static inline void avx512_loads_write(uint32_t *lanes, __m512i e) { _mm512_storeu_si512(lanes, e); }

AVX512 static inline uint32_t avx512_loads_signs(__m512i e) { return _mm512_movepi32_mask(e); }

AVX512 static inline __m512i avx512_loads_lower(__m512i e) { return _mm512_and_si512(e, _mm512_set1_epi32(0xffff)); }

AVX512 static inline __m512i avx512_loads_right(__m512i e, int bits) { return _mm512_srl_epi32(e, _mm_cvtsi32_si128(bits)); }

AVX512 static inline __m512i avx512_pair(__m256i low, __m256i high)
{
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

AVX512 static inline __m512i avx512_loads_load_all(const uint8_t *base, const uint32_t *places)
{
    return avx512_pair(avx2_load_all(base, places), avx2_load_all(base, places + AVX2_LANES));
}

/* -- IPv4 ------------------------------------------------------------------------ */

AVX512 static inline __m512i avx512_loads_root4(const struct fib4 *fib, const uint32_t *addresses)
{
    return avx512_pair(avx2_root4(fib, addresses), avx2_root4(fib, addresses + AVX2_LANES));
}

/* Line 0, which is no array's, for values. */
AVX512 static inline __m512i avx512_loads_place4(__m512i e, __m512i bits)
{
    return _mm512_maskz_mov_epi32(_mm512_movepi32_mask(e), avx512_place4(e, bits));
}

AVX512 static inline __m512i avx512_loads_element4(__m512i e, __m512i loaded) { return avx512_element4(e, loaded); }

/* -- IPv6 -------------------------------------------------------------------------- */

AVX512 static inline __m512i avx512_loads_word(const uint64_t *addresses, int w) { return avx512_word(addresses, w); }

AVX512 static inline uint32_t avx512_loads_arrays(__m512i e) { return avx512_arrays(e); }

/* Sixteen root entries; the AVX2 kernel's come in another order. */
AVX512 static inline __m512i avx512_loads_root6(const struct fib6 *fib, const uint64_t *addresses)
{
    const uint16_t *q = (const uint16_t *)addresses + 3; /* x86: the uppermost quarter of a half comes last */
    const int *root = (const int *)fib->root;
    return _mm512_setr_epi32(root[q[0]], root[q[8]], root[q[16]], root[q[24]], root[q[32]], root[q[40]], root[q[48]],
                             root[q[56]], root[q[64]], root[q[72]], root[q[80]], root[q[88]], root[q[96]], root[q[104]],
                             root[q[112]], root[q[120]]);
}

AVX512 static inline __m512i avx512_loads_place6(__m512i e, __m512i bytes)
{
    return avx512_place6(e, avx512_arrays(e), bytes);
}

AVX512 static inline __m512i avx512_loads_element6(__m512i e, __m512i loaded)
{
    return avx512_element6(e, avx512_arrays(e), loaded);
}

#define PASSES_TARGET AVX512
#define PASSES_NAME(name) avx512_loads_##name
#define PASSES_VECTOR __m512i
#define PASSES_LANES AVX512_LANES
#define PASSES_PART AVX512_PART
#define PASSES_CHUNK avx512_CHUNK
#include "fastpath/simd/lookup_passes.h"

/* Entries that are arrays still, for the byte `depth`. */
AVX512 static inline void avx512_loads_follow(const struct fib6 *fib, const uint64_t *addresses, uint32_t *entries, size_t n,
                                        uint32_t depth)
{
    for (size_t i = 0; i < n; i += AVX512_LANES)
        for (uint32_t more = avx512_arrays(avx512_loads_read(entries + i)); more; more &= more - 1) {
            size_t k = i + (size_t)__builtin_ctz(more);
            entries[k] = fib6_follow(fib, entries[k], depth, addresses[2 * k], addresses[2 * k + 1]);
        }
}

AVX512 static void avx512_loads_find6(const struct fib6 *fib, const uint64_t *addresses, uint32_t *values, size_t n)
{
    uint32_t list[avx512_CHUNK];
    while (n >= AVX512_LANES) {
        size_t part = n < avx512_CHUNK ? n & ~(size_t)(AVX512_LANES - 1) : avx512_CHUNK;
        avx512_loads_follow(fib, addresses, values, part, avx512_loads_pass_down(fib, addresses, values, part));
        avx512_resolve(fib, addresses, values, part, list, avx512_list(values, part, list));
        addresses += 2 * part, values += part, n -= part;
    }
    find6_scalar(fib, addresses, values, n);
}

#endif
