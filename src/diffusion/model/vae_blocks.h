/* vae_blocks.h - what the KL autoencoder is built of: residual blocks and the middle of each half, with attention over
 * all pixels. Reading them from the weights, and their forward passes. */
#ifndef MYSTI_DIFFUSION_VAE_BLOCKS_H
#define MYSTI_DIFFUSION_VAE_BLOCKS_H

#include "diffusion/model/layers.h"

typedef struct vae_resnet {
    layer norm1, conv1, norm2, conv2;
    layer shortcut; /* weight NULL when input and output have the same width */
} vae_resnet;

typedef struct vae_middle {
    vae_resnet block1, block2;
    layer norm, q, k, v, out;
} vae_middle;

vae_resnet vae_resnet_load(const layers *l, int64_t in, int64_t out);
vae_middle vae_middle_load(const layers *l, int64_t c); /* l: the half that has the "mid." */

/* x: [w, h, in, n] -> [w, h, out, n] */
tensor *vae_resnet_forward(graph *g, const vae_resnet *r, tensor *x);
tensor *vae_middle_forward(graph *g, const vae_middle *m, tensor *x);

/* A convolution of silu(group norm), as most are; add: to the result, NULL: nothing. */
tensor *vae_norm_conv(graph *g, tensor *x, const layer *norm, const layer *conv, tensor *add);

#endif
