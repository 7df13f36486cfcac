/* unet.h - the denoising UNet of latent diffusion (Rombach et al. 2022): Stable Diffusion 1.x, 2.x and XL (Podell et
 * al. 2023), and what was distilled from them with fewer blocks.
 *
 * Everything is read from the tensors: levels, residual blocks per level, which of them attend and with how many
 * transformer blocks, what the middle consists of (it may be missing), widths, context and label width, input channels
 * (4; 8 and 9 for editing and inpainting models). Only the number of attention heads is not in them: with 1x1
 * convolutions as transformer projections (SD 1.x) there are 8 heads; with linear projections (SD 2.x, XL) a head has
 * 64 channels. A width that this does not divide takes the next smaller number of heads
 * that does. Borrows weights and backend, which must outlive it. */
#ifndef MYSTI_DIFFUSION_UNET_H
#define MYSTI_DIFFUSION_UNET_H

#include "diffusion/model/unet_encoder.h"

typedef struct unet unet;

/* Declares the UNet's tensors in `w` (names below "model.diffusion_model."); they need to be committed before the first
 * unet_eval(). NULL on failure, with the reason in `e`. */
unet *unet_open(weights *w, backend *b, err *e);
void unet_close(unet *u); /* NULL is fine */

typedef struct unet_info {
    int in_channels;  /* 4, or more when image and mask are concatenated */
    int out_channels; /* 4 */
    int context_dim;  /* width of the text context */
    int label_dim;    /* of the vector beside it: pooled text and size in SDXL; 0: there is none */
    int levels;       /* h and w of the input are halved levels - 1 times, rounded up */
} unet_info;
unet_info unet_describe(const unet *u);
const unet_encoder *unet_first_half(const unet *u);

/* Cross-attentions in the order of diffusers' processors (down, up, middle), and the channels of number i. */
int unet_crosses(const unet *u);
int64_t unet_cross_channels(const unet *u, int i);

/* Residual blocks, and the channels of number i. */
int unet_resnets(const unet *u);
int64_t unet_resnet_channels(const unet *u, int i);

bool unet_is_on_cpu(const unet *u);

/* Keys and values of a context [n, tokens, context_dim], for unet_input.keys. out: one for each cross-attention, with
 * room for n tokens rows of its channels, caller's. A graph's inputs and outputs must suffice (GRAPH_IO_MAX). */
bool unet_make_keys(unet *u, const float *context, int n, int tokens, const unet_keys *out, err *e);

/* What n timesteps and labels make of each residual block's unet_resnet_time(), for unet_input.times. out: one for each
 * block, [n, its channels], caller's. */
bool unet_make_times(unet *u, const float *timesteps, const float *label, int n, float *const *out, err *e);

/* out: [n, out_channels, h, w], caller's. */
bool unet_eval(unet *u, const unet_input *in, float *out, err *e);

/* The picture that the last block of the second half takes from those before it, [deep_channels, h, w] for each of the
 * batch: it changes little from step to step (Ma et al. 2023, "DeepCache"). unet_eval_keeping() leaves it in `deep`;
 * unet_eval_shallow() takes it from there, and computes nothing but the first convolution and the last block. */
int unet_deep_channels(const unet *u);
bool unet_eval_keeping(unet *u, const unet_input *in, float *deep, float *out, err *e);
bool unet_eval_shallow(unet *u, const unet_input *in, const float *deep, float *out, err *e);

#endif
