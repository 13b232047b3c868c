/* Bulk lookups in portable C: the kernels every machine can run, and the reference for the others.
 *
 * Owns: one address after the other, for both families.
 * Never: reads past the n-th address.
 */
#ifndef FASTPATH_SIMD_LOOKUP_SCALAR_H
#define FASTPATH_SIMD_LOOKUP_SCALAR_H

#include "fastpath/simd/fib.h"

static void find4_scalar(const struct fib4 *fib, const uint32_t *addresses, uint32_t *values, size_t n)
{
    for (size_t i = 0; i < n; i++)
        values[i] = fib4_find(fib, addresses[i]);
}

static void find6_scalar(const struct fib6 *fib, const uint64_t *addresses, uint32_t *values, size_t n)
{
    for (size_t i = 0; i < n; i++)
        values[i] = fib6_find(fib, addresses[2 * i], addresses[2 * i + 1]);
}

#endif
