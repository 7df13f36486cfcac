/* nn.h - the layers every model here is made of: the only place that knows how a convolution, a matrix product, a norm
 * or attention is done.
 *
 * Each appends to the graph and returns the result's tensor; activations are F32. Shapes are given in ggml order
 * (fastest first) and, in brackets, as PyTorch writes them. Pictures are [w, h, c, n] ([n, c, h, w]), sequences
 * [c, t, n] ([n, t, c]). */
#ifndef MYSTI_DIFFUSION_NN_H
#define MYSTI_DIFFUSION_NN_H

#include "diffusion/model/backend.h"

typedef struct ggml_tensor tensor;

/* What most layers consist of. The tensors belong to the weights. */
typedef struct layer {
    tensor *weight, *bias; /* bias NULL: none */
} layer;

/* y = x W^T + b.  x: [in, ...] ([..., in]), weight: [in, out] ([out, in]), bias: [out]. -> [out, ...] */
tensor *nn_linear(graph *g, tensor *x, const layer *l);
tensor *nn_linear_add(graph *g, tensor *x, const layer *l, tensor *add); /* + add: [out, ...] ([..., out]) */

/* x: [w, h, ic, n], weight: [kw, kh, ic, oc] ([oc, ic, kh, kw]) F16 or F32, bias: [oc], or [oc, n] ([n, oc]).
 * -> [(w + 2 pad - kw) / stride + 1, ..., oc, n]. Its scratch stays below about 64 MB whatever the size. */
tensor *nn_conv2d(graph *g, tensor *x, const layer *l, int stride, int pad);

/* The same, of stride 1 and padded so that the size stays. */
tensor *nn_conv2d_same(graph *g, tensor *x, const layer *l);

/* The same for inputs beyond the range of F16 (65504), up to 64 times that: where an accelerator would round them to
 * F16 they are made smaller before and the result larger again, which costs nothing but the digits below 4e-6. The
 * autoencoder of SDXL needs it wherever no norm comes before. */
tensor *nn_conv2d_same_wide(graph *g, tensor *x, const layer *l);

/* Over the channels of a picture in 32 groups. x: [w, h, c, n], weight, bias: [c]. */
tensor *nn_group_norm(graph *g, tensor *x, const layer *l, float eps);

/* nn_conv2d_same of silu of the same, plus `add`, which has the result's shape (NULL: nothing). */
tensor *nn_norm_conv2d_same(graph *g, tensor *x, const layer *norm, float eps, const layer *l, tensor *add);

/* Over dimension 0. x: [c, ...], weight, bias: [c]. eps 1e-5. */
tensor *nn_layer_norm(graph *g, tensor *x, const layer *l);

tensor *nn_silu(graph *g, tensor *x);
tensor *nn_gelu(graph *g, tensor *x);       /* x Phi(x), exact: OpenCLIP */
tensor *nn_gelu_quick(graph *g, tensor *x); /* x sigmoid(1.702 x): CLIP ViT-L */

/* Gated feed-forward (Shazeer 2020): the first half of x times gelu (erf) of the second. x: [2c, ...] -> [c, ...] */
tensor *nn_geglu(graph *g, tensor *x);
tensor *nn_linear_geglu(graph *g, tensor *x, const layer *l); /* of nn_linear */

/* Softmax(q k^T / sqrt(c / heads)) v with the channels split into heads.
 * q: [c, tq, n], k, v: [c, tk, n] -> [c, tq, n]. causal: a query sees only keys up to its own position (tq == tk).
 * Never holds more than about 64 MB of scores. */
tensor *nn_attention(graph *g, tensor *q, tensor *k, tensor *v, int heads, bool causal);

/* The channels of both: [w, h, a, n], [w, h, b, n] -> [w, h, a + b, n] */
tensor *nn_join(graph *g, tensor *a, tensor *b);

/* Nearest neighbour, twice the size. [w, h, c, n] -> [2w, 2h, c, n] */
tensor *nn_upsample2(graph *g, tensor *x);

/* nn_conv2d_same, or nn_conv2d_same_wide, of a picture of twice the size: [w, h, ic, n] -> [2w, 2h, oc, n]. On the CPU
 * that picture is never there, and 3x3 kernels take 4/9 of the multiplications. */
tensor *nn_conv2d_doubled(graph *g, tensor *x, const layer *l);
tensor *nn_conv2d_doubled_wide(graph *g, tensor *x, const layer *l);

/* 3x3 convolution of stride 2 with one zero column right and one zero row below, as the autoencoder's encoder does; for
 * wide inputs, too. */
tensor *nn_downsample_asym(graph *g, tensor *x, const layer *l);

/* Sinusoidal embedding of timesteps, cosines first (Vaswani et al. 2017; LDM's order). t: [n] -> [dim, n] */
tensor *nn_timestep_embedding(graph *g, tensor *t, int dim);

/* Picture -> sequence: [w, h, c, n] -> [c, w h, n]. */
tensor *nn_to_sequence(graph *g, tensor *x);

/* The same of the picture's nn_group_norm. */
tensor *nn_norm_to_sequence(graph *g, tensor *x, const layer *norm, float eps);

/* The way back, added to a picture: x: [c, w h, n], picture: [w, h, c, n] -> [w, h, c, n] */
tensor *nn_add_to_picture(graph *g, tensor *x, tensor *picture);

#endif
