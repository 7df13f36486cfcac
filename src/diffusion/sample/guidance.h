/* guidance.h - from what a network predicts to a denoised latent: parameterisation and classifier-free guidance. */
#ifndef MYSTI_DIFFUSION_SAMPLE_GUIDANCE_H
#define MYSTI_DIFFUSION_SAMPLE_GUIDANCE_H

#include "base/err.h"
#include "diffusion/sample/schedule.h"

#include <stddef.h>

typedef enum prediction {
    PREDICT_EPS, /* the noise */
    PREDICT_V,   /* Salimans and Ho, "Progressive distillation" (2022): velocity */
} prediction;

/* Borrows everything. */
typedef struct guidance {
    const sigma_table *table;
    prediction predicts;
    float scale;    /* 1: the positive prompt alone, at half the cost */
    size_t n;       /* values in a latent */
    float *scratch; /* [3 n] */
    void *ctx;

    /* The network: x [n], already scaled to unit variance; positive [n] and negative [n] receive what it predicts with
     * either prompt; negative is NULL when it is not needed. */
    bool (*predict)(void *ctx, const float *x, float timestep, float *positive, float *negative, err *e);
} guidance;

/* denoised: [n], from x: [n] at noise level sigma. `ctx` is a guidance: the form that sampler_run.denoise takes. */
bool guidance_denoise(void *ctx, const float *x, float sigma, float *denoised, err *e);

#endif
