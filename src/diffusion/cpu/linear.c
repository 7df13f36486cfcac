/* linear.c - y = x W^T + b. A block of COLUMNS outputs has its weights turned into a panel [in][COLUMNS] of floats
 * once, in the second-level cache, and all rows of x go past it. Quantised weights are read a whole row at a time. */
#include "diffusion/cpu/isa.h"
#include "diffusion/cpu/kernels.h"
#include "diffusion/cpu/rows.h"

enum { DEPTH = 1024 };

/* COLUMNS rows of weights, numbers from ... from + depth - 1, transposed. Rows beyond the last are zero. */
static void fill_panel(const cpu_linear *p, row_reader *rows, int64_t out, int64_t from, int64_t depth, float *panel) {
    for (int64_t i = 0; i < COLUMNS; i += LANES) {
        for (int64_t j = i; j < i + LANES; j++) {
            if (out + j >= p->out) {
                for (int64_t k = 0; k < depth; k++) panel[k * COLUMNS + j] = 0;
                continue;
            }
            int64_t row;
            const bool whole = p->weight.to_floats && !p->weight.element_bytes;
            const float *w = rows_read(rows, out + j, 1, whole ? 0 : from, whole ? p->in : depth, &row);
            if (whole) w += from;
            for (int64_t k = 0; k < depth; k++) panel[k * COLUMNS + j] = w[k];
        }
    }
}

/* Rows t ... of one block of outputs, of one piece of the depth. */
static void linear_block(const cpu_linear *p, int64_t out, int64_t t, int64_t count, int64_t from, int64_t depth,
                         const float *panel) {
    const int64_t columns = p->out - out < COLUMNS ? p->out - out : COLUMNS;
    const bool last = from + depth == p->in;
    float sums[ROWS * COLUMNS];
    for (int64_t i = t; i < t + count; i += ROWS) {
        const int64_t some = t + count - i < ROWS ? t + count - i : ROWS;
        float *y = p->y + i * p->out + out;
        for (int64_t r = 0; r < some && from > 0; r++)
            memcpy(sums + r * COLUMNS, y + r * p->out, (size_t)columns * sizeof *y);
        multiply_rows((block){.a = p->x + i * p->in + from,
                              .a_row = p->in,
                              .b = panel,
                              .depth = depth,
                              .c = sums,
                              .c_row = COLUMNS,
                              .add = from > 0},
                      some);
        for (int64_t r = 0; r < some; r++)
            for (int64_t j = 0; j < columns; j++)
                y[r * p->out + j] = sums[r * COLUMNS + j] + (last && p->bias ? p->bias[out + j] : 0);
    }
}

/* Work is dealt out in blocks of outputs; with few of them and many rows, the rows are shared as well. */
void CPU_NAME(cpu_linear_product)(const cpu_linear *p, int thread, int threads) {
    const int64_t blocks = (p->out + COLUMNS - 1) / COLUMNS;
    int64_t shares = 1;
    while (blocks * shares % threads && shares < threads && p->t / (2 * shares) >= 64) shares *= 2;
    const int64_t each = (p->t + shares - 1) / shares;
    const int64_t piece = p->in < DEPTH ? p->in : DEPTH;
    cpu_room panel = cpu_room_open(piece * COLUMNS);
    row_reader rows = row_reader_open(&p->weight, 1, p->in);
    int64_t first;
    const int64_t count = cpu_share(blocks * shares, thread, threads, &first);
    for (int64_t i = first; i < first + count; i++) {
        const int64_t out = i / shares * COLUMNS, t = i % shares * each;
        const int64_t some = p->t - t < each ? p->t - t : each;
        for (int64_t from = 0; from < p->in; from += DEPTH) {
            const int64_t depth = p->in - from < DEPTH ? p->in - from : DEPTH;
            fill_panel(p, &rows, out, from, depth, panel.floats);
            linear_block(p, out, t, some, from, depth, panel.floats);
        }
    }
    row_reader_close(&rows);
    cpu_room_close(&panel);
}
