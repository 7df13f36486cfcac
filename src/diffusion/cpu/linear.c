/* linear.c - y = x W^T + b. A few blocks of COLUMNS outputs have their weights turned into panels of cells
 * [depth][COLUMNS] once, in the second-level cache, and all rows of x go past them, TALL at a time. Those rows and the
 * panels meet a STEP of the depth at a time, so that a panel's step is in the first-level cache for all of the rows,
 * and the rows' step for all panels. The next rows and the weights of the next panels come from memory meanwhile.
 *
 * The rows of x are packed already, if they are not floats (cpu_packing): they are read once for each few blocks, and
 * may have been made for several products. Weights may be panels already, too, kept from an earlier product. Compiled a
 * second time with CPU_AS_INT8, for integers of eight bits. */
#include "diffusion/cpu/doubled.h"
#include "diffusion/cpu/groups.h"
#include "diffusion/cpu/kernels.h"
#include "diffusion/cpu/rows.h"

/* In groups; PANELS: in cells. Pieces of the depth consist of whole units, as weights may be read in blocks of 256
 * numbers only. The filling (cells) keeps rows from falling together in the cache. */
enum {
    UNIT = 256 / GROUP,
    DEPTH = 672 / WEIGHT_CELLS / UNIT * UNIT,
    STEP = 6144 / COLUMNS / WEIGHT_CELLS,
    FILLING = 16,
    PANELS = 3 * DEPTH * WEIGHT_CELLS * COLUMNS
};
enum { IS_PACKED = GROUP > 1 }; /* rows of x */
enum { TALL = 4 * ROWS };       /* of them at a time */
enum { ROWS_AHEAD = 8 };        /* of weights */

/* What a thread does at a time: rows t ... of x, outputs out ..., numbers from ... of the depth. */
typedef struct part {
    const cpu_linear *p;
    int64_t t, count, out, blocks, from, depth;
    int64_t x_row, row, panel; /* floats from row to row of x; in each of: */
    float *lines;              /* [LANES][cells of weights of depth, and FILLING] */
    float *panels;             /* [blocks][cells of weights of depth][COLUMNS], or where they are kept */
    float *sums;               /* [blocks][TALL][COLUMNS] */
} part;

/* Floats from one packed row to the next. */
static int64_t packed_row(int64_t width) {
    return odd_lines(groups_of(width) * ROW_CELLS);
}

/* Those of them that are used. */
static int64_t row_cells(int64_t width) {
    return groups_of(width) * ROW_CELLS;
}

static const cpu_packing packing = {packed_row, row_cells, pack_row};

/* How many of a block's outputs there are. */
static int64_t columns_of(const part *s, int64_t number) {
    const int64_t left = s->p->out - s->out - number * COLUMNS;
    return left < COLUMNS ? left : COLUMNS;
}

/* One row of weights; beyond the last row they are 0. */
static void read_row(const part *s, int64_t out, float *cells) {
    const cpu_matrix *m = &s->p->weight;
    if (out >= s->p->out) {
        memset(cells, 0, (size_t)(groups_of(s->depth) * WEIGHT_CELLS) * sizeof *cells);
        return;
    }
    if (out + ROWS_AHEAD < s->p->out) fetch_ahead(matrix_at(m, out + ROWS_AHEAD, s->from), matrix_bytes(m, s->depth));
    float numbers[DEPTH * GROUP];
    const void *from = matrix_at(m, out, s->from);
    if (m->to_floats) m->to_floats(from, numbers, s->depth);
    pack_weights(m->to_floats ? numbers : from, s->depth, cells);
}

/* COLUMNS rows of weights, transposed. */
static void fill_panel(const part *s, int64_t number) {
    const int64_t out = s->out + number * COLUMNS;
    for (int64_t column = 0; column < COLUMNS; column += LANES) {
        for (int i = 0; i < LANES; i++) read_row(s, out + column + i, s->lines + i * s->row);
        turn_lines(s->lines, s->row, groups_of(s->depth) * WEIGHT_CELLS, s->panels + number * s->panel + column);
    }
}

/* The part's depth of row t of x. */
static const float *cells_at(const part *s, int64_t t) {
    return s->p->x + t * s->x_row + s->from / GROUP * ROW_CELLS;
}

/* Share number `share` of `shares` comes to the cache: of a part's panels; of its weights; of the rows of x from t on.
 */
