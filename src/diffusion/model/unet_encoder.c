/* unet_encoder.c - see unet_encoder.h. Channel counts and resolutions are followed while reading, so that a network
 * whose parts do not fit is refused then and the forward pass needs no checks. */
#include "diffusion/model/unet_encoder.h"

/* --- Reading ----------------------------------------------------------------------------------------------------- */

static unet_transformer load_transformer(const layers *l, unet_place *at) {
    unet_transformer t = unet_transformer_load(l, at->channels);
    if (at->context_dim && at->context_dim != t.context_dim)
        layers_fail(l, ERR_FORMAT, "'%s' has another context width", l->prefix);
    at->context_dim = (int)t.context_dim;
    return t;
}

static unet_resnet load_resnet(const layers *l, unet_place *at, int64_t in) {
    return unet_resnet_load(l, in, at->width * 4, &at->channels);
}

void unet_stage_load(unet_stage *s, const layers *l, unet_place *at, int64_t in) {
    const layers res = layers_below(l, "0."), attn = layers_below(l, "1.");
    s->has_resnet = true;
    s->res = load_resnet(&res, at, in);
    if (layers_has_any(&attn, "transformer_blocks.") || layers_has_any(&attn, "norm."))
        s->attn = load_transformer(&attn, at);
}

static void load_input(unet_encoder *u, const layers *top, int i) {
    unet_stage *s = &u->input[i];
    unet_place *at = &u->end;
    const layers l = layers_below(top, "input_blocks.%d.", i);
    if (layers_has_any(&l, "0.op.")) {
        s->sampler = layer_conv(&l, "0.op", 3, at->channels, at->channels);
        if (++at->level >= UNET_LEVELS_MAX) layers_fail(&l, ERR_FORMAT, "more than %d levels", UNET_LEVELS_MAX);
    } else {
        unet_stage_load(s, &l, at, at->channels);
    }
    u->skips[i] = (unet_skip){at->channels, at->level};
}

/* A residual block, a transformer, and another one; distilled networks lack the last two, or all of it. */
static void load_middle(unet_encoder *u, const layers *top, int i) {
    unet_stage *s = &u->middle[i];
    unet_place *at = &u->end;
    const layers l = layers_below(top, "middle_block.%d.", i);
    if (!layers_has_any(&l, "in_layers.")) {
        s->attn = load_transformer(&l, at);
        return;
    }
    s->has_resnet = true;
    s->res = load_resnet(&l, at, at->channels);
}

static void load_label(unet_encoder *u, const layers *top) {
    const int64_t emb = u->end.width * 4;
    if (!layers_has_any(top, "label_emb.")) return;
    u->label_dim = (int)layers_dim(top, "label_emb.0.0.weight", 0);
    u->label1 = layer_linear(top, "label_emb.0.0", u->label_dim, emb);
    u->label2 = layer_linear(top, "label_emb.0.2", emb, emb);
}

void unet_encoder_load(unet_encoder *u, const layers *top) {
    unet_place *at = &u->end;
    *u = (unet_encoder){0};
    at->width = layers_dim(top, "time_embed.0.weight", 0);
    u->time1 = layer_linear(top, "time_embed.0", at->width, at->width * 4);
    u->time2 = layer_linear(top, "time_embed.2", at->width * 4, at->width * 4);
    load_label(u, top);
    u->in_channels = (int)layers_dim(top, "input_blocks.0.0.weight", 2);
    at->channels = layers_dim(top, "input_blocks.0.0.weight", 3);
    u->conv_in = layer_conv(top, "input_blocks.0.0", 3, u->in_channels, at->channels);
    u->skips[0] = (unet_skip){at->channels, 0};
    u->inputs = layers_count(top, "input_blocks.", UNET_STAGES_MAX);
    u->middles = layers_count(top, "middle_block.", UNET_MIDDLES_MAX);
    for (int i = 1; i < u->inputs && *top->ok; i++) load_input(u, top, i);
    for (int i = 0; i < u->middles && *top->ok; i++) load_middle(u, top, i);
}

