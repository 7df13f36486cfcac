/* conv_direct.c - convolutions as a matrix product with the picture as it lies in memory, without a copy of the input
 * under each pixel where the stride is 1 and the picture keeps its size.
 *
 * All pictures are laid out as one (conv_direct_input): a plane of cells for each channel (pair of channels), with
 * `pad` columns of zeros behind each row and `pad` rows of zeros around each picture; a row's left neighbours are the
 * zeros behind the row above. Pixels of the result are numbered the same way, columns of filling included, so that any
 * COLUMNS of them in a row are one block of a matrix product, and what lies under them for one channel and one place in
 * the kernel is COLUMNS numbers in a row, too:
 *     sums [oc, pixels] += weights [oc, channels x places] input [channels x places, pixels]
 * Sums of the filling are left out at the end.
 *
 * With another stride, and in pictures so small that a good part of the pixels would be filling, there is a plane for
 * each place in the kernel instead, of what lies under each pixel of the result there (`spread`).
 *
 * A picture that is to be doubled first is not: there are four kernels of 2x2, one for each phase (doubled.h).
 *
 * A thread takes a chunk of pixels and a group of rows of weights: output channels, four rows each where pictures are
 * doubled. Their sums, a piece of the group's weights and the input under the chunk fit the second-level cache
 * together. While a piece is multiplied, the weights of the next come from memory to that cache. */
#include "diffusion/cpu/doubled.h"
#include "diffusion/cpu/exp.h"
#include "diffusion/cpu/kernels.h"
#include "diffusion/cpu/rows.h"

enum { DEPTH = 576, ROW = DEPTH + 16 }; /* cells of weights at a time; the filling keeps rows apart in the cache */
enum { GROUP = 8 * ROWS, CHUNK = 16 };  /* rows of weights; blocks of pixels */
enum { ROWS_AHEAD = 4 };                /* of weights */

/* Where things are in the room. */
typedef struct layout {
    int64_t phases, taps;  /* kernels for one output channel; numbers of each */
    bool spread;           /* a plane for each channel (pair of channels) and tap */
    int64_t rows, columns; /* of a picture's pixels */
    int64_t pitch, height; /* from row to row; rows from picture to picture */
    int64_t pixels;        /* filling included */
    int64_t blocks;        /* of COLUMNS pixels */
    int64_t planes, plane; /* channels (pairs); floats from one plane to the next */
} layout;

static int64_t pixels_of(const cpu_conv *c) {
    return (c->n * (c->h + c->pad) - c->pad) * (c->w + c->pad);
}

/* As much filling that it is worth copying the picture kh kw times. */
static bool is_spread(const cpu_conv *c) {
    return c->stride != 1 || c->oh != c->h || c->ow != c->w || 10 * pixels_of(c) > 11 * c->n * c->h * c->w;
}

static layout layout_of(const cpu_conv *c) {
    layout l = {.phases = 1, .taps = c->kh * c->kw, .planes = cells_of(c->ic)};
    if (c->doubled) l.phases = DOUBLED_PHASES, l.taps = DOUBLED_TAPS;
    l.spread = !c->doubled && is_spread(c);
    l.rows = l.spread ? c->oh : c->h;
    l.columns = l.spread ? c->ow : c->w;
    l.height = l.spread ? c->oh : c->h + c->pad;
    l.pitch = l.spread ? c->ow : c->w + c->pad;
    l.pixels = l.spread ? c->n * c->oh * c->ow : pixels_of(c);
    l.blocks = (l.pixels + COLUMNS - 1) / COLUMNS;
    const int64_t around = l.spread ? 0 : 2 * c->pad * (l.pitch + 1);
    l.plane = odd_lines(l.blocks * COLUMNS + around);
    return l;
}

int64_t CPU_NAME(cpu_conv_direct_room)(const cpu_conv *c, int threads) {
    (void)threads;
    const layout l = layout_of(c);
    return l.planes * l.plane * (l.spread ? l.taps : 1);
}

/* pack_across of silu(x a + b); scales: a and b of each row. */
static void pack_scaled(const float *from, int64_t step, int64_t rows, int64_t n, const float *scales, float *cells) {
    enum { PIECE = 16 * LANES };
    float piece[PAIR * PIECE];
    for (int64_t i = 0; i < n; i += PIECE) {
        const int64_t some = n - i < PIECE ? n - i : PIECE;
        for (int64_t r = 0; r < rows; r++)
            scale_plane(from + r * step + i, piece + r * PIECE, some, scales[2 * r], scales[2 * r + 1], true);
        pack_across(piece, PIECE, rows, some, cells + i);
    }
}

