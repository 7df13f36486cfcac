/* steps.h - the samplers' steps and what they share. Private to sample/.
 *
 * A step finds x at s->sigma and the model's estimate of it in s->denoised, and takes x to run->sigmas[s->step + 1].
 * Coefficients and sums are computed in double: multistep methods take differences of like values. */
#ifndef MYSTI_DIFFUSION_SAMPLE_STEPS_H
#define MYSTI_DIFFUSION_SAMPLE_STEPS_H

#include "diffusion/sample/sampler.h"

typedef struct term {
    double weight;
    const float *values;
} term;

/* out: [n], the weighted sum; it may be one of the values. */
void step_sum(float *out, size_t n, const term *terms, int count);
#define STEP_SUM(out, n, ...)                                                                                          \
    step_sum(out, n, (const term[]){__VA_ARGS__}, (int)(sizeof((const term[]){__VA_ARGS__}) / sizeof(term)))

/* past[0] becomes `values`, of `count` that move back by one. */
void step_keep(sampler_state *s, int count, const float *values);

/* An ancestral step goes down below its end and back up by fresh noise (k-diffusion's get_ancestral_step). */
typedef struct ancestral {
    double down, up;
} ancestral;
ancestral step_ancestral(double from, double to, double eta);

/* x += amount * s_noise * fresh noise, into the first half of scratch. An amount of 0 draws nothing. */
void step_add_noise(const sampler_run *run, sampler_state *s, double amount);

/* The same with the tree's noise between two sigmas; target: [n], buffer: [n]. */
void step_add_tree_noise(const sampler_run *run, float from, float to, double amount, float *target, float *buffer,
                         size_t n);

static inline double step_from(const sampler_run *run, const sampler_state *s) {
    return (double)run->sigmas[s->step];
}

static inline double step_to(const sampler_run *run, const sampler_state *s) {
    return (double)run->sigmas[s->step + 1];
}

typedef bool sampler_step(const sampler_run *run, sampler_state *s, err *e);

/* steps_ode.c: along the probability flow's derivative */
sampler_step step_euler, step_heun, step_dpm2, step_lms, step_ipndm, step_ipndm_v, step_euler_cfg_pp;
/* steps_dpm.c: DPM-Solver++ */
sampler_step step_dpmpp_2s, step_dpmpp_sde, step_dpmpp_2m, step_dpmpp_2m_heun, step_dpmpp_2m_v2, step_dpmpp_3m,
    step_dpmpp_2m_cfg_pp, step_dpmpp_2s_cfg_pp;
/* steps_exp.c: other exponential integrators */
sampler_step step_res_multistep, step_res_multistep_cfg_pp, step_er_sde, step_unipc_bh1, step_unipc_bh2;
/* steps_distilled.c: for distilled models */
sampler_step step_lcm, step_tcd;

#endif
