/* steps_dpm.c - DPM-Solver++ (Lu et al. 2022): exponential integrators over lambda = -log sigma, of the estimate of the
 * clean latent. With eta they solve the reverse SDE. */
#include "diffusion/sample/steps.h"

#include <math.h>

/* The step to the clean latent is infinitely long: it takes the estimate as it is. */
static void finish(sampler_state *s, int keeps) {
    STEP_SUM(s->x, s->n, {1.0, s->denoised});
    if (keeps) step_keep(s, keeps, s->denoised);
}

/* lambda's way in the step that began `back` steps ago. */
static double length(const sampler_run *run, const sampler_state *s, int back) {
    const float *sigma = run->sigmas + s->step - back;
    return log((double)sigma[0] / (double)sigma[1]);
}

/* ---- singlestep -------------------------------------------------------------------------------------------------- */

/* Algorithm 1, second order: the estimate in the middle decides. Ancestral with eta. */
bool step_dpmpp_2s(const sampler_run *run, sampler_state *s, err *e) {
    const double from = step_from(run, s);
    const ancestral a = step_ancestral(from, step_to(run, s), (double)run->eta);
    if (!(a.down > 0.0)) return step_euler(run, s, e);
    const float mid = (float)sqrt(from * a.down);
    const double half = (double)mid / from, share = a.down / from;
    float *middle = s->scratch, *denoised = s->scratch + s->n;
    STEP_SUM(middle, s->n, {half, s->x}, {1.0 - half, s->denoised});
    if (!run->denoise(run->ctx, middle, mid, denoised, e)) return false;
    STEP_SUM(s->x, s->n, {share, s->x}, {1.0 - share, denoised});
    step_add_noise(run, s, a.up);
    return true;
}

/* CFG++ as ComfyUI has it: the way is that without guidance, and what guidance adds is added whole. */
bool step_dpmpp_2s_cfg_pp(const sampler_run *run, sampler_state *s, err *e) {
    const double from = step_from(run, s);
    const ancestral a = step_ancestral(from, step_to(run, s), (double)run->eta);
    const double share = a.down / from;
    float *middle = s->scratch, *guided = s->scratch + s->n;
    if (!(a.down > 0.0)) {
        finish(s, 0);
        return true;
    }
    const float mid = (float)sqrt(from * a.down);
    const double half = (double)mid / from;
    STEP_SUM(middle, s->n, {half, s->x}, {1.0 - half, run->unguided});
    STEP_SUM(s->x, s->n, {share, s->x}, {1.0, s->denoised}, {-1.0, run->unguided});
    if (!run->denoise(run->ctx, middle, mid, guided, e)) return false;
    STEP_SUM(s->x, s->n, {1.0, s->x}, {1.0 - share, run->unguided});
    step_add_noise(run, s, a.up);
    return true;
}

/* The stochastic one of second order: an ancestral step to the middle, and one from the beginning by the estimate
 * there. */
bool step_dpmpp_sde(const sampler_run *run, sampler_state *s, err *e) {
    const double from = step_from(run, s), to = step_to(run, s);
    float *middle = s->scratch, *spare = s->scratch + s->n;
    if (!(to > 0.0)) {
        finish(s, 0);
        return true;
    }
    const float mid = (float)sqrt(from * to);
    ancestral a = step_ancestral(from, (double)mid, (double)run->eta);
    double share = a.down / from;
    STEP_SUM(middle, s->n, {share, s->x}, {1.0 - share, s->denoised});
    step_add_tree_noise(run, run->sigmas[s->step], mid, a.up, middle, spare, s->n);
    if (!run->denoise(run->ctx, middle, mid, spare, e)) return false;
    a = step_ancestral(from, to, (double)run->eta);
    share = a.down / from;
    STEP_SUM(s->x, s->n, {share, s->x}, {1.0 - share, spare});
    step_add_tree_noise(run, run->sigmas[s->step], run->sigmas[s->step + 1], a.up, s->x, spare, s->n);
    return true;
}

/* ---- multistep: past[k] is the estimate k + 1 steps ago ------------------------------------------------------------
 */

/* The noise of a multistep step, drawn from the tree; kept estimate first, for the noise takes the scratch. */
static void end_multistep(const sampler_run *run, sampler_state *s) {
    const double h = length(run, s, 0), eta = (double)run->eta;
    step_keep(s, s->keeps, s->denoised);
    if (!(eta > 0.0)) return;
    const double amount = step_to(run, s) * sqrt(-expm1(-2 * h * eta));
    step_add_tree_noise(run, run->sigmas[s->step], run->sigmas[s->step + 1], amount, s->x, s->scratch, s->n);
}

