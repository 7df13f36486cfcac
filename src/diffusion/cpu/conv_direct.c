/* conv_direct.c - convolutions of stride 1 that keep a picture's size, without a copy of the input under each pixel.
 *
 * All pictures are laid out as one (conv_direct_input): a plane of cells for each channel (pair of channels), with
 * `pad` columns of zeros behind each row and `pad` rows of zeros around each picture; a row's left neighbours are the
 * zeros behind the row above. Pixels of the result are numbered the same way, columns of filling included, so that any
 * COLUMNS of them in a row are one block of a matrix product, and what lies under them for one channel and one place in
 * the kernel is COLUMNS numbers in a row, too:
 *     sums [oc, pixels] += weights [oc, channels x places] input [channels x places, pixels]
 * Sums of the filling are left out at the end.
 *
 * A picture that is to be doubled first, each pixel four times, is not: where one of the four pixels of a result lies
 * decides which of the 3x3 places fall on the same pixel of the picture, and their weights are added. What is left are
 * four kernels of 2x2, one for each of the four (its `phase`), 4/9 of the multiplications.
 *
 * A thread takes a chunk of pixels and a group of rows of weights: output channels, four rows each where pictures are
 * doubled. Their sums, a piece of the group's weights and the input under the chunk fit the second-level cache
 * together. */
#include "diffusion/cpu/exp.h"
#include "diffusion/cpu/kernels.h"
#include "diffusion/cpu/rows.h"

enum { DEPTH = 576, ROW = DEPTH + 16 }; /* cells of weights at a time; the filling keeps rows apart in the cache */
enum { GROUP = 8 * ROWS, CHUNK = 16 };  /* rows of weights; blocks of pixels */
enum { LINE_OF_FLOATS = 16 };           /* in a cache line */
enum { ROWS_AHEAD = 4 };                /* of weights */
enum { DOUBLED_PHASES = 4, DOUBLED_TAPS = 4, KERNEL = 9 };

/* Where things are in the room. */
typedef struct layout {
    int64_t phases, taps;  /* kernels for one output channel; numbers of each */
    int64_t pitch, blocks; /* from row to row; of COLUMNS pixels */
    int64_t planes, plane; /* planes of cells, floats from one to the next */
} layout;

static layout layout_of(const cpu_conv *c) {
    layout l = {.phases = 1, .taps = c->kh * c->kw, .pitch = c->w + c->pad, .planes = cells_of(c->ic)};
    if (c->doubled) l.phases = DOUBLED_PHASES, l.taps = DOUBLED_TAPS;
    const int64_t pixels = (c->n * (c->h + c->pad) - c->pad) * l.pitch;
    l.blocks = (pixels + COLUMNS - 1) / COLUMNS;
    /* An odd number of cache lines: planes must not fall together in the cache. */
    const int64_t lines = (l.blocks * COLUMNS + 2 * c->pad * (l.pitch + 1) + LINE_OF_FLOATS - 1) / LINE_OF_FLOATS;
    l.plane = (lines | 1) * LINE_OF_FLOATS;
    return l;
}

