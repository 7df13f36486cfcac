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
    float cfg, eta; /* eta < 0: the sampler's own */
    float s_noise;  /* 0: 1 */
    float churn;
} toy_case;

typedef struct toy {
    toy_case c;
    sigma_table table;
    guidance guide;
    rng noise;
    float *sigmas, *unguided;
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

static bool toy_predict(void *ctx, const float *x, float t, const guidance_answers *out, err *e) {
    (void)e;
    toy *y = ctx;
    toy_network(x, y->c.n, t, true, out->positive);
    if (out->negative) toy_network(x, y->c.n, t, false, out->negative);
    y->evaluations += out->negative ? 2 : 1;
    return true;
}

static void toy_open(toy *y, const toy_case *c) {
    *y = (toy){.c = *c};
    rng_kind kind;
    if (!rng_kind_from_name(c->rng, &kind)) abort();
    rng_init(&y->noise, kind, c->seed, c->n);
    sigma_table_init(&y->table, 0.00085, 0.012);
    y->sigmas = mem_alloc((size_t)c->steps + 1, sizeof(float));
    y->kind = sampler_find(c->sampler, NULL);
    sampler_sigmas(y->kind, schedule_find(c->schedule), &y->table, c->steps, y->sigmas);
    y->unguided = mem_alloc(c->n, sizeof(float));
    y->guide = (guidance){.table = &y->table,
                          .predicts = str_eq(c->predicts, "v") ? PREDICT_V : PREDICT_EPS,
                          .scale = c->cfg,
                          .image_scale = 1,
                          .n = c->n,
                          .scratch = mem_alloc(4 * c->n, sizeof(float)),
                          .unguided = y->kind->traits & SAMPLER_UNGUIDED ? y->unguided : NULL,
                          .ctx = y,
                          .predict = toy_predict};
    y->run = (sampler_run){.sigmas = y->sigmas,
                           .steps = c->steps,
                           .table = &y->table,
                           .eta = c->eta < 0 ? y->kind->eta : c->eta,
                           .s_noise = c->s_noise > 0 ? c->s_noise : 1.0f,
                           .churn = c->churn,
                           .unguided = y->unguided,
                           .tree_seed = c->seed,
                           .noise = &y->noise,
                           .ctx = &y->guide,
                           .denoise = guidance_denoise};
    sampler_state_init(&y->state, c->n, y->kind->keeps);
    rng_normal(&y->noise, 0, y->state.x);
    for (size_t i = 0; i < c->n; i++) y->state.x[i] *= y->sigmas[0];
}

static void toy_close(toy *y) {
    free(y->sigmas);
    free(y->unguided);
    free(y->guide.scratch);
    sampler_state_free(&y->state);
}

#endif
