/* winograd.c - 3x3 convolution of stride 1 with a quarter of the multiplications: F(4x4, 3x3) of Lavin & Gray 2016,
 * "Fast Algorithms for Convolutional Neural Networks".
 *
 * A tile is 4x4 pixels of output, made from 6x6 of input (d) with the 3x3 kernel (g):
 *     Y = A^T [ (G g G^T) . (B^T d B) ] A
 * where . multiplies 36 numbers with 36 numbers. Summed over input channels, those are 36 independent matrix products
 * M_k [oc, tiles] = U_k [oc, ic] V_k [ic, tiles], one for each position k.
 *
 * With so few multiplications the speed of memory decides, so the work is cut such that what is used often stays in the
 * second-level cache. Tiles are taken in chunks, whose V is read once for each GROUP of output channels. A group's
 * kernels are transformed a piece of the depth at a time (U), multiplied with all tiles of the chunk, and added to the
 * group's sums (M), which are transformed back at the end. U is made anew for each chunk: kept, it would take four
 * times the memory of the weights, and reading it would take as long as making it.
 *
 * With many chunks each thread takes some of them and makes their V for itself. With few, all threads make V together
 * (winograd_input) and then share the output channels. */
#include "diffusion/cpu/isa.h"
#include "diffusion/cpu/kernels.h"

enum { EDGE = 6, TILE = 4, POSITIONS = EDGE * EDGE, TAPS = 9, GROUP = 64, DEPTH = 64, U_ROW = DEPTH + 16 };
enum { CHUNK_TILES = 96 };

static int64_t tiles_across(const cpu_conv *c) {
    return (c->w + TILE - 1) / TILE;
}
static int64_t tiles_down(const cpu_conv *c) {
    return (c->h + TILE - 1) / TILE;
}

/* Tiles first ... first + count - 1 of all pictures' tiles, row by row, and a thread's memory for them. */
typedef struct chunk {
    const cpu_conv *c;
    int64_t first, count, blocks;                 /* blocks of COLUMNS tiles */
    float *v;                                     /* [blocks][36][ic][COLUMNS] */
    float *u;                                     /* [36][GROUP][U_ROW] */
    float *m;                                     /* [blocks][36][GROUP][COLUMNS] */
    float *taps;                                  /* [DEPTH + LANES][9] */
    float *zeros, *line, *near[EDGE], *far[EDGE]; /* see transform_down() */
} chunk;

/* --- V = B^T d B -------------------------------------------------------------------------------------------------- */

/* B^T over six numbers; T is a vector or float. */
#define INPUT_TRANSFORM(T, d, o)                                                                                       \
    do {                                                                                                               \
        const T a_ = d[4] - 4 * d[2], b_ = d[3] - 4 * d[1], c_ = d[4] - d[2], e_ = 2 * (d[3] - d[1]);                  \
        o[0] = 4 * d[0] - 5 * d[2] + d[4];                                                                             \
        o[1] = a_ + b_;                                                                                                \
        o[2] = a_ - b_;                                                                                                \
        o[3] = c_ + e_;                                                                                                \
        o[4] = c_ - e_;                                                                                                \
        o[5] = 4 * d[1] - 5 * d[3] + d[5];                                                                             \
    } while (0)

/* Tiles of one tile row from the picture's tile x on, transformed in the vertical, become tiles at ... of the chunk.
 * Tiles lie one behind the other, four numbers each, whatever row they are of, so that vectors of tiles are full in
 * narrow pictures, too. A tile's numbers are its columns -1, 0, 1, 2 (near); its columns 3 and 4 are the first two of
 * its four numbers in `far`. */
