/* winograd.c - 3x3 convolution of stride 1 with fewer multiplications (Lavin & Gray 2016, "Fast Algorithms for
 * Convolutional Neural Networks"): in floats F(4x4, 3x3), a quarter of them; with bfloat16, whose rounding F(4x4) makes
 * too large, F(2x2, 3x3), four ninths.
 *
 * A tile is TILE x TILE pixels of output, made from EDGE x EDGE of input (d) with the 3x3 kernel (g):
 *     Y = A^T [ (G g G^T) . (B^T d B) ] A
 * where . multiplies number by number. Summed over input channels, those are independent matrix products
 *     M_k [oc, tiles] = U_k [oc, ic] V_k [ic, tiles]
 * one for each of the EDGE x EDGE positions k.
 *
 * With so few multiplications the speed of memory decides, so the work is cut such that what is used often stays in the
 * second-level cache. Tiles are taken in chunks, whose V is read once for each GROUP of output channels. A group's
 * kernels are transformed a piece of the depth at a time (U), multiplied with all tiles of the chunk, and added to the
 * group's sums (M), which are transformed back at the end; meanwhile the next piece's kernels come to the cache. U is
 * made anew for each chunk: kept, it would take several times the memory of the weights.
 *
 * With many chunks each thread takes some of them and makes their V for itself. With few, all threads make V together
 * (winograd_input) and then share the output channels. */
#include "diffusion/cpu/exp.h"
#include "diffusion/cpu/kernels.h"
#include "diffusion/cpu/rows.h"
#include "diffusion/cpu/winograd.h"

#if defined(__AVX512BF16__)
#define TILE 2
#define SPLIT split2
#define JOIN join2
#define INPUT_TRANSFORM input_transform2
#define KERNEL_TRANSFORM kernel_transform2
#define OUTPUT_TRANSFORM output_transform2
enum { CHUNK = 4, DEPTH = 128 }; /* blocks of COLUMNS tiles in a chunk, at most; cells of input channels in a piece */
#else
#define TILE 4
#define SPLIT split4
#define JOIN join4
#define INPUT_TRANSFORM input_transform4
#define KERNEL_TRANSFORM kernel_transform4
#define OUTPUT_TRANSFORM output_transform4
enum { CHUNK = 96 / COLUMNS, DEPTH = 64 };
#endif
enum { EDGE = TILE + 2, POSITIONS = EDGE * EDGE, TAPS = 9 };
enum { GROUP = 32 };         /* output channels */
enum { STRIP = 96 };         /* tiles */
enum { CHANNELS_AHEAD = 4 }; /* of output, whose place in memory comes to the cache */
/* From one position to the next in U and M, in floats: odd numbers of cache lines, so that positions do not fall
 * together in the cache. */
enum { U_STEP = DEPTH * GROUP + LINE_OF_FLOATS, M_STEP = GROUP * COLUMNS + LINE_OF_FLOATS };

static int64_t tiles_across(const cpu_conv *c) {
    return divide_up(c->w, TILE);
}
static int64_t tiles_down(const cpu_conv *c) {
    return divide_up(c->h, TILE);
}

/* Tiles are numbered picture by picture, in each strip by strip, in each row by row: a strip is a picture's full height
 * and at most STRIP tiles wide, so that tiles which follow each other share most of what they read, and the rows of
 * input that a row of tiles has in common with the next are near. */
typedef struct place {
    int64_t picture, row, column; /* of a tile */
    int64_t left, width;          /* its strip's first column; tiles in each of its rows */
} place;

static place place_of(const cpu_conv *c, int64_t tile) {
    const int64_t across = tiles_across(c), down = tiles_down(c), in_picture = tile % (across * down);
    const int64_t strip = divide_up(across, divide_up(across, STRIP)), number = in_picture / (strip * down);
    place p = {.picture = tile / (across * down), .left = number * strip};
    p.width = across - p.left < strip ? across - p.left : strip;
    const int64_t in_strip = in_picture - p.left * down;
    p.row = in_strip / p.width;
    p.column = p.left + in_strip % p.width;
    return p;
}

/* How many of `count` tiles from there on are in the same row of the strip. */
static int64_t tiles_in_row(const place *p, int64_t count) {
    const int64_t left = p->left + p->width - p->column;
    return count < left ? count : left;
}

