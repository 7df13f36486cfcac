/* nn_cpu.c - see nn_cpu.h. Each operation has a struct of parameters, a function that appends it to the graph and one
 * that computes thread ith of nth. */
#include "diffusion/model/nn_cpu.h"

#include <ggml-cpu.h>
#include <math.h>
#include <string.h>

enum { SEGMENT = 64, MAX_STRIDE = 2, MAX_KERNEL = 7, SPAN = SEGMENT * MAX_STRIDE + MAX_KERNEL };

/* --- Patches ----------------------------------------------------------------------------------------------------- */

typedef struct patches_op {
    conv_band band;
    int64_t kw, kh, ic;
} patches_op;

/* A stretch of one input row, from column `from` on, zero outside of the picture (row NULL: wholly outside), in the
 * type of the patches. F16 saturates instead of overflowing. */
static void load_row(char *to, enum ggml_type type, const float *row, int64_t width, int64_t from, int64_t count) {
    float part[SPAN];
    const int64_t low = from < 0 ? -from : 0,
                  high = from + count > width ? width - from : count; /* inside the picture */
    if (!row || low >= high) {
        memset(to, 0, (size_t)count * ggml_type_size(type));
        return;
    }
    for (int64_t i = 0; i < low; i++) part[i] = 0.0f;
    for (int64_t i = high; i < count; i++) part[i] = 0.0f;
    if (type == GGML_TYPE_F32) {
        memcpy(part + low, row + from + low, (size_t)(high - low) * sizeof *part);
        memcpy(to, part, (size_t)count * sizeof *part);
        return;
    }
    for (int64_t i = low; i < high; i++) {
        const float v = row[from + i];
        const float least = v < -65504.0f ? -65504.0f : v; /* not fminf(): this compiles to vector code */
        part[i] = least > 65504.0f ? 65504.0f : least;
    }
    ggml_cpu_fp32_to_fp16(part, (ggml_fp16_t *)(void *)to, count);
}

/* Deals one kernel row of input out to the patches of `count` pixels. The usual sizes are spelled out so that the
 * compiler makes plain moves of them. */
static void deal_row(char *dst, size_t patch, const char *src, size_t step, size_t size, int64_t count) {
    if (size == 3 * sizeof(ggml_fp16_t)) {
        for (int64_t i = 0; i < count; i++, dst += patch, src += step) memcpy(dst, src, 3 * sizeof(ggml_fp16_t));
    } else if (size == 3 * sizeof(float)) {
        for (int64_t i = 0; i < count; i++, dst += patch, src += step) memcpy(dst, src, 3 * sizeof(float));
    } else {
        for (int64_t i = 0; i < count; i++, dst += patch, src += step) memcpy(dst, src, size);
    }
}

/* The patches of up to SEGMENT pixels of one row: short enough that they stay in the first-level cache while the
 * channels are dealt out to them. */
static void patch_segment(const patches_op *p, struct ggml_tensor *dst, int64_t y, int64_t x0) {
    const struct ggml_tensor *x = dst->src[0];
    const conv_band *band = &p->band;
    const size_t element = ggml_type_size(dst->type);
    const int64_t count = band->ow - x0 < SEGMENT ? band->ow - x0 : SEGMENT;
    const int64_t span = (count - 1) * band->stride + p->kw;
    char *to = (char *)dst->data + (size_t)((y - band->row) * band->ow + x0) * dst->nb[1];
    char row[SPAN * sizeof(float)];
    for (int64_t c = 0; c < p->ic; c++) {
        const char *plane = (const char *)x->data + (size_t)band->image * x->nb[3] + (size_t)c * x->nb[2];
        for (int64_t ky = 0; ky < p->kh; ky++, to += (size_t)p->kw * element) {
            const int64_t in = y * band->stride + ky - band->pad;
            const bool inside = in >= 0 && in < x->ne[1];
            const char *from = inside ? plane + (size_t)in * x->nb[1] : NULL;
            load_row(row, dst->type, (const float *)(const void *)from, x->ne[0], x0 * band->stride - band->pad, span);
            deal_row(to, dst->nb[1], row, (size_t)band->stride * element, (size_t)p->kw * element, count);
        }
    }
}

static void compute_patches(struct ggml_tensor *dst, int ith, int nth, void *params) {
    const patches_op *p = params;
    const int64_t segments = (p->band.ow + SEGMENT - 1) / SEGMENT;
    for (int64_t i = ith; i < p->band.rows * segments; i += nth) {
        const int64_t y = p->band.row + i / segments, x0 = i % segments * SEGMENT;
        patch_segment(p, dst, y, x0);
    }
}

struct ggml_tensor *cpu_patches(graph *g, struct ggml_tensor *x, struct ggml_tensor *kernel, const conv_band *band) {
    GGML_ASSERT(kernel->ne[0] <= MAX_KERNEL && kernel->ne[1] <= MAX_KERNEL && band->stride <= MAX_STRIDE);
    GGML_ASSERT(x->type == GGML_TYPE_F32 && x->nb[0] == sizeof(float));
    patches_op *p = graph_note(g, sizeof *p);
    *p = (patches_op){*band, kernel->ne[0], kernel->ne[1], kernel->ne[2]};
    return ggml_custom_4d(g->ctx, kernel->type, p->kw * p->kh * p->ic, band->ow * band->rows, 1, 1, &x, 1,
                          compute_patches, GGML_N_TASKS_MAX, p);
}