static void transform_down(const chunk *p, const float *plane, int64_t top, int64_t x, int64_t count, int64_t at) {
    const cpu_conv *c = p->c;
    const int64_t left = TILE * x - 1, right = TILE * (x + count) + 1; /* columns, the last one included */
    const int64_t from = left < 0 ? 0 : left, end = right < c->w ? right + 1 : c->w;
    const float *d[EDGE];
    for (int i = 0; i < EDGE; i++) d[i] = top + i < 0 || top + i >= c->h ? p->zeros : plane + (top + i) * c->w;
    const float *d0 = d[0], *d1 = d[1], *d2 = d[2], *d3 = d[3], *d4 = d[4], *d5 = d[5];
    const int64_t line = TILE * (CHUNK_TILES + 2);
    float *restrict o0 = p->line - left, *restrict o1 = o0 + line, *restrict o2 = o1 + line, *restrict o3 = o2 + line,
                    *restrict o4 = o3 + line, *restrict o5 = o4 + line;
    for (int64_t i = from; i < end; i++) {
        const float in[EDGE] = {d0[i], d1[i], d2[i], d3[i], d4[i], d5[i]};
        float out[EDGE];
        INPUT_TRANSFORM(float, in, out);
        o0[i] = out[0], o1[i] = out[1], o2[i] = out[2], o3[i] = out[3], o4[i] = out[4], o5[i] = out[5];
    }
    for (int i = 0; i < EDGE; i++) {
        float *row = p->line + i * line;
        if (left < 0) row[0] = 0;
        for (int64_t k = end - left; k < right + TILE - left; k++) row[k] = 0;
        memcpy(p->near[i] + TILE * at, row, (size_t)(TILE * count) * sizeof *row);
        memcpy(p->far[i] + TILE * at, row + TILE, (size_t)(TILE * count) * sizeof *row);
    }
}

/* Where position k of a channel has the chunk's tile. */
static float *place_of(const chunk *p, int64_t channel, int k, int64_t tile) {
    return p->v + ((tile / COLUMNS * POSITIONS + k) * p->c->ic + channel) * COLUMNS + tile % COLUMNS;
}

/* LANES tiles of the chunk. Behind the last one there are zeros: those are multiplied, too, and must be numbers. */
static void transform_across(const chunk *p, int64_t channel, int64_t tile) {
    for (int i = 0; i < EDGE; i++) {
        vec near[TILE], far[TILE], o[EDGE];
        split4(p->near[i] + TILE * tile, near);
        split4(p->far[i] + TILE * tile, far);
        const vec d[EDGE] = {near[0], near[1], near[2], near[3], far[0], far[1]};
        INPUT_TRANSFORM(vec, d, o);
        for (int j = 0; j < EDGE; j++) store(place_of(p, channel, i * EDGE + j, tile), o[j]);
    }
}

/* V of the chunk, of `channels` channels from the first on. */
static void transform_input(const chunk *p, int64_t first, int64_t channels) {
    const cpu_conv *c = p->c;
    const int64_t across = tiles_across(c), down = tiles_down(c);
    for (int64_t channel = first; channel < first + channels; channel++) {
        for (int64_t at = 0; at < p->count;) {
            const int64_t tile = p->first + at, row = tile / across, x = tile % across;
            const int64_t left = p->count - at, count = across - x < left ? across - x : left;
            const float *plane = c->x + (row / down * c->ic + channel) * c->h * c->w;
            transform_down(p, plane, row % down * TILE - 1, x, count, at);
            at += count;
        }
        for (int64_t tile = 0; tile < p->blocks * COLUMNS; tile += LANES) transform_across(p, channel, tile);
    }
}

/* --- U = G g G^T -------------------------------------------------------------------------------------------------- */

/* G over three numbers, for LANES kernels at once. */
ALWAYS_INLINE void kernel_transform(const vec g0, const vec g1, const vec g2, vec o[EDGE]) {
    const vec outer = (g0 + g2) * (1.0f / 6), even = g0 * (1.0f / 24) + g2 * (1.0f / 6), odd = g1 * (1.0f / 12);
    o[0] = g0 * 0.25f;
    o[1] = -outer - g1 * (1.0f / 6);
    o[2] = g1 * (1.0f / 6) - outer;
    o[3] = even + odd;
    o[4] = even - odd;
    o[5] = g2;
}