enum {
    LINE = TILE * (STRIP + 1) + 2 * LANES,    /* of pixels under a strip, and what vectors read beyond */
    FLAT = TILE * CHUNK * COLUMNS + 2 * LANES /* a chunk's tiles, TILE numbers each */
};

/* Some blocks of tiles, and a thread's memory for them. */
typedef struct chunk {
    const cpu_conv *c;
    int64_t planes;                            /* channels (pairs of channels) */
    int64_t first, count, blocks;              /* tiles; blocks of COLUMNS tiles */
    float *v;                                  /* [blocks][POSITIONS][planes][COLUMNS] */
    int64_t v_step;                            /* from one position to the next, in floats */
    float *u;                                  /* [POSITIONS][DEPTH][GROUP] */
    float *m;                                  /* [blocks][POSITIONS][GROUP][COLUMNS] */
    float *rows[PAIR][EDGE];                   /* of input, [LINE]; row y is number (y + 1) % EDGE */
    int64_t held[PAIR][EDGE];                  /* which y that is; LOST: none */
    float *near[PAIR][EDGE], *far[PAIR][EDGE]; /* [FLAT], see transform_down() */
} chunk;

enum { LOST = -2 };

/* --- V = B^T d B -------------------------------------------------------------------------------------------------- */

/* `count` numbers of a channel's row y from column x on, or silu(a x + b) of them; 0 around the picture. number: of all
 * pictures' channels. */
static void read_row(const cpu_conv *c, int64_t number, int64_t y, int64_t x, int64_t count, float *to) {
    const int64_t start = x < 0 ? -x : 0, inside = y < 0 || y >= c->h ? 0 : c->w - x;
    const int64_t end = inside < start ? start : inside < count ? inside : count;
    memset(to, 0, (size_t)start * sizeof *to);
    memset(to + end, 0, (size_t)(count - end) * sizeof *to);
    if (end == start) return;
    const float *from = c->x + (number * c->h + y) * c->w + x + start;
    const int64_t some = end - start;
    if (number % c->ic + PAIR < c->ic) /* pieces of rows are too short for the processor to foresee the next ones */
        fetch_ahead(from + PAIR * c->h * c->w, some * (int64_t)sizeof *from);
    if (c->scales)
        scale_plane(from, to + start, some, c->scales[2 * number], c->scales[2 * number + 1], true);
    else
        memcpy(to + start, from, (size_t)some * sizeof *to);
}

/* The rows of input under a row of tiles, from the strip's first tile on. i: of a plane's channels. */
static void find_rows(chunk *p, const place *at, int64_t channel, int i, const float *rows[EDGE]) {
    for (int e = 0; e < EDGE; e++) {
        const int64_t y = at->row * TILE - 1 + e, slot = (y + 1) % EDGE;
        if (p->held[i][slot] != y)
            read_row(p->c, at->picture * p->c->ic + channel, y, TILE * at->left - 1, TILE * at->width + 2,
                     p->rows[i][slot]);
        p->held[i][slot] = y;
        rows[e] = p->rows[i][slot];
    }
}

/* `count` tiles of one row, transformed in the vertical, become tiles number ... of the chunk. Tiles lie one behind the
 * other, TILE numbers each, whatever row they are of, so that vectors of tiles are full in narrow pictures, too. A
 * tile's numbers are the first TILE of its EDGE columns in `near`; the other two are its first in `far`. */
static void transform_down(const chunk *p, int i, const float *const rows[EDGE], int64_t number, int64_t count) {
    for (int64_t k = 0; k < TILE * count; k += LANES) {
        vec d[EDGE], o[EDGE];
        for (int e = 0; e < EDGE; e++) d[e] = load(rows[e] + k);
        INPUT_TRANSFORM(d, o);
        for (int e = 0; e < EDGE; e++) store(p->near[i][e] + TILE * number + k, o[e]);
        for (int e = 0; e < EDGE; e++) d[e] = load(rows[e] + TILE + k);
        INPUT_TRANSFORM(d, o);
        for (int e = 0; e < EDGE; e++) store(p->far[i][e] + TILE * number + k, o[e]);
    }
}

