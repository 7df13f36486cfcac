/* sample_dump.c - prints what src/diffusion/sample computes, for tools/ref/sample.py --check. */
#include "toy_sampling.h"

#include "diffusion/sample/start_noise.h"

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

/* KIND SEED N LOW HIGH FROM TO */
static int dump_tree(char **a) {
    brownian b;
    rng_kind kind;
    size_t n = strtoul(a[2], NULL, 10);
    if (!rng_kind_from_name(a[0], &kind)) return 1;
    float *out = mem_alloc(n, sizeof(float));
    brownian_open(&b, kind, strtoull(a[1], NULL, 10), n, strtof(a[3], NULL), strtof(a[4], NULL));
    brownian_noise(&b, strtof(a[5], NULL), strtof(a[6], NULL), out);
    print_values(out, n);
    brownian_close(&b);
    free(out);
    return 0;
}

/* SEED N PREDICTS CFG RESCALE THRESHOLD LIMIT SIGMA: one denoised latent from noise at sigma, and the unguided one. */
static int dump_guide(char **a) {
    toy_case c = {"euler_cfg_pp",
                  "karras",
                  1,
                  strtoull(a[0], NULL, 10),
                  strtoul(a[1], NULL, 10),
                  "cpu",
                  a[2],
                  strtof(a[3], NULL),
                  0,
                  1,
                  0};
    toy y;
    err e;
    const float sigma = strtof(a[7], NULL);
    toy_open(&y, &c);
    y.guide.rescale = strtof(a[4], NULL);
    y.guide.threshold = strtof(a[5], NULL);
    y.guide.limit = strtof(a[6], NULL);
    rng_normal(&y.noise, 0, y.state.x);
    for (size_t i = 0; i < c.n; i++) y.state.x[i] *= sigma;
    const bool ok = guidance_denoise(&y.guide, y.state.x, sigma, y.state.denoised, &e);
    if (ok) print_values(y.state.denoised, c.n);
    if (ok) print_values(y.unguided, c.n);
    toy_close(&y);
    return ok ? 0 : 1;
}

/* KIND SEED SUBSEED STRENGTH CHANNELS ROWS COLUMNS FROM_ROWS FROM_COLUMNS */
static int dump_start(char **a) {
    start_noise o = {.seed = strtoull(a[1], NULL, 10),
                     .subseed = strtoull(a[2], NULL, 10),
                     .strength = strtof(a[3], NULL),
                     .channels = atoi(a[4]),
                     .rows = atoi(a[5]),
                     .columns = atoi(a[6]),
                     .from_rows = atoi(a[7]),
                     .from_columns = atoi(a[8])};
    if (!rng_kind_from_name(a[0], &o.kind)) return 1;
    const size_t n = (size_t)(o.channels * o.rows * o.columns);
    float *out = mem_alloc(n, sizeof(float));
    start_noise_make(&o, out);
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

static int dump_sigmas(char **a) {
    sigma_table table;
    sigma_table_init(&table, 0.00085, 0.012);
    int steps = atoi(a[2]);
    float *sigmas = mem_alloc((size_t)steps + 1, sizeof(float));
    sampler_sigmas(sampler_find(a[0], NULL), schedule_find(a[1]), &table, steps, sigmas);
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
                  .eta = strtof(a[8], NULL),
                  .s_noise = strtof(a[9], NULL),
                  .churn = strtof(a[10], NULL)};
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
    if (argc == 10 && str_eq(argv[1], "guide")) return dump_guide(argv + 2);
    if (argc == 11 && str_eq(argv[1], "start")) return dump_start(argv + 2);
    if (argc == 9 && str_eq(argv[1], "tree")) return dump_tree(argv + 2);
    if (argc == 5 && str_eq(argv[1], "sigmas")) return dump_sigmas(argv + 2);
    if (argc == 4 && str_eq(argv[1], "schedule")) return dump_schedule(argv + 2);
    if (argc == 13 && str_eq(argv[1], "sample")) return dump_sample(argv + 2);
    return 2;
}
