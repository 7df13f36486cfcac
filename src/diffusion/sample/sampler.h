/* sampler.h - from noise to a latent, one sigma after the other.
 *
 * One loop serves every sampler; a sampler is the function that takes one step. Semantics, order of noise draws
 * included, are those of k-diffusion and ComfyUI, so that seeds give the same picture (docs/samplers.md). All that a
 * run knows between two steps is in sampler_state: storing it and going on from it later gives bit-identical results.
 */
#ifndef MYSTI_DIFFUSION_SAMPLE_SAMPLER_H
#define MYSTI_DIFFUSION_SAMPLE_SAMPLER_H

#include "base/err.h"
#include "diffusion/sample/brownian.h"
#include "diffusion/sample/rng.h"
#include "diffusion/sample/schedule.h"

#include <stddef.h>

enum { SAMPLER_PAST_MAX = 4 };

typedef struct sampler_state {
    size_t n;                      /* values in a latent */
    float *x;                      /* [n] the noisy latent; owned */
    float *denoised;               /* [n] the model's estimate of the clean latent at the last step; owned */
    float *past[SAMPLER_PAST_MAX]; /* [n] each: what multistep samplers know of earlier steps, newest first; owned */
    int keeps;                     /* how many of `past` there are */
    int step;                      /* finished steps */
    uint32_t call;                 /* the next call of the noise generator */

    /* These hold nothing between steps. */
    float sigma;    /* the noise level of x when the step begins: the schedule's, raised by churn */
    float *scratch; /* [2 n]; owned */
} sampler_state;

/* Allocates for latents of n values and what the sampler keeps; all zero, step 0, call 1: call 0 makes the initial
 * noise. */
void sampler_state_init(sampler_state *s, size_t n, int keeps);
void sampler_state_free(sampler_state *s);

/* What a run is made with. Everything is borrowed. */
typedef struct sampler_run {
    const float *sigmas; /* [steps + 1], falling; sigmas[steps] is 0 */
    int steps;
    const sigma_table *table;
    rng *noise;
    uint64_t tree_seed; /* of the Brownian tree: the picture's, whatever the seed of `noise` */

    float eta;     /* for samplers that take it: how much of each step's noise is drawn anew; 1 is an ancestral step */
    float s_noise; /* all noise that is drawn in steps is multiplied by it; 1 is usual */

    /* Karras et al. 2022, algorithm 2: before a step whose sigma lies within churn_min .. churn_max, noise is added
     * until sigma is min(churn / steps, sqrt(2) - 1) higher. churn 0: never; churn_max 0: no upper limit. */
    float churn, churn_min, churn_max;

    /* denoised: [n], the model's estimate of the clean part of x: [n] at this sigma. */
    bool (*denoise)(void *ctx, const float *x, float sigma, float *denoised, err *e);
    void *ctx;

    /* [n] where `denoise` leaves its estimate without guidance, for samplers that need it; else NULL. */
    const float *unguided;

    /* After every step; false ends the run. May be NULL. */
    bool (*step_done)(void *step_ctx, const sampler_state *s, err *e);
    void *step_ctx;

    brownian *tree; /* set by sampler_sample() for the samplers that need one */
} sampler_run;

enum sampler_traits {
    SAMPLER_ETA = 1,       /* takes eta */
    SAMPLER_CHURN = 2,     /* takes churn */
    SAMPLER_TWICE = 4,     /* two calls of the network a step, as A1111 counts them for prompt editing */
    SAMPLER_DISCARDS = 8,  /* the schedule is made for one step more, and its last sigma but one left out */
    SAMPLER_TREE = 16,     /* draws its noise from a Brownian tree */
    SAMPLER_UNGUIDED = 32, /* CFG++: needs the estimate without guidance as well */
};

typedef struct sampler {
    const char *name;
    const char *label;    /* A1111's name, or what it would be there */
    const char *schedule; /* the one that is taken with it when none is asked for: A1111's choice */
    unsigned traits;
    int keeps;
    float eta; /* its default */
    bool (*step)(const sampler_run *run, sampler_state *s, err *e);
} sampler;

extern const char *const sampler_names[]; /* NULL at the end */

/* By our name, that of k-diffusion, ComfyUI or stable-diffusion.cpp ("dpmpp_2m", "dpm++2m") or A1111's ("DPM++ 2M"),
 * case and separators ignored. A schedule behind the name ("DPM++ 2M Karras") goes to *implied, else the sampler's own;
 * `implied` may be NULL. NULL when unknown. */
const sampler *sampler_find(const char *name, const schedule **implied);

enum { SAMPLER_NAME_MAX = 64 };

/* For a name that is none: the nearest that is one, a sampler's own or A1111's with a schedule ("DPM++ 2M Karras").
 * False when none is close. */
bool sampler_nearest(const char *name, char out[SAMPLER_NAME_MAX]);

/* sigmas: [steps + 1], of a whole run with this sampler; the last one is 0. */
void sampler_sigmas(const sampler *kind, const schedule *from, const sigma_table *t, int steps, float *sigmas);

/* Runs steps s->step .. run->steps - 1 over s->x. A model that gives values that are not finite is ERR_DEVICE. */
bool sampler_sample(const sampler *kind, const sampler_run *run, sampler_state *s, err *e);

#endif
