/* unet_blocks.c - see unet_blocks.h. */
#include "diffusion/model/unet_blocks.h"

#include "base/str.h"

#include <stdlib.h>

enum { MAX_DEPTH = 64, BLOCK_OPERATIONS = 96, SD1_HEADS = 8, SD2_HEAD = 64, SD1_CONTEXT = 768 };

unet_resnet unet_resnet_load(const layers *l, int64_t in, int64_t emb, int64_t *out_channels) {
    const int64_t out = layers_dim(l, "out_layers.3.weight", 3);
    unet_resnet y = {
        .norm1 = layer_group_norm(l, "in_layers.0", in),
        .conv1 = layer_conv(l, "in_layers.2", 3, in, out),
        .emb = layer_linear(l, "emb_layers.1", emb, out),
        .norm2 = layer_group_norm(l, "out_layers.0", out),
        .conv2 = layer_conv(l, "out_layers.3", 3, out, out),
    };
    if (in != out) y.skip = layer_conv(l, "skip_connection", 1, in, out);
    *out_channels = out;
    return y;
}

static unet_attention load_attention(const layers *l, int64_t c, int64_t context) {
    return (unet_attention){
        .q = layer_linear(l, "to_q", c, c),
        .k = layer_linear(l, "to_k", context, c),
        .v = layer_linear(l, "to_v", context, c),
        .out = layer_linear(l, "to_out.0", c, c),
    };
}

static unet_transformer_block load_block(const layers *l, int64_t c, int64_t context) {
    const int64_t hidden = layers_dim(l, "ff.net.2.weight", 0);
    const layers self = layers_below(l, "attn1."), cross = layers_below(l, "attn2.");
    return (unet_transformer_block){
        .norm1 = layer_norm(l, "norm1", c),
        .norm2 = layer_norm(l, "norm2", c),
        .norm3 = layer_norm(l, "norm3", c),
        .self = load_attention(&self, c, c),
        .cross = load_attention(&cross, c, context),
        .ff_in = layer_linear(l, "ff.net.0.proj", c, hidden * 2),
        .ff_out = layer_linear(l, "ff.net.2", hidden, c),
    };
}

/* A 1x1 convolution that a converter stored as a matrix still has SD 1's context. */
static int head_count(const layers *l, int64_t channels, int64_t context) {
    const bool is_conv = layers_dim(l, "proj_in.weight", 0) == 1 && layers_dim(l, "proj_in.weight", 1) == 1;
    int heads = !is_conv && context != SD1_CONTEXT ? (int)(channels / SD2_HEAD) : SD1_HEADS;
    while (heads > 1 && channels % heads) heads--;
    return heads > 1 ? heads : 1;
}

unet_transformer unet_transformer_load(const layers *l, int64_t c) {
    const int64_t context = layers_dim(l, "transformer_blocks.0.attn2.to_k.weight", 0);
    unet_transformer t = {
        .norm = layer_group_norm(l, "norm", c),
        .proj_in = layer_linear(l, "proj_in", c, c),
        .proj_out = layer_linear(l, "proj_out", c, c),
        .depth = layers_count(l, "transformer_blocks.", MAX_DEPTH),
        .heads = head_count(l, c, context),
        .context_dim = context,
    };
    if (t.depth < 1 || context < 1) layers_fail(l, ERR_FORMAT, "'%s' has no transformer blocks", l->prefix);
    t.blocks = mem_alloc((size_t)t.depth + 1, sizeof *t.blocks);
    for (int i = 0; i < t.depth && *l->ok; i++) {
        const layers one = layers_below(l, "transformer_blocks.%d.", i);
        t.blocks[i] = load_block(&one, c, context);
    }
    return t;
}

void unet_transformer_free(unet_transformer *t) {
    free(t->blocks);
}

/* --- Forward --- */

static const float norm_eps = 1e-5f, transformer_norm_eps = 1e-6f;

tensor *unet_norm_conv(graph *g, tensor *x, const layer *norm, const layer *conv, tensor *add) {
    return nn_norm_conv2d_same(g, x, norm, norm_eps, conv, add);
}

tensor *unet_resnet_time(graph *g, const unet_resnet *r, tensor *emb) {
    return ggml_add(g->ctx, nn_linear(g, emb, &r->emb), r->conv1.bias);
}

tensor *unet_resnet_forward(graph *g, const unet_resnet *r, tensor *x, tensor *time) {
    const layer conv1 = {r->conv1.weight, time};
    tensor *h = unet_norm_conv(g, x, &r->norm1, &conv1, NULL);
    if (r->skip.weight) x = nn_conv2d_same(g, x, &r->skip);
    return unet_norm_conv(g, h, &r->norm2, &r->conv2, x);
}

static tensor *attend_to(graph *g, tensor *q, int heads, tensor *context, const layer *k, const layer *v) {
    return nn_attention(g, q, nn_linear(g, context, k), nn_linear(g, context, v), heads, false);
}

static tensor *attend_to_text(graph *g, const unet_attention *a, int heads, tensor *q, const unet_context *c,
                              int number) {
    if (!c->keys) return attend_to(g, q, heads, c->text, &a->k, &a->v);
    const int64_t channels = a->k.weight->ne[1], tokens = c->text->ne[1], n = c->text->ne[2];
    tensor *k = graph_input_f32(g, c->keys[number].k, channels, tokens, n, 1);
    return nn_attention(g, q, k, graph_input_f32(g, c->keys[number].v, channels, tokens, n, 1), heads, false);
}

/* add: to the result. */
static tensor *attend_self(graph *g, const unet_attention *a, int heads, tensor *x, tensor *add) {
    return nn_linear_add(g, attend_to(g, nn_linear(g, x, &a->q), heads, x, &a->k, &a->v), &a->out, add);
}

/* The picture is attended to by itself, with the same queries, and added by its weight. number: of this attention. */
static tensor *attend_cross(graph *g, const unet_attention *a, int heads, tensor *x, const unet_context *c, int number,
                            tensor *add) {
    tensor *q = nn_linear(g, x, &a->q), *y = attend_to_text(g, a, heads, q, c, number);
    if (c->image) {
        const unet_image_attention *i = &c->image[number];
        tensor *shown = attend_to(g, q, heads, c->image_tokens, &i->k, &i->v);
        y = ggml_add(g->ctx, y, ggml_scale(g->ctx, shown, c->image_weight));
    }
    return nn_linear_add(g, y, &a->out, add);
}

/* x: [c, w h, n] */
static tensor *forward_block(graph *g, const unet_transformer_block *b, int heads, tensor *x, const unet_context *c,
                             int number) {
    x = attend_self(g, &b->self, heads, nn_layer_norm(g, x, &b->norm1), x);
    x = attend_cross(g, &b->cross, heads, nn_layer_norm(g, x, &b->norm2), c, number, x);
    tensor *h = nn_linear_geglu(g, nn_layer_norm(g, x, &b->norm3), &b->ff_in);
    return nn_linear_add(g, h, &b->ff_out, x);
}

tensor *unet_transformer_forward(graph *g, const unet_transformer *t, tensor *x, const unet_context *context) {
    tensor *h = nn_norm_to_sequence(g, x, &t->norm, transformer_norm_eps);
    h = nn_linear(g, h, &t->proj_in);
    for (int i = 0; i < t->depth && graph_has_room(g, BLOCK_OPERATIONS); i++)
        h = forward_block(g, &t->blocks[i], t->heads, h, context, t->first + i);
    return nn_add_to_picture(g, nn_linear(g, h, &t->proj_out), x);
}
