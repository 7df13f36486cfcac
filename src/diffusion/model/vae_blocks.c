/* vae_blocks.c - see vae_blocks.h. */
#include "diffusion/model/vae_blocks.h"

static const float norm_eps = 1e-6f;

vae_resnet vae_resnet_load(const layers *l, int64_t in, int64_t out) {
    vae_resnet r = {
        .norm1 = layer_group_norm(l, "norm1", in),
        .conv1 = layer_conv(l, "conv1", 3, in, out),
        .norm2 = layer_group_norm(l, "norm2", out),
        .conv2 = layer_conv(l, "conv2", 3, out, out),
    };
    if (in != out) r.shortcut = layer_conv(l, "nin_shortcut", 1, in, out);
    return r;
}

vae_middle vae_middle_load(const layers *l, int64_t c) {
    const layers b1 = layers_below(l, "mid.block_1."), b2 = layers_below(l, "mid.block_2.");
    const layers attn = layers_below(l, "mid.attn_1.");
    return (vae_middle){
        .block1 = vae_resnet_load(&b1, c, c),
        .block2 = vae_resnet_load(&b2, c, c),
        .norm = layer_group_norm(&attn, "norm", c),
        .q = layer_linear(&attn, "q", c, c),
        .k = layer_linear(&attn, "k", c, c),
        .v = layer_linear(&attn, "v", c, c),
        .out = layer_linear(&attn, "proj_out", c, c),
    };
}

tensor *vae_norm_conv(graph *g, tensor *x, const layer *norm, const layer *conv, tensor *add) {
    return nn_norm_conv2d_same(g, x, norm, norm_eps, conv, add);
}

tensor *vae_resnet_forward(graph *g, const vae_resnet *r, tensor *x) {
    tensor *h = vae_norm_conv(g, x, &r->norm1, &r->conv1, NULL);
    if (r->shortcut.weight) x = nn_conv2d_same_wide(g, x, &r->shortcut);
    return vae_norm_conv(g, h, &r->norm2, &r->conv2, x);
}

/* One head over all pixels. */
static tensor *attention(graph *g, const vae_middle *m, tensor *x) {
    tensor *h = nn_norm_to_sequence(g, x, &m->norm, norm_eps);
    h = nn_attention(g, nn_linear(g, h, &m->q), nn_linear(g, h, &m->k), nn_linear(g, h, &m->v), 1, false);
    return nn_add_to_picture(g, nn_linear(g, h, &m->out), x);
}

tensor *vae_middle_forward(graph *g, const vae_middle *m, tensor *x) {
    x = attention(g, m, vae_resnet_forward(g, &m->block1, x));
    return vae_resnet_forward(g, &m->block2, x);
}
