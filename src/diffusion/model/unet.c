/* unet.c - see unet.h. Reading the network from its tensors comes first, then its forward pass. Channel counts and
 * resolutions are followed while reading, so that a network whose parts do not fit is refused then and the forward
 * pass needs no checks. */
#include "diffusion/model/unet.h"

#include "base/str.h"
#include "diffusion/model/layers.h"
#include "diffusion/model/nn.h"

#include <stdlib.h>

enum { MAX_STAGES = 64, MAX_DEPTH = 64, MAX_LEVELS = 8, SD1_HEADS = 8, SD2_HEAD = 64, SD2_CONTEXT = 1024 };

typedef struct resnet {
    layer norm1, conv1, emb;
    layer norm2, conv2;
    layer skip; /* weight NULL when input and output have the same width */
} resnet;

typedef struct attention {
    layer q, k, v, out;
} attention;

typedef struct transformer_block {
    layer norm1, norm2, norm3;
    attention self, cross;
    layer ff_in, ff_out;
} transformer_block;

typedef struct transformer {
    layer norm, proj_in, proj_out;
    transformer_block *blocks; /* NULL: this stage does not attend */
    int depth, heads;
} transformer;

/* One entry of input_blocks or output_blocks (or a half of the middle). */
typedef struct stage {
    bool has_resnet;
    resnet res;
    transformer attn;
    layer sampler; /* down in the first half (a stage of its own), up in the second; weight NULL without */
} stage;

struct unet {
    backend *b;
    layer time1, time2;
    layer conv_in;
    stage input[MAX_STAGES], output[MAX_STAGES]; /* input[0] is conv_in */
    int inputs, outputs;
    resnet middle1, middle2;
    transformer middle_attn;
    layer out_norm, out_conv;
    int64_t width; /* of the first level: what timesteps are embedded in */
    unet_info info;
};

/* --- Reading ----------------------------------------------------------------------------------------------------- */

/* Where the reader stands: width and level of the picture, and what the first half left for the second. */
typedef struct reading {
    unet *u;
    layers top;
    int64_t channels;
    int level;
    int64_t skip_channels[MAX_STAGES];
    int skip_level[MAX_STAGES];
    int skips;
} reading;

static resnet load_resnet(reading *r, const layers *l, int64_t in) {
    const int64_t out = layers_dim(l, "out_layers.3.weight", 3);
    resnet y = {
        .norm1 = layer_group_norm(l, "in_layers.0", in),
        .conv1 = layer_conv(l, "in_layers.2", 3, in, out),
        .emb = layer_linear(l, "emb_layers.1", r->u->width * 4, out),
        .norm2 = layer_group_norm(l, "out_layers.0", out),
        .conv2 = layer_conv(l, "out_layers.3", 3, out, out),
    };
    if (in != out) y.skip = layer_conv(l, "skip_connection", 1, in, out);
    r->channels = out;
    return y;
}

static attention load_attention(const layers *l, int64_t c, int64_t context) {
    return (attention){
        .q = layer_linear(l, "to_q", c, c),
        .k = layer_linear(l, "to_k", context, c),
        .v = layer_linear(l, "to_v", context, c),
        .out = layer_linear(l, "to_out.0", c, c),
    };
}

static transformer_block load_block(const layers *l, int64_t c, int64_t context) {
    const int64_t hidden = layers_dim(l, "ff.net.2.weight", 0);
    const layers self = layers_below(l, "attn1."), cross = layers_below(l, "attn2.");
    return (transformer_block){
        .norm1 = layer_norm(l, "norm1", c),
        .norm2 = layer_norm(l, "norm2", c),
        .norm3 = layer_norm(l, "norm3", c),
        .self = load_attention(&self, c, c),
        .cross = load_attention(&cross, c, context),
        .ff_in = layer_linear(l, "ff.net.0.proj", c, hidden * 2),
        .ff_out = layer_linear(l, "ff.net.2", hidden, c),
    };
}

static int head_count(const layers *l, int64_t channels, int64_t context) {
    const bool is_conv = layers_dim(l, "proj_in.weight", 0) == 1 && layers_dim(l, "proj_in.weight", 1) == 1;
    int heads = !is_conv && context == SD2_CONTEXT ? (int)(channels / SD2_HEAD) : SD1_HEADS;
    while (heads > 1 && channels % heads) heads--;
    return heads > 1 ? heads : 1;
}

