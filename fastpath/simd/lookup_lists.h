/* An IPv6 bulk lookup in rounds over lists.
 *
 * Owns: the lists of those addresses of a chunk whose entry is still a reference:
 * to a node, or to a block.
 * Never: branches on the outcome of a step; whether an address needs another round
 * only moves the end of the next list. The loads of a round are independent and overlap.
 *
 * Included once for each instruction set, which defines
 *     LISTS_TARGET             its function attribute
 *     LISTS_NAME(name)         the name with its suffix
 *     LISTS_RANK(block, key)   position of the last key <= key
 */

enum { LISTS_NAME(CHUNK) = 256 }; /* addresses of a chunk: entries, lists and keys stay in the L1 cache */

struct LISTS_NAME(lists) {
    size_t n_nodes, n_blocks;
    uint16_t nodes[LISTS_NAME(CHUNK)], blocks[LISTS_NAME(CHUNK)];
};

/* Put address `i` on the list its new entry belongs to, and fetch what it refers to (a value: line 0). */
LISTS_TARGET static inline void LISTS_NAME(sort)(const struct fib6 *fib, struct LISTS_NAME(lists) *l, uint32_t *values,
                                                 size_t i, uint32_t entry)
{
    __builtin_prefetch(fib_node(fib, entry & (0u - (entry >> 31))));
    values[i] = entry;
    l->nodes[l->n_nodes] = l->blocks[l->n_blocks] = (uint16_t)i;
    l->n_nodes += entry >> 30 == 2;
    l->n_blocks += entry >> 30 == 3;
}

LISTS_TARGET static inline void LISTS_NAME(root)(const struct fib6 *fib, struct LISTS_NAME(lists) *l,
                                                 const uint64_t *addresses, uint32_t *values, size_t n)
{
    l->n_nodes = l->n_blocks = 0;
    for (size_t i = 0; i < n; i++)
        LISTS_NAME(sort)(fib, l, values, i, fib->root[addresses[2 * i] >> 48]);
}

/* One byte of all that are in a node: the same one for all, as nodes do not skip any. */
LISTS_TARGET static inline void LISTS_NAME(nodes)(const struct fib6 *fib, struct LISTS_NAME(lists) *l,
                                                  const uint64_t *addresses, uint32_t *values, uint32_t depth)
{
    size_t n = l->n_nodes;
    uint32_t half = depth / 8, shift = 56 - depth % 8 * 8;
    l->n_nodes = 0;
    for (size_t k = 0; k < n; k++) {
        uint32_t i = l->nodes[k];
        LISTS_NAME(sort)(fib, l, values, i, fib_node(fib, values[i])[addresses[2 * i + half] >> shift & 255u]);
    }
}

LISTS_TARGET static inline void LISTS_NAME(blocks)(const struct fib6 *fib, struct LISTS_NAME(lists) *l,
                                                   const uint64_t *addresses, uint32_t *values)
{
    size_t n = l->n_blocks;
    l->n_blocks = 0;
    for (size_t k = 0; k < n; k++) {
        uint32_t i = l->blocks[k], entry = values[i];
        uint32_t key = fib_window_key(addresses[2 * i], addresses[2 * i + 1], fib_window(entry));
        const struct fib_block *block = fib_block_at(fib, entry);
        LISTS_NAME(sort)(fib, l, values, i, block->entries[LISTS_RANK(block, key)]);
    }
}

LISTS_TARGET static void LISTS_NAME(find6)(const struct fib6 *fib, const uint64_t *addresses, uint32_t *values, size_t n)
{
    struct LISTS_NAME(lists) lists;
    while (n) {
        size_t part = n < LISTS_NAME(CHUNK) ? n : LISTS_NAME(CHUNK);
        LISTS_NAME(root)(fib, &lists, addresses, values, part);
        for (uint32_t depth = 2; lists.n_nodes; depth++)
            LISTS_NAME(nodes)(fib, &lists, addresses, values, depth);
        while (lists.n_blocks)
            LISTS_NAME(blocks)(fib, &lists, addresses, values);
        addresses += 2 * part, values += part, n -= part;
    }
}