int64_t CPU_NAME(cpu_conv_direct_room)(const cpu_conv *c, int threads) {
    (void)threads;
    const layout l = layout_of(c);
    return l.planes * l.plane;
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

void CPU_NAME(cpu_conv_direct_input)(const cpu_conv *c, float *room, int thread, int threads) {
    const layout l = layout_of(c);
    int64_t first;
    const int64_t count = cpu_share(l.planes, thread, threads, &first);
    for (int64_t i = first; i < first + count; i++) {
        const int64_t channel = i * PAIR, rows = c->ic - channel < PAIR ? c->ic - channel : PAIR;
        float *plane = room + i * l.plane, *start = plane + c->pad * (l.pitch + 1);
        memset(plane, 0, (size_t)l.plane * sizeof *plane);
        for (int64_t y = 0; y < c->n * c->h; y++) {
            const int64_t picture = y / c->h, number = picture * c->ic + channel;
            const float *row = c->x + (number * c->h + y % c->h) * c->w;
            float *cells = start + (y + picture * c->pad) * l.pitch;
            if (c->scales)
                pack_scaled(row, c->h * c->w, rows, c->w, c->scales + 2 * number, cells);
            else
                pack_across(row, c->h * c->w, rows, c->w, cells);
        }
    }
}

/* A thread's share of the work, and its memory. */
typedef struct part {
    const cpu_conv *c;
    layout l;
    int64_t block, blocks, oc, count;       /* of pixels; of output channels */
    int64_t most;                           /* channels in any group */
    float *weights;                         /* [phases][most][ROW] cells */
    float *taps;                            /* weights as floats, as many as a row of cells holds, and some more */
    float *sums;                            /* [blocks][phases][most][COLUMNS] */
    int32_t places[DOUBLED_PHASES * DEPTH]; /* from the first pixel to what a phase's cell is multiplied with */
} part;

/* The four kernels of one of 3x3: out [phases][2x2]. */
static void fold_kernel(const float *kernel, float out[DOUBLED_PHASES * DOUBLED_TAPS]) {
    float rows[4][3]; /* the two of the upper phases, then those of the lower ones */
    for (int x = 0; x < 3; x++) {
        const float top = kernel[x], middle = kernel[3 + x], bottom = kernel[6 + x];
        rows[0][x] = top, rows[1][x] = middle + bottom, rows[2][x] = top + middle, rows[3][x] = bottom;
    }
    for (int i = 0; i < 4; i++) {
        const float left = rows[i][0], middle = rows[i][1], right = rows[i][2];
        float *upper_left = out + i / 2 * 2 * DOUBLED_TAPS + i % 2 * 2, *upper_right = upper_left + DOUBLED_TAPS;
        upper_left[0] = left, upper_left[1] = middle + right;
        upper_right[0] = left + middle, upper_right[1] = right;
    }
}

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

/* The group's weights for some planes from `plane` on. */
static void pack_weights(const part *p, int64_t plane, int64_t planes) {
    const cpu_matrix *m = &p->c->weight;
    const int64_t taps = p->c->kh * p->c->kw, left = p->c->ic - plane * PAIR;
    const int64_t numbers = (left < planes * PAIR ? left : planes * PAIR) * taps, skip = plane * PAIR * taps;
    memset(p->taps, 0, (size_t)(planes * PAIR * taps + LANES) * sizeof *p->taps);
    for (int64_t i = 0; i < p->count; i++) {
        const char *row = (const char *)m->data + (size_t)(p->oc + i) * m->row_bytes;
        float *cells = p->weights + i * ROW;
        if (i + ROWS_AHEAD < p->count) /* rows lie too far apart for the processor to foresee them */
            fetch_ahead(row + ROWS_AHEAD * m->row_bytes + (size_t)skip * m->element_bytes,
                        numbers * (int64_t)m->element_bytes);
        if (m->to_floats)
            m->to_floats(row + (size_t)skip * m->element_bytes, p->taps, numbers);
        else
            memcpy(p->taps, (const float *)(const void *)row + skip, (size_t)numbers * sizeof(float));
        if (p->c->doubled) {
            pack_folded(p, planes, i);
        } else if (taps == 1) {
            pack_along(p->taps, numbers, cells);
        } else {
            for (int64_t j = 0; j < planes; j++)
                pack_across_loose(p->taps + j * PAIR * taps, taps, taps, cells + j * taps);
        }
    }
}

/* Sums of one output channel for `count` pixels of a picture's row y from x on, with the bias. */
static void place_row(const part *p, int64_t number, const float *from, int64_t picture, int64_t y, int64_t x,
                      int64_t count) {
    const cpu_conv *c = p->c;
    const int64_t oc = p->oc + number;
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
        const int64_t picture = row / (c->h + c->pad), y = row % (c->h + c->pad);
        const int64_t count = COLUMNS - in_block < p->l.pitch - x ? COLUMNS - in_block : p->l.pitch - x;
        const float *from = p->sums + (at / COLUMNS - p->block) * block_sums + number * COLUMNS + in_block;
        at += count;
        if (picture < c->n && y < c->h && x < c->w)
            place_row(p, number, from, picture, y, x, count < c->w - x ? count : c->w - x);
    }
}

