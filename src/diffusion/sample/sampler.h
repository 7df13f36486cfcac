/* sampler.h - from noise to a latent, one sigma after the other.
 *
 * One loop serves every sampler; a sampler is the function that takes one step. Semantics, order of noise draws
 * included, are those of k-diffusion, so that seeds give the same picture. All that a run knows between two steps is
 * in sampler_state: storing it and going on from it later gives bit-identical results. */
#ifndef MYSTI_DIFFUSION_SAMPLE_SAMPLER_H
#define MYSTI_DIFFUSION_SAMPLE_SAMPLER_H

#include "base/err.h"
#include "diffusion/sample/rng.h"
#include "diffusion/sample/schedule.h"

#include <stddef.h>

typedef struct sampler_state {
    size_t n;        /* values in a latent */
    float *x;        /* [n] the noisy latent; owned */
    float *denoised; /* [n] the model's estimate of the clean latent at the last step; owned */
    float *previous; /* [n] the estimate before that one, for multistep samplers; owned */
    float *scratch;  /* [2 n] holds nothing between steps; owned */
    int step;        /* finished steps */
    uint32_t call;   /* the next call of the noise generator; call 0 made the initial noise */
} sampler_state;

/* Allocates for latents of n values; x is zero, step 0, call 1. */
void sampler_state_init(sampler_state *s, size_t n);
void sampler_state_free(sampler_state *s);

/* What a run is made with. Everything is borrowed. */
typedef struct sampler_run {
    const float *sigmas; /* [steps + 1], falling; sigmas[steps] is 0 */
    int steps;
    float eta; /* ancestral samplers: share of each step's noise that is drawn anew, 0 .. 1 */
    rng *noise;

    /* denoised: [n], the model's estimate of the clean part of x: [n] at this sigma. */
    bool (*denoise)(void *ctx, const float *x, float sigma, float *denoised, err *e);
    void *ctx;

    /* After every step; false ends the run. May be NULL. */
    bool (*step_done)(void *step_ctx, const sampler_state *s, err *e);
    void *step_ctx;
} sampler_run;

typedef struct sampler {
    const char *name;
    const char *label;    /* A1111's name */
    const char *schedule; /* the one that A1111 takes with it when none is asked for */
    bool (*step)(const sampler_run *run, sampler_state *s, err *e);
} sampler;

extern const char *const sampler_names[]; /* NULL at the end */

/* By our name, k-diffusion's ("dpmpp_2m") or A1111's ("DPM++ 2M"), case and separators ignored. A schedule behind the
 * name ("DPM++ 2M Karras") goes to *implied, else the sampler's own; `implied` may be NULL. NULL when unknown. */
const sampler *sampler_find(const char *name, const schedule **implied);

/* Runs steps s->step .. run->steps - 1 over s->x. A model that gives values that are not finite is ERR_DEVICE. */
bool sampler_sample(const sampler *kind, const sampler_run *run, sampler_state *s, err *e);

#endif
