#include "diffusion/sample/masked.h"

void masked_mix(const masked *m, float *x) {
    const size_t n = m->plane * m->planes;
    for (size_t i = 0; i < n; i++) {
        const float anew = m->mask[i % m->plane];
        x[i] = x[i] * anew + m->start[i] * (1.0f - anew);
    }
}

bool masked_denoise(void *ctx, const float *x, float sigma, float *denoised, err *e) {
    const masked *m = ctx;
    if (!m->denoise(m->ctx, x, sigma, denoised, e)) return false;
    masked_mix(m, denoised);
    return true;
}
