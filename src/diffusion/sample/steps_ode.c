/* steps_ode.c - along dx/dsigma = (x - denoised) / sigma: Euler, Heun, DPM2, linear multistep. */
#include "diffusion/sample/steps.h"

#include <math.h>

/* x follows the derivative to another sigma. */
static void follow(float *out, const sampler_state *s, double to) {
    const double share = to / (double)s->sigma;
    STEP_SUM(out, s->n, {share, s->x}, {1.0 - share, s->denoised});
}

/* Karras et al. 2022, algorithm 2 without correction; ancestral with eta. DDIM (Song et al. 2020, equation 16) is the
 * same step in this parameterisation. */
bool step_euler(const sampler_run *run, sampler_state *s, err *e) {
    (void)e;
    const ancestral a = step_ancestral((double)s->sigma, step_to(run, s), (double)run->eta);
    follow(s->x, s, a.down);
    step_add_noise(run, s, a.up);
    return true;
}

/* CFG++ (Chung et al. 2024): noise again along the direction without guidance. */
bool step_euler_cfg_pp(const sampler_run *run, sampler_state *s, err *e) {
    (void)e;
    const ancestral a = step_ancestral((double)s->sigma, step_to(run, s), (double)run->eta);
    const double share = a.down / (double)s->sigma;
    STEP_SUM(s->x, s->n, {share, s->x}, {-share, run->unguided}, {1.0, s->denoised});
    step_add_noise(run, s, a.up);
    return true;
}

/* Second order: takes the mean of the derivatives at both ends of the step. */
bool step_heun(const sampler_run *run, sampler_state *s, err *e) {
    const double from = (double)s->sigma, to = step_to(run, s), half = (to - from) / 2;
    if (!(to > 0.0)) return step_euler(run, s, e);
    float *ahead = s->scratch, *denoised = s->scratch + s->n;
    follow(ahead, s, to);
    if (!run->denoise(run->ctx, ahead, (float)to, denoised, e)) return false;
    STEP_SUM(s->x, s->n, {1.0 + half / from, s->x}, {-half / from, s->denoised}, {half / to, ahead},
             {-half / to, denoised});
    return true;
}

/* Second order: takes the derivative in the middle of the step, in log sigma. Ancestral with eta. */
bool step_dpm2(const sampler_run *run, sampler_state *s, err *e) {
    const double from = (double)s->sigma;
    const ancestral a = step_ancestral(from, step_to(run, s), (double)run->eta);
    if (!(a.down > 0.0)) return step_euler(run, s, e);
    const float mid = (float)sqrt(from * a.down);
    float *middle = s->scratch, *denoised = s->scratch + s->n;
    follow(middle, s, (double)mid);
    if (!run->denoise(run->ctx, middle, mid, denoised, e)) return false;
    const double way = (a.down - from) / (double)mid;
    STEP_SUM(s->x, s->n, {1.0, s->x}, {way, middle}, {-way, denoised});
    step_add_noise(run, s, a.up);
    return true;
}

/* ---- multistep: past[k] is the derivative k + 1 steps ago ---------------------------------------------------------
 */

/* The derivative into scratch; how many earlier ones there are, at most 3. */
static int derive(sampler_state *s) {
    const double inverse = 1.0 / (double)s->sigma;
    STEP_SUM(s->scratch, s->n, {inverse, s->x}, {-inverse, s->denoised});
    return s->step < s->keeps ? s->step : s->keeps;
}

static void advance(sampler_state *s, double now, const double *before, int count) {
    term terms[2 + SAMPLER_PAST_MAX] = {{1.0, s->x}, {now, s->scratch}};
    for (int k = 0; k < count; k++) terms[2 + k] = (term){before[k], s->past[k]};
    step_sum(s->x, s->n, terms, 2 + count);
    step_keep(s, s->keeps, s->scratch);
}

/* The integral over the step of the polynomial that is 1 at node j and 0 at the others; node k is the sigma k steps
 * ago. Two Gauss points are exact for the third degree. */
