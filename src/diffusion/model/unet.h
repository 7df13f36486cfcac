/* unet.h - the denoising UNet of latent diffusion (Rombach et al. 2022), Stable Diffusion 1.x.
 *
 * Everything is read from the tensors: levels, residual blocks per level, which levels attend, transformer depth,
 * widths, context width, input channels (4; 8 and 9 for editing and inpainting models). Only the number of attention
 * heads is not in them: with 1x1 convolutions as transformer projections (SD 1.x) there are 8 heads; with linear
 * projections (SD 2.x) a head has 64 channels. A width that this does not divide takes the next smaller number of heads
 * that does. Borrows weights and backend, which must outlive it. */
#ifndef MYSTI_DIFFUSION_UNET_H
#define MYSTI_DIFFUSION_UNET_H

#include "diffusion/load/weights.h"
#include "diffusion/model/backend.h"

typedef struct unet unet;

/* Declares the UNet's tensors in `w` (names below "model.diffusion_model."); they need to be committed before the first
 * unet_eval(). NULL on failure, with the reason in `e`. */
unet *unet_open(weights *w, backend *b, err *e);
void unet_close(unet *u); /* NULL is fine */

typedef struct unet_info {
    int in_channels;  /* 4, or more when image and mask are concatenated */
    int out_channels; /* 4 */
    int context_dim;  /* width of the text context */
    int levels;       /* h and w of the input are halved levels - 1 times, rounded up */
} unet_info;
unet_info unet_describe(const unet *u);

/* One batch through the network, of any size.
 *   x         [n, in_channels, h, w]
 *   timesteps [n], 0..999, fractions allowed
 *   context   [n, tokens, context_dim]
 *   out       [n, out_channels, h, w], caller's */
typedef struct unet_input {
    const float *x;
    int n, h, w;
    const float *timesteps;
    const float *context;
    int tokens;
} unet_input;
bool unet_eval(unet *u, const unet_input *in, float *out, err *e);

#endif
