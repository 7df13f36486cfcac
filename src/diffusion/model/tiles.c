#include "diffusion/model/tiles.h"

#include "base/str.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

planes planes_new(int c, int h, int w) {
    return (planes){c, h, w, mem_alloc((size_t)c * (size_t)h * (size_t)w, sizeof(float))};
}

void planes_free(planes *p) {
    free(p->data);
    p->data = NULL;
}

size_t planes_size(const planes *p) {
    return (size_t)p->c * (size_t)p->h * (size_t)p->w;
}

static float *row_of(const planes *p, int c, int y) {
    return p->data + ((size_t)c * (size_t)p->h + (size_t)y) * (size_t)p->w;
}

/* --- Along one axis, in units ------------------------------------------------------------------------------------ */

static int axis_count(int whole, int size, int overlap) {
    const int step = size - overlap;
    return whole <= size ? 1 : (whole - overlap + step - 1) / step;
}

/* The last tile ends at the edge, so it may overlap more. */
static int axis_start(int index, int whole, int size, int overlap) {
    const int start = index * (size - overlap);
    return start + size <= whole ? start : whole > size ? whole - size : 0;
}

/* A tile's share of a pixel: rises over the overlap from every edge that is not the picture's own. Never 0. */
static float share(int at, int start, int size, int whole, int overlap) {
    float low = 1, high = 1;
    if (start > 0 && overlap) low = ((float)at + 0.5f) / (float)overlap;
    if (start + size < whole && overlap) high = ((float)(size - at) - 0.5f) / (float)overlap;
    return fminf(1.0f, fminf(low, high));
}

/* --- The picture ------------------------------------------------------------------------------------------------- */

typedef struct run {
    const tiles *t;
    int w, h;       /* the picture, in units */
    float *weights; /* [out.h, out.w]: sum of the shares */
    planes in, out; /* the tile at hand */
} run;

/* x, y: the tile's corner, in units. */
static void cut(run *r, int x, int y) {
    const int unit = r->t->in_unit;
    for (int c = 0; c < r->in.c; c++)
        for (int k = 0; k < r->in.h; k++)
            memcpy(row_of(&r->in, c, k), row_of(r->t->in, c, y * unit + k) + x * unit, (size_t)r->in.w * sizeof(float));
}

static void blend_row(run *r, int x0, int y0, int k, float vertical) {
    const planes *out = r->t->out;
    float *weights = r->weights + (size_t)(y0 + k) * (size_t)out->w + x0;
    for (int i = 0; i < r->out.w; i++) {
        const float s = vertical * share(i, x0, r->out.w, out->w, r->t->overlap * r->t->out_unit);
        for (int c = 0; c < out->c; c++) row_of(out, c, y0 + k)[x0 + i] += s * row_of(&r->out, c, k)[i];
        weights[i] += s;
    }
}

static void blend(run *r, int x, int y) {
    const int unit = r->t->out_unit;
    for (int k = 0; k < r->out.h; k++)
        blend_row(r, x * unit, y * unit, k, share(k, y * unit, r->out.h, r->t->out->h, r->t->overlap * unit));
}

static void divide_by_weights(const run *r) {
    const size_t n = (size_t)r->t->out->w * (size_t)r->t->out->h;
    for (int c = 0; c < r->t->out->c; c++)
        for (size_t i = 0; i < n; i++) r->t->out->data[(size_t)c * n + i] /= r->weights[i];
}

static bool run_all(run *r, tiles_fn fn, void *fn_ctx, tiles_progress progress, void *progress_ctx, err *e) {
    const tiles *t = r->t;
    const int columns = axis_count(r->w, t->size, t->overlap), count = tiles_count(t);
    for (int i = 0; i < count; i++) {
        const int x = axis_start(i % columns, r->w, t->size, t->overlap);
        const int y = axis_start(i / columns, r->h, t->size, t->overlap);
        cut(r, x, y);
        if (!fn(fn_ctx, &r->in, &r->out, e)) return false;
        blend(r, x, y);
        if (progress) progress(progress_ctx, i + 1, count);
    }
    divide_by_weights(r);
    return true;
}

int tiles_count(const tiles *t) {
    return axis_count(t->in->w / t->in_unit, t->size, t->overlap) *
           axis_count(t->in->h / t->in_unit, t->size, t->overlap);
}

bool tiles_run(const tiles *t, tiles_fn fn, void *fn_ctx, tiles_progress progress, void *progress_ctx, err *e) {
    run r = {.t = t, .w = t->in->w / t->in_unit, .h = t->in->h / t->in_unit};
    if (r.w <= t->size && r.h <= t->size) {
        if (!fn(fn_ctx, t->in, t->out, e)) return false;
        if (progress) progress(progress_ctx, 1, 1);
        return true;
    }
    const int w = r.w < t->size ? r.w : t->size, h = r.h < t->size ? r.h : t->size;
    r.in = planes_new(t->in->c, h * t->in_unit, w * t->in_unit);
    r.out = planes_new(t->out->c, h * t->out_unit, w * t->out_unit);
    r.weights = mem_alloc((size_t)t->out->w * (size_t)t->out->h, sizeof(float));
    memset(t->out->data, 0, planes_size(t->out) * sizeof(float));
    const bool ok = run_all(&r, fn, fn_ctx, progress, progress_ctx, e);
    planes_free(&r.in);
    planes_free(&r.out);
    free(r.weights);
    return ok;
}
