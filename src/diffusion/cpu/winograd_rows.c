/* winograd_rows.c - a 3x3 convolution of stride 1 by Winograd's way, as winograd.c has it, F(2x2, 3x3), for kernels
 * that are kept transformed, and in 8-bit integers: so compiled with CPU_AS_INT8 alone.
 *
 * Pictures come and go as rows, one for each pixel with all of its channels, so that a vector has one pixel of many
 * channels and the transforms move no number within it. Tiles are taken in chunks. A chunk's V are rows of packed
 * groups, one for each tile and position, which meet the kept U of a block of COLUMNS output channels, position by
 * position; the sums (M) of all positions stay in the second-level cache and are transformed back at once. A row of V
 * has scales of its own, which is what makes eight bits enough: a position is the difference of pixels, or their sum.
 */
#include "diffusion/cpu/groups.h"
#include "diffusion/cpu/kernels.h"
#include "diffusion/cpu/rows.h"
#include "diffusion/cpu/winograd.h"

enum { TILE = 2, EDGE = TILE + 2, POSITIONS = EDGE * EDGE, TAPS = 9 };
enum { MOST_TILES = 64 };                      /* in a chunk */
enum { STEP = 6144 / COLUMNS / WEIGHT_CELLS }; /* groups of the depth whose weights are in the first-level cache */
/* From one position to the next in M, in floats: an odd number of cache lines. */
enum { M_STEP = MOST_TILES * COLUMNS + LINE_OF_FLOATS };
enum { FILLING = 16 }; /* cells between lines, so that they do not fall together in the cache */

/* --- Kept kernels: U = G g G^T ------------------------------------------------------------------------------------ */

/* Kept kernels lie as [blocks of COLUMNS output channels][POSITIONS][groups of the depth][WEIGHT_CELLS][COLUMNS]. */
static int64_t panel_floats(int64_t ic) {
    return groups_of(ic) * WEIGHT_CELLS * COLUMNS;
}

static int64_t kept_floats(int64_t oc, int64_t ic) {
    return divide_up(oc, COLUMNS) * POSITIONS * panel_floats(ic);
}

enum { WHOLE_TAPS = (TAPS + LANES - 1) / LANES * LANES }; /* of whole vectors */

/* U of LANES input channels, whose kernels are [LANES][TAPS]; reads up to LANES numbers beyond. u: [POSITIONS][GROUP].
 */
static void transform_kernels(const float *kernels, float *u) {
    vec taps[WHOLE_TAPS], rows[3][EDGE];
    for (int tap = 0; tap < TAPS; tap += LANES) {
        for (int i = 0; i < LANES; i++) taps[tap + i] = load(kernels + i * TAPS + tap);
        transpose(taps + tap);
    }
    for (int x = 0; x < 3; x++) kernel_transform2(taps[x], taps[3 + x], taps[6 + x], rows[x]);
    for (int y = 0; y < EDGE; y++) {
        vec o[EDGE];
        kernel_transform2(rows[0][y], rows[1][y], rows[2][y], o);
        for (int x = 0; x < EDGE; x++) store(u + (y * EDGE + x) * GROUP, o[x]);
    }
}

/* Numbers of an output channel's kernels, and what transform_kernels() reads beyond. */
static int64_t room_for_kernels(int64_t ic) {
    return (groups_of(ic) * GROUP + 1) * TAPS + LANES;
}

/* Output channel oc, to a line for each position, `step` apart; beyond the last channel they are 0. room: for its
 * kernels, behind which it is 0. */