void unet_encoder_free(unet_encoder *u) {
    for (int i = 0; i < UNET_STAGES_MAX; i++) unet_transformer_free(&u->input[i].attn);
    for (int i = 0; i < UNET_MIDDLES_MAX; i++) unet_transformer_free(&u->middle[i].attn);
}

/* --- Forward ----------------------------------------------------------------------------------------------------- */

bool unet_input_check(const unet_input *in, err *e) {
    if (in->n >= 1 && in->tokens >= 1 && in->w >= 1 && in->h >= 1) return true;
    return err_set(e, ERR_INVALID, "a batch of %d latents of %dx%d with %d tokens", in->n, in->w, in->h, in->tokens);
}

static tensor *embed(graph *g, tensor *x, const layer *first, const layer *second) {
    return nn_linear(g, nn_silu(g, nn_linear(g, x, first)), second);
}

tensor *unet_encoder_embed(const unet_encoder *u, graph *g, const float *timesteps, const float *label, int n) {
    tensor *t = nn_timestep_embedding(g, graph_input_f32(g, timesteps, n, 1, 1, 1), (int)u->end.width);
    tensor *emb = embed(g, t, &u->time1, &u->time2);
    if (u->label_dim) {
        tensor *x = graph_input_f32(g, label, u->label_dim, n, 1, 1);
        emb = ggml_add(g->ctx, emb, embed(g, x, &u->label1, &u->label2));
    }
    return nn_silu(g, emb);
}

unet_pass unet_encoder_begin(const unet_encoder *u, graph *g, const unet_input *in) {
    unet_pass p = {.g = g, .times = in->times, .time_rows = in->time_rows};
    if (!in->times) p.emb = unet_encoder_embed(u, g, in->timesteps, in->label, in->n);
    p.context.text = graph_input_f32(g, in->context, u->end.context_dim, in->tokens, in->n, 1);
    p.context.keys = in->keys;
    if (in->image) {
        p.context.image = in->image->layers;
        p.context.image_tokens = graph_input_f32(g, in->image->tokens, u->end.context_dim, in->image->count, in->n, 1);
        p.context.image_weight = in->image->weight;
    }
    return p;
}

static tensor *time_of(const unet_pass *p, const unet_resnet *r) {
    if (!p->times) return unet_resnet_time(p->g, r, p->emb);
    return graph_input_f32(p->g, p->times[r->number], r->emb.weight->ne[1], p->time_rows, 1, 1);
}

tensor *unet_stage_forward(const unet_pass *p, const unet_stage *s, tensor *x) {
    if (s->has_resnet) x = unet_resnet_forward(p->g, &s->res, x, time_of(p, &s->res));
    if (s->attn.blocks) x = unet_transformer_forward(p->g, &s->attn, x, &p->context);
    return x;
}

static tensor *forward_input(const unet_pass *p, const unet_stage *s, tensor *x) {
    x = unet_stage_forward(p, s, x);
    return s->sampler.weight ? nn_conv2d(p->g, x, &s->sampler, 2, 1) : x;
}

tensor *unet_encoder_forward(const unet_encoder *u, const unet_pass *p, tensor *x, tensor *hint,
                             tensor *skips[UNET_STAGES_MAX]) {
    x = nn_conv2d_same(p->g, x, &u->conv_in);
    skips[0] = x = hint ? ggml_add(p->g->ctx, x, hint) : x;
    for (int i = 1; i < u->inputs; i++) {
        if (!graph_has_room(p->g, UNET_STAGE_OPERATIONS)) return x;
        skips[i] = x = forward_input(p, &u->input[i], x);
    }
    for (int i = 0; i < u->middles; i++) x = unet_stage_forward(p, &u->middle[i], x);
    return x;
}
