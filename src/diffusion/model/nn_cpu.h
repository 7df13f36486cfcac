/* nn_cpu.h - the kernels of diffusion/cpu as custom operations of ggml's graphs. Only nn.c uses them, and only when the
 * backend computes on the CPU. Inputs are F32, weights of any type. */
#ifndef MYSTI_DIFFUSION_NN_CPU_H
#define MYSTI_DIFFUSION_NN_CPU_H

#include "diffusion/model/backend.h"

/* nn_conv2d. x: [w, h, ic, n], kernel: [kw, kh, ic, oc] F16, BF16 or F32, bias: [oc], [oc, n] or NULL. */
struct ggml_tensor *cpu_conv2d(graph *g, struct ggml_tensor *x, struct ggml_tensor *kernel, struct ggml_tensor *bias,
                               int stride, int pad);

/* nn_conv2d_doubled, 3x3. */
struct ggml_tensor *cpu_conv2d_doubled(graph *g, struct ggml_tensor *x, struct ggml_tensor *kernel,
                                       struct ggml_tensor *bias);

/* A group norm; weight, bias: F32. */
typedef struct cpu_norm {
    struct ggml_tensor *weight, *bias;
    int groups;
    float eps;
} cpu_norm;

/* nn_norm_conv2d_same. bias, add: may be NULL. */
struct ggml_tensor *cpu_norm_conv2d(graph *g, struct ggml_tensor *x, const cpu_norm *norm, struct ggml_tensor *kernel,
                                    struct ggml_tensor *bias, struct ggml_tensor *add);

/* nn_linear_add. x: [in, ...], weight: [in, out] of any type, bias: [out] or NULL, add: [out, ...] or NULL. */
struct ggml_tensor *cpu_linear_layer(graph *g, struct ggml_tensor *x, struct ggml_tensor *weight,
                                     struct ggml_tensor *bias, struct ggml_tensor *add);

/* nn_attention, not causal. q: [c, tq, n], k, v: [c, tk, n]. */
struct ggml_tensor *cpu_attention_layer(graph *g, struct ggml_tensor *q, struct ggml_tensor *k, struct ggml_tensor *v,
                                        int heads, float scale);

/* nn_group_norm, nn_layer_norm; weight, bias: F32. */
struct ggml_tensor *cpu_group_norm_layer(graph *g, struct ggml_tensor *x, const cpu_norm *norm);
struct ggml_tensor *cpu_layer_norm_layer(graph *g, struct ggml_tensor *x, struct ggml_tensor *weight,
                                         struct ggml_tensor *bias, float eps);

/* nn_geglu, nn_linear_geglu. */
struct ggml_tensor *cpu_geglu_layer(graph *g, struct ggml_tensor *x);
struct ggml_tensor *cpu_gated_layer(graph *g, struct ggml_tensor *x, struct ggml_tensor *weight,
                                    struct ggml_tensor *bias);

/* nn_to_sequence, nn_norm_to_sequence. */
struct ggml_tensor *cpu_to_sequence(graph *g, struct ggml_tensor *x);
struct ggml_tensor *cpu_norm_to_sequence(graph *g, struct ggml_tensor *x, const cpu_norm *norm);

/* [a, b, n] -> [b, a, n], with `add` of the result's shape or NULL. */
struct ggml_tensor *cpu_transposed(graph *g, struct ggml_tensor *x, struct ggml_tensor *add);

/* nn_join. */
struct ggml_tensor *cpu_joined(graph *g, struct ggml_tensor *a, struct ggml_tensor *b);

/* nn_upsample2. */
struct ggml_tensor *cpu_upsample2(graph *g, struct ggml_tensor *x);

#endif
