#include "diffusion/image/resample.h"

#include "base/str.h"

#include <math.h>
#include <stdlib.h>

/* How the positions of one axis come from those of another: `count` weighted sources each. */
typedef struct axis {
    int count;
    int *source;   /* [out, count] */
    float *weight; /* [out, count] */
} axis;

/* Keys' cubic convolution kernel. */
static double cubic(double x, double a) {
    x = fabs(x);
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    if (x < 2) return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a;
    return 0;
}

static double triangle(double x) {
    x = fabs(x);
    return x < 1 ? 1 - x : 0;
}

static int within(int i, int in) {
    return i < 0 ? 0 : i >= in ? in - 1 : i;
}

static void put(axis *a, int at, int k, int source, double weight) {
    a->source[at * a->count + k] = source;
    a->weight[at * a->count + k] = (float)weight;
}

static void fill_nearest(axis *a, int in, int out, double shift) {
    const double scale = (double)in / out;
    for (int i = 0; i < out; i++) put(a, i, 0, within((int)floor((i + shift) * scale), in), 1);
}

static void fill_bilinear(axis *a, int in, int out) {
    for (int i = 0; i < out; i++) {
        const double at = fmax((i + 0.5) * in / out - 0.5, 0);
        const int low = (int)at;
        put(a, i, 0, within(low, in), 1 - (at - low));
        put(a, i, 1, within(low + 1, in), at - low);
    }
}

static void fill_bicubic(axis *a, int in, int out) {
    for (int i = 0; i < out; i++) {
        const double at = (i + 0.5) * in / out - 0.5;
        const int low = (int)floor(at);
        for (int k = 0; k < 4; k++) put(a, i, k, within(low - 1 + k, in), cubic(at - (low - 1 + k), -0.75));
    }
}

/* When reducing, the kernel covers as much more as the picture shrinks; at the borders what is outside is left out. */
static void fill_antialiased(axis *a, int in, int out, bool is_cubic) {
    const double scale = (double)in / out, stretch = fmax(scale, 1), support = (is_cubic ? 2 : 1) * stretch;
    for (int i = 0; i < out; i++) {
        const double center = (i + 0.5) * scale;
        const int first = (int)fmax(center - support + 0.5, 0), end = (int)fmin(center + support + 0.5, in);
        double sum = 0;
        for (int k = first; k < end; k++) {
            const double x = (k + 0.5 - center) / stretch;
            sum += is_cubic ? cubic(x, -0.5) : triangle(x);
        }
        for (int k = 0; k < a->count; k++) {
            const double x = (first + k + 0.5 - center) / stretch;
            const double w = is_cubic ? cubic(x, -0.5) : triangle(x);
            put(a, i, k, within(first + k, in), first + k < end ? w / sum : 0);
        }
    }
}

static int tap_count(int in, int out, resample_filter filter) {
    const double stretch = fmax((double)in / out, 1);
    switch (filter) {
    case RESAMPLE_BILINEAR:
        return 2;
    case RESAMPLE_BICUBIC:
        return 4;
    case RESAMPLE_BILINEAR_ANTIALIAS:
        return 2 * (int)ceil(stretch) + 1;
    case RESAMPLE_BICUBIC_ANTIALIAS:
        return 2 * (int)ceil(2 * stretch) + 1;
    default:
        return 1;
    }
}

static axis axis_make(int in, int out, resample_filter filter) {
    axis a = {.count = tap_count(in, out, filter)};
    a.source = mem_alloc((size_t)out * (size_t)a.count, sizeof *a.source);
    a.weight = mem_alloc((size_t)out * (size_t)a.count, sizeof *a.weight);
    switch (filter) {
    case RESAMPLE_BILINEAR:
        fill_bilinear(&a, in, out);
        break;
    case RESAMPLE_BICUBIC:
        fill_bicubic(&a, in, out);
        break;
    case RESAMPLE_BILINEAR_ANTIALIAS:
    case RESAMPLE_BICUBIC_ANTIALIAS:
        fill_antialiased(&a, in, out, filter == RESAMPLE_BICUBIC_ANTIALIAS);
        break;
    default:
        fill_nearest(&a, in, out, filter == RESAMPLE_NEAREST_EXACT ? 0.5 : 0.0);
    }
    return a;
}

static void axis_free(axis *a) {
    free(a->source);
    free(a->weight);
}

/* One plane: rows first into `rows` [from.height, to.width], then columns. */
static void resample_one(const float *in, plane_size from, float *rows, float *out, plane_size to, const axis *across,
                         const axis *down) {
    for (int y = 0; y < from.height; y++) {
        for (int x = 0; x < to.width; x++) {
            float v = 0;
            for (int k = 0; k < across->count; k++) {
                const int t = x * across->count + k;
                v += across->weight[t] * in[(size_t)y * (size_t)from.width + (size_t)across->source[t]];
            }
            rows[(size_t)y * (size_t)to.width + (size_t)x] = v;
        }
    }
    for (int y = 0; y < to.height; y++) {
        float *line = out + (size_t)y * (size_t)to.width;
        for (int x = 0; x < to.width; x++) line[x] = 0;
        for (int k = 0; k < down->count; k++) {
            const int t = y * down->count + k;
            const float *source = rows + (size_t)down->source[t] * (size_t)to.width;
            for (int x = 0; x < to.width; x++) line[x] += down->weight[t] * source[x];
        }
    }
}

void resample_planes(const float *in, int planes, plane_size from, float *out, plane_size to, resample_filter filter) {
    axis across = axis_make(from.width, to.width, filter), down = axis_make(from.height, to.height, filter);
    const size_t in_n = (size_t)from.height * (size_t)from.width, out_n = (size_t)to.height * (size_t)to.width;
    float *rows = mem_alloc((size_t)from.height * (size_t)to.width, sizeof *rows);
    for (int c = 0; c < planes; c++)
        resample_one(in + (size_t)c * in_n, from, rows, out + (size_t)c * out_n, to, &across, &down);
    free(rows);
    axis_free(&across);
    axis_free(&down);
}
