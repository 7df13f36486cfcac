/* groups.h - the depth of linear.c's products in groups: one cell each, or with CPU_AS_INT8 many numbers that share a
 * scale (int8.h). */
#ifndef MYSTI_DIFFUSION_CPU_GROUPS_H
#define MYSTI_DIFFUSION_CPU_GROUPS_H

#include "diffusion/cpu/isa.h"

#if defined(CPU_AS_INT8)
#include "diffusion/cpu/int8.h"
#else
enum { STRETCH = PAIR, GROUP = PAIR, DATA_CELLS = 1, ROW_CELLS = 1, WEIGHT_CELLS = 1 };
enum { LINE_OF_GROUPS = LINE_OF_FLOATS }; /* of rows; or a tile of AMX */

static inline void pack_row(const float *from, int64_t n, float *cells) {
    pack_along(from, n, cells);
}
static inline void pack_weights(const float *from, int64_t n, float *cells) {
    pack_along(from, n, cells);
}
ALWAYS_INLINE void multiply_groups(block p, int64_t rows, int64_t columns) {
    multiply_columns(p, rows, columns, CELLS);
}
#endif

/* Cells that hold n numbers, without what follows them in their groups. */
static inline int64_t data_cells(int64_t n) {
    return (n + STRETCH - 1) / STRETCH * STRETCH * DATA_CELLS / GROUP;
}

static inline int64_t groups_of(int64_t numbers) {
    return (numbers + GROUP - 1) / GROUP;
}

/* LANES lines of cells, `row` apart -> panel [cells][COLUMNS]. */
static inline void turn_lines(const float *lines, int64_t row, int64_t cells, float *panel) {
    for (int64_t k = 0; k < cells; k += LANES) {
        vec m[LANES];
        for (int i = 0; i < LANES; i++) m[i] = load(lines + i * row + k);
        transpose(m);
        for (int i = 0; i < LANES && k + i < cells; i++) store(panel + (k + i) * COLUMNS, m[i]);
    }
}

#endif
