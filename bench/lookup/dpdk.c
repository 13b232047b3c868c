/* DPDK's rte_lpm and rte_fib on the routes of a file, one core.
 *
 * usage: dpdk ROUTES EAL-OPTIONS...
 * ROUTES: uint32 n, then n of {address, length, hop}. Builds the tables once and prints
 * {"build_ms": ...}; rte_lpm only for up to LPM_ROUTES, since it searches its rules one
 * by one: minutes for a full table.
 * Then, for every line of standard input, the path of a file of keys (uint32 k, then
 * k addresses), prints one JSON object: nanoseconds of the median call with 4,096 keys.
 * All in host order.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <rte_eal.h>
#include <rte_fib.h>
#include <rte_lpm.h>

enum { BATCH = 4096, PASSES = 5, LPM_ROUTES = 400000 };

static uint32_t n_routes, n_keys, (*routes)[3], *keys;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void *read_array(FILE *file, uint32_t *n, size_t size)
{
    void *array = fread(n, 4, 1, file) == 1 ? malloc(*n * size) : NULL;
    if (!array || fread(array, size, *n, file) != *n)
        exit(2);
    return array;
}

typedef void (*lookup_t)(void *table, const uint32_t *some);

static struct {
    const char *name;
    void *table;
    lookup_t lookup;
} built[3];
static int n_built;

static void lookup_lpm(void *table, const uint32_t *some)
{
    static uint32_t hops[BATCH];
    rte_lpm_lookup_bulk(table, some, hops, BATCH);
}

static void lookup_fib(void *table, const uint32_t *some)
{
    static uint64_t hops[BATCH];
    rte_fib_lookup_bulk(table, (uint32_t *)some, hops, BATCH);
}

static void keep(const char *name, void *table, lookup_t lookup, uint64_t start)
{
    printf("%s\"%s\": %.0f", n_built ? ", " : "{\"build_ms\": {", name, (double)(now_ns() - start) / 1e6);
    built[n_built].name = name, built[n_built].table = table, built[n_built++].lookup = lookup;
}

static void build_lpm(void)
{
    struct rte_lpm_config config = {.max_rules = n_routes + 1, .number_tbl8s = 65536};
    uint64_t start = now_ns();
    struct rte_lpm *lpm = rte_lpm_create("lpm", SOCKET_ID_ANY, &config);
    if (!lpm)
        exit(3);
    for (uint32_t i = 0; i < n_routes; i++)
        if (routes[i][1] > 0 && rte_lpm_add(lpm, routes[i][0], (uint8_t)routes[i][1], routes[i][2]) < 0)
            exit(4);
    keep("rte_lpm", lpm, lookup_lpm, start);
}

static void build_fib(const char *name, enum rte_fib_lookup_type type)
{
    struct rte_fib_conf config = {.type = RTE_FIB_DIR24_8, .default_nh = 0, .max_routes = (int)n_routes + 1};
    config.dir24_8.nh_sz = RTE_FIB_DIR24_8_2B;
    config.dir24_8.num_tbl8 = 32767;
    uint64_t start = now_ns();
    struct rte_fib *fib = rte_fib_create(name, SOCKET_ID_ANY, &config);
    if (!fib)
        exit(5);
    for (uint32_t i = 0; i < n_routes; i++)
        if (rte_fib_add(fib, routes[i][0], (uint8_t)routes[i][1], routes[i][2]) < 0)
            exit(6);
    if (rte_fib_select_lookup(fib, type) == 0)
        keep(name, fib, lookup_fib, start);
}

static void report(int which)
{
    static uint64_t took[1 << 16];
    size_t n = 0;
    for (int pass = 0; pass < PASSES; pass++)
        for (uint32_t i = 0; i + BATCH <= n_keys && n < sizeof took / sizeof *took; i += BATCH, n++) {
            uint64_t start = now_ns();
            built[which].lookup(built[which].table, keys + i);
            took[n] = now_ns() - start;
        }
    qsort(took, n, sizeof *took, ascending);
    printf("%s\"%s\": %lu", which ? ", " : "{", built[which].name, (unsigned long)took[n / 2]);
}

int main(int argc, char **argv)
{
    char path[4096];
    FILE *file = argc > 1 ? fopen(argv[1], "rb") : NULL;
    if (!file)
        return 1;
    routes = read_array(file, &n_routes, sizeof *routes);
    fclose(file);
    argv[1] = argv[0];
    if (rte_eal_init(argc - 1, argv + 1) < 0)
        return 1;
    build_fib("rte_fib scalar", RTE_FIB_LOOKUP_DIR24_8_SCALAR_MACRO);
    build_fib("rte_fib avx512", RTE_FIB_LOOKUP_DIR24_8_VECTOR_AVX512);
    if (n_routes <= LPM_ROUTES)
        build_lpm();
    printf("}}\n");
    fflush(stdout);
    while (scanf("%4095s", path) == 1 && (file = fopen(path, "rb"))) {
        keys = read_array(file, &n_keys, sizeof *keys);
        fclose(file);
        for (int which = 0; which < n_built; which++)
            report(which);
        printf("}\n");
        fflush(stdout);
        free(keys);
    }
    return 0;
}