static void multistep_2(const sampler_run *run, sampler_state *s, bool heun) {
    const double eta = (double)run->eta;
    if (!(step_to(run, s) > 0.0)) {
        finish(s, s->keeps);
        return;
    }
    const double h = length(run, s, 0), stretched = h * (eta + 1), share = -expm1(-stretched);
    const double keep = step_to(run, s) / step_from(run, s) * exp(-h * eta);
    if (s->step == 0) {
        STEP_SUM(s->x, s->n, {keep, s->x}, {share, s->denoised});
    } else {
        const double r = length(run, s, 1) / h;
        const double more = (heun ? 1.0 - share / stretched : share / 2) / r;
        STEP_SUM(s->x, s->n, {keep, s->x}, {share + more, s->denoised}, {-more, s->past[0]});
    }
    end_multistep(run, s);
}

/* Algorithm 2, "midpoint"; the SDE form with eta. */
bool step_dpmpp_2m(const sampler_run *run, sampler_state *s, err *e) {
    (void)e;
    multistep_2(run, s, false);
    return true;
}

bool step_dpmpp_2m_heun(const sampler_run *run, sampler_state *s, err *e) {
    (void)e;
    multistep_2(run, s, true);
    return true;
}

/* stable-diffusion.cpp's variant: the mean of both steps' lengths in place of this one's. */
bool step_dpmpp_2m_v2(const sampler_run *run, sampler_state *s, err *e) {
    (void)e;
    const double to = step_to(run, s);
    if (!(to > 0.0) || s->step == 0) {
        const double share = to / step_from(run, s);
        STEP_SUM(s->x, s->n, {share, s->x}, {1.0 - share, s->denoised});
    } else {
        const double h = length(run, s, 0), last = length(run, s, 1);
        const double more = fmin(h, last) / (2 * fmax(h, last)), share = -expm1(-(h + last) / 2);
        STEP_SUM(s->x, s->n, {to / step_from(run, s), s->x}, {share * (1 + more), s->denoised},
                 {-share * more, s->past[0]});
    }
    step_keep(s, s->keeps, s->denoised);
    return true;
}

/* Third order. d1 and d2: the estimate's first and second divided differences, from it and two earlier ones. */
bool step_dpmpp_3m(const sampler_run *run, sampler_state *s, err *e) {
    (void)e;
    const double eta = (double)run->eta;
    if (!(step_to(run, s) > 0.0)) {
        finish(s, s->keeps);
        return true;
    }
    const double h = length(run, s, 0), stretched = h * (eta + 1), share = -expm1(-stretched);
    const double keep = step_to(run, s) / step_from(run, s) * exp(-h * eta);
    const double phi2 = 1.0 - share / stretched, phi3 = phi2 / stretched - 0.5;
    const double r0 = s->step > 0 ? length(run, s, 1) / h : 1, r1 = s->step > 1 ? length(run, s, 2) / h : 1;
    if (s->step == 0) {
        STEP_SUM(s->x, s->n, {keep, s->x}, {share, s->denoised});
    } else if (s->step == 1) {
        STEP_SUM(s->x, s->n, {keep, s->x}, {share + phi2 / r0, s->denoised}, {-phi2 / r0, s->past[0]});
    } else {
        const double first = phi2 * (1 + r0 / (r0 + r1)) - phi3 / (r0 + r1); /* of (now - last) / r0 */
        const double second = phi3 / (r0 + r1) - phi2 * r0 / (r0 + r1);      /* of (last - the one before) / r1 */
        STEP_SUM(s->x, s->n, {keep, s->x}, {share + first / r0, s->denoised}, {second / r1 - first / r0, s->past[0]},
                 {-second / r1, s->past[1]});
    }
    end_multistep(run, s);
    return true;
}

/* CFG++ as ComfyUI has it; past[0] is the last estimate without guidance. */
bool step_dpmpp_2m_cfg_pp(const sampler_run *run, sampler_state *s, err *e) {
    (void)e;
    const double share = step_to(run, s) / step_from(run, s); /* exp(-h) */
    double more = 0.0;
    if (s->step > 0 && share > 0.0) more = (1.0 - share) * length(run, s, 0) / (2 * length(run, s, 1));
    STEP_SUM(s->x, s->n, {share, s->x}, {1.0 + more, s->denoised}, {-share, run->unguided}, {-more, s->past[0]});
    step_keep(s, s->keeps, run->unguided);
    return true;
}
