/* The compiled forwarding tables: their layout, and the lookup of one address.
 *
 * Owns: what readers of a published table may rely on. The builder (table/fib*)
 * and the bulk kernels (simd/) both stand on this file.
 * Never: changes a table. A published table is immutable, all the way down.
 *
 * Shape. An address is read eight bits at a time. `top` answers for the first
 * eight; an entry is a value (0 = no route) or a reference to a node of 256
 * entries for the next eight bits. So a change copies one entry array a level,
 * and a version of the whole table hangs on one pointer.
 *
 * IPv4 nodes hold 16-bit entries (`narrow`: flag + 15 bits) until values or
 * nodes exceed 32,767, then 32-bit ones (`wide`). Exactly one pointer is set.
 *
 * IPv6 has, besides nodes, blocks: where few routes are left below an entry,
 * the next 32 bits (the block's window, from any multiple of eight bits on) are
 * cut into intervals; a block, one cache line, holds 8 interval starts and their
 * 8 entries. An entry of a block may refer to a further block: of the same
 * window (a second level) or of a later one (longer prefixes), down to /128.
 */
#ifndef FASTPATH_SIMD_FIB_H
#define FASTPATH_SIMD_FIB_H

#include <stddef.h>
#include <stdint.h>

#define FIB_REF 0x80000000u    /* entry is a reference, not a value */
#define FIB_BLOCK 0x40000000u  /* of references: to a block, not to a node */
#define FIB_INDEX 0x03ffffffu  /* of references: which one */
#define FIB_NARROW_REF 0x8000u /* the same flag of a 16-bit entry */
#define FIB_NARROW_INDEX 0x7fffu
#define FIB_FANOUT 256u
#define FIB_BLOCK_KEYS 8u

struct fib4 {
    const uint16_t *narrow; /* node i starts at i * 256; two bytes behind the last may be read */
    const uint32_t *wide;
    uint32_t top[FIB_FANOUT];
};

/* Unused keys are 0xffffffff and repeat the last entry, so that a rank of 8 is right too. */
struct fib_block {
    uint32_t keys[FIB_BLOCK_KEYS]; /* ascending; keys[0] <= every address that gets here */
    uint32_t entries[FIB_BLOCK_KEYS];
};

struct fib6 {
    const uint32_t *nodes;
    const struct fib_block *blocks;
    uint32_t top[FIB_FANOUT];
};

/* Bits 26..29 of a block reference: where its window starts, in bytes of the address. */
static inline uint32_t fib_window(uint32_t entry) { return (entry >> 26 & 15u) * 8u; }

/* The 32 bits of an address from bit `window` (0..120) on, zeroes behind its end. */
static inline uint32_t fib_window_key(uint64_t high, uint64_t low, uint32_t window)
{
    if (window == 0)
        return (uint32_t)(high >> 32);
    if (window < 64)
        return (uint32_t)((high << window | low >> (64 - window)) >> 32);
    return (uint32_t)(low << (window - 64) >> 32);
}

static inline uint32_t fib_byte(uint64_t high, uint64_t low, uint32_t depth)
{
    return (uint32_t)(depth < 8 ? high >> (56 - 8 * depth) : low >> (120 - 8 * depth)) & 255u;
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

static inline uint32_t fib4_find_narrow(const struct fib4 *fib, uint32_t entry, uint32_t address)
{
    uint32_t e = fib->narrow[(entry & FIB_INDEX) << 8 | (address >> 16 & 255u)];
    if (e & FIB_NARROW_REF) {
        e = fib->narrow[(e & FIB_NARROW_INDEX) << 8 | (address >> 8 & 255u)];
        if (e & FIB_NARROW_REF)
            e = fib->narrow[(e & FIB_NARROW_INDEX) << 8 | (address & 255u)];
    }
    return e;
}

static inline uint32_t fib4_find_wide(const struct fib4 *fib, uint32_t entry, uint32_t address)
{
    uint32_t e = fib->wide[(size_t)(entry & FIB_INDEX) << 8 | (address >> 16 & 255u)];
    if (e & FIB_REF) {
        e = fib->wide[(size_t)(e & FIB_INDEX) << 8 | (address >> 8 & 255u)];
        if (e & FIB_REF)
            e = fib->wide[(size_t)(e & FIB_INDEX) << 8 | (address & 255u)];
    }
    return e;
}

/* Value of the longest match for an address in host order, 0 when there is none. */
static inline uint32_t fib4_find(const struct fib4 *fib, uint32_t address)
{
    uint32_t entry = fib->top[address >> 24];
    if (!(entry & FIB_REF))
        return entry;
    return fib->narrow ? fib4_find_narrow(fib, entry, address) : fib4_find_wide(fib, entry, address);
}

/* Resolve a reference found at `depth` bytes (see fib6_find). Each turn goes to a node one byte
 * deeper, or to a block of the same or a later window; the builder makes no other references. */
static inline uint32_t fib6_follow(const struct fib6 *fib, uint32_t entry, uint32_t depth, uint64_t high,
                                   uint64_t low)
{
    while (entry & FIB_REF) {
        if (entry & FIB_BLOCK) {
            const struct fib_block *block = fib->blocks + (entry & FIB_INDEX);
            entry = block->entries[fib_block_rank(block, fib_window_key(high, low, fib_window(entry)))];
        } else {
            entry = fib->nodes[(size_t)(entry & FIB_INDEX) << 8 | fib_byte(high, low, depth)];
            depth++;
        }
    }
    return entry;
}

/* The same for an IPv6 address, its upper and lower 64 bits in host order. */
static inline uint32_t fib6_find(const struct fib6 *fib, uint64_t high, uint64_t low)
{
    return fib6_follow(fib, fib->top[high >> 56], 1, high, low);
}

#endif
