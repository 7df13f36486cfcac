/* esrgan.h - enlarging networks: ESRGAN and Real-ESRGAN (RRDB), and Real-ESRGAN's compact ones (upscaler_form.h).
 *
 * Owns its weights, borrows the backend. Pictures are done in overlapping tiles that fade into each other. Scratch
 * memory: the result's planes twice in floats, and per tile about 4 bytes x 4 x width (64) for each of its enlarged
 * pixels. */
#ifndef MYSTI_DIFFUSION_ESRGAN_H
#define MYSTI_DIFFUSION_ESRGAN_H

#include "diffusion/load/upscaler_form.h"
#include "diffusion/model/backend.h"
#include "diffusion/model/tiles.h"

typedef struct esrgan esrgan;

/* Reads a file of any format. NULL on failure: ERR_UNSUPPORTED when it is no upscaler or not one that we can do. */
esrgan *esrgan_open(const char *path, backend *b, err *e);
void esrgan_close(esrgan *u); /* NULL is fine */

int esrgan_scale(const esrgan *u);

/* The largest tile, in pixels of the picture given, whose scratch memory fits; 0 free bytes: not known. */
int esrgan_choose_tile(const esrgan *u, size_t free_bytes);

/* rgb: [3, h, w] in 0..1. out: [3, h * scale, w * scale], not clamped; the caller's. The picture must be no larger than
 * a tile for esrgan_tile(); esrgan_run() takes any, in tiles of `tile` pixels that overlap by ESRGAN_OVERLAP, each
 * computed by `fn`: esrgan_tile, or something around it. */
enum { ESRGAN_OVERLAP = 16, ESRGAN_TILE_MIN = 48, ESRGAN_TILE_MAX = 192 };
bool esrgan_tile(void *esrgan_ctx, const planes *rgb, planes *out, err *e);
bool esrgan_run(const esrgan *u, const planes *rgb, planes *out, int tile, tiles_fn fn, void *fn_ctx,
                tiles_progress progress, void *progress_ctx, err *e);
int esrgan_tiles(const esrgan *u, int width, int height, int tile); /* how many that takes */

#endif
