/* amx.h - the block of a matrix product by AMX's tiles (Intel's Software Developer's Manual, volume 1, chapter
 * "Programming with Intel AMX"). Part of isa.h, for files that are compiled with it.
 *
 * A tile is a register of up to 16 rows of 64 bytes, here 16 floats or 16 cells. One instruction, TDPBF16PS, multiplies
 * 16 rows of a, 16 cells deep, with 16 columns of b, 16 cells deep: just as they lie in memory, rows of cells there and
 * [depth][COLUMNS] here. It does the work of 256 VDPBF16PS.
 *
 * Of the eight tiles six hold the sums of 32 rows and 48 columns, one is for a and one for b. For 16 cells of the depth
 * six products need two tiles of a and five of b: the upper rows meet b's columns from left to right, the lower ones
 * from right to left, so that in the middle one tile of b serves both. Sums come from memory before the depth is gone
 * through and go back behind it.
 *
 * How many rows a tile has is part of a configuration, which belongs to the thread: 16 from tiles_open() to
 * tiles_close(), but for the last few rows, which have one of their own. What is left of the depth, less than 16 cells,
 * is done with vectors. So how a sum is made up depends on the depth alone, not on the rows that were computed with it.
 */
#ifndef MYSTI_DIFFUSION_CPU_AMX_H
#define MYSTI_DIFFUSION_CPU_AMX_H

#if !defined(MYSTI_DIFFUSION_CPU_ISA_H)
#error "included by isa.h alone"
#endif

#if defined(CPU_AMX_EMULATED)
#include "diffusion/cpu/amx_emulated.h"
#endif

enum { TILE = 16 }; /* rows, columns, cells of the depth */

/* Instructions have a tile's number in them, so it is written out. */
#define TILE_A 6
#define TILE_B 7

/* Gcc 12 does not know that the instructions which load tiles read memory. */
#define ALL_IS_WRITTEN(p) __asm__ volatile("" : : "r"(p) : "memory")

/* As LDTILECFG reads it. */
typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

static inline void tiles_have_rows(int64_t rows) {
    tile_config c = {.palette = 1};
    for (int i = 0; i <= TILE_B; i++) {
        c.row_bytes[i] = TILE * sizeof(float);
        c.rows[i] = i == TILE_B ? TILE : (uint8_t)rows;
    }
    ALL_IS_WRITTEN(&c);
    _tile_loadconfig(&c);
}

/* Around a thread's products. */
static inline void tiles_open(void) {
    tiles_have_rows(TILE);
}
static inline void tiles_close(void) {
    _tile_release();
}

/* step(tile, lower, column) for all tiles of sums that are wanted. */
#define EACH_SUM(step)                                                                                                 \
    step(0, 0, 0);                                                                                                     \
    if (vecs > 1) step(1, 0, 1);                                                                                       \
    if (vecs > 2) step(2, 0, 2);                                                                                       \
    if (tall) step(3, 1, 0);                                                                                           \
    if (tall && vecs > 1) step(4, 1, 1);                                                                               \
    if (tall && vecs > 2) step(5, 1, 2)
#define SUM_AT(lower, column) (p->c + (lower)*TILE * p->c_row + (column)*TILE)
#define LOAD_SUM(tile, lower, column) _tile_loadd(tile, SUM_AT(lower, column), c_bytes)
#define ZERO_SUM(tile, lower, column) _tile_zero(tile)
#define STORE_SUM(tile, lower, column) _tile_stored(tile, SUM_AT(lower, column), c_bytes)

/* The block's rows as far as a tile has them, twice as many if tall; its depth is whole tiles. b_row: floats from one
 * row of b to the next. vecs and tall are constants wherever this is inlined. */
ALWAYS_INLINE void multiply_tiles(const block *p, int64_t b_row, const int vecs, const bool tall) {
    const int64_t a_bytes = p->a_row * (int64_t)sizeof(float), b_bytes = b_row * (int64_t)sizeof(float);
    const int64_t c_bytes = p->c_row * (int64_t)sizeof(float);
    const float *a = p->a, *b = p->b;
    if (p->add) {
        EACH_SUM(LOAD_SUM);
    } else {
        EACH_SUM(ZERO_SUM);
    }
    for (int64_t k = 0; k < p->depth; k += TILE, a += TILE, b += TILE * b_row) {
        _tile_loadd(TILE_A, a, a_bytes);
        _tile_loadd(TILE_B, b, b_bytes);
        _tile_dpbf16ps(0, TILE_A, TILE_B);
        if (vecs > 1) {
            _tile_loadd(TILE_B, b + TILE, b_bytes);
            _tile_dpbf16ps(1, TILE_A, TILE_B);
        }
        if (vecs > 2) {
            _tile_loadd(TILE_B, b + 2 * TILE, b_bytes);
            _tile_dpbf16ps(2, TILE_A, TILE_B);
        }
        if (!tall) continue;
        _tile_loadd(TILE_A, a + TILE * p->a_row, a_bytes);
        if (vecs > 2) {
            _tile_dpbf16ps(5, TILE_A, TILE_B);
            _tile_loadd(TILE_B, b + TILE, b_bytes);
        }
        if (vecs > 1) {
            _tile_dpbf16ps(4, TILE_A, TILE_B);
            _tile_loadd(TILE_B, b, b_bytes);
        }
        _tile_dpbf16ps(3, TILE_A, TILE_B);
    }
    EACH_SUM(STORE_SUM);
}

/* c = a b (or c += a b), of any number of rows, for as much of the depth as whole tiles have. Returns what is left. */
ALWAYS_INLINE block multiply_depth(block p, int64_t rows, const int vecs, const operands kind) {
    const int64_t b_row = kind == CELLS ? COLUMNS : p.place_step, depth = p.depth / TILE * TILE;
    if (depth == 0 || b_row == 0) return p;
    block rest = p;
    rest.a += depth;
    if (kind == CELLS)
        rest.b += depth * COLUMNS;
    else
        rest.places += depth;
    rest.depth -= depth;
    rest.add = true;
    p.depth = depth;
    ALL_IS_WRITTEN(p.a);
    for (; rows >= 2 * TILE; rows -= 2 * TILE) {
        multiply_tiles(&p, b_row, vecs, true);
        p.a += 2 * TILE * p.a_row;
        p.c += 2 * TILE * p.c_row;
    }
    if (rows >= TILE) {
        multiply_tiles(&p, b_row, vecs, false);
        p.a += TILE * p.a_row;
        p.c += TILE * p.c_row;
        rows -= TILE;
    }
    if (rows > 0) {
        tiles_have_rows(rows);
        multiply_tiles(&p, b_row, vecs, false);
        tiles_have_rows(TILE);
    }
    return rest;
}

#endif
