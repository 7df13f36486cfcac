/* taesd.h - latents -> pixels and back with the tiny autoencoder (TAESD, https://github.com/madebyollin/taesd): a row
 * of small residual blocks that does what the VAE does at a hundredth of its cost, and nearly as well.
 *
 * Owns its weights, borrows the backend. A file may hold the decoder, the encoder or both, in the names of the original
 * ("decoder.3.conv.0.weight", or without the half's name) or of diffusers ("decoder.layers.2.conv.0.weight"). */
#ifndef MYSTI_DIFFUSION_TAESD_H
#define MYSTI_DIFFUSION_TAESD_H

#include "diffusion/model/backend.h"
#include "diffusion/model/latent.h"

typedef struct taesd taesd;

enum { TAESD_FACTOR = 8 }; /* pixels per latent in each direction */

/* NULL on failure, with the reason in `e`: ERR_UNSUPPORTED when the file is none. */
taesd *taesd_open(const char *path, backend *b, err *e);
void taesd_close(taesd *t); /* NULL is fine */

int taesd_channels(const taesd *t); /* of a latent: 4 */
bool taesd_can_encode(const taesd *t);
bool taesd_can_decode(const taesd *t);

/* Called on the computing thread after each tile. */
typedef void (*taesd_progress)(void *ctx, int done, int tiles);

/* z: [1, channels, h, w] as the UNet has them (scaled). rgb: [3, 8 h, 8 w] planes, nominally -1..1; the caller's.
 * Larger than `tile` latents in a side it is done in tiles that are blended; about 1 KB of scratch memory per pixel of
 * a tile. */
bool taesd_decode(taesd *t, const latent *z, float *rgb, int tile, taesd_progress progress, void *ctx, err *e);

/* rgb: [3, height, width] planes in -1..1, multiples of 8. z: data the caller's; as the UNet has it. */
bool taesd_encode(taesd *t, const float *rgb, int width, int height, latent *z, int tile, taesd_progress progress,
                  void *ctx, err *e);

#endif