/* One channel of all of the chunk's tiles. i: of its plane's channels. */
static void transform_channel(chunk *p, int64_t channel, int i) {
    place before = {.picture = -1};
    for (int64_t number = 0, count; number < p->count; number += count) {
        const place at = place_of(p->c, p->first + number);
        count = tiles_in_row(&at, p->count - number);
        if (at.picture != before.picture || at.left != before.left)
            for (int e = 0; e < EDGE; e++) p->held[i][e] = LOST;
        before = at;
        const float *rows[EDGE];
        find_rows(p, &at, channel, i, rows);
        for (int e = 0; e < EDGE; e++) rows[e] += TILE * (at.column - at.left);
        transform_down(p, i, rows, number, count);
    }
}

/* One plane of LANES tiles of the chunk. */
static void transform_across(const chunk *p, int64_t plane, int64_t tile) {
    float *v = p->v + tile / COLUMNS * POSITIONS * p->v_step + plane * COLUMNS + tile % COLUMNS;
    for (int e = 0; e < EDGE; e++) {
        vec o[EDGE][PAIR];
#pragma GCC unroll 2
        for (int i = 0; i < PAIR; i++) {
            vec d[2 * TILE], all[EDGE];
            SPLIT(p->near[i][e] + TILE * tile, d);
            SPLIT(p->far[i][e] + TILE * tile, d + TILE);
            INPUT_TRANSFORM(d, all);
            for (int k = 0; k < EDGE; k++) o[k][i] = all[k];
        }
        for (int k = 0; k < EDGE; k++) store(v + (e * EDGE + k) * p->v_step, cells_from(o[k]));
    }
}

/* V of the chunk, of `planes` planes from the first on. Behind the last tile of a block there is anything. */
static void transform_input(chunk *p, int64_t first, int64_t planes) {
    for (int64_t plane = first; plane < first + planes; plane++) {
        for (int i = 0; i < PAIR; i++) {
            if (plane * PAIR + i < p->c->ic)
                transform_channel(p, plane * PAIR + i, i);
            else
                memset(p->near[i][0], 0, 2 * EDGE * FLAT * sizeof(float)); /* and far[i] */
        }
        for (int64_t tile = 0; tile < p->blocks * COLUMNS; tile += LANES) transform_across(p, plane, tile);
    }
}

/* --- U = G g G^T -------------------------------------------------------------------------------------------------- */

/* Some output channels, and some of the input's planes. */
typedef struct piece {
    int64_t oc, count, plane, planes;
} piece;

/* The kernels of one plane of LANES output channels. taps: [PAIR][TAPS] vectors; u: that of the first position. */
static void transform_kernels(const float *taps, float *u) {
    vec rows[PAIR][3][EDGE];
#pragma GCC unroll 2
    for (int i = 0; i < PAIR; i++)
#pragma GCC unroll 3
        for (int x = 0; x < 3; x++) {
            const float *g = taps + (i * TAPS + x) * LANES;
            KERNEL_TRANSFORM(load(g), load(g + 3 * LANES), load(g + 6 * LANES), rows[i][x]);
        }
#pragma GCC unroll 6
    for (int y = 0; y < EDGE; y++) {
        vec o[EDGE][PAIR];
#pragma GCC unroll 2
        for (int i = 0; i < PAIR; i++) {
            vec all[EDGE];
            KERNEL_TRANSFORM(rows[i][0][y], rows[i][1][y], rows[i][2][y], all);
            for (int k = 0; k < EDGE; k++) o[k][i] = all[k];
        }
        for (int k = 0; k < EDGE; k++) store(u + (y * EDGE + k) * U_STEP, cells_from(o[k]));
    }
}

/* What a piece has of one output channel's weights, and how many numbers. */
static const void *weights_of(const cpu_conv *c, const piece *w, int64_t number, int64_t *numbers) {
    const int64_t channels = w->planes * PAIR, left = c->ic - w->plane * PAIR;
    *numbers = (left < channels ? left : channels) * TAPS;
    return matrix_at(&c->weight, w->oc + number, w->plane * PAIR * TAPS);
}

enum { SLICE = 2 * LANES / PAIR, TAP_ROW = SLICE * PAIR * TAPS + LINE_OF_FLOATS }; /* planes at a time */

