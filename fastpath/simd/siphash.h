/* SipHash-1-3 over whole words: the keyed hash of tables that strangers fill.
 *
 * Owns: the rounds, for one input and for many at once (one input a lane of AVX2
 * or AVX-512). One round a word and three to finish are what hash tables
 * use it with (Aumasson and Bernstein, "SipHash", 2012): nobody without the
 * key can aim at a bucket. The block with the length is left out: all inputs
 * under one key in one table have one length.
 * Never: is a message authentication code.
 */
#ifndef FASTPATH_SIMD_SIPHASH_H
#define FASTPATH_SIMD_SIPHASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define SIPHASH_ROTATE(x, b) ((x) << (b) | (x) >> (64 - (b)))
#define SIPHASH_ROUND(a, b, c, d)                                              \
    do {                                                                       \
        a += b; b = SIPHASH_ROTATE(b, 13) ^ a; a = SIPHASH_ROTATE(a, 32);      \
        c += d; d = SIPHASH_ROTATE(d, 16) ^ c;                                 \
        a += d; d = SIPHASH_ROTATE(d, 21) ^ a;                                 \
        c += b; b = SIPHASH_ROTATE(b, 17) ^ c; c = SIPHASH_ROTATE(c, 32);      \
    } while (0)

static inline uint64_t siphash_words(const uint64_t *key, const uint64_t *words, size_t n)
{
    uint64_t a = key[0] ^ 0x736f6d6570736575u, b = key[1] ^ 0x646f72616e646f6du;
    uint64_t c = key[0] ^ 0x6c7967656e657261u, d = key[1] ^ 0x7465646279746573u;
    for (size_t i = 0; i < n; i++) {
        d ^= words[i];
        SIPHASH_ROUND(a, b, c, d);
        a ^= words[i];
    }
    c ^= 0xff;
    SIPHASH_ROUND(a, b, c, d);
    SIPHASH_ROUND(a, b, c, d);
    SIPHASH_ROUND(a, b, c, d);
    return a ^ b ^ c ^ d;
}

/* hashes[i] of n inputs of `words` words each: word w of input i at inputs[w * stride + i].
 * `stride` is a multiple of 8, and up to it both arrays may be read and written beyond n. */
typedef void (*siphash_kernel)(const uint64_t *key, const uint64_t *inputs, size_t stride, size_t words,
                               uint64_t *hashes, size_t n);

static void siphash_scalar(const uint64_t *key, const uint64_t *inputs, size_t stride, size_t words,
                           uint64_t *hashes, size_t n)
{
    uint64_t input[8];
    for (size_t i = 0; i < n; i++) {
        for (size_t w = 0; w < words; w++)
            input[w] = inputs[w * stride + i];
        hashes[i] = siphash_words(key, input, words);
    }
}

#if defined(__x86_64__)
#include <immintrin.h>

#define SIPHASH_XOR256 _mm256_xor_si256
#define SIPHASH_ADD256 _mm256_add_epi64
#define SIPHASH_SHIFT256(x, b) _mm256_or_si256(_mm256_slli_epi64(x, b), _mm256_srli_epi64(x, 64 - (b)))
#define SIPHASH_SWAP256(x) _mm256_shuffle_epi32(x, 0xB1)
#define SIPHASH_ROUND256(a, b, c, d)                                                                        \
    do {                                                                                                    \
        a = SIPHASH_ADD256(a, b); b = SIPHASH_XOR256(SIPHASH_SHIFT256(b, 13), a); a = SIPHASH_SWAP256(a);   \
        c = SIPHASH_ADD256(c, d); d = SIPHASH_XOR256(_mm256_shuffle_epi8(d, left16), c);                    \
        a = SIPHASH_ADD256(a, d); d = SIPHASH_XOR256(SIPHASH_SHIFT256(d, 21), a);                           \
        c = SIPHASH_ADD256(c, b); b = SIPHASH_XOR256(SIPHASH_SHIFT256(b, 17), c); c = SIPHASH_SWAP256(c);   \
    } while (0)

