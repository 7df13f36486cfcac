/* nn.c - see nn.h. Two ways are chosen by what the backend is: on the CPU convolutions, matrix products, attention,
 * norms and what moves numbers go through nn_cpu, elsewhere through ggml's own operations. */
#include "diffusion/model/nn.h"

#include "diffusion/model/nn_cpu.h"

#include <math.h>

enum { GROUPS = 32 };
static const int64_t patch_limit = 1 << 28;  /* bytes of a convolution's patches at once */
static const int64_t score_limit = 64 << 20; /* bytes of attention scores at once */
static const float wide_shrink = 64.0f;      /* of inputs that F16 cannot hold */

tensor *nn_linear(graph *g, tensor *x, const layer *l) {
    return nn_linear_add(g, x, l, NULL);
}

tensor *nn_linear_add(graph *g, tensor *x, const layer *l, tensor *add) {
    if (backend_custom_ops(g->b)) return cpu_linear_layer(g, x, l->weight, l->bias, add);
    tensor *y = ggml_mul_mat(g->ctx, l->weight, x);
    if (l->bias) y = ggml_add(g->ctx, y, l->bias);
    return add ? ggml_add(g->ctx, y, add) : y;
}

/* --- Convolution ------------------------------------------------------------------------------------------------- */

/* Patches cost memory, and a kernel that is streamed comes to the device once for them and once for the product. */
static tensor *conv_device(graph *g, tensor *x, tensor *kernel, int s, int p) {
    const bool is_streamed = !backend_is_cpu(g->b) && kernel->buffer && ggml_backend_buffer_is_host(kernel->buffer);
    const int64_t ow = (x->ne[0] + 2 * p - kernel->ne[0]) / s + 1, oh = (x->ne[1] + 2 * p - kernel->ne[1]) / s + 1;
    const int64_t patch = kernel->ne[0] * kernel->ne[1] * kernel->ne[2] * (int64_t)ggml_type_size(kernel->type);
    if (is_streamed || ow * oh * x->ne[3] * patch > patch_limit) {
        tensor *direct = ggml_conv_2d_direct(g->ctx, kernel, x, s, s, p, p, 1, 1);
        if (graph_supports(g, direct)) return direct;
    }
    return ggml_conv_2d(g->ctx, kernel, x, s, s, p, p, 1, 1);
}

/* A vector over channels, shaped so that it is added to (or multiplied with) a picture. */
static tensor *per_channel(graph *g, tensor *v) {
    return ggml_reshape_4d(g->ctx, v, 1, 1, v->ne[0], v->ne[1]);
}

tensor *nn_conv2d(graph *g, tensor *x, const layer *l, int stride, int pad) {
    if (backend_custom_ops(g->b)) return cpu_conv2d(g, x, l->weight, l->bias, stride, pad);
    tensor *y = conv_device(g, x, l->weight, stride, pad);
    return l->bias ? ggml_add(g->ctx, y, per_channel(g, l->bias)) : y;
}

tensor *nn_conv2d_same(graph *g, tensor *x, const layer *l) {
    return nn_conv2d(g, x, l, 1, (int)(l->weight->ne[0] / 2));
}

/* On the CPU a product's inputs stay F32. */
static tensor *conv_wide(graph *g, tensor *x, const layer *l, int stride, int pad) {
    if (backend_custom_ops(g->b) || l->weight->type != GGML_TYPE_F16) return nn_conv2d(g, x, l, stride, pad);
    tensor *y = conv_device(g, ggml_scale(g->ctx, x, 1.0f / wide_shrink), l->weight, stride, pad);
    y = ggml_scale_inplace(g->ctx, y, wide_shrink);
    return l->bias ? ggml_add(g->ctx, y, per_channel(g, l->bias)) : y;
}

tensor *nn_conv2d_same_wide(graph *g, tensor *x, const layer *l) {
    return conv_wide(g, x, l, 1, (int)(l->weight->ne[0] / 2));
}

/* The sum of weights that fall on the same pixel is known for 3x3. */
static bool doubles(const graph *g, const layer *l) {
    return backend_custom_ops(g->b) && l->weight->ne[0] == 3 && l->weight->ne[1] == 3;
}

tensor *nn_conv2d_doubled(graph *g, tensor *x, const layer *l) {
    if (doubles(g, l)) return cpu_conv2d_doubled(g, x, l->weight, l->bias);
    return nn_conv2d_same(g, nn_upsample2(g, x), l);
}

