/* steps_distilled.c - for models that were distilled to jump to the clean latent: LCM, TCD. */
#include "diffusion/sample/steps.h"

#include <math.h>

/* Luo et al. 2023, "Latent consistency models": jump, and noise the result anew. */
bool step_lcm(const sampler_run *run, sampler_state *s, err *e) {
    (void)e;
    STEP_SUM(s->x, s->n, {1.0, s->denoised});
    step_add_noise(run, s, step_to(run, s));
    return true;
}

/* The timestep whose sigma is nearest. */
static int nearest_timestep(const sigma_table *t, double sigma) {
    int low = 0, high = SIGMA_TABLE_STEPS - 1;
    if (sigma <= (double)t->sigma[0]) return 0;
    while (high - low > 1) {
        const int mid = (low + high) / 2;
        if ((double)t->sigma[mid] < sigma)
            low = mid;
        else
            high = mid;
    }
    return (double)t->sigma[high] - sigma < sigma - (double)t->sigma[low] ? high : low;
}

/* Zheng et al. 2024, "Trajectory consistency distillation": down to (1 - eta) of the next timestep, and back up by
 * noise. The last step ends at timestep 0. Alphas are those of x / sqrt(1 + sigma^2). */
bool step_tcd(const sampler_run *run, sampler_state *s, err *e) {
    (void)e;
    const double from = step_from(run, s), to = step_to(run, s);
    /* A float's eta must not turn a whole number into the one below it. */
    const int below = (int)floor((1.0 - (double)run->eta) * nearest_timestep(run->table, to) + 1e-4);
    const double sigma = (double)run->table->sigma[below], alpha = 1.0 / (1.0 + sigma * sigma);
    const double next = 1.0 / (1.0 + to * to);
    const bool noised = run->eta > 0.0f && to > 0.0;
    const double rise = noised ? next / alpha : 1.0; /* squared: what the noise leaves of the signal */
    const double clean = sqrt(alpha / next * rise), direction = sqrt((1.0 - alpha) / next * rise) / from;
    STEP_SUM(s->x, s->n, {direction, s->x}, {clean - direction, s->denoised});
    if (noised) step_add_noise(run, s, sqrt(fmax(0.0, 1.0 / next - 1.0 / alpha)));
    return true;
}
