/* unet_blocks.h - what a latent diffusion UNet is built of: residual blocks that know the time, and transformers that
 * attend to the text. Reading them from the weights, and their forward passes. */
#ifndef MYSTI_DIFFUSION_UNET_BLOCKS_H
#define MYSTI_DIFFUSION_UNET_BLOCKS_H

#include "diffusion/model/layers.h"

typedef struct unet_resnet {
    layer norm1, conv1, emb;
    layer norm2, conv2;
    layer skip; /* weight NULL when input and output have the same width */
    int number; /* among a whole UNet's, as unet_input.times has them */
} unet_resnet;

typedef struct unet_attention {
    layer q, k, v, out;
} unet_attention;

/* What an IP-Adapter adds to one cross-attention: keys and values of a picture's tokens (Ye et al. 2023, equation 5).
 */
typedef struct unet_image_attention {
    layer k, v;
} unet_image_attention;

typedef struct unet_transformer_block {
    layer norm1, norm2, norm3;
    unet_attention self, cross;
    layer ff_in, ff_out;
} unet_transformer_block;

typedef struct unet_transformer {
    layer norm, proj_in, proj_out;
    unet_transformer_block *blocks; /* owned; NULL: there is no transformer */
    int depth, heads;
    int64_t context_dim;
    int first; /* the number of its first block's cross-attention, as unet_image has them */
} unet_transformer;

/* in: channels of the input, emb: width of the time embedding. *out becomes the channels of the output. */
unet_resnet unet_resnet_load(const layers *l, int64_t in, int64_t emb, int64_t *out);

/* c: channels of the picture. Free with unet_transformer_free(), also after an error. */
unet_transformer unet_transformer_load(const layers *l, int64_t c);
void unet_transformer_free(unet_transformer *t);

/* What a residual block adds to every pixel for the time, with the bias of its first convolution.
 * emb: [emb, n], already through silu -> [out, n] */
tensor *unet_resnet_time(graph *g, const unet_resnet *r, tensor *emb);

/* x: [w, h, in, n], time: [out, n], or [out, 1] for all -> [w, h, out, n] */
tensor *unet_resnet_forward(graph *g, const unet_resnet *r, tensor *x, tensor *time);

/* Keys and values of a text for one cross-attention, [n, tokens, channels]. */
typedef struct unet_keys {
    float *k, *v;
} unet_keys;

/* What is attended to. */
typedef struct unet_context {
    tensor *text;                      /* [context_dim, tokens, n] */
    const unet_keys *keys;             /* of the text, by number of the cross-attention; NULL: not known yet */
    const unet_image_attention *image; /* by number of the cross-attention; NULL: there is no picture */
    tensor *image_tokens;              /* [context_dim, tokens, n] */
    float image_weight;
} unet_context;

/* x: [w, h, c, n] -> [w, h, c, n] */
tensor *unet_transformer_forward(graph *g, const unet_transformer *t, tensor *x, const unet_context *context);

/* A convolution of silu(group norm), as most are; add: to the result, NULL: nothing. */
tensor *unet_norm_conv(graph *g, tensor *x, const layer *norm, const layer *conv, tensor *add);

#endif
