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

/* What a network predicts, [n] each; NULL where it is not needed. */
typedef struct guidance_answers {
    float *positive;
    float *negative;
    float *bare; /* with the negative prompt and without the picture, of a model that edits one */
} guidance_answers;

/* Borrows everything. */
typedef struct guidance {
    const sigma_table *table;
    prediction predicts;
    float scale; /* 1: the positive prompt alone, at half the cost */
    float
        image_scale; /* models that edit a picture: Brooks et al., "InstructPix2Pix" (2023), equation 3; 1 for others */

    /* Kynkäänniemi et al., "Applying guidance in a limited interval" (2024): guided only where low < sigma <= high;
     * elsewhere as with scale 1. high 0: everywhere. guidance_interval() sets them. */
    float low, high;

    /* Lin et al., "Common diffusion noise schedules and sample steps are flawed" (2024), section 3.4: phi. How much of
     * the guided prediction's spread is brought back to the positive one's, 0 .. 1; of v, whatever the model predicts.
     */
    float rescale;

    /* Saharia et al., "Imagen" (2022), dynamic thresholding: values beyond the share `threshold` of all magnitudes are
     * cut, and the rest scaled down to `limit`, when they reach beyond it. 0: off. Imagen's limit is 1, for pixels. */
    float threshold, limit;

    size_t n;        /* values in a latent */
    float *scratch;  /* [4 n] */
    float *unguided; /* [n] receives what the negative prompt alone gives; NULL: not needed */
    void *ctx;

    /* The network: x [n], already scaled to unit variance; fills the answers that are not NULL. */
    bool (*predict)(void *ctx, const float *x, float timestep, const guidance_answers *out, err *e);
} guidance;

/* False when the positive prompt alone decides. */
bool guidance_needs_negative(float scale, float image_scale);

/* Sets the interval: of `steps` steps over sigmas [steps + 1], those that lie whole within start .. end, shares of the
 * run 0 .. 1. */
void guidance_interval(guidance *g, const float *sigmas, int steps, float start, float end);

/* denoised: [n], from x: [n] at noise level sigma. `ctx` is a guidance: the form that sampler_run.denoise takes. */
bool guidance_denoise(void *ctx, const float *x, float sigma, float *denoised, err *e);

#endif
