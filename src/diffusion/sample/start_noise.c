#include "diffusion/sample/start_noise.h"

#include "base/str.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void draw(rng_kind kind, uint64_t seed, size_t n, float *out) {
    rng r;
    rng_init(&r, kind, seed, n);
    rng_normal(&r, 0, out);
}

/* The angle between two columns, each [rows] with a stride. */
static double angle_cosine(const float *a, const float *b, size_t rows, size_t stride) {
    double aa = 0.0, bb = 0.0, ab = 0.0;
    for (size_t i = 0; i < rows * stride; i += stride) {
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
        ab += (double)a[i] * (double)b[i];
    }
    return ab / (sqrt(aa) * sqrt(bb));
}

/* a: [channels, rows, columns] goes towards b by `share`. A1111 turns every column of every channel by itself; and when
 * they are all but alike, it mixes them linearly, the other way round. */
static void turn(float *a, const float *b, size_t channels, size_t rows, size_t columns, double share) {
    double mean = 0.0, *cosines = mem_alloc(channels * columns, sizeof(double));
    for (size_t i = 0; i < channels * columns; i++) {
        const size_t at = i / columns * rows * columns + i % columns;
        cosines[i] = angle_cosine(a + at, b + at, rows, columns);
        mean += cosines[i] / (double)(channels * columns);
    }
    for (size_t i = 0; i < channels * rows * columns; i++) {
        double wa = share, wb = 1.0 - share;
        if (!(mean > 0.9995)) {
            const double angle = acos(cosines[i / (rows * columns) * columns + i % columns]);
            wa = sin((1.0 - share) * angle) / sin(angle);
            wb = sin(share * angle) / sin(angle);
        }
        a[i] = (float)(wa * (double)a[i] + wb * (double)b[i]);
    }
    free(cosines);
}

static void make_whole(const start_noise *o, int rows, int columns, float *out) {
    const size_t n = (size_t)o->channels * (size_t)rows * (size_t)columns;
    draw(o->kind, o->seed, n, out);
    if (!(o->strength > 0.0f)) return;
    float *other = mem_alloc(n, sizeof(float));
    draw(o->kind, o->subseed, n, other);
    turn(out, other, (size_t)o->channels, (size_t)rows, (size_t)columns, (double)o->strength);
    free(other);
}

/* What of one side is taken: `count` values from `source` on go to `target` on. A half rounds down, as in Python. */
typedef struct overlap {
    int source, target, count;
} overlap;

static overlap overlap_of(int size, int from) {
    const int gap = size - from, half = gap >= 0 ? gap / 2 : -((1 - gap) / 2);
    if (gap >= 0) return (overlap){.target = half, .count = from};
    return (overlap){.source = -half, .count = from + 2 * half > 0 ? from + 2 * half : 0};
}

void start_noise_make(const start_noise *o, float *out) {
    const int rows = o->from_rows > 0 ? o->from_rows : o->rows,
              columns = o->from_columns > 0 ? o->from_columns : o->columns;
    if (rows == o->rows && columns == o->columns) {
        make_whole(o, rows, columns, out);
        return;
    }
    const overlap y = overlap_of(o->rows, rows), x = overlap_of(o->columns, columns);
    float *small = mem_alloc((size_t)o->channels * (size_t)rows * (size_t)columns, sizeof(float));
    make_whole(o, rows, columns, small);
    draw(o->kind, o->seed, (size_t)o->channels * (size_t)o->rows * (size_t)o->columns, out);
    for (int c = 0; c < o->channels; c++) {
        for (int i = 0; i < y.count; i++) {
            const size_t to = (size_t)(c * o->rows + y.target + i) * (size_t)o->columns + (size_t)x.target;
            const size_t from = (size_t)(c * rows + y.source + i) * (size_t)columns + (size_t)x.source;
            memcpy(out + to, small + from, (size_t)x.count * sizeof(float));
        }
    }
    free(small);
}