/* LANES kernels whose nine taps lie one behind the other -> 36 vectors, `step` floats apart. */
static void transform_kernels(const float *taps, float *u, int64_t step) {
    float g[TAPS][LANES];
    vec rows[3][EDGE];
    for (int i = 0; i < LANES; i++)
        for (int t = 0; t < TAPS; t++) g[t][i] = taps[i * TAPS + t];
    for (int x = 0; x < 3; x++) kernel_transform(load(g[x]), load(g[3 + x]), load(g[6 + x]), rows[x]);
    for (int y = 0; y < EDGE; y++) {
        vec o[EDGE];
        kernel_transform(rows[0][y], rows[1][y], rows[2][y], o);
        for (int x = 0; x < EDGE; x++) store(u + (y * EDGE + x) * step, o[x]);
    }
}

/* The kernels of `count` output channels from oc on, for input channels from ... from + depth - 1. */
static void transform_group(const chunk *p, int64_t oc, int64_t count, int64_t from, int64_t depth) {
    const cpu_matrix *w = &p->c->weight;
    memset(p->taps + depth * TAPS, 0, LANES * TAPS * sizeof(float)); /* the last vector may reach beyond */
    for (int64_t i = 0; i < count; i++) {
        const char *row = (const char *)w->data + (size_t)(oc + i) * w->row_bytes;
        if (w->to_floats)
            w->to_floats(row + (size_t)(from * TAPS) * w->element_bytes, p->taps, depth * TAPS);
        else
            memcpy(p->taps, (const float *)(const void *)row + from * TAPS, (size_t)(depth * TAPS) * sizeof(float));
        for (int64_t k = 0; k < depth; k += LANES)
            transform_kernels(p->taps + k * TAPS, p->u + i * U_ROW + k, GROUP * U_ROW);
    }
}

/* --- Y = A^T M A -------------------------------------------------------------------------------------------------- */

/* A^T over six vectors. */
ALWAYS_INLINE void output_transform(const vec m[EDGE], vec y[TILE]) {
    const vec a = m[1] + m[2], b = m[1] - m[2], c = m[3] + m[4], d = m[3] - m[4];
    y[0] = m[0] + a + c;
    y[1] = b + 2 * d;
    y[2] = a + 4 * c;
    y[3] = b + 8 * d + m[5];
}

/* Sums of LANES tiles -> 4 rows of 4 LANES pixels, `row` apart. m: 36 vectors, `step` apart. */
static void transform_sums(const float *m, int64_t step, float *pixels, int64_t row) {
    vec half[TILE][EDGE];
    for (int x = 0; x < EDGE; x++) {
        vec column[EDGE], y[TILE];
        for (int i = 0; i < EDGE; i++) column[i] = load(m + (i * EDGE + x) * step);
        output_transform(column, y);
        for (int i = 0; i < TILE; i++) half[i][x] = y[i];
    }
    for (int i = 0; i < TILE; i++) {
        vec y[TILE];
        output_transform(half[i], y);
        join4(y, pixels + i * row);
    }
}

/* A stretch of tiles of one tile row, from `pixels` [4][4 COLUMNS] to the picture. tile: of all pictures. */
static void place_pixels(const cpu_conv *c, int64_t oc, int64_t tile, int64_t count, const float *pixels) {
    const int64_t across = tiles_across(c), down = tiles_down(c), row = tile / across;
    const int64_t picture = row / down, y = row % down * TILE, x = tile % across * TILE;
    const float bias = !c->bias ? 0 : c->bias[c->bias_per_picture ? picture * c->oc + oc : oc];
    const int64_t width = c->w - x < count * TILE ? c->w - x : count * TILE;
    for (int i = 0; i < TILE && y + i < c->h; i++) {
        const float *from = pixels + i * COLUMNS * TILE;
        const int64_t at = ((picture * c->oc + oc) * c->h + y + i) * c->w + x;
        float *restrict to = c->y + at;
        for (int64_t k = 0; k < width; k++) to[k] = from[k] + bias;
        for (int64_t k = 0; k < width && c->add; k++) to[k] += c->add[at + k];
    }
}