static double lagrange_integral(const float *sigma, int count, int j, double from, double to) {
    const double centre = (from + to) / 2, half = (to - from) / 2, offset = half / sqrt(3.0);
    double sum = 0.0;
    for (int p = -1; p <= 1; p += 2) {
        const double at = centre + p * offset;
        double product = 1.0;
        for (int k = 0; k < count; k++)
            if (k != j) product *= (at - (double)sigma[-k]) / ((double)sigma[-j] - (double)sigma[-k]);
        sum += product;
    }
    return sum * half;
}

/* Adams-Bashforth of up to fourth order with the steps' own lengths. */
bool step_lms(const sampler_run *run, sampler_state *s, err *e) {
    (void)e;
    const double from = step_from(run, s), to = step_to(run, s);
    const float *sigma = run->sigmas + s->step;
    const int earlier = derive(s);
    double weights[1 + SAMPLER_PAST_MAX];
    for (int j = 0; j <= earlier; j++) weights[j] = lagrange_integral(sigma, earlier + 1, j, from, to);
    advance(s, weights[0], weights + 1, earlier);
    return true;
}

/* Zhang and Chen 2022, "Fast sampling of diffusion models with exponential integrator": Adams-Bashforth as if all steps
 * had the same length. */
bool step_ipndm(const sampler_run *run, sampler_state *s, err *e) {
    static const double table[4][4] = {
        {1.0}, {3.0 / 2, -1.0 / 2}, {23.0 / 12, -16.0 / 12, 5.0 / 12}, {55.0 / 24, -59.0 / 24, 37.0 / 24, -9.0 / 24}};
    const double to = step_to(run, s), h = to - step_from(run, s);
    if (!(to > 0.0)) return step_euler(run, s, e);
    const int earlier = derive(s);
    double weights[4];
    for (int k = 0; k <= earlier; k++) weights[k] = h * table[earlier][k];
    advance(s, weights[0], weights + 1, earlier);
    return true;
}

/* With the steps' lengths. The third-order share divides only the first factor by 3 (h + h1): as in the authors' code
 * and ComfyUI's, whose pictures these are. h: this step and those before it. */
static void ipndm_v_weights(const double h[4], int earlier, double w[4]) {
    const double a = h[0] / h[1];
    w[0] = 1 + a / 2;
    w[1] = -a / 2;
    if (earlier < 2) return;
    const double b = h[1] / h[2], third = h[0] / (3 * (h[0] + h[1]));
    const double t = (1 - third * (h[0] * (h[0] + h[1])) / (h[1] * (h[1] + h[2]))) / 2;
    w[0] += t;
    w[1] -= (1 + b) * t;
    w[2] = t * b;
    if (earlier < 3) return;
    const double c = h[1] * (h[1] + h[2]) / (h[2] * (h[2] + h[3])), sum = h[0] + h[1] + h[2];
    const double inner = (1 - third) / 2 + (1 - h[0] / (2 * (h[0] + h[1]))) * h[0] / (6 * sum);
    const double u = inner * (h[0] * (h[0] + h[1]) * sum) / (h[1] * (h[1] + h[2]) * (h[1] + h[2] + h[3]));
    w[0] += u;
    w[1] -= (1 + b + c) * u;
    w[2] += (b + c * (1 + h[2] / h[3])) * u;
    w[3] = -u * c * b;
}

bool step_ipndm_v(const sampler_run *run, sampler_state *s, err *e) {
    const double to = step_to(run, s);
    const float *sigma = run->sigmas + s->step;
    if (!(to > 0.0)) return step_euler(run, s, e);
    const int earlier = derive(s);
    double h[4] = {to - (double)sigma[0]}, w[4] = {1.0};
    for (int k = 1; k <= earlier; k++) h[k] = (double)sigma[1 - k] - (double)sigma[-k];
    if (earlier) ipndm_v_weights(h, earlier, w);
    for (int k = 0; k <= earlier; k++) w[k] *= h[0];
    advance(s, w[0], w + 1, earlier);
    return true;
}