tensor *nn_conv2d_doubled_wide(graph *g, tensor *x, const layer *l) {
    if (doubles(g, l)) return cpu_conv2d_doubled(g, x, l->weight, l->bias);
    return nn_conv2d_same_wide(g, nn_upsample2(g, x), l);
}

tensor *nn_downsample_asym(graph *g, tensor *x, const layer *l) {
    return conv_wide(g, ggml_pad(g->ctx, x, 1, 1, 0, 0), l, 2, 0);
}

tensor *nn_join(graph *g, tensor *a, tensor *b) {
    return backend_custom_ops(g->b) ? cpu_joined(g, a, b) : ggml_concat(g->ctx, a, b, 2);
}

tensor *nn_upsample2(graph *g, tensor *x) {
    if (backend_custom_ops(g->b)) return cpu_upsample2(g, x);
    return ggml_upscale(g->ctx, x, 2, GGML_SCALE_MODE_NEAREST);
}

/* --- Norms and activations --------------------------------------------------------------------------------------- */

tensor *nn_group_norm(graph *g, tensor *x, const layer *l, float eps) {
    if (backend_custom_ops(g->b)) return cpu_group_norm_layer(g, x, &(cpu_norm){l->weight, l->bias, GROUPS, eps});
    tensor *y = ggml_group_norm(g->ctx, x, GROUPS, eps);
    return ggml_add(g->ctx, ggml_mul(g->ctx, y, per_channel(g, l->weight)), per_channel(g, l->bias));
}

tensor *nn_norm_conv2d_same(graph *g, tensor *x, const layer *norm, float eps, const layer *l, tensor *add) {
    if (backend_custom_ops(g->b)) {
        const cpu_norm n = {norm->weight, norm->bias, GROUPS, eps};
        return cpu_norm_conv2d(g, x, &n, l->weight, l->bias, add);
    }
    tensor *y = nn_conv2d_same(g, nn_silu(g, nn_group_norm(g, x, norm, eps)), l);
    return add ? ggml_add(g->ctx, y, add) : y;
}

tensor *nn_layer_norm(graph *g, tensor *x, const layer *l) {
    const float eps = 1e-5f;
    if (backend_custom_ops(g->b)) return cpu_layer_norm_layer(g, x, l->weight, l->bias, eps);
    tensor *y = ggml_norm(g->ctx, x, eps);
    return ggml_add(g->ctx, ggml_mul(g->ctx, y, l->weight), l->bias);
}

tensor *nn_silu(graph *g, tensor *x) {
    return ggml_silu(g->ctx, x);
}

tensor *nn_gelu(graph *g, tensor *x) {
    return ggml_gelu_erf(g->ctx, x);
}

/* Not ggml_gelu_quick: on the CPU that is a table of F16 values. */
tensor *nn_gelu_quick(graph *g, tensor *x) {
    return ggml_mul(g->ctx, x, ggml_sigmoid(g->ctx, ggml_scale(g->ctx, x, 1.702f)));
}

tensor *nn_geglu(graph *g, tensor *x) {
    if (backend_custom_ops(g->b)) return cpu_geglu_layer(g, x);
    return ggml_geglu_erf_swapped(g->ctx, x);
}

tensor *nn_linear_geglu(graph *g, tensor *x, const layer *l) {
    if (backend_custom_ops(g->b)) return cpu_gated_layer(g, x, l->weight, l->bias);
    return nn_geglu(g, nn_linear(g, x, l));
}

/* --- Attention --------------------------------------------------------------------------------------------------- */

/* [c, t, n] -> [d, t, heads, n], a view */
static tensor *split_heads(graph *g, tensor *x, int heads, int64_t d) {
    return ggml_permute(g->ctx, ggml_reshape_4d(g->ctx, x, d, heads, x->ne[1], x->ne[2]), 0, 2, 1, 3);
}

/* Softmax of all scores of some queries. q, k, v: [d, t, heads, n] -> [c, t, n] */
static tensor *attend(graph *g, tensor *q, tensor *k, tensor *vt, float scale, bool causal) {
    tensor *scores = ggml_mul_mat(g->ctx, k, q);
    if (causal) scores = ggml_diag_mask_inf(g->ctx, scores, 0);
    scores = ggml_soft_max_ext(g->ctx, scores, NULL, scale, 0.0f);
    tensor *y = ggml_cont(g->ctx, ggml_permute(g->ctx, ggml_mul_mat(g->ctx, vt, scores), 0, 2, 1, 3));
    return ggml_reshape_3d(g->ctx, y, y->ne[0] * y->ne[1], y->ne[2], y->ne[3]);
}