/* Block b of the part, all planes from `plane` on that the weights are there for. */
static void multiply_block(const part *p, const float *room, int64_t plane, int64_t planes, int64_t b) {
    for (int64_t phase = 0; phase < p->l.phases; phase++)
        multiply_placed_rows((block){.a = p->weights + phase * p->most * ROW,
                                     .a_row = ROW,
                                     .b = room + plane * p->l.plane + (p->block + b) * COLUMNS,
                                     .places = p->places + phase * DEPTH,
                                     .depth = planes * p->l.taps,
                                     .c = p->sums + (b * p->l.phases + phase) * p->most * COLUMNS,
                                     .c_row = COLUMNS,
                                     .add = plane > 0},
                             p->count);
}

static void conv_part(const part *p, const float *room) {
    const int64_t at_once = DEPTH / p->l.taps;
    for (int64_t plane = 0; plane < p->l.planes; plane += at_once) {
        const int64_t planes = p->l.planes - plane < at_once ? p->l.planes - plane : at_once;
        pack_weights(p, plane, planes);
        for (int64_t b = 0; b < p->blocks; b++) multiply_block(p, room, plane, planes, b);
    }
    for (int64_t i = 0; i < p->count; i++) place_sums(p, i);
}

static void find_places(part *p) {
    const int64_t across = p->c->doubled ? 2 : p->c->kw;
    for (int64_t i = 0; i < p->l.phases * DEPTH; i++) {
        const int64_t phase = i / DEPTH, cell = i % DEPTH, tap = cell % p->l.taps;
        const int64_t y = phase / 2 + tap / across, x = phase % 2 + tap % across;
        p->places[i] = (int32_t)(cell / p->l.taps * p->l.plane + y * p->l.pitch + x);
    }
}

/* Smaller parts when there are few for the threads. */
void CPU_NAME(cpu_conv_direct)(const cpu_conv *c, float *room, int thread, int threads) {
    part p = {.c = c, .l = layout_of(c)};
    int64_t group = GROUP / p.l.phases, chunk = CHUNK, groups, chunks;
    const int64_t least = 2 * ROWS / p.l.phases;
    for (;; group > least ? (group /= 2) : (chunk /= 2)) {
        groups = (c->oc + group - 1) / group;
        chunks = (p.l.blocks + chunk - 1) / chunk;
        if (groups * chunks >= 4 * threads || (group <= least && chunk == 1)) break;
    }
    p.most = c->oc < group ? c->oc : group;
    const int64_t rows = p.l.phases * p.most, sums = (p.l.blocks < chunk ? p.l.blocks : chunk) * rows * COLUMNS;
    const int64_t taps = DEPTH / p.l.taps * PAIR * c->kh * c->kw;
    cpu_room memory = cpu_room_open(rows * ROW + sums + taps + LANES);
    p.weights = memory.floats;
    p.sums = p.weights + rows * ROW;
    p.taps = p.sums + sums;
    find_places(&p);
    int64_t first;
    const int64_t count = cpu_share(groups * chunks, thread, threads, &first);
    for (int64_t i = first; i < first + count; i++) {
        p.blocks = cpu_share(p.l.blocks, (int)(i / groups), (int)chunks, &p.block);
        p.oc = i % groups * group;
        p.count = c->oc - p.oc < group ? c->oc - p.oc : group;
        conv_part(&p, room);
    }
    cpu_room_close(&memory);
}