/* Cells of `count` numbers of a picture's channel (pair of channels). */
static void pack_channel(const cpu_conv *c, int64_t picture, int64_t channel, int64_t at, int64_t count, float *cells) {
    const int64_t rows = c->ic - channel < PAIR ? c->ic - channel : PAIR, number = picture * c->ic + channel;
    const float *x = c->x + number * c->h * c->w + at;
    if (c->scales)
        pack_scaled(x, c->h * c->w, rows, count, c->scales + 2 * number, cells);
    else
        pack_across(x, c->h * c->w, rows, count, cells);
}

static void lay_out(const cpu_conv *c, const layout *l, int64_t number, float *plane) {
    memset(plane, 0, (size_t)l->plane * sizeof *plane);
    for (int64_t i = 0; i < c->n * c->h; i++) {
        const int64_t picture = i / c->h, y = i % c->h;
        float *cells = plane + c->pad * (l->pitch + 1) + (picture * l->height + y) * l->pitch;
        pack_channel(c, picture, number * PAIR, y * c->w, c->w, cells);
    }
}

/* planes: [taps]; cells: room for a picture. */
static void spread_out(const cpu_conv *c, const layout *l, int64_t number, float *planes, float *cells) {
    for (int64_t picture = 0; picture < c->n; picture++) {
        pack_channel(c, picture, number * PAIR, 0, c->h * c->w, cells);
        for (int64_t tap = 0; tap < l->taps; tap++) {
            float *to = planes + tap * l->plane + picture * c->oh * c->ow;
            for (int64_t oy = 0; oy < c->oh; oy++)
                copy_under(c, cells, oy * c->stride + tap / c->kw - c->pad, tap % c->kw - c->pad, c->ow,
                           to + oy * c->ow);
        }
    }
    for (int64_t tap = 0; tap < l->taps; tap++)
        memset(planes + tap * l->plane + l->pixels, 0, (size_t)(l->plane - l->pixels) * sizeof *planes);
}

void CPU_NAME(cpu_conv_direct_input)(const cpu_conv *c, float *room, int thread, int threads) {
    const layout l = layout_of(c);
    cpu_room picture = cpu_room_open(l.spread ? c->h * c->w : 0);
    int64_t first;
    const int64_t count = cpu_share(l.planes, thread, threads, &first);
    for (int64_t i = first; i < first + count; i++) {
        if (l.spread)
            spread_out(c, &l, i, room + i * l.taps * l.plane, picture.floats);
        else
            lay_out(c, &l, i, room + i * l.plane);
    }
    cpu_room_close(&picture);
}

/* Weights of some output channels, for some planes. */
typedef struct piece {
    int64_t oc, count, plane, planes;
} piece;

/* What a thread does at a time, and its memory. */
typedef struct part {
    const cpu_conv *c;
    layout l;
    int64_t groups, chunks, most;           /* of channels; of pixels; channels in any group */
    int64_t block, blocks;                  /* of pixels */
    piece now, next;                        /* of weights; next.count is 0 behind the last */
    float *weights;                         /* [phases][most][ROW] cells */
    float *taps;                            /* weights as floats, as many as a row of cells holds, and some more */
    float *sums;                            /* [blocks][phases][most][COLUMNS] */
    int32_t places[DOUBLED_PHASES * DEPTH]; /* from the first pixel to what a phase's cell is multiplied with */
} part;

/* Kernels of 3x3 in p->taps -> cells of row i in each phase. */
static void pack_folded(const part *p, int64_t planes, int64_t i) {
    enum { ALL = DOUBLED_PHASES * DOUBLED_TAPS };
    for (int64_t j = 0; j < planes; j++) {
        float folded[PAIR * ALL], cells[ALL];
        for (int k = 0; k < PAIR; k++) fold_kernel(p->taps + (j * PAIR + k) * KERNEL, folded + k * ALL);
        pack_across(folded, ALL, PAIR, ALL, cells);
        for (int f = 0; f < DOUBLED_PHASES; f++)
            memcpy(p->weights + (f * p->most + i) * ROW + j * DOUBLED_TAPS, cells + f * DOUBLED_TAPS,
                   DOUBLED_TAPS * sizeof *cells);
    }
}

