/* The Internet checksum (RFC 1071) over long runs of bytes.
 *
 * Owns: the kernels, and the choice between them, made once when a module is
 * loaded. Never: knows a protocol, complements or stores a checksum.
 * Invariant: every kernel returns the same number for the same bytes. A sum
 * of 64-bit words taken modulo 2^16 - 1 is the sum of their 16-bit words
 * whatever the byte order, so kernels add wide words as memory holds them and
 * the result is byte-swapped once. The sum is 0 only if every byte is 0.
 */
#ifndef TOWPATH_SIMD_CHECKSUM_H
#define TOWPATH_SIMD_CHECKSUM_H

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#define TOWPATH_CHECKSUM_AVX2 1
#include <immintrin.h>
#endif

/* Below this many bytes the call of a vector kernel costs more than it saves. */
enum { CHECKSUM_VECTOR_MIN = 128 };

static inline uint32_t checksum_words_of_lanes(uint64_t sum)
{
    sum = (sum & 0xffffffffu) + (sum >> 32);
    sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return __builtin_bswap16((uint16_t)sum);
#else
    return (uint32_t)sum;
#endif
}

/* The carries of the 64-bit additions gather in the upper half, where each
 * counts 1, as 2^64 is 1 modulo 2^16 - 1. */
static inline uint64_t checksum_lanes_scalar(uint64_t lanes, const uint8_t *p, uint32_t n)
{
    unsigned __int128 sum = lanes;
    uint64_t word;

    for (; n >= 8; p += 8, n -= 8) {
        memcpy(&word, p, 8);
        sum += word;
    }
    if (n & 4) {
        uint32_t half;
        memcpy(&half, p, 4);
        sum += half;
        p += 4;
    }
    if (n & 3) {
        uint8_t rest[4] = {0, 0, 0, 0};
        uint32_t half;
        memcpy(rest, p, n & 3);
        memcpy(&half, rest, 4);
        sum += half;
    }
    word = (uint64_t)sum;
    return (word & 0xffffffffu) + (word >> 32) + (uint64_t)(sum >> 64);
}

static inline uint32_t checksum_words_scalar(const uint8_t *p, uint32_t n)
{
    return checksum_words_of_lanes(checksum_lanes_scalar(0, p, n));
}

#ifdef TOWPATH_CHECKSUM_AVX2

__attribute__((target("avx2")))
static uint32_t checksum_words_avx2(const uint8_t *p, uint32_t n)
{
    const __m256i half = _mm256_set1_epi64x(0xffffffff);
    __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
    uint64_t lanes[4];

    for (; n >= 64; p += 64, n -= 64) {
        __m256i x = _mm256_loadu_si256((const __m256i *)p);
        __m256i y = _mm256_loadu_si256((const __m256i *)(p + 32));
        a = _mm256_add_epi64(a, _mm256_and_si256(x, half));
        b = _mm256_add_epi64(b, _mm256_srli_epi64(x, 32));
        c = _mm256_add_epi64(c, _mm256_and_si256(y, half));
        d = _mm256_add_epi64(d, _mm256_srli_epi64(y, 32));
    }
    if (n >= 32) {
        __m256i x = _mm256_loadu_si256((const __m256i *)p);
        a = _mm256_add_epi64(a, _mm256_and_si256(x, half));
        b = _mm256_add_epi64(b, _mm256_srli_epi64(x, 32));
        p += 32;
        n -= 32;
    }
    a = _mm256_add_epi64(_mm256_add_epi64(a, b), _mm256_add_epi64(c, d));
    _mm256_storeu_si256((__m256i *)lanes, a);
    return checksum_words_of_lanes(
        checksum_lanes_scalar(lanes[0] + lanes[1] + lanes[2] + lanes[3], p, n));
}

static int checksum_has_avx2;

__attribute__((constructor))
static void checksum_choose(void)
{
    __builtin_cpu_init();
    checksum_has_avx2 = __builtin_cpu_supports("avx2") != 0;
}

#else

enum { checksum_has_avx2 = 0 };

static inline uint32_t checksum_words_avx2(const uint8_t *p, uint32_t n)
{
    return checksum_words_scalar(p, n);
}

#endif

/* Sum of n bytes as big-endian 16-bit words, folded to 16 bits, not
 * complemented; an odd last byte counts as if a zero byte followed it. */
static inline uint32_t checksum_words(const uint8_t *p, uint32_t n)
{
    if (n >= CHECKSUM_VECTOR_MIN && checksum_has_avx2)
        return checksum_words_avx2(p, n);
    return checksum_words_scalar(p, n);
}

#endif
