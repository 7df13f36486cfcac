/* amx_emulated.h - the instructions for tiles that amx.h uses, in plain C, as Intel's Software Developer's Manual
 * (volume 2) describes them, for tests on processors without AMX. What would be a fault there ends the program here.
 *
 * Included by amx.h in their place when CPU_AMX_EMULATED is defined. */
#ifndef MYSTI_DIFFUSION_CPU_AMX_EMULATED_H
#define MYSTI_DIFFUSION_CPU_AMX_EMULATED_H

#include <float.h>
#include <immintrin.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EMULATED_TILES = 8, EMULATED_ROWS = 16, EMULATED_BYTES = 64 };

typedef struct emulated_tile {
    int rows, row_bytes; /* 0: not configured */
    uint8_t data[EMULATED_ROWS][EMULATED_BYTES];
} emulated_tile;

static _Thread_local emulated_tile emulated_tiles[EMULATED_TILES];

static inline void emulated_expect(bool right, const char *what) {
    if (right) return;
    fprintf(stderr, "AMX: %s\n", what);
    abort();
}

static inline emulated_tile *emulated_configured(int tile) {
    emulated_expect(tile >= 0 && tile < EMULATED_TILES, "no such tile");
    emulated_expect(emulated_tiles[tile].rows > 0, "a tile without configuration");
    return &emulated_tiles[tile];
}

static inline void emulated_release(void) {
    memset(emulated_tiles, 0, sizeof emulated_tiles);
}

/* LDTILECFG: palette, start row, 14 bytes of 0, 16 x 2 bytes of bytes in a row, 16 bytes of rows; 0 for tiles that are
 * not there. */
static inline void emulated_load_config(const void *config) {
    uint8_t c[64];
    memcpy(c, config, sizeof c);
    emulated_release();
    if (c[0] == 0) return;
    emulated_expect(c[0] == 1, "an unknown palette");
    emulated_expect(c[1] == 0, "a restart");
    for (int i = 2; i < 16; i++) emulated_expect(c[i] == 0, "reserved bytes");
    for (int i = 0; i < 16; i++) {
        const int row_bytes = c[16 + 2 * i] + 256 * c[17 + 2 * i], rows = c[48 + i];
        if (i >= EMULATED_TILES) {
            emulated_expect(row_bytes == 0 && rows == 0, "more tiles than there are");
            continue;
        }
        emulated_expect(row_bytes <= EMULATED_BYTES && rows <= EMULATED_ROWS, "a tile too large");
        emulated_expect((row_bytes == 0) == (rows == 0), "a tile with rows or bytes only");
        emulated_tiles[i].rows = rows;
        emulated_tiles[i].row_bytes = row_bytes;
    }
}

static inline void emulated_zero(int tile) {
    emulated_tile *t = emulated_configured(tile);
    memset(t->data, 0, sizeof t->data);
}

/* Rows lie `step` bytes apart. Behind the tile's rows and bytes it is 0. */
static inline void emulated_load(int tile, const void *from, int64_t step) {
    emulated_tile *t = emulated_configured(tile);
    memset(t->data, 0, sizeof t->data);
    for (int i = 0; i < t->rows; i++) memcpy(t->data[i], (const char *)from + i * step, (size_t)t->row_bytes);
}

static inline void emulated_store(int tile, void *to, int64_t step) {
    const emulated_tile *t = emulated_configured(tile);
    for (int i = 0; i < t->rows; i++) memcpy((char *)to + i * step, t->data[i], (size_t)t->row_bytes);
}

/* Numbers below the smallest normal one are 0. */
static inline float emulated_flush(float x) {
    return fabsf(x) < FLT_MIN ? copysignf(0, x) : x;
}

/* Number `number` of a row of bfloat16. */
static inline float emulated_bf16(const uint8_t *row, int number) {
    uint16_t half;
    memcpy(&half, row + number * (int)sizeof half, sizeof half);
    const uint32_t bits = (uint32_t)half << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return emulated_flush(x);
}

/* TDPBF16PS: the first numbers of all pairs are added up in one sum, the second ones in another, then both. */
static inline void emulated_multiply(int sums, int left, int right) {
    emulated_tile *c = emulated_configured(sums);
    const emulated_tile *a = emulated_configured(left), *b = emulated_configured(right);
    emulated_expect(sums != left && left != right && sums != right, "a tile is two operands");
    emulated_expect(a->row_bytes % 4 == 0 && b->row_bytes % 4 == 0 && c->row_bytes % 4 == 0, "rows of half a cell");
    emulated_expect(c->rows == a->rows && c->row_bytes == b->row_bytes && a->row_bytes / 4 == b->rows,
                    "shapes do not match");
    for (int m = 0; m < c->rows; m++) {
        float pair[EMULATED_BYTES / 2] = {0}, sum[EMULATED_BYTES / 4];
        for (int k = 0; k < a->row_bytes / 4; k++)
            for (int n = 0; n < c->row_bytes / 2; n++)
                pair[n] = emulated_flush(
                    fmaf(emulated_bf16(a->data[m], 2 * k + n % 2), emulated_bf16(b->data[k], n), pair[n]));
        memcpy(sum, c->data[m], sizeof sum);
        for (int n = 0; n < c->row_bytes / 4; n++)
            sum[n] = emulated_flush(emulated_flush(sum[n]) + emulated_flush(pair[2 * n] + pair[2 * n + 1]));
        memcpy(c->data[m], sum, sizeof sum);
    }
}

#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbf16ps
#define _tile_loadconfig emulated_load_config
#define _tile_release emulated_release
#define _tile_loadd emulated_load
#define _tile_stored emulated_store
#define _tile_zero emulated_zero
#define _tile_dpbf16ps emulated_multiply

#endif