/* One output channel of one block, the `number`th of its group. */
static void finish_block(const chunk *p, int64_t oc, int64_t number, int64_t b) {
    float pixels[TILE * COLUMNS * TILE];
    const float *m = p->m + (b * POSITIONS * GROUP + number) * COLUMNS;
    for (int v = 0; v < VECS; v++)
        transform_sums(m + v * LANES, GROUP * COLUMNS, pixels + v * LANES * TILE, COLUMNS * TILE);
    const int64_t across = tiles_across(p->c), start = p->first + b * COLUMNS, all = p->first + p->count;
    const int64_t end = start + COLUMNS < all ? start + COLUMNS : all;
    for (int64_t tile = start; tile < end;) {
        const int64_t in_row = across - tile % across, count = end - tile < in_row ? end - tile : in_row;
        place_pixels(p->c, oc, tile, count, pixels + (tile - start) * TILE);
        tile += count;
    }
}

/* --- All of it ---------------------------------------------------------------------------------------------------- */

/* Output channels oc .. oc + count - 1, count <= GROUP. */
static void multiply_group(const chunk *p, int64_t oc, int64_t count) {
    const int64_t ic = p->c->ic;
    for (int64_t from = 0; from < ic; from += DEPTH) {
        const int64_t depth = ic - from < DEPTH ? ic - from : DEPTH;
        transform_group(p, oc, count, from, depth);
        for (int64_t n = 0; n < p->blocks * POSITIONS; n++)
            multiply_rows((block){.a = p->u + n % POSITIONS * GROUP * U_ROW,
                                  .a_row = U_ROW,
                                  .b = p->v + (n * ic + from) * COLUMNS,
                                  .depth = depth,
                                  .c = p->m + n * GROUP * COLUMNS,
                                  .c_row = COLUMNS,
                                  .add = from > 0},
                          count);
    }
    for (int64_t b = 0; b < p->blocks; b++)
        for (int64_t i = 0; i < count; i++) finish_block(p, oc + i, i, b);
}

/* How the work is dealt out: chunks of tiles, each with a part of the output channels. */
typedef struct division {
    int64_t tiles, chunk, chunks; /* in all, in one chunk, their number */
    int64_t part, parts;          /* output channels in one part, their number */
    bool shared;                  /* V is made by all threads together */
    int64_t v_floats;             /* V of one chunk */
} division;

