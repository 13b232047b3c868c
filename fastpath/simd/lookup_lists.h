/* The second half of an IPv6 bulk lookup: from entries to values, by lists.
 *
 * Owns: the rounds over those addresses of a chunk whose entry is still a reference to a block.
 * Never: branches on the outcome of a search; whether an address needs another
 * round only moves the end of the next list. The loads of a round are independent and overlap.
 *
 * Included once for each instruction set, which defines, and finds undefined again
 *     LISTS_TARGET             its function attribute
 *     LISTS_NAME(name)         the name with its prefix
 *     LISTS_RANK(block, key)   position of the last key <= key
 */

enum { LISTS_NAME(CHUNK) = 1024 }; /* addresses of a chunk: what is kept for it stays in the nearest caches */

LISTS_TARGET static inline uint32_t LISTS_NAME(search)(const struct fib6 *fib, uint32_t entry, uint64_t high,
                                                       uint64_t low)
{
    const struct fib_block *block = fib_block_at(fib, entry);
    return block->entries[LISTS_RANK(block, fib_window_key(high, low, fib_window(entry)))];
}

/* A block, long before it is searched. */
LISTS_TARGET static inline void LISTS_NAME(prefetch)(const struct fib6 *fib, uint32_t entry)
{
    __builtin_prefetch(fib_block_at(fib, entry));
}

/* Rounds over the list until it is empty. Where blocks are `far`, each is asked for a round before it is searched. */
LISTS_TARGET static inline void LISTS_NAME(rounds)(const struct fib6 *fib, const uint64_t *addresses,
                                                   uint32_t *values, uint32_t *list, size_t n_list, int far)
{
    for (size_t k = 0; far && k < n_list; k++)
        LISTS_NAME(prefetch)(fib, values[list[k]]);
    while (n_list) {
        size_t again = 0;
        for (size_t k = 0; k < n_list; k++) {
            uint32_t i = list[k];
            uint32_t entry = LISTS_NAME(search)(fib, values[i], addresses[2 * i], addresses[2 * i + 1]);
            values[i] = entry;
            if (far)
                LISTS_NAME(prefetch)(fib, entry & (0u - (entry >> 31))); /* a value fetches line 0: no branch */
            list[again] = i;
            again += entry >> 31;
        }
        n_list = again;
    }
}

/* values[] of n <= CHUNK addresses hold entries; `list` names the n_list that are blocks. Where those are few, the
 * table is large, and its blocks are in no near cache. */
LISTS_TARGET static inline void LISTS_NAME(resolve)(const struct fib6 *fib, const uint64_t *addresses,
                                                    uint32_t *values, size_t n, uint32_t *list, size_t n_list)
{
    if (n_list < n / 4)
        LISTS_NAME(rounds)(fib, addresses, values, list, n_list, 1);
    else
        LISTS_NAME(rounds)(fib, addresses, values, list, n_list, 0);
}

#undef LISTS_TARGET
#undef LISTS_NAME
#undef LISTS_RANK
