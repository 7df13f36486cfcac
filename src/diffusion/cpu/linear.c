/* linear.c - y = x W^T + b. A group of blocks of COLUMNS outputs has its weights turned into panels of cells
 * [depth][COLUMNS] once, in the second-level cache, and all rows of x go past them, turned into cells ROWS at a time.
 * What is read next comes to the cache while what is there is multiplied. Quantised weights are read a whole row at a
 * time. */
#include "diffusion/cpu/isa.h"
#include "diffusion/cpu/kernels.h"
#include "diffusion/cpu/rows.h"

/* In cells. The filling keeps rows from falling together in the cache. */
enum { DEPTH = 512, FILLING = 16, PANELS = 4 * DEPTH * COLUMNS };
enum { ROWS_AHEAD = 8 };                                /* of weights */
enum { LINES = LANES > ROWS ? (int)LANES : (int)ROWS }; /* of weights, then of x */

/* What a thread does at a time: rows t ... of x, outputs out ... */
typedef struct part {
    const cpu_linear *p;
    int64_t t, count, out, blocks;
    int64_t row, panel; /* floats in each of: */
    float *lines;       /* [LINES][at most DEPTH + FILLING] */
    float *panels;      /* [blocks][at most DEPTH][COLUMNS] */
} part;

/* Numbers from ... from + depth - 1 of one row of weights; beyond the last row they are 0. */
static void read_row(const cpu_linear *p, row_reader *rows, int64_t out, int64_t from, int64_t depth, float *cells) {
    if (out >= p->out) {
        memset(cells, 0, (size_t)cells_of(depth) * sizeof *cells);
        return;
    }
    if (out + ROWS_AHEAD < p->out)
        fetch_ahead((const char *)p->weight.data + (size_t)(out + ROWS_AHEAD) * p->weight.row_bytes +
                        (size_t)from * p->weight.element_bytes,
                    depth * (int64_t)p->weight.element_bytes);
    int64_t row;
    const bool whole = p->weight.to_floats && !p->weight.element_bytes;
    const float *w = rows_read(rows, out, 1, whole ? 0 : from, whole ? p->in : depth, &row);
    pack_along(whole ? w + from : w, depth, cells);
}

/* COLUMNS rows of weights, transposed. */
static void fill_panel(const part *s, row_reader *rows, int64_t number, int64_t from, int64_t depth) {
    const int64_t out = s->out + number * COLUMNS;
    float *panel = s->panels + number * s->panel;
    const int64_t cells = cells_of(depth);
    for (int64_t column = 0; column < COLUMNS; column += LANES) {
        for (int i = 0; i < LANES; i++) read_row(s->p, rows, out + column + i, from, depth, s->lines + i * s->row);
        for (int64_t k = 0; k < cells; k += LANES) {
            vec m[LANES];
            for (int i = 0; i < LANES; i++) m[i] = load(s->lines + i * s->row + k);
            transpose(m);
            for (int i = 0; i < LANES && k + i < cells; i++) store(panel + (k + i) * COLUMNS + column, m[i]);
        }
    }
}

/* Some rows of x, at most ROWS, against one panel. */
static void linear_block(const part *s, int64_t t, int64_t some, int64_t block_number, int64_t from, int64_t depth) {
    const cpu_linear *p = s->p;
    const int64_t out = s->out + block_number * COLUMNS, columns = p->out - out < COLUMNS ? p->out - out : COLUMNS;
    float sums[ROWS * COLUMNS], *y = p->y + t * p->out + out;
    for (int64_t r = 0; r < some && from > 0; r++)
        memcpy(sums + r * COLUMNS, y + r * p->out, (size_t)columns * sizeof *y);
    multiply_cell_rows((block){.a = s->lines,
                               .a_row = s->row,
                               .b = s->panels + block_number * s->panel,
                               .depth = cells_of(depth),
                               .c = sums,
                               .c_row = COLUMNS,
                               .add = from > 0},
                       some);
    const bool is_last = from + depth == p->in;
    const float *bias = is_last && p->bias ? p->bias + out : NULL;
    for (int64_t r = 0; r < some; r++, y += p->out) {
        const float *add = is_last && p->add ? p->add + (t + r) * p->out + out : NULL;
        if (!bias) memcpy(y, sums + r * COLUMNS, (size_t)columns * sizeof *y);
        for (int64_t j = 0; j < columns && bias; j++) y[j] = sums[r * COLUMNS + j] + bias[j];
        for (int64_t j = 0; j < columns && add; j++) y[j] += add[j];
    }
}