/* --- Placing a band ---------------------------------------------------------------------------------------------- */

typedef struct place_op {
    conv_band band;
    bool first;
} place_op;

static void compute_place(struct ggml_tensor *dst, int ith, int nth, void *params) {
    const place_op *p = params;
    const struct ggml_tensor *y = dst->src[p->first ? 0 : 1], *bias = dst->src[p->first ? 1 : 2];
    const int64_t count = y->ne[0];
    for (int64_t c = ith; c < y->ne[1]; c += nth) {
        const float *from = (const float *)y->data + c * count;
        float *to = (float *)dst->data + ((p->band.image * dst->ne[2] + c) * dst->ne[1] + p->band.row) * dst->ne[0];
        const float add =
            bias ? ((const float *)bias->data)[(bias->ne[1] > 1 ? p->band.image * bias->ne[0] : 0) + c] : 0.0f;
        for (int64_t i = 0; i < count; i++) to[i] = from[i] + add;
    }
}

struct ggml_tensor *cpu_place(graph *g, struct ggml_tensor *out, struct ggml_tensor *y, struct ggml_tensor *bias,
                              const conv_band *band, int64_t n) {
    place_op *p = graph_note(g, sizeof *p);
    *p = (place_op){*band, out == NULL};
    struct ggml_tensor *args[2] = {y, bias};
    const int n_args = bias ? 2 : 1;
    if (out) return ggml_custom_inplace(g->ctx, out, args, n_args, compute_place, GGML_N_TASKS_MAX, p);
    return ggml_custom_4d(g->ctx, GGML_TYPE_F32, band->ow, band->oh, y->ne[1], n, args, n_args, compute_place,
                          GGML_N_TASKS_MAX, p);
}

/* --- Group norm -------------------------------------------------------------------------------------------------- */

typedef struct group_norm_op {
    int groups;
    float eps;
} group_norm_op;

/* Mean and 1/deviation of `count` values. Blocks are summed in float lanes, blocks in double: exact enough and fast. */
static void moments(const float *x, int64_t count, float eps, float *mean, float *scale) {
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < count; i += 1024) {
        const int64_t end = count - i < 1024 ? count : i + 1024;
        float lane[16] = {0};
        for (int64_t k = i; k < end; k++) lane[k & 15] += x[k];
        for (int k = 0; k < 16; k++) sum += (double)lane[k];
    }
    const float m = (float)(sum / (double)count);
    for (int64_t i = 0; i < count; i += 1024) {
        const int64_t end = count - i < 1024 ? count : i + 1024;
        float lane[16] = {0};
        for (int64_t k = i; k < end; k++) lane[k & 15] += (x[k] - m) * (x[k] - m);
        for (int k = 0; k < 16; k++) squares += (double)lane[k];
    }
    *mean = m;
    *scale = (float)(1.0 / sqrt(squares / (double)count + (double)eps));
}

static void normalize_group(float *to, const float *from, const float *weight, const float *bias, int64_t channels,
                            int64_t plane, float eps) {
    float mean, scale;
    moments(from, channels * plane, eps, &mean, &scale);
    for (int64_t c = 0; c < channels; c++, from += plane, to += plane) {
        const float a = scale * weight[c], b = bias[c] - mean * a;
        for (int64_t i = 0; i < plane; i++) to[i] = from[i] * a + b;
    }
}

static void compute_group_norm(struct ggml_tensor *dst, int ith, int nth, void *params) {
    const group_norm_op *p = params;
    const struct ggml_tensor *x = dst->src[0];
    const float *weight = dst->src[1]->data, *bias = dst->src[2]->data;
    const int64_t plane = x->ne[0] * x->ne[1], channels = x->ne[2] / p->groups;
    for (int64_t i = ith; i < p->groups * x->ne[3]; i += nth) {
        const int64_t group = i % p->groups, at = i * channels * plane;
        normalize_group((float *)dst->data + at, (const float *)x->data + at, weight + group * channels,
                        bias + group * channels, channels, plane, p->eps);
    }
}

struct ggml_tensor *cpu_group_norm(graph *g, struct ggml_tensor *x, struct ggml_tensor *weight,
                                   struct ggml_tensor *bias, int groups, float eps) {
    GGML_ASSERT(ggml_is_contiguous(x) && x->ne[2] % groups == 0);
    group_norm_op *p = graph_note(g, sizeof *p);
    *p = (group_norm_op){groups, eps};
    struct ggml_tensor *args[3] = {x, weight, bias};
    return ggml_custom_4d(g->ctx, GGML_TYPE_F32, x->ne[0], x->ne[1], x->ne[2], x->ne[3], args, 3, compute_group_norm,
                          GGML_N_TASKS_MAX, p);
}