static transformer load_transformer(reading *r, const layers *l) {
    const int64_t c = r->channels, context = layers_dim(l, "transformer_blocks.0.attn2.to_k.weight", 0);
    transformer t = {
        .norm = layer_group_norm(l, "norm", c),
        .proj_in = layer_linear(l, "proj_in", c, c),
        .proj_out = layer_linear(l, "proj_out", c, c),
        .depth = layers_count(l, "transformer_blocks.", MAX_DEPTH),
        .heads = head_count(l, c, context),
    };
    if (t.depth < 1 || context < 1) layers_fail(l, ERR_FORMAT, "'%s' has no transformer blocks", l->prefix);
    int *dim = &r->u->info.context_dim;
    if (*dim && *dim != context) layers_fail(l, ERR_FORMAT, "'%s' has another context width", l->prefix);
    *dim = (int)context;
    t.blocks = mem_alloc((size_t)t.depth + 1, sizeof *t.blocks);
    for (int i = 0; i < t.depth && *l->ok; i++) {
        const layers one = layers_below(l, "transformer_blocks.%d.", i);
        t.blocks[i] = load_block(&one, c, context);
    }
    return t;
}

static void load_transformer_if_any(reading *r, stage *s, const layers *l) {
    const layers below = layers_below(l, "1.");
    if (layers_has(&below, "norm.weight")) s->attn = load_transformer(r, &below);
}

static void push_skip(reading *r) {
    r->skip_channels[r->skips] = r->channels;
    r->skip_level[r->skips++] = r->level;
}

static void load_input(reading *r, int i) {
    stage *s = &r->u->input[i];
    const layers l = layers_below(&r->top, "input_blocks.%d.", i);
    if (layers_has(&l, "0.op.weight")) {
        s->sampler = layer_conv(&l, "0.op", 3, r->channels, r->channels);
        if (++r->level >= MAX_LEVELS) layers_fail(&l, ERR_FORMAT, "more than %d levels", MAX_LEVELS);
    } else {
        const layers res = layers_below(&l, "0.");
        s->has_resnet = true;
        s->res = load_resnet(r, &res, r->channels);
        load_transformer_if_any(r, s, &l);
    }
    push_skip(r);
}

static void load_output(reading *r, int i) {
    stage *s = &r->u->output[i];
    const layers l = layers_below(&r->top, "output_blocks.%d.", i), res = layers_below(&l, "0.");
    if (!r->skips || r->skip_level[r->skips - 1] != r->level) {
        layers_fail(&l, ERR_FORMAT, "'%s' has no counterpart in the first half", l.prefix);
        return;
    }
    s->has_resnet = true;
    s->res = load_resnet(r, &res, r->channels + r->skip_channels[--r->skips]);
    load_transformer_if_any(r, s, &l);
    const char *up = s->attn.blocks ? "2.conv" : "1.conv";
    const layers conv = layers_below(&l, "%s.", up);
    if (!layers_has(&conv, "weight")) return;
    s->sampler = layer_conv(&l, up, 3, r->channels, r->channels);
    r->level--;
}

static void load_middle(reading *r) {
    const layers res1 = layers_below(&r->top, "middle_block.0."), attn = layers_below(&r->top, "middle_block.1.");
    const layers res2 = layers_below(&r->top, "middle_block.2.");
    r->u->middle1 = load_resnet(r, &res1, r->channels);
    r->u->middle_attn = load_transformer(r, &attn);
    r->u->middle2 = load_resnet(r, &res2, r->channels);
}

static void load_ends(reading *r) {
    unet *u = r->u;
    u->width = layers_dim(&r->top, "time_embed.0.weight", 0);
    u->time1 = layer_linear(&r->top, "time_embed.0", u->width, u->width * 4);
    u->time2 = layer_linear(&r->top, "time_embed.2", u->width * 4, u->width * 4);
    u->info.in_channels = (int)layers_dim(&r->top, "input_blocks.0.0.weight", 2);
    u->info.out_channels = (int)layers_dim(&r->top, "out.2.weight", 3);
    r->channels = layers_dim(&r->top, "input_blocks.0.0.weight", 3);
    u->conv_in = layer_conv(&r->top, "input_blocks.0.0", 3, u->info.in_channels, r->channels);
}

