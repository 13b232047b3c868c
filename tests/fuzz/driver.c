/* Calls one entry of tests/cy/probe_fuzz.pyx with inputs: from libFuzzer, or from a loop of its own.
 *
 * Owns: starting the interpreter once, so that the module can be imported; no
 * Python runs afterwards. Build with -DTARGET=fuzz_<name>.
 * With -DSTANDALONE there is no libFuzzer: the program mutates the files it is
 * given for as many seconds as its first argument says. It sees no coverage,
 * but gcc can build it.
 */
#include <Python.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

PyMODINIT_FUNC PyInit_probe_fuzz(void);
int TARGET(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    PyImport_AppendInittab("probe_fuzz", PyInit_probe_fuzz);
    Py_Initialize();
    if (!PyImport_ImportModule("probe_fuzz")) {
        PyErr_Print();
        abort();
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    return TARGET(data, size);
}

#ifdef STANDALONE
#define INPUT_MAX 4096

static uint64_t state = 88172645463325252u;

static uint32_t dice(uint32_t sides)
{
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (uint32_t)(state >> 32) % sides;
}

static size_t mutate(uint8_t *data, size_t size)
{
    static const uint8_t edges[] = {0, 1, 4, 5, 6, 8, 40, 43, 44, 58, 60, 127, 128, 254, 255};
    for (uint32_t i = dice(6); i > 0 && size > 0; i--) {
        uint32_t at = dice(dice(2) ? (uint32_t)size : size < 80 ? (uint32_t)size : 80);
        switch (dice(5)) {
        case 0: data[at] ^= (uint8_t)(1u << dice(8)); break;
        case 1: data[at] = edges[dice(sizeof edges)]; break;
        case 2: data[at] = (uint8_t)dice(256); break;
        case 3: size = dice((uint32_t)size) + 1; break;
        default:
            if (size + 8 <= INPUT_MAX) {
                memmove(data + at + 8, data + at, size - at);
                size += 8;
            }
        }
    }
    return size;
}

int main(int argc, char **argv)
{
    static uint8_t seeds[64][INPUT_MAX], input[INPUT_MAX];
    size_t sizes[64], n = 0;
    unsigned long long runs = 0;
    if (argc < 3)
        return fprintf(stderr, "usage: %s SECONDS FILE...\n", argv[0]), 2;
    LLVMFuzzerInitialize(&argc, &argv);
    for (int i = 2; i < argc && n < 64; i++) {
        FILE *file = fopen(argv[i], "rb");
        if (!file)
            return perror(argv[i]), 2;
        sizes[n] = fread(seeds[n], 1, INPUT_MAX, file);
        fclose(file);
        n++;
    }
    for (time_t end = time(NULL) + atoi(argv[1]); time(NULL) < end;) {
        for (int i = 0; i < 10000; i++, runs++) {
            uint32_t seed = dice((uint32_t)n);
            memcpy(input, seeds[seed], sizes[seed]);
            size_t size = mutate(input, sizes[seed]);
            uint8_t *block = malloc(size ? size : 1);
            memcpy(block, input, size);
            LLVMFuzzerTestOneInput(block, size);
            free(block);
        }
    }
    printf("%llu runs without a finding\n", runs);
    return 0;
}
#endif