static void fetch_panels(const part *s, int64_t share, int64_t shares) {
    const int64_t each = groups_of(s->depth) * WEIGHT_CELLS;
    int64_t first;
    const int64_t count = cpu_share(s->blocks * each, (int)share, (int)shares, &first), end = first + count;
    while (first < end) {
        const int64_t number = first / each, left = (number + 1) * each - first;
        const int64_t cells = left < end - first ? left : end - first;
        fetch_ahead(s->panels + number * s->panel + first % each * COLUMNS,
                    cells * COLUMNS * (int64_t)sizeof *s->panels);
        first += cells;
    }
}
static void fetch_weights(const part *s, int64_t share, int64_t shares) {
    if (s->p->kept) {
        fetch_panels(s, share, shares);
        return;
    }
    const int64_t left = s->p->out - s->out, all = s->blocks * COLUMNS;
    int64_t first;
    const int64_t count = cpu_share(left < all ? left : all, (int)share, (int)shares, &first);
    for (int64_t i = first; i < first + count; i++)
        fetch_ahead(matrix_at(&s->p->weight, s->out + i, s->from), matrix_bytes(&s->p->weight, s->depth));
}
static void fetch_rows(const part *s, int64_t t, int64_t share, int64_t shares) {
    const int64_t left = s->t + s->count - t;
    int64_t first;
    const int64_t count = cpu_share(left < TALL ? left : TALL, (int)share, (int)shares, &first);
    for (int64_t i = first; i < first + count; i++)
        fetch_ahead(cells_at(s, t + i), groups_of(s->depth) * ROW_CELLS * (int64_t)sizeof *s->p->x);
}

/* Rows t ... of x, at most TALL, against a step of one panel. By itself: among all the rest, compilers keep a sum in
 * memory. */
static __attribute__((noinline)) void multiply_step(const part *s, int64_t t, int64_t rows, int64_t number,
                                                    int64_t from, int64_t groups) {
    const int64_t left = data_cells(s->depth - from * GROUP), whole = groups * DATA_CELLS;
    multiply_groups((block){.a = cells_at(s, t) + from * ROW_CELLS,
                            .a_row = s->x_row,
                            .b = s->panels + number * s->panel + from * WEIGHT_CELLS * COLUMNS,
                            .depth = left < whole ? left : whole,
                            .c = s->sums + number * TALL * COLUMNS,
                            .c_row = COLUMNS,
                            .add = s->from > 0 || from > 0},
                    rows, columns_of(s, number));
}

/* What y holds so far. */
static void load_sums(const part *s, int64_t t, int64_t rows) {
    for (int64_t i = 0; i < rows * s->blocks; i++) {
        const int64_t number = i / rows, r = i % rows;
        memcpy(s->sums + (number * TALL + r) * COLUMNS, s->p->y + (t + r) * s->p->out + s->out + number * COLUMNS,
               (size_t)columns_of(s, number) * sizeof *s->sums);
    }
}

/* A row's sums of a block, and what is added to them (NULL: nothing), to y. */
static inline void finish_row(const float *sums, const float *bias, const float *add, int64_t columns, float *y) {
    int64_t i = 0;
    for (; i + LANES <= columns; i += LANES) {
        vec v = load(sums + i);
        if (bias) v += load(bias + i);
        if (add) v += load(add + i);
        store(y + i, v);
    }
    for (; i < columns; i++) {
        y[i] = bias ? sums[i] + bias[i] : sums[i];
        if (add) y[i] += add[i];
    }
}

static void store_sums(const part *s, int64_t t, int64_t rows) {
    const cpu_linear *p = s->p;
    const bool is_last = s->from + s->depth == p->in;
    for (int64_t i = 0; i < rows * s->blocks; i++) {
        const int64_t number = i / rows, r = i % rows, columns = columns_of(s, number), out = s->out + number * COLUMNS;
        const float *sums = s->sums + (number * TALL + r) * COLUMNS;
        const float *bias = is_last && p->bias ? p->bias + out : NULL;
        if (bias && p->bias_rows) bias += (t + r) / p->bias_rows * p->out;
        const float *add = is_last && p->add ? p->add + (t + r) * p->out + out : NULL;
        finish_row(sums, bias, add, columns, p->y + (t + r) * p->out + out);
    }
}

