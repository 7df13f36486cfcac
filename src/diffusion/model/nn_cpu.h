/* nn_cpu.h - operations that ggml's CPU backend has not, or has slowly, as custom operations of its graphs. Only nn.c
 * uses them, and only when the backend computes on the CPU. */
#ifndef MYSTI_DIFFUSION_NN_CPU_H
#define MYSTI_DIFFUSION_NN_CPU_H

#include "diffusion/model/backend.h"

/* Which part of a convolution: output rows row .. row + rows - 1 of picture `image` of the batch. */
typedef struct conv_band {
    int stride, pad;
    int64_t image, row, rows;
    int64_t ow, oh; /* size of the whole output picture */
} conv_band;

/* The input patches under a band's output pixels, in the kernel's type (F16 values are clamped to the finite range).
 * x: [w, h, ic, n], kernel: [kw, kh, ic, oc] -> [kw kh ic, ow rows]. Three times as fast as ggml_im2col in F16. */
struct ggml_tensor *cpu_patches(graph *g, struct ggml_tensor *x, struct ggml_tensor *kernel, const conv_band *band);

/* Writes y + bias into a band's place of the output. y: [ow rows, oc], bias: [oc], [oc, n] or NULL; out: [ow, oh, oc,
 * n], or NULL for the first band, which creates it. Returns the output. */
struct ggml_tensor *cpu_place(graph *g, struct ggml_tensor *out, struct ggml_tensor *y, struct ggml_tensor *bias,
                              const conv_band *band, int64_t n);

/* nn_group_norm in two passes over the data instead of six. */
struct ggml_tensor *cpu_group_norm(graph *g, struct ggml_tensor *x, struct ggml_tensor *weight,
                                   struct ggml_tensor *bias, int groups, float eps);

#endif
