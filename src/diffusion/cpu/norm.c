/* norm.c - group norm with silu behind it, layer norm, and the gate of feed-forward layers.
 *
 * All of these wait for memory, so numbers are read as seldom as can be: mean and deviation of a BLOCK are taken while
 * it is in the first-level cache, and blocks are put together as Chan, Golub & LeVeque (1979) have it. That is as exact
 * as two passes over everything. */
#include "diffusion/cpu/exp.h"
#include "diffusion/cpu/kernels.h"
#include "diffusion/cpu/rows.h"

#include <math.h>

enum { BLOCK = 4096, STEP = 4 * LANES };

typedef struct moments {
    double mean, squares; /* squares: the sum of squared distances from the mean */
    int64_t count;
} moments;

/* The sum of x, or of squared distances from m. */
ALWAYS_INLINE double sum_block(const float *x, int64_t count, const float m, const bool squared) {
    vec sum[4] = {{0}};
    int64_t i = 0;
    for (; i + STEP <= count; i += STEP)
#pragma GCC unroll 4
        for (int v = 0; v < 4; v++) {
            const vec a = load(x + i + v * LANES) - m;
            sum[v] += squared ? a * a : a;
        }
    double rest = 0;
    for (; i < count; i++) {
        const double a = (double)x[i] - (double)m;
        rest += squared ? a * a : a;
    }
    return rest + (double)sum_of((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

static void add_block(moments *m, const float *x, int64_t count) {
    const double n = (double)count, before = (double)m->count, all = before + n;
    const double mean = sum_block(x, count, 0, false) / n, away = mean - m->mean;
    /* around the mean as a float, which is not quite the mean */
    const double off = mean - (double)(float)mean;
    m->squares += sum_block(x, count, (float)mean, true) - off * off * n + away * away * before * n / all;
    m->mean += away * n / all;
    m->count += count;
}

static moments moments_of(const float *x, int64_t count) {
    moments m = {0};
    for (int64_t i = 0; i < count; i += BLOCK) add_block(&m, x + i, count - i < BLOCK ? count - i : BLOCK);
    return m;
}

static double scale_of(const moments *m, float eps) {
    return 1.0 / sqrt(m->squares / (double)m->count + (double)eps);
}

/* What makes x a + b of each of a group's channels. */
typedef struct scaler {
    const cpu_group_norm *p;
    int64_t channels, first; /* of a group; the first one's number */
    double mean, scale;
} scaler;

static scaler scaler_of(const cpu_group_norm *p, int64_t number) {
    const int64_t channels = p->channels / p->groups;
    const moments m = moments_of(p->x + number * channels * p->plane, channels * p->plane);
    return (scaler){p, channels, number % p->groups * channels, m.mean, scale_of(&m, p->eps)};
}

static void scales(const scaler *s, int64_t channel, float *a, float *b) {
    const int64_t c = s->first + channel;
    *a = (float)(s->scale * (double)s->p->weight[c]);
    *b = (float)((double)s->p->bias[c] - s->mean * (double)*a);
}

static void normalize_group(const cpu_group_norm *p, int64_t number) {
    const scaler s = scaler_of(p, number);
    for (int64_t c = 0; c < s.channels; c++) {
        const int64_t at = (number * s.channels + c) * p->plane;
        float a, b;
        scales(&s, c, &a, &b);
        if (p->silu)
            scale_plane(p->x + at, p->y + at, p->plane, a, b, true);
        else
            scale_plane(p->x + at, p->y + at, p->plane, a, b, false);
    }
}

void CPU_NAME(cpu_normalize_groups)(const cpu_group_norm *p, int thread, int threads) {
    int64_t first;
    const int64_t count = cpu_share(p->n * p->groups, thread, threads, &first);
    for (int64_t i = first; i < first + count; i++) normalize_group(p, i);
}

void CPU_NAME(cpu_scale_groups)(const cpu_group_norm *p, int thread, int threads) {
    int64_t first;
    const int64_t count = cpu_share(p->n * p->groups, thread, threads, &first);
    for (int64_t i = first; i < first + count; i++) {
        const scaler s = scaler_of(p, i);
        float *y = p->y + 2 * i * s.channels;
        for (int64_t c = 0; c < s.channels; c++) scales(&s, c, y + 2 * c, y + 2 * c + 1);
    }
}

static void normalize_row(const cpu_layer_norm *p, const float *x, float *y) {
    const moments m = moments_of(x, p->width);
    const float mean = (float)m.mean, scale = (float)scale_of(&m, p->eps);
    int64_t i = 0;
    for (; i + LANES <= p->width; i += LANES)
        store(y + i, (load(x + i) - mean) * scale * load(p->weight + i) + load(p->bias + i));
    for (; i < p->width; i++) y[i] = (x[i] - mean) * scale * p->weight[i] + p->bias[i];
}

void CPU_NAME(cpu_normalize_rows)(const cpu_layer_norm *p, int thread, int threads) {
    int64_t first;
    const int64_t count = cpu_share(p->rows, thread, threads, &first);
    const int64_t row = p->packing ? p->packing->row(p->width) : p->width;
    cpu_room room = cpu_room_open(p->packing ? p->width : 0);
    for (int64_t i = first; i < first + count; i++) {
        normalize_row(p, p->x + i * p->width, p->packing ? room.floats : p->y + i * row);
        if (p->packing) p->packing->pack(room.floats, p->width, p->y + i * row);
    }
    cpu_room_close(&room);
}

static void gate_row(const float *x, int64_t width, float *y) {
    const float *gate = x + width;
    int64_t i = 0;
    for (; i + LANES <= width; i += LANES) store(y + i, load(x + i) * gelu(load(gate + i)));
    const int64_t rest = width - i;
    if (rest) store_some(y + i, load_some(x + i, rest) * gelu(load_some(gate + i, rest)), rest);
}

void CPU_NAME(cpu_gate)(const cpu_geglu *p, int thread, int threads) {
    int64_t first;
    const int64_t count = cpu_share(p->rows, thread, threads, &first);
    const int64_t row = p->packing ? p->packing->row(p->width) : p->width;
    cpu_room room = cpu_room_open(p->packing ? p->width : 0);
    for (int64_t i = first; i < first + count; i++) {
        gate_row(p->x + 2 * i * p->width, p->width, p->packing ? room.floats : p->y + i * row);
        if (p->packing) p->packing->pack(room.floats, p->width, p->y + i * row);
    }
    cpu_room_close(&room);
}