/* next: the weights that come to the cache meanwhile; NULL: none */
static void multiply_part(const part *s, const part *next) {
    const int64_t groups = groups_of(s->depth), steps = (groups + STEP - 1) / STEP;
    const int64_t lines = (groups + LINE_OF_GROUPS - 1) / LINE_OF_GROUPS;
    const int64_t step = (lines + steps - 1) / steps * LINE_OF_GROUPS;
    const int64_t shares = (s->count + TALL - 1) / TALL * steps * s->blocks;
    for (int64_t b = 0; b < s->blocks && !s->p->kept; b++) fill_panel(s, b);
    for (int64_t t = s->t, share = 0; t < s->t + s->count; t += TALL) {
        const int64_t left = s->t + s->count - t, rows = left < TALL ? left : TALL;
        if (s->from > 0) load_sums(s, t, rows);
        for (int64_t i = 0; i < steps * s->blocks; i++) {
            const int64_t from = i / s->blocks * step, end = groups - from < step ? groups : from + step;
            if (next) fetch_weights(next, share++, shares);
            if (rows < left) fetch_rows(s, t + TALL, i, steps * s->blocks);
            multiply_step(s, t, rows, i % s->blocks, from, end - from);
        }
        store_sums(s, t, rows);
    }
}

/* How the work is dealt out: bundles of blocks of outputs, each with a share of the rows. */
typedef struct division {
    int64_t blocks, bundles, shares;
} division;

/* Part number `number`, without the memory: of all of the depth. */
static part part_of(const cpu_linear *p, const division *d, int64_t number) {
    part s = {.p = p, .depth = p->in};
    s.blocks = cpu_share(d->blocks, (int)(number % d->bundles), (int)d->bundles, &s.out);
    s.out *= COLUMNS;
    s.count = cpu_share(p->t, (int)(number / d->bundles), (int)d->shares, &s.t);
    return s;
}

/* The most that any thread has to do, in products of a block with a row. */
static int64_t cost_of(const cpu_linear *p, const division *d, int threads) {
    enum { PACKING = 64, READING = 8 }; /* what it takes to make a panel; to read one that is kept */
    int64_t most = 0;
    for (int thread = 0; thread < threads; thread++) {
        int64_t first, cost = 0;
        const int64_t count = cpu_share(d->bundles * d->shares, thread, threads, &first);
        for (int64_t i = first; i < first + count; i++) {
            const part s = part_of(p, d, i);
            cost += s.blocks * (s.count + (p->kept ? READING : PACKING));
        }
        if (cost > most) most = cost;
    }
    return most;
}

/* As few bundles as have room, or for each thread as many of them, or all of them for each thread with its own rows. */
static division divide(const cpu_linear *p, int64_t depth, int threads) {
    const int64_t blocks = (p->out + COLUMNS - 1) / COLUMNS, room = PANELS / (depth * WEIGHT_CELLS * COLUMNS);
    const int64_t few = (blocks + room - 1) / room, even = (few + threads - 1) / threads * threads;
    const division by_output = {blocks, even < blocks ? even : blocks, 1}, by_rows = {blocks, few, threads};
    return cost_of(p, &by_output, threads) <= cost_of(p, &by_rows, threads) ? by_output : by_rows;
}

/* Where kept weights of outputs out ..., numbers from ... of the depth, begin; the same as panels. */
static float *kept_at(const cpu_linear *p, int64_t out, int64_t from) {
    const int64_t groups = out / COLUMNS * groups_of(p->in) + from / GROUP;
    return (float *)(uintptr_t)p->kept + groups * WEIGHT_CELLS * COLUMNS;
}

static void linear(const cpu_linear *p, int thread, int threads) {
    const int64_t groups = groups_of(p->in), pieces = (groups + DEPTH - 1) / DEPTH;
    const int64_t each = (groups + pieces - 1) / pieces, depth = pieces > 1 ? (each + UNIT - 1) / UNIT * UNIT : each;
    const division d = divide(p, depth, threads);
    const int64_t row = depth * WEIGHT_CELLS + FILLING, panel = depth * WEIGHT_CELLS * COLUMNS;
    const int64_t most = (d.blocks + d.bundles - 1) / d.bundles;
    cpu_room room = cpu_room_open(LANES * row + most * ((p->kept ? 0 : panel) + TALL * COLUMNS));
    int64_t first;
    const int64_t count = cpu_share(d.bundles * d.shares, thread, threads, &first), end = (first + count) * pieces;
    part next = {0};
    tiles_open();
    for (int64_t i = first * pieces; i <= end; i++) {
        const part now = next;
        if (i < end) {
            next = part_of(p, &d, i / pieces);
            next.from = i % pieces * depth * GROUP;
            next.depth = p->in - next.from < depth * GROUP ? p->in - next.from : depth * GROUP;
            next.x_row = IS_PACKED ? packed_row(p->in) : p->in;
            next.row = row;
            next.panel = p->kept ? groups * WEIGHT_CELLS * COLUMNS : panel;
            next.lines = room.floats;
            next.sums = room.floats + LANES * row;
            next.panels = next.sums + most * TALL * COLUMNS;
            if (p->kept) next.panels = kept_at(p, next.out, next.from);
        }
        if (i > first * pieces) multiply_part(&now, i < end ? &next : NULL);
    }
    tiles_close();
    cpu_room_close(&room);
}

