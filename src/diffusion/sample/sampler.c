#include "diffusion/sample/sampler.h"

#include "base/str.h"
#include "diffusion/sample/steps.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void sampler_state_init(sampler_state *s, size_t n, int keeps) {
    *s = (sampler_state){.n = n, .keeps = keeps, .call = 1};
    s->x = mem_alloc(n, sizeof(float));
    s->denoised = mem_alloc(n, sizeof(float));
    s->scratch = mem_alloc(n, 2 * sizeof(float));
    for (int i = 0; i < keeps; i++) s->past[i] = mem_alloc(n, sizeof(float));
}

void sampler_state_free(sampler_state *s) {
    free(s->x);
    free(s->denoised);
    free(s->scratch);
    for (int i = 0; i < s->keeps; i++) free(s->past[i]);
    *s = (sampler_state){0};
}

void sampler_sigmas(const sampler *kind, const schedule *from, const sigma_table *t, int steps, float *sigmas) {
    if (!(kind->traits & SAMPLER_DISCARDS)) {
        schedule_sigmas(from, t, steps, sigmas);
        return;
    }
    float *longer = mem_alloc((size_t)steps + 2, sizeof(float));
    schedule_sigmas(from, t, steps + 1, longer);
    memcpy(sigmas, longer, (size_t)steps * sizeof(float));
    sigmas[steps] = 0.0f;
    free(longer);
}

/* The sigma of the step, after raising it. k-diffusion draws the noise of every step, also of those outside the range.
 */
static float churn(const sampler_run *run, sampler_state *s) {
    const float sigma = run->sigmas[s->step], top = run->churn_max > 0.0f ? run->churn_max : INFINITY;
    if (!(run->churn > 0.0f)) return sigma;
    const uint32_t call = s->call++;
    if (sigma < run->churn_min || sigma > top) return sigma;
    const double gamma = fmin((double)run->churn / run->steps, sqrt(2.0) - 1);
    const float raised = (float)(sigma * (1 + gamma));
    const double amount = sqrt((double)raised * raised - (double)sigma * sigma) * (double)run->s_noise;
    rng_normal(run->noise, call, s->scratch);
    for (size_t i = 0; i < s->n; i++) s->x[i] += (float)(amount * (double)s->scratch[i]);
    return raised;
}

static bool all_finite(const float *v, size_t n) {
    float sum = 0.0f; /* 0 * v is 0 for a finite v, and NaN for the rest */
    for (size_t i = 0; i < n; i++) sum += 0.0f * v[i];
    return sum == 0.0f;
}

static bool take_step(const sampler *kind, const sampler_run *run, sampler_state *s, err *e) {
    s->sigma = kind->traits & SAMPLER_CHURN ? churn(run, s) : run->sigmas[s->step];
    if (!run->denoise(run->ctx, s->x, s->sigma, s->denoised, e) || !kind->step(run, s, e)) return false;
    if (!all_finite(s->denoised, s->n) || !all_finite(s->x, s->n)) {
        return err_set(e, ERR_DEVICE, "step %d: the model gave values that are not finite", s->step + 1);
    }
    s->step++;
    return !run->step_done || run->step_done(run->step_ctx, s, e);
}

/* The tree spans the run's sigmas but the last. */
static void open_tree(sampler_run *run, brownian *tree, size_t n) {
    run->tree = tree;
    brownian_open(tree, run->noise->kind, run->tree_seed, n, run->sigmas[run->steps - 1], run->sigmas[0]);
}

bool sampler_sample(const sampler *kind, const sampler_run *run, sampler_state *s, err *e) {
    sampler_run own = *run;
    brownian tree = {0};
    if (!(kind->traits & SAMPLER_ETA)) own.eta = 0.0f;
    if (kind->traits & SAMPLER_TREE) open_tree(&own, &tree, s->n);
    bool ok = true;
    while (ok && s->step < run->steps) ok = take_step(kind, &own, s, e);
    brownian_close(&tree);
    return ok;
}