static int64_t divide_up(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

static division divide(const cpu_conv *c, int threads) {
    division d = {.tiles = c->n * tiles_down(c) * tiles_across(c), .parts = 1};
    const int64_t blocks = divide_up(d.tiles, COLUMNS), most = CHUNK_TILES / COLUMNS;
    d.chunk = (blocks < most ? blocks : most) * COLUMNS;
    d.chunks = divide_up(d.tiles, d.chunk);
    d.v_floats = d.chunk * POSITIONS * c->ic;
    d.shared = d.chunks < 4 * threads && d.chunks % threads != 0;
    if (d.shared) d.parts = divide_up(4 * threads, d.chunks);
    d.part = divide_up(divide_up(c->oc, d.parts), 2 * ROWS) * 2 * ROWS;
    d.parts = divide_up(c->oc, d.part);
    return d;
}

/* A thread's memory besides V, in floats. */
enum {
    U_FLOATS = POSITIONS * GROUP * U_ROW,
    M_FLOATS = CHUNK_TILES * POSITIONS * GROUP,
    TAP_FLOATS = (DEPTH + LANES) * TAPS,
    LINE_FLOATS = EDGE * TILE * (CHUNK_TILES + 2),
    FLAT_FLOATS = TILE * (CHUNK_TILES + LANES),
    FIXED_FLOATS = U_FLOATS + M_FLOATS + TAP_FLOATS + LINE_FLOATS + 2 * EDGE * FLAT_FLOATS
};
enum { LINE_BYTES = 64, LINE_OF_FLOATS = LINE_BYTES / sizeof(float) };

static int64_t thread_floats(const cpu_conv *c) {
    return divide_up(FIXED_FLOATS + c->w, LINE_OF_FLOATS) * LINE_OF_FLOATS;
}

int64_t CPU_NAME(cpu_winograd_room)(const cpu_conv *c, int threads) {
    const division d = divide(c, threads);
    return d.v_floats * (d.shared ? d.chunks : threads) + thread_floats(c) * threads + LINE_OF_FLOATS;
}

/* V lies first, of all chunks or of all threads; then each thread's own memory. */
static float *first_line(float *room) {
    return room + (LINE_BYTES - (uintptr_t)room % LINE_BYTES) % LINE_BYTES / sizeof *room;
}

static chunk open_chunk(const cpu_conv *c, const division *d, float *room, int thread, int threads) {
    room = first_line(room);
    chunk p = {.c = c, .first = -1, .v = room + thread * d->v_floats};
    p.u = room + d->v_floats * (d->shared ? d->chunks : threads) + thread * thread_floats(c);
    p.m = p.u + U_FLOATS;
    p.taps = p.m + M_FLOATS;
    p.line = p.taps + TAP_FLOATS;
    for (int i = 0; i < EDGE; i++) {
        p.near[i] = p.line + LINE_FLOATS + 2 * i * FLAT_FLOATS;
        p.far[i] = p.near[i] + FLAT_FLOATS;
    }
    p.zeros = p.line + LINE_FLOATS + 2 * EDGE * FLAT_FLOATS;
    memset(p.line, 0, (size_t)(LINE_FLOATS + 2 * EDGE * FLAT_FLOATS + c->w) * sizeof *room);
    return p;
}

static void move_to(chunk *p, const division *d, int64_t number) {
    p->first = number * d->chunk;
    p->count = d->tiles - p->first < d->chunk ? d->tiles - p->first : d->chunk;
    p->blocks = divide_up(p->count, COLUMNS);
}

void CPU_NAME(cpu_winograd_input)(const cpu_conv *c, float *room, int thread, int threads) {
    const division d = divide(c, threads);
    if (!d.shared) return;
    chunk p = open_chunk(c, &d, room, thread, threads);
    int64_t first;
    const int64_t count = cpu_share(c->ic, thread, threads, &first);
    for (int64_t i = 0; i < d.chunks; i++) {
        move_to(&p, &d, i);
        p.v = first_line(room) + i * d.v_floats;
        transform_input(&p, first, count);
    }
}

void CPU_NAME(cpu_winograd)(const cpu_conv *c, float *room, int thread, int threads) {
    const division d = divide(c, threads);
    chunk p = open_chunk(c, &d, room, thread, threads);
    int64_t first, loaded = -1;
    const int64_t count = cpu_share(d.chunks * d.parts, thread, threads, &first);
    for (int64_t i = first; i < first + count; i++) {
        const int64_t number = i / d.parts, oc = i % d.parts * d.part, end = c->oc - oc < d.part ? c->oc : oc + d.part;
        move_to(&p, &d, number);
        if (d.shared)
            p.v = first_line(room) + number * d.v_floats;
        else if (number != loaded)
            transform_input(&p, 0, c->ic);
        loaded = number;
        for (int64_t o = oc; o < end; o += GROUP) multiply_group(&p, o, end - o < GROUP ? end - o : GROUP);
    }
}