/* Floats of kept weights. */
static int64_t kept_floats(int64_t out, int64_t in) {
    return (out + COLUMNS - 1) / COLUMNS * groups_of(in) * WEIGHT_CELLS * COLUMNS;
}

/* The kept rows that one row of weights makes: DOUBLED_PHASES, or one. */
static int64_t kept_rows(const cpu_keep *k) {
    return k->doubled ? DOUBLED_PHASES : 1;
}

/* numbers [in / taps][taps], or [in / taps][3][3] -> kept_rows() rows [taps][in / taps] */
static void turn_taps(const cpu_keep *k, const float *numbers, float *rows) {
    const int64_t each = k->in / k->taps;
    if (k->doubled) {
        for (int64_t i = 0; i < each; i++) {
            float folded[DOUBLED_PHASES * DOUBLED_TAPS];
            fold_kernel(numbers + i * KERNEL, folded);
            for (int64_t tap = 0; tap < DOUBLED_PHASES * DOUBLED_TAPS; tap++) rows[tap * each + i] = folded[tap];
        }
        return;
    }
    for (int64_t tap = 0; tap < k->taps; tap++)
        for (int64_t i = 0; i < each; i++) rows[tap * each + i] = numbers[i * k->taps + tap];
}

/* Numbers of a row of weights as it lies. */
static int64_t lying_numbers(const cpu_keep *k) {
    return k->doubled ? k->in / DOUBLED_TAPS * KERNEL : k->in;
}

/* Kept rows out ... from one row of weights, to lines of cells `row` apart; beyond the last row they are 0. room:
 * lying_numbers(), and the kept rows. */
static void keep_rows(const cpu_keep *k, int64_t out, const void *from, float *room, float *lines, int64_t row) {
    const int64_t rows = kept_rows(k), lying = lying_numbers(k);
    if (out >= k->out) {
        memset(lines, 0, (size_t)(groups_of(k->in) * WEIGHT_CELLS) * sizeof *lines);
        return;
    }
    const float *numbers = from;
    if (k->weight.to_floats) {
        k->weight.to_floats(from, room, lying);
        numbers = room;
    }
    if (k->taps > 1) {
        turn_taps(k, numbers, room + lying);
        numbers = room + lying;
    }
    for (int64_t i = 0; i < rows; i++) pack_weights(numbers + i * k->in, k->in, lines + i * row);
}

static void keep(const cpu_keep *k, int thread, int threads) {
    const int64_t cells = groups_of(k->in) * WEIGHT_CELLS, row = cells + FILLING, rows = kept_rows(k);
    const int64_t numbers = lying_numbers(k) + rows * k->in;
    cpu_room room = cpu_room_open(LANES * row + numbers + copied_floats(k, LANES / rows));
    float *const copied = room.floats + LANES * row + numbers;
    int64_t first;
    const int64_t count = cpu_share((k->out + COLUMNS - 1) / COLUMNS, thread, threads, &first);
    for (int64_t column = first * COLUMNS; column < (first + count) * COLUMNS; column += LANES) {
        const char *from = rows_to_keep(k, column / rows, LANES / rows, k->out / rows, copied);
        for (int64_t i = 0; i < LANES; i += rows, from += k->weight.row_bytes)
            keep_rows(k, column + i, from, room.floats + LANES * row, room.floats + i * row, row);
        turn_lines(room.floats, row, cells, k->kept + column / COLUMNS * cells * COLUMNS + column % COLUMNS);
    }
    cpu_room_close(&room);
}

#if defined(CPU_AS_INT8)
extern const cpu_winograd_product CPU_NAME(cpu_winograd_product);
#define WINOGRAD &CPU_NAME(cpu_winograd_product)
#else
#define WINOGRAD NULL
#endif

extern const cpu_product CPU_NAME(cpu_product);
const cpu_product CPU_NAME(cpu_product) = {
    .name = CPU_STRING,
    .precision = GROUP == 1   ? CPU_F32
                 : GROUP == 2 ? CPU_BF16
                              : CPU_INT8,
    .packing = IS_PACKED ? &packing : NULL,
    .linear = linear,
    .group = GROUP,
    .kept_floats = kept_floats,
    .keep = keep,
    .winograd = WINOGRAD,
};
