/* conv.c - any convolution as a matrix product: weights [oc, ic kh kw] times the input under each output pixel
 * [ic kh kw, pixels]. Of the latter only a piece is ever there, DEPTH cells of COLUMNS pixels, in the second-level
 * cache; it is used for all channels of output (or for a share of them, when there are more threads than blocks of
 * pixels). */
#include "diffusion/cpu/isa.h"
#include "diffusion/cpu/kernels.h"
#include "diffusion/cpu/rows.h"

enum { DEPTH = 512, ROW = DEPTH + 16 }; /* in cells; the filling keeps rows apart in the cache */

typedef struct piece {
    const cpu_conv *c;
    int64_t picture, pixel, pixels; /* the block: pixels of one picture, row by row */
    int64_t from, depth;            /* the piece: ic kh kw numbers from `from` on */
} piece;

/* The input under the block's pixels for one channel and place in the kernel; zero outside of the picture. */
static void gather(const piece *p, const float *plane, int64_t ky, int64_t kx, float *to) {
    const cpu_conv *c = p->c;
    for (int64_t i = 0; i < p->pixels;) {
        const int64_t oy = (p->pixel + i) / c->ow, ox = (p->pixel + i) % c->ow, left = p->pixels - i;
        const int64_t count = c->ow - ox < left ? c->ow - ox : left;
        copy_under(c, plane, oy * c->stride + ky - c->pad, ox * c->stride + kx - c->pad, count, to + i);
        i += count;
    }
    if (p->pixels < COLUMNS) memset(to + p->pixels, 0, (size_t)(COLUMNS - p->pixels) * sizeof *to);
}

/* panel: [cells of depth][COLUMNS] */
static void fill_panel(const piece *p, float *panel) {
    const cpu_conv *c = p->c;
    for (int64_t i = 0; i < p->depth; i += PAIR, panel += COLUMNS) {
        float under[PAIR * COLUMNS];
        const int64_t rows = p->depth - i < PAIR ? p->depth - i : PAIR;
        for (int64_t k = 0; k < rows; k++) {
            const int64_t at = p->from + i + k, ky = at / c->kw % c->kh, kx = at % c->kw;
            const int64_t channel = at / (c->kh * c->kw);
            gather(p, c->x + (p->picture * c->ic + channel) * c->h * c->w, ky, kx, under + k * COLUMNS);
        }
        pack_across(under, COLUMNS, rows, COLUMNS, panel);
    }
}

/* `count` rows of weights, as deep as the piece. cells: [ROWS][ROW] */
static void pack_weights(const piece *p, row_reader *rows, int64_t oc, int64_t count, float *cells) {
    int64_t row;
    const float *w = rows_read(rows, oc, count, p->from, p->depth, &row);
    for (int64_t i = 0; i < count; i++) pack_along(w + i * row, p->depth, cells + i * ROW);
}

/* From [oc][COLUMNS] to the picture, with the bias. */
static void place_sums(const piece *p, int64_t oc, int64_t count, const float *sums) {
    const cpu_conv *c = p->c;
    for (int64_t i = 0; i < count; i++, oc++) {
        const float bias = !c->bias ? 0 : c->bias[c->bias_per_picture ? p->picture * c->oc + oc : oc];
        const int64_t at = (p->picture * c->oc + oc) * c->oh * c->ow + p->pixel;
        float *restrict to = c->y + at;
        for (int64_t k = 0; k < p->pixels; k++) to[k] = sums[i * COLUMNS + k] + bias;
        for (int64_t k = 0; k < p->pixels && c->add; k++) to[k] += c->add[at + k];
    }
}

/* Channels oc ... of one block of pixels. */
static void conv_block(piece p, int64_t oc, int64_t count, float *panel, float *sums, row_reader *rows) {
    const int64_t depth = p.c->ic * p.c->kh * p.c->kw;
    float weights[ROWS * ROW];
    for (p.from = 0; p.from < depth; p.from += DEPTH * PAIR) {
        p.depth = depth - p.from < DEPTH * PAIR ? depth - p.from : DEPTH * PAIR;
        fill_panel(&p, panel);
        for (int64_t i = 0; i < count; i += ROWS) {
            const int64_t some = count - i < ROWS ? count - i : ROWS;
            pack_weights(&p, rows, oc + i, some, weights);
            multiply_cell_rows((block){.a = weights,
                                       .a_row = ROW,
                                       .b = panel,
                                       .depth = cells_of(p.depth),
                                       .c = sums + i * COLUMNS,
                                       .c_row = COLUMNS,
                                       .add = p.from > 0},
                               some);
        }
    }
    place_sums(&p, oc, count, sums);
}

void CPU_NAME(cpu_conv_any)(const cpu_conv *c, float *room, int thread, int threads) {
    (void)room;
    const int64_t plane = c->oh * c->ow, across = (plane + COLUMNS - 1) / COLUMNS, blocks = c->n * across;
    int64_t shares = 1; /* of the channels */
    while (blocks * shares < 4 * threads && c->oc / (2 * shares) >= 4 * ROWS) shares *= 2;
    const int64_t each = (c->oc + shares - 1) / shares;
    cpu_room memory = cpu_room_open((DEPTH + each + ROWS) * COLUMNS);
    float *panel = memory.floats, *sums = panel + DEPTH * COLUMNS;
    row_reader rows = row_reader_open(&c->weight, ROWS, DEPTH * PAIR);
    int64_t first;
    const int64_t count = cpu_share(blocks * shares, thread, threads, &first);
    for (int64_t i = first; i < first + count; i++) {
        const int64_t number = i / shares, oc = i % shares * each, pixel = number % across * COLUMNS;
        const piece p = {.c = c,
                         .picture = number / across,
                         .pixel = pixel,
                         .pixels = plane - pixel < COLUMNS ? plane - pixel : COLUMNS};
        if (oc < c->oc) conv_block(p, oc, c->oc - oc < each ? c->oc - oc : each, panel, sums, &rows);
    }
    row_reader_close(&rows);
    cpu_room_close(&memory);
}