/* As many queries at a time as score_limit allows. */
static tensor *attention_split(graph *g, tensor *q, tensor *k, tensor *v, int heads, float scale, bool causal) {
    const int64_t d = q->ne[0] / heads, row = k->ne[1] * heads * q->ne[2] * (int64_t)sizeof(float);
    int64_t step = causal || row == 0 ? q->ne[1] : score_limit / row;
    if (step < 1) step = 1;
    if (!graph_has_room(g, 8 * (q->ne[1] / step + 1))) step = q->ne[1];
    tensor *qh = split_heads(g, q, heads, d), *kh = split_heads(g, k, heads, d);
    tensor *vt = ggml_cont(g->ctx, ggml_permute(g->ctx, split_heads(g, v, heads, d), 1, 0, 2, 3));
    tensor *out = NULL;
    for (int64_t t = 0; t < q->ne[1]; t += step) {
        const int64_t count = q->ne[1] - t < step ? q->ne[1] - t : step;
        tensor *part =
            ggml_view_4d(g->ctx, qh, d, count, heads, q->ne[2], qh->nb[1], qh->nb[2], qh->nb[3], (size_t)t * qh->nb[1]);
        part = attend(g, part, kh, vt, scale, causal);
        out = out ? ggml_concat(g->ctx, out, part, 1) : part;
    }
    return out;
}

/* Flash attention (Dao et al. 2022), which holds no scores. NULL when the device has none for this width of head. */
static tensor *attention_flash(graph *g, tensor *q, tensor *k, tensor *v, int heads, float scale) {
    if (backend_custom_ops(g->b)) return cpu_attention_layer(g, q, k, v, heads, scale);
    const int64_t d = q->ne[0] / heads;
    tensor *qh = split_heads(g, q, heads, d), *kh = split_heads(g, k, heads, d), *vh = split_heads(g, v, heads, d);
    kh = ggml_cast(g->ctx, kh, GGML_TYPE_F16);
    vh = ggml_cast(g->ctx, vh, GGML_TYPE_F16);
    tensor *y = ggml_flash_attn_ext(g->ctx, qh, kh, vh, NULL, scale, 0.0f, 0.0f);
    if (!graph_supports(g, y)) return NULL;
    ggml_prec_set_acc(y, GGML_PREC_F32);
    return ggml_reshape_3d(g->ctx, y, q->ne[0], q->ne[1], q->ne[2]);
}

tensor *nn_attention(graph *g, tensor *q, tensor *k, tensor *v, int heads, bool causal) {
    const float scale = 1.0f / sqrtf((float)(q->ne[0] / heads));
    tensor *y = causal ? NULL : attention_flash(g, q, k, v, heads, scale);
    return y ? y : attention_split(g, q, k, v, heads, scale, causal);
}

/* --- Shapes ------------------------------------------------------------------------------------------------------ */

tensor *nn_timestep_embedding(graph *g, tensor *t, int dim) {
    return ggml_timestep_embedding(g->ctx, t, dim, 10000);
}

/* [a, b, n] -> [b, a, n] */
static tensor *transposed(graph *g, tensor *x) {
    return ggml_cont(g->ctx, ggml_permute(g->ctx, x, 1, 0, 2, 3));
}

tensor *nn_to_sequence(graph *g, tensor *x) {
    if (backend_custom_ops(g->b)) return cpu_to_sequence(g, x);
    return transposed(g, ggml_reshape_3d(g->ctx, x, x->ne[0] * x->ne[1], x->ne[2], x->ne[3]));
}

tensor *nn_norm_to_sequence(graph *g, tensor *x, const layer *norm, float eps) {
    if (!backend_custom_ops(g->b)) return nn_to_sequence(g, nn_group_norm(g, x, norm, eps));
    return cpu_norm_to_sequence(g, x, &(cpu_norm){norm->weight, norm->bias, GROUPS, eps});
}

tensor *nn_add_to_picture(graph *g, tensor *x, tensor *picture) {
    const int64_t *ne = picture->ne;
    tensor *flat = ggml_reshape_3d(g->ctx, picture, ne[0] * ne[1], ne[2], ne[3]);
    tensor *y = backend_custom_ops(g->b) ? cpu_transposed(g, x, flat) : ggml_add(g->ctx, transposed(g, x), flat);
    return ggml_reshape_4d(g->ctx, y, ne[0], ne[1], ne[2], ne[3]);
}