__attribute__((target("avx2")))
static void siphash_avx2(const uint64_t *key, const uint64_t *inputs, size_t stride, size_t words,
                         uint64_t *hashes, size_t n)
{
    const __m256i left16 = _mm256_setr_epi8(6, 7, 0, 1, 2, 3, 4, 5, 14, 15, 8, 9, 10, 11, 12, 13,
                                            6, 7, 0, 1, 2, 3, 4, 5, 14, 15, 8, 9, 10, 11, 12, 13);
    for (size_t i = 0; i < n; i += 4) {
        __m256i a = _mm256_set1_epi64x((long long)(key[0] ^ 0x736f6d6570736575u));
        __m256i b = _mm256_set1_epi64x((long long)(key[1] ^ 0x646f72616e646f6du));
        __m256i c = _mm256_set1_epi64x((long long)(key[0] ^ 0x6c7967656e657261u));
        __m256i d = _mm256_set1_epi64x((long long)(key[1] ^ 0x7465646279746573u));
        for (size_t w = 0; w < words; w++) {
            __m256i word = _mm256_loadu_si256((const __m256i *)(inputs + w * stride + i));
            d = SIPHASH_XOR256(d, word);
            SIPHASH_ROUND256(a, b, c, d);
            a = SIPHASH_XOR256(a, word);
        }
        c = SIPHASH_XOR256(c, _mm256_set1_epi64x(0xff));
        SIPHASH_ROUND256(a, b, c, d);
        SIPHASH_ROUND256(a, b, c, d);
        SIPHASH_ROUND256(a, b, c, d);
        _mm256_storeu_si256((__m256i *)(hashes + i), SIPHASH_XOR256(SIPHASH_XOR256(a, b), SIPHASH_XOR256(c, d)));
    }
}

#define SIPHASH_XOR512 _mm512_xor_si512
#define SIPHASH_ADD512 _mm512_add_epi64
#define SIPHASH_ROUND512(a, b, c, d)                                                                            \
    do {                                                                                                        \
        a = SIPHASH_ADD512(a, b); b = SIPHASH_XOR512(_mm512_rol_epi64(b, 13), a); a = _mm512_rol_epi64(a, 32);  \
        c = SIPHASH_ADD512(c, d); d = SIPHASH_XOR512(_mm512_rol_epi64(d, 16), c);                               \
        a = SIPHASH_ADD512(a, d); d = SIPHASH_XOR512(_mm512_rol_epi64(d, 21), a);                               \
        c = SIPHASH_ADD512(c, b); b = SIPHASH_XOR512(_mm512_rol_epi64(b, 17), c); c = _mm512_rol_epi64(c, 32);  \
    } while (0)

__attribute__((target("avx512f")))
static void siphash_avx512(const uint64_t *key, const uint64_t *inputs, size_t stride, size_t words,
                           uint64_t *hashes, size_t n)
{
    for (size_t i = 0; i < n; i += 8) {
        __m512i a = _mm512_set1_epi64((long long)(key[0] ^ 0x736f6d6570736575u));
        __m512i b = _mm512_set1_epi64((long long)(key[1] ^ 0x646f72616e646f6du));
        __m512i c = _mm512_set1_epi64((long long)(key[0] ^ 0x6c7967656e657261u));
        __m512i d = _mm512_set1_epi64((long long)(key[1] ^ 0x7465646279746573u));
        for (size_t w = 0; w < words; w++) {
            __m512i word = _mm512_loadu_si512(inputs + w * stride + i);
            d = SIPHASH_XOR512(d, word);
            SIPHASH_ROUND512(a, b, c, d);
            a = SIPHASH_XOR512(a, word);
        }
        c = SIPHASH_XOR512(c, _mm512_set1_epi64(0xff));
        SIPHASH_ROUND512(a, b, c, d);
        SIPHASH_ROUND512(a, b, c, d);
        SIPHASH_ROUND512(a, b, c, d);
        _mm512_storeu_si512(hashes + i, SIPHASH_XOR512(SIPHASH_XOR512(a, b), SIPHASH_XOR512(c, d)));
    }
}

/* NULL where this processor cannot run it. */
static siphash_kernel siphash_named(const char *name)
{
    __builtin_cpu_init();
    if (strcmp(name, "avx2") == 0)
        return __builtin_cpu_supports("avx2") ? siphash_avx2 : NULL;
    if (strcmp(name, "avx512") == 0)
        return __builtin_cpu_supports("avx512f") ? siphash_avx512 : NULL;
    return siphash_scalar;
}
#else
static siphash_kernel siphash_named(const char *name) { return name[0] == 'a' ? NULL : siphash_scalar; }
#endif

#endif
