/* SipHash-1-3 over whole words: the keyed hash of tables that strangers fill.
 *
 * Owns: the rounds. One round a word and three to finish are what hash tables
 * use it with (Aumasson and Bernstein, "SipHash", 2012): nobody without the
 * key can aim at a bucket. The block with the length is left out: all inputs
 * under one key in one table have one length.
 * Never: is a message authentication code.
 */
#ifndef FASTPATH_SIPHASH_H
#define FASTPATH_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

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

#endif
