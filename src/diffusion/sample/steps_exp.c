/* steps_exp.c - other integrators of the estimate over lambda = -log sigma: RES, ER-SDE, UniPC. */
#include "diffusion/sample/steps.h"

#include <math.h>
#include <string.h>

/* ---- RES ----------------------------------------------------------------------------------------------------------
 */

/* Zhang et al. 2023, "Improved order analysis and design of exponential integrator for diffusion models sampling", the
 * multistep form. What weighs the estimate and the one before; `before` is 0 for a first-order step. */
typedef struct res_weights {
    double now, before;
} res_weights;

static res_weights res_weigh(const sampler_run *run, const sampler_state *s, double down) {
    const double from = step_from(run, s), h = log(from / down);
    const double earlier = (double)run->sigmas[s->step - 1];
    const double reached =
        step_ancestral(earlier, from, (double)run->eta).down; /* where that step went, without noise */
    const double c2 = log(reached / earlier) / h;
    const double phi1 = -expm1(-h) / h, phi2 = (1.0 - phi1) / h;
    const double before = phi2 / c2;
    return (res_weights){.now = h * (phi1 - before), .before = h * before};
}

bool step_res_multistep(const sampler_run *run, sampler_state *s, err *e) {
    (void)e;
    const double from = step_from(run, s);
    const ancestral a = step_ancestral(from, step_to(run, s), (double)run->eta);
    const double share = a.down / from;
    if (!(a.down > 0.0) || s->step == 0) {
        STEP_SUM(s->x, s->n, {share, s->x}, {1.0 - share, s->denoised});
    } else {
        const res_weights w = res_weigh(run, s, a.down);
        STEP_SUM(s->x, s->n, {share, s->x}, {w.now, s->denoised}, {w.before, s->past[0]});
    }
    step_keep(s, s->keeps, s->denoised);
    step_add_noise(run, s, a.up);
    return true;
}

/* CFG++ as ComfyUI has it; past[0] is the last estimate without guidance. */
bool step_res_multistep_cfg_pp(const sampler_run *run, sampler_state *s, err *e) {
    (void)e;
    const double from = step_from(run, s);
    const ancestral a = step_ancestral(from, step_to(run, s), (double)run->eta);
    const double share = a.down / from;
    if (!(a.down > 0.0) || s->step == 0) {
        STEP_SUM(s->x, s->n, {share, s->x}, {-share, run->unguided}, {1.0, s->denoised});
    } else {
        const res_weights w = res_weigh(run, s, a.down);
        STEP_SUM(s->x, s->n, {share, s->x}, {share, s->denoised}, {w.now - share, run->unguided},
                 {w.before, s->past[0]});
    }
    step_keep(s, s->keeps, run->unguided);
    step_add_noise(run, s, a.up);
    return true;
}

/* ---- ER-SDE --------------------------------------------------------------------------------------------------------
 */

/* Cui et al. 2023, "Elucidating the solution space of extended reverse-time SDE for diffusion models", the third-order
 * solver with its fifth noise scale. past[0] is the last estimate, past[1] its derivative. */
static double er_scale(double sigma) {
    return sigma * (exp(pow(sigma, 0.3)) + 10.0);
}

/* The integrals over the step of 1 / scale and (sigma - from) / scale, as the authors take them: sums over 200 points.
 */
static void er_integrals(double from, double to, double *plain, double *linear) {
    enum { POINTS = 200 };
    const double width = (from - to) / POINTS;
    *plain = *linear = 0.0;
    for (int i = 0; i < POINTS; i++) {
        const double at = to + i * width, inverse = 1.0 / er_scale(at);
        *plain += inverse * width;
        *linear += (at - from) * inverse * width;
    }
}

static void er_add_orders(const sampler_run *run, sampler_state *s, float *slope) {
    const float *sigma = run->sigmas + s->step;
    const double from = (double)sigma[0], to = (double)sigma[1], dt = to - from, scale = er_scale(to);
    double plain, linear;
    er_integrals(from, to, &plain, &linear);
    const double inverse = 1.0 / (from - (double)sigma[-1]);
    STEP_SUM(slope, s->n, {inverse, s->denoised}, {-inverse, s->past[0]});
    STEP_SUM(s->x, s->n, {1.0, s->x}, {dt + plain * scale, slope});
    if (s->step < 2) return;
    const double curve = (dt * dt / 2 + linear * scale) * 2 / (from - (double)sigma[-2]);
    STEP_SUM(s->x, s->n, {1.0, s->x}, {curve, slope}, {-curve, s->past[1]});
}

bool step_er_sde(const sampler_run *run, sampler_state *s, err *e) {
    (void)e;
    const double from = step_from(run, s), to = step_to(run, s);
    if (!(to > 0.0)) {
        STEP_SUM(s->x, s->n, {1.0, s->denoised});
        return true;
    }
    const double r = er_scale(to) / er_scale(from);
    STEP_SUM(s->x, s->n, {r, s->x}, {1.0 - r, s->denoised});
    if (s->step > 0) {
        float *slope = s->scratch;
        er_add_orders(run, s, slope);
        memcpy(s->past[1], slope, s->n * sizeof(float));
    }
    memcpy(s->past[0], s->denoised, s->n * sizeof(float));
    step_add_noise(run, s, sqrt(fmax(0.0, to * to - from * from * r * r)));
    return true;
}