/* Taps of LANES output channels, of SLICE planes; those that are not there are 0. w: which are. taps: [LANES][TAP_ROW].
 */
static void read_taps(const cpu_conv *c, const piece *w, float *taps) {
    for (int64_t i = 0; i < LANES; i++, taps += TAP_ROW) {
        int64_t numbers = 0;
        if (i < w->count) {
            const void *from = weights_of(c, w, i, &numbers);
            if (c->weight.to_floats)
                c->weight.to_floats(from, taps, numbers);
            else
                memcpy(taps, from, (size_t)numbers * sizeof *taps);
        }
        memset(taps + numbers, 0, (size_t)(TAP_ROW - numbers) * sizeof *taps);
    }
}

/* U of a piece: kernels of LANES output channels at a time, turned so that a vector has one tap of all of them. */
static void transform_piece(const chunk *p, const piece *w) {
    float taps[LANES * TAP_ROW] __attribute__((aligned(64)));
    float turned[SLICE * PAIR * TAPS * LANES] __attribute__((aligned(64)));
    for (int64_t n = 0; n < divide_up(w->count, LANES) * divide_up(w->planes, SLICE); n++) {
        const int64_t oc = n / divide_up(w->planes, SLICE) * LANES, plane = n % divide_up(w->planes, SLICE) * SLICE;
        const piece slice = {.oc = w->oc + oc,
                             .count = w->count - oc < LANES ? w->count - oc : LANES,
                             .plane = w->plane + plane,
                             .planes = w->planes - plane < SLICE ? w->planes - plane : SLICE};
        read_taps(p->c, &slice, taps);
        for (int64_t k = 0; k < slice.planes * PAIR * TAPS; k += LANES) {
            vec t[LANES];
            for (int i = 0; i < LANES; i++) t[i] = load(taps + i * TAP_ROW + k);
            transpose(t);
            for (int i = 0; i < LANES; i++) store(turned + (k + i) * LANES, t[i]);
        }
        for (int64_t i = 0; i < slice.planes; i++)
            transform_kernels(turned + i * PAIR * TAPS * LANES, p->u + (plane + i) * GROUP + oc);
    }
}

/* Share number `share` of `shares` of a piece's weights comes to the cache. */
static void fetch_piece(const chunk *p, const piece *w, int64_t share, int64_t shares) {
    int64_t first, numbers;
    const int64_t count = cpu_share(w->count, (int)share, (int)shares, &first);
    for (int64_t i = first; i < first + count; i++) {
        const void *from = weights_of(p->c, w, i, &numbers);
        fetch_ahead(from, matrix_bytes(&p->c->weight, numbers));
    }
}

/* --- Y = A^T M A -------------------------------------------------------------------------------------------------- */

/* Sums of LANES tiles -> TILE rows of TILE LANES pixels, `row` apart. m: POSITIONS vectors, `step` apart. */
static void transform_sums(const float *m, int64_t step, float *pixels, int64_t row) {
    vec half[TILE][EDGE];
    for (int x = 0; x < EDGE; x++) {
        vec column[EDGE], y[TILE];
        for (int i = 0; i < EDGE; i++) column[i] = load(m + (i * EDGE + x) * step);
        OUTPUT_TRANSFORM(column, y);
        for (int i = 0; i < TILE; i++) half[i][x] = y[i];
    }
    for (int i = 0; i < TILE; i++) {
        vec y[TILE];
        OUTPUT_TRANSFORM(half[i], y);
        JOIN(y, pixels + i * row);
    }
}

/* `count` tiles of one row, from `pixels` [TILE][TILE COLUMNS] to the picture. */
static void place_pixels(const cpu_conv *c, int64_t oc, const place *at, int64_t count, const float *pixels) {
    const int64_t y = at->row * TILE, x = at->column * TILE;
    const float bias = !c->bias ? 0 : c->bias[c->bias_per_picture ? at->picture * c->oc + oc : oc];
    const int64_t width = c->w - x < count * TILE ? c->w - x : count * TILE;
    for (int i = 0; i < TILE && y + i < c->h; i++) {
        const float *from = pixels + i * COLUMNS * TILE;
        const int64_t start = ((at->picture * c->oc + oc) * c->h + y + i) * c->w + x;
        float *restrict to = c->y + start;
        const float *add = c->add ? c->add + start : NULL;
        if (oc + CHANNELS_AHEAD < c->oc) {
            const int64_t ahead = CHANNELS_AHEAD * c->h * c->w, bytes = width * (int64_t)sizeof *to;
            fetch_to_write(to + ahead, bytes);
            if (add) fetch_ahead(add + ahead, bytes);
        }
        if (add)
            for (int64_t k = 0; k < width; k++) to[k] = from[k] + bias + add[k];
        else
            for (int64_t k = 0; k < width; k++) to[k] = from[k] + bias;
    }
}

