#include "diffusion/model/clip_layer.h"

clip_layer clip_layer_load(const layers *l, int64_t dim) {
    const int64_t hidden = layers_dim(l, "mlp.fc1.weight", 1);
    if (layers_has_any(l, "self_attn.in_proj.")) /* whole ones are shown as three */
        layers_fail(l, ERR_FORMAT, "'%sself_attn.in_proj' does not hold three projections", l->prefix);
    return (clip_layer){
        .norm1 = layer_norm(l, "layer_norm1", dim),
        .q = layer_linear(l, "self_attn.q_proj", dim, dim),
        .k = layer_linear(l, "self_attn.k_proj", dim, dim),
        .v = layer_linear(l, "self_attn.v_proj", dim, dim),
        .out = layer_linear(l, "self_attn.out_proj", dim, dim),
        .norm2 = layer_norm(l, "layer_norm2", dim),
        .fc1 = layer_linear(l, "mlp.fc1", dim, hidden),
        .fc2 = layer_linear(l, "mlp.fc2", hidden, dim),
    };
}

tensor *clip_layer_forward(graph *g, const clip_layer *l, const clip_layer_form *form, tensor *x) {
    tensor *h = nn_layer_norm(g, x, &l->norm1);
    h = nn_attention(g, nn_linear(g, h, &l->q), nn_linear(g, h, &l->k), nn_linear(g, h, &l->v), form->heads,
                     form->is_causal);
    x = ggml_add(g->ctx, x, nn_linear(g, h, &l->out));
    h = nn_linear(g, nn_layer_norm(g, x, &l->norm2), &l->fc1);
    h = form->exact_gelu ? nn_gelu(g, h) : nn_gelu_quick(g, h);
    return ggml_add(g->ctx, x, nn_linear(g, h, &l->fc2));
}