/* ---- UniPC ---------------------------------------------------------------------------------------------------------
 */

/* Zhao et al. 2023, "UniPC: a unified predictor-corrector framework", in its data-predicting form, as ComfyUI runs it:
 * order 3, lower at both ends, to sigma 0.001 in place of 0. past[0 .. 2] are estimates, past[3] is x where the last
 * step began, after its correction. */
enum { UNIPC_ORDER = 3, UNIPC_BASE = 3 };
#define UNIPC_END 0.001

static double unipc_sigma(const sampler_run *run, int at) {
    return at == run->steps ? UNIPC_END : (double)run->sigmas[at];
}

/* The order of the step that arrives at sigma number `at`. */
static int unipc_order(const sampler_run *run, int at) {
    int most = run->steps - 1 < UNIPC_ORDER ? run->steps - 1 : UNIPC_ORDER;
    if (most < 1) most = 1;
    const int left = run->steps + 1 - at;
    if (at < most) return at;
    return most < left ? most : left;
}

/* Solves the first `count` equations sum_k r[k]^i w[k] = b[i]: by Lagrange's basis polynomials, written out. */
static void solve_vandermonde(const double *r, const double *b, int count, double *w) {
    for (int k = 0; k < count; k++) {
        double poly[UNIPC_ORDER] = {1.0}, scale = 1.0;
        int degree = 0;
        for (int j = 0; j < count; j++) {
            if (j == k) continue;
            degree++;
            for (int i = degree; i > 0; i--) poly[i] = poly[i - 1] - (i < degree ? r[j] * poly[i] : 0.0);
            poly[0] *= -r[j];
            scale *= r[k] - r[j];
        }
        w[k] = 0.0;
        for (int i = 0; i < count; i++) w[k] += poly[i] / scale * b[i];
    }
}

/* Of the step from sigma number `at` - 1: what the predictor and the corrector take. */
typedef struct unipc_step {
    double share, decay;   /* of x; and 1 - share */
    double size;           /* -B(h) */
    double r[UNIPC_ORDER]; /* earlier estimates' places, in steps; the last one is the step's end, 1 */
    double b[UNIPC_ORDER]; /* right-hand sides */
    int order;
} unipc_step;

static unipc_step unipc_prepare(const sampler_run *run, int at, bool bh2) {
    const double from = unipc_sigma(run, at - 1), to = unipc_sigma(run, at), h = log(from / to);
    unipc_step u = {.order = unipc_order(run, at), .share = to / from, .decay = -expm1(-h)};
    u.size = bh2 ? u.decay : h;
    for (int k = 1; k < u.order; k++) u.r[k - 1] = log(from / unipc_sigma(run, at - 1 - k)) / h;
    u.r[u.order - 1] = 1.0;
    double phi = u.decay / h - 1.0, factorial = 1.0; /* of -h: phi_2 times -h, and so on */
    for (int i = 0; i < u.order; i++) {
        u.b[i] = phi * factorial / -u.size;
        factorial *= i + 2;
        phi = phi / -h - 1.0 / factorial;
    }
    return u;
}

/* x where the step ends, from `base` where it began: `estimates` are those at its beginning and before; `there` is the
 * one at its end, NULL for the prediction. */
static void unipc_update(const unipc_step *u, sampler_state *s, const float *base, const float *there, float *out) {
    double w[UNIPC_ORDER] = {0.0};
    term terms[3 + UNIPC_ORDER] = {{u->share, base}};
    const int points = there ? u->order : u->order - 1;
    if (points == 1 && (there || u->order == 2))
        w[0] = 0.5; /* as the authors simplify it */
    else
        solve_vandermonde(u->r, u->b, points, w);
    double now = u->decay;
    int count = 2;
    for (int k = 0; k < u->order - 1; k++) {
        const double weight = u->size * w[k] / u->r[k];
        terms[count++] = (term){weight, s->past[k + 1]};
        now -= weight;
    }
    if (there) {
        const double weight = u->size * w[u->order - 1];
        terms[count++] = (term){weight, there};
        now -= weight;
    }
    terms[1] = (term){now, s->past[0]};
    step_sum(out, s->n, terms, count);
}

static void unipc(const sampler_run *run, sampler_state *s, bool bh2) {
    float *corrected = s->scratch;
    memcpy(corrected, s->x, s->n * sizeof(float));
    if (s->step > 0) {
        const unipc_step arrived = unipc_prepare(run, s->step, bh2);
        unipc_update(&arrived, s, s->past[UNIPC_BASE], s->denoised, corrected);
    }
    step_keep(s, UNIPC_ORDER, s->denoised);
    memcpy(s->past[UNIPC_BASE], corrected, s->n * sizeof(float));
    const unipc_step next = unipc_prepare(run, s->step + 1, bh2);
    unipc_update(&next, s, corrected, NULL, s->x);
}

bool step_unipc_bh1(const sampler_run *run, sampler_state *s, err *e) {
    (void)e;
    unipc(run, s, false);
    return true;
}

bool step_unipc_bh2(const sampler_run *run, sampler_state *s, err *e) {
    (void)e;
    unipc(run, s, true);
    return true;
}