static void keep_channel(const cpu_keep *k, int64_t oc, const void *from, float *room, float *lines, int64_t step) {
    float u[POSITIONS * GROUP];
    if (oc >= k->out) {
        for (int i = 0; i < POSITIONS; i++)
            memset(lines + i * step, 0, (size_t)(groups_of(k->in) * WEIGHT_CELLS) * sizeof *lines);
        return;
    }
    if (k->weight.to_floats)
        k->weight.to_floats(from, room, k->in * TAPS);
    else
        memcpy(room, from, (size_t)(k->in * TAPS) * sizeof *room);
    for (int64_t c = 0; c < k->in; c += GROUP) {
        const int64_t n = k->in - c < GROUP ? k->in - c : GROUP;
        for (int64_t i = 0; i < n; i += LANES) transform_kernels(room + (c + i) * TAPS, u + i);
        for (int i = 0; i < POSITIONS; i++) pack_weights(u + i * GROUP, n, lines + i * step + c / GROUP * WEIGHT_CELLS);
    }
}

static void keep(const cpu_keep *k, int thread, int threads) {
    const int64_t cells = groups_of(k->in) * WEIGHT_CELLS, row = cells + FILLING, step = LANES * row;
    cpu_room room = cpu_room_open(POSITIONS * step + room_for_kernels(k->in) + copied_floats(k, LANES));
    float *const kernels = room.floats + POSITIONS * step, *const copied = kernels + room_for_kernels(k->in);
    memset(kernels, 0, (size_t)room_for_kernels(k->in) * sizeof *kernels);
    int64_t first;
    const int64_t count = cpu_share(divide_up(k->out, COLUMNS), thread, threads, &first);
    for (int64_t oc = first * COLUMNS; oc < (first + count) * COLUMNS; oc += LANES) {
        const char *from = rows_to_keep(k, oc, LANES, k->out, copied);
        for (int64_t i = 0; i < LANES; i++, from += k->weight.row_bytes)
            keep_channel(k, oc + i, from, kernels, room.floats + i * row, step);
        float *panel = k->kept + oc / COLUMNS * POSITIONS * panel_floats(k->in) + oc % COLUMNS;
        for (int i = 0; i < POSITIONS; i++)
            turn_lines(room.floats + i * step, row, cells, panel + i * panel_floats(k->in));
    }
    cpu_room_close(&room);
}

/* --- Tiles -------------------------------------------------------------------------------------------------------- */

/* Some tiles, and a thread's memory for them. */
typedef struct chunk {
    const cpu_winograd *c;
    int64_t first, count; /* tiles, numbered picture by picture and row by row */
    int64_t row;          /* floats of a row of V */
    float *v;             /* [POSITIONS][MOST_TILES][row] */
    float *m;             /* [POSITIONS], M_STEP apart, of [MOST_TILES][COLUMNS] */
} chunk;

static int64_t tiles_across(const cpu_winograd *c) {
    return divide_up(c->w, TILE);
}
static int64_t tiles_of_picture(const cpu_winograd *c) {
    return divide_up(c->h, TILE) * tiles_across(c);
}

/* The first pixel of a tile's result. */
typedef struct place {
    int64_t picture, y, x;
} place;

static place place_of(const cpu_winograd *c, int64_t tile) {
    const int64_t in_picture = tile % tiles_of_picture(c), across = tiles_across(c);
    return (place){tile / tiles_of_picture(c), in_picture / across * TILE, in_picture % across * TILE};
}

/* The number of a pixel's row; -1 outside of the picture. */
static int64_t row_of(const cpu_winograd *c, const place *at, int64_t down, int64_t right) {
    const int64_t y = at->y + down, x = at->x + right;
    return y < 0 || y >= c->h || x < 0 || x >= c->w ? -1 : (at->picture * c->h + y) * c->w + x;
}

/* V = B^T d B of LANES channels, or of `n` with the rest 0. pixels: those channels, row by row of the tile; v:
 * [POSITIONS][GROUP]. */
ALWAYS_INLINE void transform_pixels(const float *const pixels[POSITIONS], int64_t c, int64_t n, float *v) {
    vec half[EDGE][EDGE];
    for (int x = 0; x < EDGE; x++) {
        vec d[EDGE], o[EDGE];
        for (int y = 0; y < EDGE; y++) {
            const float *from = pixels[y * EDGE + x] + c;
            d[y] = n == LANES ? load(from) : load_some(from, n);
        }
        input_transform2(d, o);
        for (int y = 0; y < EDGE; y++) half[y][x] = o[y];
    }
    for (int y = 0; y < EDGE; y++) {
        vec o[EDGE];
        input_transform2(half[y], o);
        for (int x = 0; x < EDGE; x++) store(v + (y * EDGE + x) * GROUP, o[x]);
    }
}

