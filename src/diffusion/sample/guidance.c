#include "diffusion/sample/guidance.h"

#include <math.h>
#include <stdlib.h>

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

bool guidance_needs_negative(float scale, float image_scale) {
    return scale != 1.0f || image_scale != 1.0f;
}

static float mixed(const guidance *g, const guidance_answers *a, size_t i) {
    if (!a->negative) return a->positive[i];
    const float text = g->scale * (a->positive[i] - a->negative[i]);
    return a->bare ? a->bare[i] + text + g->image_scale * (a->negative[i] - a->bare[i]) : a->negative[i] + text;
}

void guidance_interval(guidance *g, const float *sigmas, int steps, float start, float end) {
    /* A whole number of steps must not be missed by the rounding of a share. */
    const int first = (int)ceilf(start * (float)steps - 1e-3f), behind = (int)floorf(end * (float)steps + 1e-3f);
    g->low = g->high = 0.0f;
    if (first <= 0 && behind >= steps) return;
    g->high = first <= 0 ? INFINITY : sigmas[first < steps ? first : steps];
    g->low = behind >= steps ? 0.0f : sigmas[behind];
    if (!(g->low < g->high)) g->low = g->high = -1.0f; /* no step at all */
}

static bool is_guided(const guidance *g, float sigma) {
    if (g->high == 0.0f) return true;
    return sigma > g->low && sigma <= g->high;
}

/* v = a * prediction + b * in * x */
typedef struct to_v {
    double a, b;
} to_v;

static double spread(const float *out, const float *in, to_v v, size_t n) {
    double sum = 0.0, squares = 0.0;
    for (size_t i = 0; i < n; i++) sum += v.a * (double)out[i] + v.b * (double)in[i];
    for (size_t i = 0; i < n; i++) {
        const double off = v.a * (double)out[i] + v.b * (double)in[i] - sum / (double)n;
        squares += off * off;
    }
    return sqrt(squares);
}

/* guided: [n] in place. */
static void rescale(const guidance *g, float sigma, const float *in, const float *positive, float *guided) {
    const double s = (double)sigma, phi = (double)g->rescale;
    const to_v v = g->predicts == PREDICT_V ? (to_v){1.0, 0.0} : (to_v){sqrt(s * s + 1.0), -s};
    const double wide = spread(guided, in, v, g->n);
    if (!(wide > 0.0)) return;
    const double k = phi * spread(positive, in, v, g->n) / wide + 1.0 - phi;
    for (size_t i = 0; i < g->n; i++)
        guided[i] = (float)(k * (double)guided[i] + (k - 1.0) * v.b / v.a * (double)in[i]);
}

static int by_value(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* The magnitude below which lies this share of all, linear between neighbours. sorted: [n] scratch. */
static float magnitude_at(const float *values, size_t n, float share, float *sorted) {
    for (size_t i = 0; i < n; i++) sorted[i] = fabsf(values[i]);
    qsort(sorted, n, sizeof *sorted, by_value);
    const double at = (double)share * (double)(n - 1);
    const size_t below = (size_t)at < n - 1 ? (size_t)at : n - 1, above = below < n - 1 ? below + 1 : below;
    return (float)((double)sorted[below] + (at - (double)below) * ((double)sorted[above] - (double)sorted[below]));
}

static void threshold(const guidance *g, float *denoised) {
    const float most = magnitude_at(denoised, g->n, g->threshold, g->scratch);
    if (!(most > g->limit)) return;
    for (size_t i = 0; i < g->n; i++) denoised[i] = fminf(fmaxf(denoised[i], -most), most) * (g->limit / most);
}

bool guidance_denoise(void *ctx, const float *x, float sigma, float *denoised, err *e) {
    const guidance *g = ctx;
    const scaling c = scaling_at(g->predicts, sigma);
    const bool guided = is_guided(g, sigma);
    float *in = g->scratch;
    guidance_answers answers = {.positive = in + g->n};
    if (guided && (guidance_needs_negative(g->scale, g->image_scale) || g->unguided))
        answers.negative = answers.positive + g->n;
    if (guided && g->image_scale != 1.0f) answers.bare = answers.negative + g->n;
    for (size_t i = 0; i < g->n; i++) in[i] = c.in * x[i];
    if (!g->predict(g->ctx, in, sigma_to_timestep(g->table, sigma), &answers, e)) return false;
    const float *plain = answers.negative ? answers.negative : answers.positive;
    for (size_t i = 0; g->unguided && i < g->n; i++) g->unguided[i] = c.skip * x[i] + c.out * plain[i];
    for (size_t i = 0; i < g->n; i++) denoised[i] = mixed(g, &answers, i);
    if (answers.negative && g->rescale > 0.0f) rescale(g, sigma, in, answers.positive, denoised);
    for (size_t i = 0; i < g->n; i++) denoised[i] = c.skip * x[i] + c.out * denoised[i];
    if (guided && g->threshold > 0.0f) threshold(g, denoised);
    return true;
}
