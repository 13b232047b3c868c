/* Bulk lookups in passes of plain loads: one computes and stores the places of all elements of a part, the next loads
 * from there.
 *
 * Owns: the passes of both families, whatever the width of the vectors.
 * Never: gathers, or branches on where an address's first arrays led.
 *
 * Included once for each width of vectors, which defines, and finds undefined again
 *     PASSES_TARGET               its function attribute
 *     PASSES_NAME(name)           the name with its prefix
 *     PASSES_VECTOR               LANES words
 *     PASSES_LANES                how many
 *     PASSES_PART, PASSES_CHUNK   addresses of a part, IPv4 and IPv6
 * and, with that prefix, read, write, signs, lower, right and load_all; root4, place4 and element4; word, root6, place6,
 * element6 and arrays (a bit for each lane that refers to one).
 */

/* n <= PART addresses, a multiple of LANES. */
PASSES_TARGET static inline void PASSES_NAME(part4)(const struct fib4 *fib, const uint32_t *addresses, uint32_t *values,
                                                    size_t n)
{
    uint32_t places[PASSES_PART], more = 0;
    for (size_t i = 0; i < n; i += PASSES_LANES) {
        PASSES_VECTOR e = PASSES_NAME(root4)(fib, addresses + i);
        PASSES_NAME(write)(values + i, e);
        PASSES_NAME(write)(places + i, PASSES_NAME(place4)(e, PASSES_NAME(lower)(PASSES_NAME(read)(addresses + i))));
    }
    for (size_t i = 0; i < n; i += PASSES_LANES) {
        PASSES_VECTOR loaded = PASSES_NAME(load_all)(fib->base, places + i);
        PASSES_VECTOR e = PASSES_NAME(element4)(PASSES_NAME(read)(values + i), loaded);
        more |= PASSES_NAME(signs)(e);
        PASSES_NAME(write)(values + i, e);
    }
    if (more)
        avx2_rest4(fib, addresses, values, n);
}

PASSES_TARGET static void PASSES_NAME(find4)(const struct fib4 *fib, const uint32_t *addresses, uint32_t *values, size_t n)
{
    while (n >= PASSES_LANES) {
        size_t part = n < PASSES_PART ? n & ~(size_t)(PASSES_LANES - 1) : PASSES_PART;
        PASSES_NAME(part4)(fib, addresses, values, part);
        addresses += part, values += part, n -= part;
    }
    find4_scalar(fib, addresses, values, n);
}

/* The next level of n entries: elements from `places`, and in their stead the places for the byte which begins `left`
 * bits from the end of `words`. A level is done for all before the next: the loads of one are independent, those of two
 * levels are not. Returns how many are in arrays still. */
PASSES_TARGET static inline size_t PASSES_NAME(level)(const struct fib6 *fib, const uint32_t *words, int left,
                                                      uint32_t *entries, uint32_t *places, size_t n)
{
    size_t n_more = 0;
    for (size_t i = 0; i < n; i += PASSES_LANES) {
        PASSES_VECTOR loaded = PASSES_NAME(load_all)(fib->base, places + i);
        PASSES_VECTOR e = PASSES_NAME(element6)(PASSES_NAME(read)(entries + i), loaded);
        n_more += (size_t)__builtin_popcount(PASSES_NAME(arrays)(e));
        PASSES_NAME(write)(entries + i, e);
        PASSES_NAME(write)(places + i, PASSES_NAME(place6)(e, PASSES_NAME(right)(PASSES_NAME(read)(words + i), left)));
    }
    return n_more;
}

PASSES_TARGET static inline void PASSES_NAME(fill_words)(const uint64_t *addresses, int w, uint32_t *words, size_t n)
{
    for (size_t i = 0; i < n; i += PASSES_LANES)
        PASSES_NAME(write)(words + i, PASSES_NAME(word)(addresses + 2 * i, w));
}

/* n <= CHUNK addresses, a multiple of LANES, from the root to values, blocks, or few arrays for the byte `depth`, which
 * is returned; each vector in the order of `word`. */
PASSES_TARGET static inline uint32_t PASSES_NAME(pass_down)(const struct fib6 *fib, const uint64_t *addresses,
                                                            uint32_t *entries, size_t n)
{
    uint32_t words[PASSES_CHUNK], places[PASSES_CHUNK], depth = 2;
    size_t n_more = 0;
    for (size_t i = 0; i < n; i += PASSES_LANES) {
        PASSES_VECTOR word = PASSES_NAME(word)(addresses + 2 * i, 0), e = PASSES_NAME(root6)(fib, addresses + 2 * i);
        n_more += (size_t)__builtin_popcount(PASSES_NAME(arrays)(e));
        PASSES_NAME(write)(words + i, word);
        PASSES_NAME(write)(entries + i, e);
        PASSES_NAME(write)(places + i, PASSES_NAME(place6)(e, PASSES_NAME(right)(word, 8)));
    }
    for (; depth < 16 && n_more > n / PASSES_FEW; depth++) {
        if ((depth + 1) % 4 == 0 && depth < 15)
            PASSES_NAME(fill_words)(addresses, (int)(depth + 1) / 4, words, n);
        n_more = PASSES_NAME(level)(fib, words, (int)(24 - (depth + 1) % 4 * 8), entries, places, n);
    }
    return depth;
}

#undef PASSES_TARGET
#undef PASSES_NAME
#undef PASSES_VECTOR
#undef PASSES_LANES
#undef PASSES_PART
#undef PASSES_CHUNK