static void linear_part(const part *s, row_reader *rows) {
    const cpu_linear *p = s->p;
    for (int64_t from = 0; from < p->in; from += DEPTH * PAIR) {
        const int64_t depth = p->in - from < DEPTH * PAIR ? p->in - from : DEPTH * PAIR;
        for (int64_t b = 0; b < s->blocks; b++) fill_panel(s, rows, b, from, depth);
        for (int64_t t = s->t; t < s->t + s->count; t += ROWS) {
            const int64_t left = s->t + s->count - t, some = left < ROWS ? left : ROWS;
            for (int64_t r = 0; r < some; r++) pack_along(p->x + (t + r) * p->in + from, depth, s->lines + r * s->row);
            for (int64_t r = some; r < left && r < 2 * ROWS; r++)
                fetch_ahead(p->x + (t + r) * p->in + from, depth * (int64_t)sizeof *p->x);
            for (int64_t b = 0; b < s->blocks; b++) linear_block(s, t, some, b, from, depth);
        }
    }
}

/* How the work is dealt out: groups of blocks of outputs, each with a share of the rows. */
typedef struct division {
    int64_t blocks, groups, shares;
} division;

static part part_of(const cpu_linear *p, const division *d, int64_t number) {
    part s = {.p = p};
    s.blocks = cpu_share(d->blocks, (int)(number % d->groups), (int)d->groups, &s.out);
    s.out *= COLUMNS;
    s.count = cpu_share(p->t, (int)(number / d->groups), (int)d->shares, &s.t);
    return s;
}

/* The most that any thread has to do, in products of a block with a row. */
static int64_t cost_of(const cpu_linear *p, const division *d, int threads) {
    enum { PACKING = 64 }; /* what it takes to make a panel */
    int64_t most = 0;
    for (int thread = 0; thread < threads; thread++) {
        int64_t first, cost = 0;
        const int64_t count = cpu_share(d->groups * d->shares, thread, threads, &first);
        for (int64_t i = first; i < first + count; i++) {
            const part s = part_of(p, d, i);
            cost += s.blocks * (s.count + PACKING);
        }
        if (cost > most) most = cost;
    }
    return most;
}

/* As few groups as have room, or for each thread as many of them, or all of them for each thread with its own rows. */
static division divide(const cpu_linear *p, int64_t depth, int threads) {
    const int64_t blocks = (p->out + COLUMNS - 1) / COLUMNS, room = PANELS / (depth * COLUMNS);
    const int64_t groups = (blocks + room - 1) / room, even = (groups + threads - 1) / threads * threads;
    const division by_output = {blocks, even < blocks ? even : blocks, 1}, by_rows = {blocks, groups, threads};
    return cost_of(p, &by_output, threads) <= cost_of(p, &by_rows, threads) ? by_output : by_rows;
}

void CPU_NAME(cpu_linear_product)(const cpu_linear *p, int thread, int threads) {
    const int64_t cells = cells_of(p->in), depth = cells < DEPTH ? cells : DEPTH;
    const division d = divide(p, depth, threads);
    const int64_t row = depth + FILLING, panel = depth * COLUMNS, most = (d.blocks + d.groups - 1) / d.groups;
    cpu_room room = cpu_room_open(LINES * row + most * panel);
    row_reader rows = row_reader_open(&p->weight, 1, p->in);
    int64_t first;
    const int64_t count = cpu_share(d.groups * d.shares, thread, threads, &first);
    for (int64_t i = first; i < first + count; i++) {
        part s = part_of(p, &d, i);
        s.row = row;
        s.panel = panel;
        s.lines = room.floats;
        s.panels = room.floats + LINES * row;
        linear_part(&s, &rows);
    }
    row_reader_close(&rows);
    cpu_room_close(&room);
}
