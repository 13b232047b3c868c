/* The compiled forwarding tables: their layout, and the lookup of one address.
 *
 * Owns: what readers of a published table may rely on. The builder (table/fib*)
 * and the bulk kernels (simd/) both stand on this file.
 * Never: changes a table. A published version is immutable, all the way down.
 *
 * Shape. `root` answers for the first 16 bits of an address; an entry is a value
 * (0 = no route) or a reference to a piece: 64 * 2^n bytes at a multiple of 64
 * from `base`. So a version of the whole table hangs on one pointer.
 *
 * IPv4 pieces are arrays. The reference says how wide an element is (1, 2 or 4
 * bytes, whatever its largest value needs) and how far the bits below the
 * entry's own are shifted right to index it, so that an array is no finer than
 * its longest prefix. Elements are values; only those of 4 bytes may refer to
 * one array more.
 *
 * IPv6 pieces are such arrays for the next eight bits, of which those of 256
 * elements of 4 bytes (nodes) may refer to further pieces, and blocks: where
 * few routes are left below an entry but not all end within the next eight bits, the next 32 bits (the
 * block's window, from any multiple of eight bits on, but not beyond bit 64) are cut into intervals; a
 * block, one cache line, holds 8 interval starts and their 8 entries. An entry of a block may refer to a
 * further block: of the same window (a second level) or of a later one (longer
 * prefixes), down to /128.
 */
#ifndef FASTPATH_SIMD_FIB_H
#define FASTPATH_SIMD_FIB_H

#include <stddef.h>
#include <stdint.h>

#define FIB_REF 0x80000000u /* entry is a reference, not a value */
#define FIB_ROOT 65536u     /* entries of the root: the first 16 bits */
#define FIB_LINE 64u        /* bytes in which pieces are measured */
#define FIB_FANOUT 256u     /* elements of an IPv6 array at most */
#define FIB_BLOCK_KEYS 8u

/* IPv4 references: bits 29..30 width, 6..28 offset in bytes, 0..3 shift. */
#define FIB4_WIDTH_AT 29
#define FIB4_OFFSET 0x1fffffc0u
#define FIB4_SHIFT 15u

/* IPv6 references: bit 30 block, 6..29 offset in bytes. Of a block: 0..3 window. Of an array: 3..4 width, 0..2 shift. */
#define FIB_BLOCK 0x40000000u
#define FIB6_OFFSET 0x3fffffc0u
#define FIB6_WINDOW 15u
#define FIB6_WIDTH_AT 3
#define FIB6_SHIFT 7u

/* Of both families three bytes behind a piece may be read; line 0 is there, and no piece. */
struct fib4 {
    const uint8_t *base;
    uint32_t root[FIB_ROOT];
};

struct fib6 {
    const uint8_t *base;
    uint32_t root[FIB_ROOT];
};

/* Unused keys are 0xffffffff and repeat the last entry, so that a rank of 8 is right too. */
struct fib_block {
    uint32_t keys[FIB_BLOCK_KEYS]; /* ascending; keys[0] <= every address that gets here */
    uint32_t entries[FIB_BLOCK_KEYS];
};

/* Element `slot` of an array whose elements have 2^width bytes. */
static inline uint32_t fib_element(const uint8_t *array, uint32_t width, uint32_t slot)
{
    switch (width) {
    case 0:
        return array[slot];
    case 1:
        return ((const uint16_t *)array)[slot];
    default:
        return ((const uint32_t *)array)[slot];
    }
}

/* -- IPv4 ------------------------------------------------------------------- */

/* Element `slot` of the array that `entry` refers to. */
static inline uint32_t fib4_element(const uint8_t *base, uint32_t entry, uint32_t slot)
{
    return fib_element(base + (entry & FIB4_OFFSET), entry >> FIB4_WIDTH_AT & 3u, slot);
}

/* The second array: `entry` stands in one that took all but the last `left` bits. */
static inline uint32_t fib4_rest(const uint8_t *base, uint32_t entry, uint32_t left, uint32_t address)
{
    return fib4_element(base, entry, (address & ((1u << left) - 1u)) >> (entry & FIB4_SHIFT));
}

/* Value of the longest match for an address in host order, 0 when there is none. */
static inline uint32_t fib4_find(const struct fib4 *fib, uint32_t address)
{
    uint32_t entry = fib->root[address >> 16], left = entry & FIB4_SHIFT;
    if (entry & FIB_REF) {
        entry = fib4_element(fib->base, entry, (address & 0xffffu) >> left);
        if (entry & FIB_REF)
            entry = fib4_rest(fib->base, entry, left, address);
    }
    return entry;
}

/* -- IPv6 ------------------------------------------------------------------- */

/* Where the window of a block reference starts. */
static inline uint32_t fib_window(uint32_t entry) { return (entry & FIB6_WINDOW) * 8u; }

/* The 32 bits of an address from bit `window` (16..120) on, or as many as its half has left, then zeroes. */
static inline uint32_t fib_window_key(uint64_t high, uint64_t low, uint32_t window)
{
    return (uint32_t)((window < 64 ? high : low) << (window & 63u) >> 32);
}

static inline uint32_t fib_byte(uint64_t high, uint64_t low, uint32_t depth)
{
    return (uint32_t)(depth < 8 ? high >> (56 - 8 * depth) : low >> (120 - 8 * depth)) & 255u;
}

/* What the array that `entry` refers to has for the next byte of an address. */
static inline uint32_t fib6_element(const struct fib6 *fib, uint32_t entry, uint32_t byte)
{
    return fib_element(fib->base + (entry & FIB6_OFFSET), entry >> FIB6_WIDTH_AT & 3u, byte >> (entry & FIB6_SHIFT));
}

static inline const struct fib_block *fib_block_at(const struct fib6 *fib, uint32_t entry)
{
    return (const struct fib_block *)(fib->base + (entry & FIB6_OFFSET));
}

/* Position of the last key <= `key`: three halvings without a branch. */
static inline uint32_t fib_block_rank(const struct fib_block *block, uint32_t key)
{
    const uint32_t *keys = block->keys;
    uint32_t rank = (uint32_t)(key >= keys[4]) * 4u;
    rank += (uint32_t)(key >= keys[rank + 2]) * 2u;
    rank += (uint32_t)(key >= keys[rank + 1]);
    return rank;
}

/* The longest match from `entry` on, which stands in an array for the byte before `depth`. Each turn goes to an array
 * one byte deeper, or to a block of the same or a later window; the builder makes no other references. */
static inline uint32_t fib6_follow(const struct fib6 *fib, uint32_t entry, uint32_t depth, uint64_t high, uint64_t low)
{
    while (entry & FIB_REF) {
        if (entry & FIB_BLOCK) {
            const struct fib_block *block = fib_block_at(fib, entry);
            entry = block->entries[fib_block_rank(block, fib_window_key(high, low, fib_window(entry)))];
        } else {
            entry = fib6_element(fib, entry, fib_byte(high, low, depth));
            depth++;
        }
    }
    return entry;
}

/* Value of the longest match for an IPv6 address, its upper and lower 64 bits in host order; 0 when there is none. */
static inline uint32_t fib6_find(const struct fib6 *fib, uint64_t high, uint64_t low)
{
    return fib6_follow(fib, fib->root[high >> 48], 2, high, low);
}

#endif