/* One output channel of one block, the `number`th of its group. */
static void finish_block(const chunk *p, int64_t oc, int64_t number, int64_t b) {
    float pixels[TILE * COLUMNS * TILE];
    const float *m = p->m + b * POSITIONS * M_STEP + number * COLUMNS;
    for (int v = 0; v < VECS; v++) transform_sums(m + v * LANES, M_STEP, pixels + v * LANES * TILE, COLUMNS * TILE);
    const int64_t left = p->count - b * COLUMNS, tiles = left < COLUMNS ? left : COLUMNS;
    for (int64_t i = 0, count; i < tiles; i += count) {
        const place at = place_of(p->c, p->first + b * COLUMNS + i);
        count = tiles_in_row(&at, tiles - i);
        place_pixels(p->c, oc, &at, count, pixels + i * TILE);
    }
}

/* --- All of it ---------------------------------------------------------------------------------------------------- */

/* M of one block and position. By itself: among all the rest, compilers keep a sum in memory. */
static __attribute__((noinline)) void multiply_position(const chunk *p, const piece *w, int64_t n) {
    multiply_columns((block){.a = p->u + n % POSITIONS * U_STEP,
                             .a_row = GROUP,
                             .b = p->v + n * p->v_step + w->plane * COLUMNS,
                             .depth = w->planes,
                             .c = p->m + n * M_STEP,
                             .c_row = COLUMNS,
                             .add = w->plane > 0},
                     w->count, p->count - n / POSITIONS * COLUMNS, TURNED_CELLS);
}

/* Piece number `number` of channels oc ... oc + count - 1, `group` of them at a time. */
static piece piece_of(const chunk *p, int64_t oc, int64_t count, int64_t group, int64_t number) {
    const int64_t pieces = divide_up(p->planes, DEPTH), first = number / pieces * group;
    piece w = {.oc = oc + first, .plane = number % pieces * DEPTH};
    w.count = count - first < group ? count - first : group;
    w.planes = p->planes - w.plane < DEPTH ? p->planes - w.plane : DEPTH;
    return w;
}

/* Output channels oc ... oc + count - 1, GROUP at a time or less. */
static void multiply_channels(const chunk *p, int64_t oc, int64_t count) {
    const int64_t groups = divide_up(count, GROUP), group = divide_up(divide_up(count, groups), LANES) * LANES;
    const int64_t all = divide_up(count, group) * divide_up(p->planes, DEPTH);
    for (int64_t i = 0; i < all; i++) {
        const piece now = piece_of(p, oc, count, group, i), next = piece_of(p, oc, count, group, i + 1);
        transform_piece(p, &now);
        for (int64_t n = 0; n < p->blocks * POSITIONS; n++) {
            if (i + 1 < all) fetch_piece(p, &next, n, p->blocks * POSITIONS);
            multiply_position(p, &now, n);
        }
        if (now.plane + now.planes < p->planes) continue;
        for (int64_t b = 0; b < p->blocks; b++)
            for (int64_t k = 0; k < now.count; k++) finish_block(p, now.oc + k, k, b);
    }
}

/* How the work is dealt out: chunks of tiles, each with a part of the output channels. */
typedef struct division {
    int64_t tiles, blocks, chunks;
    int64_t part, parts; /* output channels in one part, their number */
    bool shared;         /* V is made by all threads together */
    int64_t v_floats;    /* of one chunk */
} division;

