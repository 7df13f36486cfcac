#include "diffusion/image/canny.h"

#include "base/str.h"

#include <stdint.h>
#include <stdlib.h>

/* tan 22.5 degrees in units of 2^-15; tan 67.5 is 2 more. */
enum { TAN_SHIFT = 15, TAN_22 = 13573 };

enum { NOTHING, CANDIDATE, EDGE = 255 };

typedef struct gradient {
    int16_t *dx, *dy; /* [h, w] */
    int16_t *size;    /* [h + 2, w + 2], 0 around the picture */
    int w, h;
} gradient;

static int within(int v, int most) {
    return v < 0 ? 0 : v > most ? most : v;
}

/* One channel's at (x, y). */
static void sobel(const image *src, int x, int y, int channel, int *dx, int *dy) {
    int p[3][3];
    for (int j = 0; j < 3; j++) {
        const size_t row = (size_t)within(y + j - 1, src->height - 1) * (size_t)src->width;
        for (int i = 0; i < 3; i++) {
            const size_t px = row + (size_t)within(x + i - 1, src->width - 1);
            p[j][i] = src->px[px * (size_t)src->channels + (size_t)channel];
        }
    }
    *dx = p[0][2] + 2 * p[1][2] + p[2][2] - p[0][0] - 2 * p[1][0] - p[2][0];
    *dy = p[2][0] + 2 * p[2][1] + p[2][2] - p[0][0] - 2 * p[0][1] - p[0][2];
}

static int16_t *size_at(const gradient *g, int x, int y) {
    return g->size + (size_t)(y + 1) * (size_t)(g->w + 2) + (size_t)(x + 1);
}

static void find_gradient(gradient *g, const image *src) {
    for (int y = 0; y < g->h; y++) {
        for (int x = 0; x < g->w; x++) {
            const size_t at = (size_t)y * (size_t)g->w + (size_t)x;
            int best = -1;
            for (int c = 0; c < src->channels; c++) {
                int dx, dy;
                sobel(src, x, y, c, &dx, &dy);
                if (abs(dx) + abs(dy) <= best) continue;
                best = abs(dx) + abs(dy);
                g->dx[at] = (int16_t)dx;
                g->dy[at] = (int16_t)dy;
            }
            *size_at(g, x, y) = (int16_t)best;
        }
    }
}

/* A maximum along the gradient. */
static bool is_ridge(const gradient *g, int x, int y) {
    const size_t at = (size_t)y * (size_t)g->w + (size_t)x;
    const int dx = g->dx[at], dy = g->dy[at], m = *size_at(g, x, y);
    const int32_t up = abs(dy) * (1 << TAN_SHIFT), along = abs(dx) * TAN_22;
    if (up < along) return m > *size_at(g, x - 1, y) && m >= *size_at(g, x + 1, y);
    if (up > along + abs(dx) * (2 << TAN_SHIFT)) return m > *size_at(g, x, y - 1) && m >= *size_at(g, x, y + 1);
    const int side = (dx ^ dy) < 0 ? -1 : 1;
    return m > *size_at(g, x - side, y - 1) && m > *size_at(g, x + side, y + 1);
}

/* Pixels that became edges and whose neighbours are still to be looked at; each comes once. */
typedef struct work {
    uint32_t *pixels;
    size_t count;
} work;

static void mark_edge(image *out, work *todo, size_t at) {
    out->px[at] = EDGE;
    todo->pixels[todo->count++] = (uint32_t)at;
}

static void thin(image *out, work *todo, const gradient *g, int low, int high) {
    for (int y = 0; y < g->h; y++) {
        for (int x = 0; x < g->w; x++) {
            const size_t at = (size_t)y * (size_t)g->w + (size_t)x;
            const int m = *size_at(g, x, y);
            if (m <= low || !is_ridge(g, x, y)) continue;
            if (m > high)
                mark_edge(out, todo, at);
            else
                out->px[at] = CANDIDATE;
        }
    }
}

static void connect(image *out, work *todo) {
    while (todo->count) {
        const int at = (int)todo->pixels[--todo->count], x = at % out->width, y = at / out->width;
        for (int j = within(y - 1, y); j <= within(y + 1, out->height - 1); j++) {
            for (int i = within(x - 1, x); i <= within(x + 1, out->width - 1); i++) {
                const size_t near = (size_t)j * (size_t)out->width + (size_t)i;
                if (out->px[near] == CANDIDATE) mark_edge(out, todo, near);
            }
        }
    }
    for (size_t i = 0; i < image_bytes(out); i++)
        if (out->px[i] == CANDIDATE) out->px[i] = NOTHING;
}

bool canny(image *out, const image *src, int low, int high) {
    *out = (image){0};
    if (!src->px || !image_alloc(out, src->width, src->height, 1)) return false;
    const size_t pixels = image_bytes(out);
    gradient g = {.dx = mem_alloc(pixels, sizeof *g.dx),
                  .dy = mem_alloc(pixels, sizeof *g.dy),
                  .size = mem_alloc((size_t)(src->width + 2) * (size_t)(src->height + 2), sizeof *g.size),
                  .w = src->width,
                  .h = src->height};
    work todo = {.pixels = mem_alloc(pixels, sizeof *todo.pixels)};
    find_gradient(&g, src);
    thin(out, &todo, &g, low, high);
    connect(out, &todo);
    free(todo.pixels);
    free(g.dx);
    free(g.dy);
    free(g.size);
    return true;
}
