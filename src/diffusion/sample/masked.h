/* masked.h - inpainting with any model: outside of the mask the clean picture is known.
 *
 * Wraps a denoiser: wherever the mask is 0 its estimate is replaced by the initial picture's latents, at every noise
 * level, so that the sampler itself is not changed. AUTOMATIC1111's way with k-diffusion's samplers. */
#ifndef MYSTI_DIFFUSION_SAMPLE_MASKED_H
#define MYSTI_DIFFUSION_SAMPLE_MASKED_H

#include "base/err.h"

#include <stddef.h>

/* Borrows everything. */
typedef struct masked {
    const float *start; /* [planes, plane] latents to keep */
    const float *mask;  /* [plane] 1 where the picture is drawn anew, 0 where it is kept; the same for all planes */
    size_t plane, planes;

    bool (*denoise)(void *ctx, const float *x, float sigma, float *denoised, err *e);
    void *ctx;
} masked;

/* `ctx` is a masked: the form that sampler_run.denoise takes. */
bool masked_denoise(void *ctx, const float *x, float sigma, float *denoised, err *e);

/* x: [planes, plane]; mixed with `start` in the same way. */
void masked_mix(const masked *m, float *x);

#endif