static division divide(const cpu_conv *c, int threads) {
    division d = {.tiles = c->n * tiles_down(c) * tiles_across(c), .parts = 1};
    d.blocks = divide_up(d.tiles, COLUMNS);
    d.chunks = divide_up(d.blocks, CHUNK);
    d.shared = d.blocks < 4 * threads;
    if (d.shared) {
        const int64_t most = divide_up(c->oc, LANES);
        d.parts = most < threads ? most : threads;
    } else {
        d.chunks = divide_up(d.chunks, threads) * threads;
    }
    d.part = divide_up(divide_up(c->oc, d.parts), LANES) * LANES;
    d.parts = divide_up(c->oc, d.part);
    d.v_floats = divide_up(d.blocks, d.chunks) * POSITIONS * odd_lines(cells_of(c->ic) * COLUMNS);
    return d;
}

/* A thread's memory besides V, in floats. */
enum {
    U_FLOATS = POSITIONS * U_STEP,
    M_FLOATS = CHUNK * POSITIONS * M_STEP,
    INPUT_FLOATS = PAIR * EDGE * (LINE + 2 * FLAT),
    LINE_BYTES = LINE_OF_FLOATS * sizeof(float),
    THREAD_FLOATS = (U_FLOATS + M_FLOATS + INPUT_FLOATS + LINE_OF_FLOATS - 1) / LINE_OF_FLOATS * LINE_OF_FLOATS
};

int64_t CPU_NAME(cpu_winograd_room)(const cpu_conv *c, int threads) {
    const division d = divide(c, threads);
    return d.v_floats * (d.shared ? d.chunks : threads) + THREAD_FLOATS * threads + LINE_OF_FLOATS;
}

/* V lies first, of all chunks or of all threads; then each thread's own memory. */
static float *first_line(float *room) {
    return room + (LINE_BYTES - (uintptr_t)room % LINE_BYTES) % LINE_BYTES / sizeof *room;
}

static chunk open_chunk(const cpu_conv *c, const division *d, float *room, int thread, int threads) {
    room = first_line(room);
    chunk p = {.c = c,
               .planes = cells_of(c->ic),
               .first = -1,
               .v_step = odd_lines(cells_of(c->ic) * COLUMNS),
               .v = room + thread * d->v_floats};
    p.u = room + d->v_floats * (d->shared ? d->chunks : threads) + thread * THREAD_FLOATS;
    p.m = p.u + U_FLOATS;
    float *input = p.m + M_FLOATS;
    memset(input, 0, INPUT_FLOATS * sizeof *input); /* what vectors read beyond must be numbers */
    for (int i = 0; i < PAIR; i++) {
        for (int e = 0; e < EDGE; e++, input += LINE) p.rows[i][e] = input;
        for (int e = 0; e < EDGE; e++, input += FLAT) p.near[i][e] = input;
        for (int e = 0; e < EDGE; e++, input += FLAT) p.far[i][e] = input;
    }
    return p;
}

static void move_to(chunk *p, const division *d, int64_t number) {
    int64_t first;
    p->blocks = cpu_share(d->blocks, (int)number, (int)d->chunks, &first);
    p->first = first * COLUMNS;
    p->count = d->tiles - p->first < p->blocks * COLUMNS ? d->tiles - p->first : p->blocks * COLUMNS;
}

void CPU_NAME(cpu_winograd_input)(const cpu_conv *c, float *room, int thread, int threads) {
    const division d = divide(c, threads);
    if (!d.shared) return;
    chunk p = open_chunk(c, &d, room, thread, threads);
    int64_t first;
    const int64_t count = cpu_share(p.planes, thread, threads, &first);
    for (int64_t i = 0; i < d.chunks; i++) {
        move_to(&p, &d, i);
        p.v = first_line(room) + i * d.v_floats;
        transform_input(&p, first, count);
    }
}

void CPU_NAME(cpu_winograd)(const cpu_conv *c, float *room, int thread, int threads) {
    const division d = divide(c, threads);
    chunk p = open_chunk(c, &d, room, thread, threads);
    int64_t first;
    const int64_t count = cpu_share(d.chunks * d.parts, thread, threads, &first);
    for (int64_t i = first; i < first + count; i++) {
        const int64_t number = i % d.chunks, oc = i / d.chunks * d.part;
        move_to(&p, &d, number);
        if (d.shared)
            p.v = first_line(room) + number * d.v_floats;
        else
            transform_input(&p, 0, p.planes);
        multiply_channels(&p, oc, c->oc - oc < d.part ? c->oc - oc : d.part);
    }
}