/* One row of a piece's weights, as they lie in memory. */
static const void *weights_of(const cpu_conv *c, const piece *w, int64_t i, int64_t *numbers) {
    const int64_t taps = c->kh * c->kw, channels = w->planes * PAIR, left = c->ic - w->plane * PAIR;
    *numbers = (left < channels ? left : channels) * taps;
    return matrix_at(&c->weight, w->oc + i, w->plane * PAIR * taps);
}

static void pack_weights(const part *p) {
    const int64_t taps = p->c->kh * p->c->kw;
    memset(p->taps, 0, (size_t)(p->now.planes * PAIR * taps + LANES) * sizeof *p->taps);
    for (int64_t i = 0; i < p->now.count; i++) {
        int64_t numbers;
        const void *row = weights_of(p->c, &p->now, i, &numbers);
        if (i + ROWS_AHEAD < p->now.count) /* rows lie too far apart for the processor to foresee them */
            fetch_ahead((const char *)row + ROWS_AHEAD * p->c->weight.row_bytes, matrix_bytes(&p->c->weight, numbers));
        float *cells = p->weights + i * ROW;
        if (p->c->weight.to_floats)
            p->c->weight.to_floats(row, p->taps, numbers);
        else
            memcpy(p->taps, row, (size_t)numbers * sizeof(float));
        if (p->c->doubled) {
            pack_folded(p, p->now.planes, i);
        } else if (taps == 1) {
            pack_along(p->taps, numbers, cells);
        } else {
            for (int64_t j = 0; j < p->now.planes; j++)
                pack_across_loose(p->taps + j * PAIR * taps, taps, taps, cells + j * taps);
        }
    }
}

/* Share number `share` of `shares` of the next piece's weights. */
static void fetch_next(const part *p, int64_t share, int64_t shares) {
    int64_t first;
    const int64_t count = cpu_share(p->next.count, (int)share, (int)shares, &first);
    for (int64_t i = first; i < first + count; i++) {
        int64_t numbers;
        const void *row = weights_of(p->c, &p->next, i, &numbers);
        fetch_ahead(row, matrix_bytes(&p->c->weight, numbers));
    }
}

/* Sums of one output channel for `count` pixels of a picture's row y from x on, with the bias. */
static void place_row(const part *p, int64_t number, const float *from, int64_t picture, int64_t y, int64_t x,
                      int64_t count) {
    const cpu_conv *c = p->c;
    const int64_t oc = p->now.oc + number;
    const float bias = !c->bias ? 0 : c->bias[c->bias_per_picture ? picture * c->oc + oc : oc];
    float *plane = c->y + (picture * c->oc + oc) * c->oh * c->ow;
    if (!c->doubled) {
        float *restrict to = plane + y * c->ow + x;
        const float *add = c->add ? c->add + (to - c->y) : NULL;
        for (int64_t k = 0; k < count; k++) to[k] = from[k] + bias;
        for (int64_t k = 0; k < count && add; k++) to[k] += add[k];
        return;
    }
    for (int64_t below = 0; below < 2; below++) {
        const float *left = from + 2 * below * p->most * COLUMNS, *right = left + p->most * COLUMNS;
        float *restrict to = plane + (2 * y + below) * c->ow + 2 * x;
        for (int64_t k = 0; k < count; k++) {
            to[2 * k] = left[k] + bias;
            to[2 * k + 1] = right[k] + bias;
        }
    }
}

/* Sums of one output channel to the picture. */
static void place_sums(const part *p, int64_t number) {
    const cpu_conv *c = p->c;
    const int64_t end = (p->block + p->blocks) * COLUMNS, block_sums = p->l.phases * p->most * COLUMNS;
    for (int64_t at = p->block * COLUMNS; at < end;) {
        const int64_t in_block = at % COLUMNS, x = at % p->l.pitch, row = at / p->l.pitch;
        const int64_t picture = row / p->l.height, y = row % p->l.height;
        const int64_t count = COLUMNS - in_block < p->l.pitch - x ? COLUMNS - in_block : p->l.pitch - x;
        const float *from = p->sums + (at / COLUMNS - p->block) * block_sums + number * COLUMNS + in_block;
        at += count;
        if (picture < c->n && y < p->l.rows && x < p->l.columns)
            place_row(p, number, from, picture, y, x, count < p->l.columns - x ? count : p->l.columns - x);
    }
}