/* V of tile number `number` of the chunk, a group of channels at a time. */
static void transform_tile(const chunk *p, int64_t number) {
    static const float nothing[GROUP];
    const cpu_winograd *c = p->c;
    const place at = place_of(c, p->first + number);
    float v[POSITIONS * GROUP];
    for (int64_t from = 0; from < c->ic; from += GROUP) {
        const float *pixels[POSITIONS];
        for (int i = 0; i < POSITIONS; i++) {
            const int64_t row = row_of(c, &at, i / EDGE - 1, i % EDGE - 1);
            pixels[i] = row < 0 ? nothing : c->x + row * c->ic + from;
        }
        const int64_t n = c->ic - from < GROUP ? c->ic - from : GROUP;
        int64_t i = 0;
        for (; i + LANES <= n; i += LANES) transform_pixels(pixels, i, LANES, v + i);
        if (i < n) transform_pixels(pixels, i, n - i, v + i);
        for (int k = 0; k < POSITIONS; k++)
            pack_row(v + k * GROUP, n, p->v + (k * MOST_TILES + number) * p->row + from / GROUP * ROW_CELLS);
    }
}

/* --- Products ----------------------------------------------------------------------------------------------------- */

/* M of one position and a block of output channels, of which there are `columns`. u: the panel. By itself: among all
 * the rest, compilers keep a sum in memory. */
static __attribute__((noinline)) void multiply_position(const chunk *p, int position, const float *u, int64_t columns) {
    const int64_t groups = groups_of(p->c->ic);
    for (int64_t from = 0; from < groups; from += STEP) {
        const int64_t left = data_cells(p->c->ic - from * GROUP);
        multiply_groups((block){.a = p->v + position * MOST_TILES * p->row + from * ROW_CELLS,
                                .a_row = p->row,
                                .b = u + from * WEIGHT_CELLS * COLUMNS,
                                .depth = left < STEP * DATA_CELLS ? left : STEP * DATA_CELLS,
                                .c = p->m + position * M_STEP,
                                .c_row = COLUMNS,
                                .add = from > 0},
                        p->count, columns);
    }
}

/* Y = A^T M A of a tile and LANES output channels, plus their bias. m: the first position's; y: [TILE][TILE]. */
ALWAYS_INLINE void transform_sums(const float *m, vec bias, vec y[TILE * TILE]) {
    vec half[TILE][EDGE];
    for (int x = 0; x < EDGE; x++) {
        vec column[EDGE], o[TILE];
        for (int i = 0; i < EDGE; i++) column[i] = load(m + (i * EDGE + x) * M_STEP);
        output_transform2(column, o);
        for (int i = 0; i < TILE; i++) half[i][x] = o[i];
    }
    for (int i = 0; i < TILE; i++) {
        output_transform2(half[i], y + i * TILE);
        for (int x = 0; x < TILE; x++) y[i * TILE + x] += bias;
    }
}

/* The chunk's sums of output channels oc ... oc + columns - 1 to the rows of the result. */
static void finish_block(const chunk *p, int64_t oc, int64_t columns) {
    const cpu_winograd *c = p->c;
    for (int64_t number = 0; number < p->count; number++) {
        const place at = place_of(c, p->first + number);
        const float *bias = c->bias ? c->bias + (c->bias_per_picture ? at.picture * c->oc : 0) + oc : NULL;
        int64_t rows[TILE * TILE];
        for (int i = 0; i < TILE * TILE; i++) rows[i] = row_of(c, &at, i / TILE, i % TILE);
        for (int64_t k = 0; k < columns; k += LANES) {
            const int64_t n = columns - k < LANES ? columns - k : LANES;
            vec y[TILE * TILE];
            transform_sums(p->m + number * COLUMNS + k, bias ? load_some(bias + k, n) : (vec){0}, y);
            for (int i = 0; i < TILE * TILE; i++) {
                if (rows[i] < 0) continue;
                float *to = c->y + rows[i] * c->oc + oc + k;
                if (n == LANES)
                    store(to, y[i]);
                else
                    store_some(to, y[i], n);
            }
        }
    }
}

