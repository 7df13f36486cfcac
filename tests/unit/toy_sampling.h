/* toy_sampling.h - a whole sampling run over the toy network of tools/ref/sample.py, for test_sampler and sample_dump.
 */
#ifndef MYSTI_TESTS_TOY_SAMPLING_H
#define MYSTI_TESTS_TOY_SAMPLING_H

#include "base/str.h"
#include "diffusion/sample/guidance.h"
#include "diffusion/sample/sampler.h"

#include <math.h>
#include <stdlib.h>

typedef struct toy_case {
    const char *sampler, *schedule;
    int steps;
    uint64_t seed;
    size_t n;
    const char *rng, *predicts;
    float cfg, eta;
} toy_case;

typedef struct toy {
    toy_case c;
    sigma_table table;
    guidance guide;
    rng noise;
    float *sigmas;
    const sampler *kind;
    sampler_run run;
    sampler_state state;
    int evaluations; /* of the network, both prompts counted */
} toy;

static void toy_network(const float *x, size_t n, float t, bool positive, float *out) {
    for (size_t i = 0; i < n; i++) {
        float mixed = 0.8f * x[i] + 0.2f * x[(i + 1) % n];
        out[i] = tanhf(mixed * (positive ? 0.9f : 0.7f) + t / 1000 - 0.5f) + (positive ? 0.1f : -0.05f);
    }
}

static bool toy_predict(void *ctx, const float *x, float t, float *positive, float *negative, err *e) {
    (void)e;
    toy *y = ctx;
    toy_network(x, y->c.n, t, true, positive);
    if (negative) toy_network(x, y->c.n, t, false, negative);
    y->evaluations += negative ? 2 : 1;
    return true;
}

static void toy_open(toy *y, const toy_case *c) {
    *y = (toy){.c = *c};
    rng_kind kind;
    if (!rng_kind_from_name(c->rng, &kind)) abort();
    rng_init(&y->noise, kind, c->seed, c->n);
    sigma_table_init(&y->table, 0.00085, 0.012);
    y->sigmas = mem_alloc((size_t)c->steps + 1, sizeof(float));
    schedule_sigmas(schedule_find(c->schedule), &y->table, c->steps, y->sigmas);
    y->guide = (guidance){.table = &y->table,
                          .predicts = str_eq(c->predicts, "v") ? PREDICT_V : PREDICT_EPS,
                          .scale = c->cfg,
                          .n = c->n,
                          .scratch = mem_alloc(3 * c->n, sizeof(float)),
                          .ctx = y,
                          .predict = toy_predict};
    y->kind = sampler_find(c->sampler, NULL);
    y->run = (sampler_run){.sigmas = y->sigmas,
                           .steps = c->steps,
                           .eta = c->eta,
                           .noise = &y->noise,
                           .ctx = &y->guide,
                           .denoise = guidance_denoise};
    sampler_state_init(&y->state, c->n);
    rng_normal(&y->noise, 0, y->state.x);
    for (size_t i = 0; i < c->n; i++) y->state.x[i] *= y->sigmas[0];
}

static void toy_close(toy *y) {
    free(y->sigmas);
    free(y->guide.scratch);
    sampler_state_free(&y->state);
}

#endif
