/* vae.h - pixels <-> latents: the KL autoencoder of latent diffusion (Rombach et al. 2022).
 *
 * Widths, levels and channels are the tensors'; f = 2^(levels-1) pixels are one latent (8 for Stable Diffusion).
 * Pictures larger than a tile are done in overlapping tiles that are blended, which bounds the scratch memory
 * (vae_tile_limit()).
 * Borrows weights and backend, which must outlive it. */
#ifndef MYSTI_DIFFUSION_VAE_H
#define MYSTI_DIFFUSION_VAE_H

#include "diffusion/load/weights.h"
#include "diffusion/model/backend.h"
#include "diffusion/model/latent.h"

typedef struct vae vae;

/* Declares the tensors in `w` (names below "first_stage_model."); they need to be committed before use. The encoder may
 * be missing from the file (vae_can_encode). scale: as below. NULL on failure, with the reason in `e`. */
vae *vae_open(weights *w, backend *b, float scale, err *e);
void vae_close(vae *v); /* NULL is fine */

typedef struct vae_info {
    int latent_channels; /* 4 */
    int factor;          /* pixels per latent in each direction: 8 */
    float scale; /* model latents = autoencoder latents * scale: 0.18215 for Stable Diffusion 1.x, 0.13025 for XL */
    bool can_encode;
} vae_info;
vae_info vae_describe(const vae *v);

/* Latents of at most tile x tile are done whole, larger ones in tiles of that size. Default 64 (512 pixels). */
void vae_tile_limit(vae *v, int tile);

/* Called on the computing thread after each tile. */
typedef void (*vae_progress)(void *ctx, int done, int tiles);

/* z: [1, latent_channels, h, w], as the UNet has them (scaled); this function divides by `scale`.
 * rgb: [3, h * factor, w * factor] planes, nominally -1..1, not clamped; caller's. */
bool vae_decode(vae *v, const latent *z, float *rgb, vae_progress progress, void *ctx, err *e);

/* rgb: [3, height, width] planes in -1..1, both multiples of `factor`.
 * noise: standard normal, same shape as z, to draw from the posterior; NULL takes its mean.
 * z: [1, latent_channels, height / factor, width / factor], data the caller's; comes out scaled, as the UNet has it. */
bool vae_encode(vae *v, const float *rgb, int width, int height, const float *noise, latent *z, vae_progress progress,
                void *ctx, err *e);

#endif