/* --- All of it ---------------------------------------------------------------------------------------------------- */

/* How the work is dealt out: chunks of tiles, each with bundles of blocks of output channels, for each of which V is
 * made anew. */
typedef struct division {
    int64_t tiles, blocks, chunks, bundles;
} division;

/* The most that any thread has to do, in products of a block with a tile. */
static int64_t cost_of(const division *d, int threads) {
    enum { READING = 8, TRANSFORMING = 2 }; /* what it takes to read a block's weights; to make V of a tile */
    const int64_t tiles = divide_up(d->tiles, d->chunks), blocks = divide_up(d->blocks, d->bundles);
    return divide_up(d->chunks * d->bundles, threads) * (tiles * (blocks + TRANSFORMING) + blocks * READING);
}

/* As many chunks as there have to be, or for each thread as many of them; with few, bundles for all threads. */
static division divide(const cpu_winograd *c, int threads) {
    division by_tiles = {c->n * tiles_of_picture(c), divide_up(c->oc, COLUMNS), 0, 1};
    const int64_t least = divide_up(by_tiles.tiles, MOST_TILES), even = divide_up(least, threads) * threads;
    division by_blocks = by_tiles;
    by_tiles.chunks = even < by_tiles.tiles ? even : by_tiles.tiles;
    by_blocks.chunks = least;
    by_blocks.bundles = divide_up(threads, least) < by_blocks.blocks ? divide_up(threads, least) : by_blocks.blocks;
    return cost_of(&by_tiles, threads) <= cost_of(&by_blocks, threads) ? by_tiles : by_blocks;
}

/* Blocks first ... first + count - 1 of output channels. */
static void multiply_blocks(const chunk *p, int64_t first, int64_t count) {
    const cpu_winograd *c = p->c;
    for (int64_t b = first; b < first + count; b++) {
        const int64_t oc = b * COLUMNS, columns = c->oc - oc < COLUMNS ? c->oc - oc : COLUMNS;
        const float *u = c->kept + b * POSITIONS * panel_floats(c->ic);
        for (int i = 0; i < POSITIONS; i++) multiply_position(p, i, u + i * panel_floats(c->ic), columns);
        finish_block(p, oc, columns);
    }
}

static void convolve(const cpu_winograd *c, int thread, int threads) {
    const division d = divide(c, threads);
    chunk p = {.c = c, .row = odd_lines(groups_of(c->ic) * ROW_CELLS)};
    const int64_t v_floats = POSITIONS * MOST_TILES * p.row;
    cpu_room room = cpu_room_open(v_floats + POSITIONS * M_STEP);
    p.v = room.floats;
    p.m = room.floats + v_floats;
    int64_t first;
    const int64_t count = cpu_share(d.chunks * d.bundles, thread, threads, &first);
    for (int64_t i = first; i < first + count; i++) {
        p.count = cpu_share(d.tiles, (int)(i / d.bundles), (int)d.chunks, &p.first);
        for (int64_t number = 0; number < p.count; number++) transform_tile(&p, number);
        int64_t first_block;
        const int64_t blocks = cpu_share(d.blocks, (int)(i % d.bundles), (int)d.bundles, &first_block);
        multiply_blocks(&p, first_block, blocks);
    }
    cpu_room_close(&room);
}

extern const cpu_winograd_product CPU_NAME(cpu_winograd_product);
const cpu_winograd_product CPU_NAME(cpu_winograd_product) = {kept_floats, keep, convolve};
