/* tiles.h - a picture worked on in overlapping tiles, which bounds the memory a network needs. Where tiles overlap,
 * each fades into the next. */
#ifndef MYSTI_DIFFUSION_TILES_H
#define MYSTI_DIFFUSION_TILES_H

#include "base/err.h"

#include <stddef.h>

/* [c, h, w] floats, w fastest. */
typedef struct planes {
    int c, h, w;
    float *data;
} planes;

planes planes_new(int c, int h, int w); /* zeroed; free with planes_free() */
void planes_free(planes *p);
size_t planes_size(const planes *p); /* numbers */

/* in and out show the same picture at two scales: a unit is in_unit pixels of one and out_unit of the other.
 * size and overlap are in units; overlap may be 0 and is at most half the size. */
typedef struct tiles {
    const planes *in;
    planes *out;
    int in_unit, out_unit;
    int size, overlap;
} tiles;

/* Computes one tile: `out` has its size and channels already. False, with the reason in `e`, ends the run. */
typedef bool (*tiles_fn)(void *ctx, const planes *in, planes *out, err *e);

/* Called after each tile. May be NULL. */
typedef void (*tiles_progress)(void *ctx, int done, int count);

/* Works through the picture; one that is no larger than a tile goes through fn as it is. */
bool tiles_run(const tiles *t, tiles_fn fn, void *fn_ctx, tiles_progress progress, void *progress_ctx, err *e);

/* How many tiles that takes. */
int tiles_count(const tiles *t);

#endif
