/* move.c - numbers that only change their place: sequences from pictures and back, pictures of twice the size. */
#include "diffusion/cpu/isa.h"
#include "diffusion/cpu/kernels.h"

#include <string.h>

/* A square of SIDE x SIDE numbers goes through the first-level cache: SIDE numbers are a cache line of either side. */
enum { SIDE = 16 };

/* Rows of x from `row` on, columns from `column` on. */
ALWAYS_INLINE void turn_square(const cpu_transpose *p, int64_t n, int64_t row, const int64_t rows, int64_t column,
                               const int64_t columns) {
    const float *x = p->x + (n * p->rows + row) * p->columns + column;
    const int64_t at = (n * p->columns + column) * p->rows + row;
    float square[SIDE][SIDE];
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++) square[c][r] = x[r * p->columns + c];
    for (int64_t c = 0; c < columns; c++) {
        float *restrict y = p->y + at + c * p->rows;
        const float *add = p->add ? p->add + at + c * p->rows : NULL;
        for (int64_t r = 0; r < rows; r++) y[r] = add ? square[c][r] + add[r] : square[c][r];
    }
}

/* Threads share the rows of the result, a stripe of SIDE at a time. */
void CPU_NAME(cpu_turn)(const cpu_transpose *p, int thread, int threads) {
    const int64_t stripes = (p->columns + SIDE - 1) / SIDE;
    int64_t first;
    const int64_t count = cpu_share(p->n * stripes, thread, threads, &first);
    for (int64_t i = first; i < first + count; i++) {
        const int64_t column = i % stripes * SIDE, left = p->columns - column;
        int64_t row = 0;
        for (; row + SIDE <= p->rows && left >= SIDE; row += SIDE)
            turn_square(p, i / stripes, row, SIDE, column, SIDE); /* loops of known length */
        for (; row < p->rows; row += SIDE)
            turn_square(p, i / stripes, row, p->rows - row < SIDE ? p->rows - row : SIDE, column,
                        left < SIDE ? left : SIDE);
    }
}

void CPU_NAME(cpu_double)(const cpu_upsample *p, int thread, int threads) {
    int64_t first;
    const int64_t count = cpu_share(p->planes * p->h, thread, threads, &first), twice = 2 * p->w;
    for (int64_t row = first; row < first + count; row++) {
        const float *x = p->x + row * p->w;
        float *restrict y = p->y + 2 * row * twice;
        for (int64_t i = 0; i < p->w; i++) y[2 * i] = y[2 * i + 1] = x[i];
        memcpy(y + twice, y, (size_t)twice * sizeof *y);
    }
}
