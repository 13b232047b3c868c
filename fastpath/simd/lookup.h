/* The kernels this build has, and which of them this processor can run.
 *
 * Owns: one row for each instruction set and way of loading, widest last.
 * Never: decides; lookup.pyx measures and obeys the environment.
 */
#ifndef FASTPATH_SIMD_LOOKUP_H
#define FASTPATH_SIMD_LOOKUP_H

#include "fastpath/simd/lookup_scalar.h"

struct lookup_kernels {
    const char *name;
    /* values[i] = longest match of addresses[i], host order, 0 = none. */
    void (*find4)(const struct fib4 *fib, const uint32_t *addresses, uint32_t *values, size_t n);
    /* Two words an address, the upper half first, host order. */
    void (*find6)(const struct fib6 *fib, const uint64_t *addresses, uint32_t *values, size_t n);
};

static const struct lookup_kernels lookup_scalar = {"scalar", find4_scalar, find6_scalar};

#if defined(__x86_64__)
#include "fastpath/simd/lookup_avx2.h"
#include "fastpath/simd/lookup_avx512.h"
#include "fastpath/simd/lookup_avx512_loads.h"

static const struct lookup_kernels lookup_avx2 = {"avx2", avx2_find4, avx2_find6};
static const struct lookup_kernels lookup_avx512_loads = {"avx512-loads", avx512_loads_find4, avx512_loads_find6};
static const struct lookup_kernels lookup_avx512 = {"avx512", avx512_find4, avx512_find6};

/* The kernels of row `i`, NULL behind the last; *runs says whether this processor has the instructions. */
static const struct lookup_kernels *lookup_row(int i, int *runs)
{
    __builtin_cpu_init();
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt");
    int avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                 __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    const struct lookup_kernels *rows[] = {&lookup_scalar, &lookup_avx2, &lookup_avx512_loads, &lookup_avx512};
    const int has[] = {1, avx2, avx512, avx512};
    if (i >= 4)
        return NULL;
    *runs = has[i];
    return rows[i];
}
#else
static const struct lookup_kernels *lookup_row(int i, int *runs)
{
    *runs = 1;
    return i == 0 ? &lookup_scalar : NULL;
}
#endif

#endif