/* Rows first ... of one block with the piece's weights; ROWS_AT_ONCE of them at most. */
static __attribute__((noinline)) void multiply_some_rows(const part *p, const float *room, int64_t b, int64_t phase,
                                                         int64_t first) {
    const int64_t left = p->now.count - first, row = phase * p->most + first, pixel = (p->block + b) * COLUMNS;
    multiply_columns((block){.a = p->weights + row * ROW,
                             .a_row = ROW,
                             .b = room + p->now.plane * (p->l.spread ? p->l.taps : 1) * p->l.plane + pixel,
                             .places = p->places + phase * DEPTH,
                             .place_step = p->l.spread || p->l.taps == 1 ? p->l.plane : 0,
                             .depth = p->now.planes * p->l.taps,
                             .c = p->sums + (b * p->l.phases * p->most + row) * COLUMNS,
                             .c_row = COLUMNS,
                             .add = p->now.plane > 0},
                     left < ROWS_AT_ONCE ? left : ROWS_AT_ONCE, p->l.pixels - pixel, PLACED_CELLS);
}

static void multiply_piece(const part *p, const float *room) {
    const int64_t some = (p->now.count + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE, all = p->blocks * p->l.phases * some;
    for (int64_t i = 0; i < all; i++) {
        fetch_next(p, i, all);
        multiply_some_rows(p, room, i / some / p->l.phases, i / some % p->l.phases, i % some * ROWS_AT_ONCE);
    }
}

/* Piece number i of the weights of all groups. */
static piece piece_of(const part *p, int64_t i) {
    const int64_t at_once = DEPTH / p->l.taps, pieces = (p->l.planes + at_once - 1) / at_once;
    piece w = {.oc = i / pieces % p->groups * p->most, .plane = i % pieces * at_once};
    w.count = p->c->oc - w.oc < p->most ? p->c->oc - w.oc : p->most;
    w.planes = p->l.planes - w.plane < at_once ? p->l.planes - w.plane : at_once;
    return w;
}

/* Parts first ... of groups x chunks. */
static void conv_parts(part *p, const float *room, int64_t first, int64_t count) {
    const int64_t at_once = DEPTH / p->l.taps, pieces = (p->l.planes + at_once - 1) / at_once;
    const int64_t end = (first + count) * pieces;
    for (int64_t i = first * pieces; i < end; i++) {
        p->now = piece_of(p, i);
        p->next = i + 1 < end ? piece_of(p, i + 1) : (piece){0};
        p->blocks = cpu_share(p->l.blocks, (int)(i / pieces / p->groups), (int)p->chunks, &p->block);
        pack_weights(p);
        multiply_piece(p, room);
        for (int64_t k = 0; k < p->now.count && i % pieces == pieces - 1; k++) place_sums(p, k);
    }
}

static void find_places(part *p) {
    const int64_t across = p->c->doubled ? 2 : p->c->kw;
    for (int64_t i = 0; i < p->l.phases * DEPTH; i++) {
        const int64_t phase = i / DEPTH, cell = i % DEPTH, tap = cell % p->l.taps;
        const int64_t y = phase / 2 + tap / across, x = phase % 2 + tap % across;
        p->places[i] = (int32_t)(p->l.spread ? cell * p->l.plane : cell / p->l.taps * p->l.plane + y * p->l.pitch + x);
    }
}

/* Smaller parts when there are few for the threads. */
static void divide(part *p, int threads) {
    int64_t group = GROUP / p->l.phases, chunk = CHUNK;
    const int64_t least = 2 * ROWS / p->l.phases;
    for (;; group > least ? (group /= 2) : (chunk /= 2)) {
        p->groups = (p->c->oc + group - 1) / group;
        p->chunks = (p->l.blocks + chunk - 1) / chunk;
        if (p->groups * p->chunks >= 4 * threads || (group <= least && chunk == 1)) break;
    }
    p->most = p->c->oc < group ? p->c->oc : group;
}

void CPU_NAME(cpu_conv_direct)(const cpu_conv *c, float *room, int thread, int threads) {
    part p = {.c = c, .l = layout_of(c)};
    divide(&p, threads);
    const int64_t rows = p.l.phases * p.most, blocks = (p.l.blocks + p.chunks - 1) / p.chunks;
    const int64_t taps = DEPTH / p.l.taps * PAIR * c->kh * c->kw;
    cpu_room memory = cpu_room_open(rows * ROW + blocks * rows * COLUMNS + taps + LANES);
    p.weights = memory.floats;
    p.sums = p.weights + rows * ROW;
    p.taps = p.sums + blocks * rows * COLUMNS;
    find_places(&p);
    int64_t first;
    const int64_t count = cpu_share(p.groups * p.chunks, thread, threads, &first);
    tiles_open();
    conv_parts(&p, room, first, count);
    tiles_close();
    cpu_room_close(&memory);
}