static bool load(unet *u, weights *w, err *e) {
    bool ok = true;
    reading r = {.u = u, .top = layers_at(w, "model.diffusion_model.", &ok, e)};
    if (!layers_has(&r.top, "input_blocks.0.0.weight")) return err_set(e, ERR_NOT_FOUND, "no UNet in the model");
    if (layers_has(&r.top, "label_emb.0.0.weight"))
        return err_set(e, ERR_UNSUPPORTED, "a UNet with class embeddings (SDXL and its kin) is not supported yet");
    load_ends(&r);
    u->inputs = layers_count(&r.top, "input_blocks.", MAX_STAGES);
    u->outputs = layers_count(&r.top, "output_blocks.", MAX_STAGES);
    push_skip(&r);
    for (int i = 1; i < u->inputs && ok; i++) load_input(&r, i);
    u->info.levels = r.level + 1;
    if (ok) load_middle(&r);
    for (int i = 0; i < u->outputs && ok; i++) load_output(&r, i);
    if (ok && (r.skips || r.level)) layers_fail(&r.top, ERR_FORMAT, "the two halves of the UNet do not fit");
    u->out_norm = layer_group_norm(&r.top, "out.0", r.channels);
    u->out_conv = layer_conv(&r.top, "out.2", 3, r.channels, u->info.out_channels);
    return ok;
}

unet *unet_open(weights *w, backend *b, err *e) {
    unet *u = mem_alloc(1, sizeof *u);
    u->b = b;
    if (load(u, w, e)) return u;
    unet_close(u);
    return NULL;
}

void unet_close(unet *u) {
    if (!u) return;
    for (int i = 0; i < MAX_STAGES; i++) {
        free(u->input[i].attn.blocks);
        free(u->output[i].attn.blocks);
    }
    free(u->middle_attn.blocks);
    free(u);
}

unet_info unet_describe(const unet *u) {
    return u->info;
}

/* --- Forward ----------------------------------------------------------------------------------------------------- */

static const float norm_eps = 1e-5f, transformer_norm_eps = 1e-6f;

typedef struct pass {
    graph *g;
    tensor *emb;     /* [4 width, n], already through silu */
    tensor *context; /* [context_dim, tokens, n] */
} pass;

static tensor *linear(const pass *p, tensor *x, const layer *l) {
    return nn_linear(p->g, x, l->weight, l->bias);
}

static tensor *conv(const pass *p, tensor *x, const layer *l, int stride) {
    return nn_conv2d(p->g, x, l->weight, l->bias, stride, l->weight->ne[0] == 3);
}

static tensor *norm_silu(const pass *p, tensor *x, const layer *l) {
    return nn_silu(p->g, nn_group_norm(p->g, x, l->weight, l->bias, norm_eps));
}

/* x: [w, h, in, n] -> [w, h, out, n]. The time embedding is added to every pixel, so it joins the bias. */
static tensor *forward_resnet(const pass *p, const resnet *r, tensor *x) {
    tensor *h = norm_silu(p, x, &r->norm1);
    tensor *bias = ggml_add(p->g->ctx, linear(p, p->emb, &r->emb), r->conv1.bias); /* [out, n] */
    h = nn_conv2d(p->g, h, r->conv1.weight, bias, 1, 1);
    h = conv(p, norm_silu(p, h, &r->norm2), &r->conv2, 1);
    if (r->skip.weight) x = conv(p, x, &r->skip, 1);
    return ggml_add(p->g->ctx, h, x);
}

static tensor *attend(const pass *p, const attention *a, int heads, tensor *x, tensor *context) {
    tensor *q = linear(p, x, &a->q), *k = linear(p, context, &a->k), *v = linear(p, context, &a->v);
    return linear(p, nn_attention(p->g, q, k, v, heads, false), &a->out);
}

