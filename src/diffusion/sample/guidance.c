#include "diffusion/sample/guidance.h"

#include <math.h>

/* denoised = skip * x + out * prediction(in * x), the preconditioning of k-diffusion's denoiser wrappers. */
typedef struct scaling {
    float skip, out, in;
} scaling;

static scaling scaling_at(prediction predicts, float sigma) {
    float variance = sigma * sigma + 1.0f;
    float in = 1.0f / sqrtf(variance);
    if (predicts == PREDICT_V) return (scaling){.skip = 1.0f / variance, .out = -sigma * in, .in = in};
    return (scaling){.skip = 1.0f, .out = -sigma, .in = in};
}

bool guidance_denoise(void *ctx, const float *x, float sigma, float *denoised, err *e) {
    const guidance *g = ctx;
    scaling c = scaling_at(g->predicts, sigma);
    float *in = g->scratch, *positive = in + g->n;
    float *negative = g->scale == 1.0f ? NULL : positive + g->n;
    for (size_t i = 0; i < g->n; i++) in[i] = c.in * x[i];
    if (!g->predict(g->ctx, in, sigma_to_timestep(g->table, sigma), positive, negative, e)) return false;
    for (size_t i = 0; i < g->n; i++) {
        float guided = negative ? negative[i] + g->scale * (positive[i] - negative[i]) : positive[i];
        denoised[i] = c.skip * x[i] + c.out * guided;
    }
    return true;
}
