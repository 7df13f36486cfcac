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
 * A thread takes a chunk of pixels and a group of output channels. Their sums, a piece of the group's weights and the
 * input under the chunk fit the second-level cache together. */
#include "diffusion/cpu/isa.h"
#include "diffusion/cpu/kernels.h"
#include "diffusion/cpu/rows.h"

enum { DEPTH = 576, ROW = DEPTH + 16 }; /* cells of weights at a time; the filling keeps rows apart in the cache */
enum { GROUP = 8 * ROWS, CHUNK = 16 };  /* channels of output; blocks of pixels */
enum { LINE_OF_FLOATS = 16 };           /* in a cache line */

/* Where things are in the room. */
typedef struct layout {
    int64_t taps, pitch, blocks; /* numbers of a kernel; from row to row; of COLUMNS pixels */
    int64_t planes, plane;       /* planes of cells, floats from one to the next */
} layout;

static layout layout_of(const cpu_conv *c) {
    layout l = {.taps = c->kh * c->kw, .pitch = c->w + c->pad, .planes = cells_of(c->ic)};
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

void CPU_NAME(cpu_conv_direct_input)(const cpu_conv *c, float *room, int thread, int threads) {
    const layout l = layout_of(c);
    int64_t first;
    const int64_t count = cpu_share(l.planes, thread, threads, &first);
    for (int64_t i = first; i < first + count; i++) {
        const int64_t channel = i * PAIR, rows = c->ic - channel < PAIR ? c->ic - channel : PAIR;
        float *plane = room + i * l.plane, *start = plane + c->pad * (l.pitch + 1);
        memset(plane, 0, (size_t)l.plane * sizeof *plane);
        for (int64_t y = 0; y < c->n * c->h; y++) {
            const int64_t picture = y / c->h;
            pack_across(c->x + ((picture * c->ic + channel) * c->h + y % c->h) * c->w, c->h * c->w, rows, c->w,
                        start + (y + picture * c->pad) * l.pitch);
        }
    }
}

/* A thread's share of the work, and its memory. */
typedef struct part {
    const cpu_conv *c;
    layout l;
    int64_t block, blocks, oc, count; /* of pixels; of output channels */
    int64_t most;                     /* channels in any group */
    float *weights;                   /* [most][ROW] cells */
    float *taps;                      /* weights as floats, as many as a row of cells holds, and a vector */
    float *sums;                      /* [blocks][most][COLUMNS] */
    int32_t places[DEPTH];            /* from the first pixel to what its cell of weights is multiplied with */
} part;

/* The group's weights for some planes from `plane` on. */
static void pack_weights(const part *p, int64_t plane, int64_t planes) {
    const cpu_matrix *m = &p->c->weight;
    const int64_t taps = p->l.taps, left = p->c->ic - plane * PAIR;
    const int64_t numbers = (left < planes * PAIR ? left : planes * PAIR) * taps, skip = plane * PAIR * taps;
    memset(p->taps, 0, (size_t)(planes * PAIR * taps + LANES) * sizeof *p->taps);
    for (int64_t i = 0; i < p->count; i++) {
        const char *row = (const char *)m->data + (size_t)(p->oc + i) * m->row_bytes;
        float *cells = p->weights + i * ROW;
        if (m->to_floats)
            m->to_floats(row + (size_t)skip * m->element_bytes, p->taps, numbers);
        else
            memcpy(p->taps, (const float *)(const void *)row + skip, (size_t)numbers * sizeof(float));
        if (taps == 1) {
            pack_along(p->taps, numbers, cells);
        } else {
            for (int64_t j = 0; j < planes; j++)
                pack_across_loose(p->taps + j * PAIR * taps, taps, taps, cells + j * taps);
        }
    }
}

/* Sums of one output channel to the picture, with the bias. */
static void place_sums(const part *p, int64_t number) {
    const cpu_conv *c = p->c;
    const int64_t oc = p->oc + number, end = (p->block + p->blocks) * COLUMNS;
    for (int64_t at = p->block * COLUMNS; at < end;) {
        const int64_t in_block = at % COLUMNS, x = at % p->l.pitch, row = at / p->l.pitch;
        const int64_t picture = row / (c->h + c->pad), y = row % (c->h + c->pad);
        int64_t count = COLUMNS - in_block < p->l.pitch - x ? COLUMNS - in_block : p->l.pitch - x;
        const float *from = p->sums + ((at / COLUMNS - p->block) * p->most + number) * COLUMNS + in_block;
        at += count;
        if (picture >= c->n || y >= c->h || x >= c->w) continue;
        if (count > c->w - x) count = c->w - x;
        const float bias = !c->bias ? 0 : c->bias[c->bias_per_picture ? picture * c->oc + oc : oc];
        float *restrict to = c->y + ((picture * c->oc + oc) * c->h + y) * c->w + x;
        for (int64_t k = 0; k < count; k++) to[k] = from[k] + bias;
    }
}

static void conv_part(const part *p, const float *room) {
    const int64_t at_once = DEPTH / p->l.taps;
    for (int64_t plane = 0; plane < p->l.planes; plane += at_once) {
        const int64_t planes = p->l.planes - plane < at_once ? p->l.planes - plane : at_once;
        pack_weights(p, plane, planes);
        for (int64_t b = 0; b < p->blocks; b++)
            multiply_placed_rows((block){.a = p->weights,
                                         .a_row = ROW,
                                         .b = room + plane * p->l.plane + (p->block + b) * COLUMNS,
                                         .places = p->places,
                                         .depth = planes * p->l.taps,
                                         .c = p->sums + b * p->most * COLUMNS,
                                         .c_row = COLUMNS,
                                         .add = plane > 0},
                                 p->count);
    }
    for (int64_t i = 0; i < p->count; i++) place_sums(p, i);
}

static void find_places(part *p) {
    for (int64_t i = 0; i < DEPTH; i++) {
        const int64_t tap = i % p->l.taps, ky = tap / p->c->kw, kx = tap % p->c->kw;
        p->places[i] = (int32_t)(i / p->l.taps * p->l.plane + ky * p->l.pitch + kx);
    }
}

/* Smaller parts when there are few for the threads. */
void CPU_NAME(cpu_conv_direct)(const cpu_conv *c, float *room, int thread, int threads) {
    part p = {.c = c, .l = layout_of(c)};
    int64_t group = GROUP, chunk = CHUNK, groups, chunks;
    for (;; group > 2 * ROWS ? (group /= 2) : (chunk /= 2)) {
        groups = (c->oc + group - 1) / group;
        chunks = (p.l.blocks + chunk - 1) / chunk;
        if (groups * chunks >= 4 * threads || (group <= 2 * ROWS && chunk == 1)) break;
    }
    p.most = c->oc < group ? c->oc : group;
    const int64_t sums = (p.l.blocks < chunk ? p.l.blocks : chunk) * p.most * COLUMNS;
    cpu_room memory = cpu_room_open(p.most * ROW + sums + DEPTH * PAIR + LANES);
    p.weights = memory.floats;
    p.sums = p.weights + p.most * ROW;
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
