/* sample_dump.c - prints what src/diffusion/sample computes, for tools/ref/sample.py --check. */
#include "toy_sampling.h"

#include <stdio.h>

static void print_values(const float *v, size_t n) {
    for (size_t i = 0; i < n; i++) printf("%.9g\n", (double)v[i]);
}

static int dump_noise(char **a) {
    rng r;
    rng_kind kind;
    size_t n = strtoul(a[2], NULL, 10);
    if (!rng_kind_from_name(a[0], &kind)) return 1;
    float *out = mem_alloc(n, sizeof(float));
    rng_init(&r, kind, strtoull(a[1], NULL, 10), n);
    rng_normal(&r, (uint32_t)strtoul(a[3], NULL, 10), out);
    print_values(out, n);
    free(out);
    return 0;
}

static int dump_schedule(char **a) {
    sigma_table table;
    sigma_table_init(&table, 0.00085, 0.012);
    int steps = atoi(a[1]);
    float *sigmas = mem_alloc((size_t)steps + 1, sizeof(float));
    schedule_sigmas(schedule_find(a[0]), &table, steps, sigmas);
    print_values(sigmas, (size_t)steps + 1);
    free(sigmas);
    return 0;
}

static int dump_sample(char **a) {
    toy_case c = {.sampler = a[0],
                  .schedule = a[1],
                  .steps = atoi(a[2]),
                  .seed = strtoull(a[3], NULL, 10),
                  .n = strtoul(a[4], NULL, 10),
                  .rng = a[5],
                  .predicts = a[6],
                  .cfg = strtof(a[7], NULL),
                  .eta = strtof(a[8], NULL)};
    toy y;
    err e;
    toy_open(&y, &c);
    bool ok = sampler_sample(y.kind, &y.run, &y.state, &e);
    if (ok)
        print_values(y.state.x, c.n);
    else
        fprintf(stderr, "%s\n", e.msg);
    toy_close(&y);
    return ok ? 0 : 1;
}

int main(int argc, char **argv) {
    if (argc == 6 && str_eq(argv[1], "noise")) return dump_noise(argv + 2);
    if (argc == 4 && str_eq(argv[1], "schedule")) return dump_schedule(argv + 2);
    if (argc == 11 && str_eq(argv[1], "sample")) return dump_sample(argv + 2);
    return 2;
}