/* x: [c, w h, n] */
static tensor *forward_block(const pass *p, const transformer_block *b, int heads, tensor *x) {
    struct ggml_context *ctx = p->g->ctx;
    tensor *h = nn_layer_norm(p->g, x, b->norm1.weight, b->norm1.bias);
    x = ggml_add(ctx, attend(p, &b->self, heads, h, h), x);
    h = nn_layer_norm(p->g, x, b->norm2.weight, b->norm2.bias);
    x = ggml_add(ctx, attend(p, &b->cross, heads, h, p->context), x);
    h = nn_layer_norm(p->g, x, b->norm3.weight, b->norm3.bias);
    h = linear(p, nn_geglu(p->g, linear(p, h, &b->ff_in)), &b->ff_out);
    return ggml_add(ctx, h, x);
}

static tensor *forward_transformer(const pass *p, const transformer *t, tensor *x) {
    tensor *h = nn_group_norm(p->g, x, t->norm.weight, t->norm.bias, transformer_norm_eps);
    h = linear(p, nn_to_sequence(p->g, h), &t->proj_in);
    for (int i = 0; i < t->depth; i++) h = forward_block(p, &t->blocks[i], t->heads, h);
    h = nn_to_picture(p->g, linear(p, h, &t->proj_out), x->ne[0], x->ne[1]);
    return ggml_add(p->g->ctx, h, x);
}

static tensor *forward_stage(const pass *p, const stage *s, tensor *x) {
    if (s->has_resnet) x = forward_resnet(p, &s->res, x);
    if (s->attn.blocks) x = forward_transformer(p, &s->attn, x);
    return x;
}

static tensor *forward_input(const pass *p, const stage *s, tensor *x) {
    x = forward_stage(p, s, x);
    return s->sampler.weight ? conv(p, x, &s->sampler, 2) : x;
}

static tensor *forward_output(const pass *p, const stage *s, tensor *x, tensor *skip) {
    x = forward_stage(p, s, ggml_concat(p->g->ctx, x, skip, 2));
    return s->sampler.weight ? conv(p, nn_upsample2(p->g, x), &s->sampler, 1) : x;
}

static tensor *forward(const unet *u, const pass *p, tensor *x) {
    tensor *skips[MAX_STAGES];
    skips[0] = x = conv(p, x, &u->conv_in, 1);
    for (int i = 1; i < u->inputs; i++) skips[i] = x = forward_input(p, &u->input[i], x);
    x = forward_resnet(p, &u->middle1, x);
    x = forward_transformer(p, &u->middle_attn, x);
    x = forward_resnet(p, &u->middle2, x);
    for (int i = 0; i < u->outputs; i++) x = forward_output(p, &u->output[i], x, skips[u->inputs - 1 - i]);
    return conv(p, norm_silu(p, x, &u->out_norm), &u->out_conv, 1);
}

typedef struct eval_call {
    const unet *u;
    const unet_input *in;
    float *out;
} eval_call;

static bool build(graph *g, void *ctx, err *e) {
    (void)e;
    const eval_call *call = ctx;
    const unet *u = call->u;
    const unet_input *in = call->in;
    pass p = {.g = g};
    tensor *t = nn_timestep_embedding(g, graph_input_f32(g, in->timesteps, in->n, 1, 1, 1), (int)u->width);
    p.emb = nn_silu(g, linear(&p, nn_silu(g, linear(&p, t, &u->time1)), &u->time2));
    p.context = graph_input_f32(g, in->context, u->info.context_dim, in->tokens, in->n, 1);
    tensor *x = graph_input_f32(g, in->x, in->w, in->h, u->info.in_channels, in->n);
    graph_output(g, forward(u, &p, x), call->out);
    return true;
}

bool unet_eval(unet *u, const unet_input *in, float *out, err *e) {
    const int multiple = 1 << (u->info.levels - 1);
    if (in->n < 1 || in->tokens < 1 || in->w < multiple || in->h < multiple || in->w % multiple || in->h % multiple)
        return err_set(e, ERR_INVALID, "latents of %dx%d do not fit the UNet: multiples of %d are needed", in->w, in->h,
                       multiple);
    eval_call call = {u, in, out};
    return backend_compute(u->b, build, &call, e) ? true : err_wrap(e, "UNet");
}
