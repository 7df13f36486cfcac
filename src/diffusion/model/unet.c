/* unet.c - see unet.h. Reading the network from its tensors comes first, then its forward pass. Channel counts and
 * resolutions are followed while reading, so that a network whose parts do not fit is refused then and the forward
 * pass needs no checks. */
#include "diffusion/model/unet.h"

#include "base/str.h"
#include "diffusion/model/unet_blocks.h"

#include <stdlib.h>

enum { MAX_STAGES = 64, MAX_LEVELS = 8, STAGE_OPERATIONS = 64 };

/* One entry of input_blocks or output_blocks (or a half of the middle). */
typedef struct stage {
    bool has_resnet;
    unet_resnet res;
    unet_transformer attn;
    layer sampler; /* down in the first half (a stage of its own), up in the second; weight NULL without */
} stage;

struct unet {
    backend *b;
    layer time1, time2;
    layer conv_in;
    stage input[MAX_STAGES], output[MAX_STAGES]; /* input[0] is conv_in */
    int inputs, outputs;
    unet_resnet middle1, middle2;
    unet_transformer middle_attn;
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

/* Moves on to the resnet's output. */
static unet_resnet load_resnet(reading *r, const layers *l, int64_t in) {
    return unet_resnet_load(l, in, r->u->width * 4, &r->channels);
}

static unet_transformer load_transformer(reading *r, const layers *l) {
    unet_transformer t = unet_transformer_load(l, r->channels);
    int *dim = &r->u->info.context_dim;
    if (*dim && *dim != t.context_dim) layers_fail(l, ERR_FORMAT, "'%s' has another context width", l->prefix);
    *dim = (int)t.context_dim;
    return t;
}

static void load_transformer_if_any(reading *r, stage *s, const layers *l) {
    const layers below = layers_below(l, "1.");
    if (layers_has_any(&below, "transformer_blocks.") || layers_has_any(&below, "norm."))
        s->attn = load_transformer(r, &below);
}

static void push_skip(reading *r) {
    r->skip_channels[r->skips] = r->channels;
    r->skip_level[r->skips++] = r->level;
}

static void load_input(reading *r, int i) {
    stage *s = &r->u->input[i];
    const layers l = layers_below(&r->top, "input_blocks.%d.", i);
    if (layers_has_any(&l, "0.op.")) {
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
    if (!layers_has_any(&l, up)) return;
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
        unet_transformer_free(&u->input[i].attn);
        unet_transformer_free(&u->output[i].attn);
    }
    unet_transformer_free(&u->middle_attn);
    free(u);
}

unet_info unet_describe(const unet *u) {
    return u->info;
}

/* --- Forward ----------------------------------------------------------------------------------------------------- */

typedef struct pass {
    graph *g;
    tensor *emb;     /* [4 width, n], already through silu */
    tensor *context; /* [context_dim, tokens, n] */
} pass;

static tensor *forward_stage(const pass *p, const stage *s, tensor *x) {
    if (s->has_resnet) x = unet_resnet_forward(p->g, &s->res, x, p->emb);
    if (s->attn.blocks) x = unet_transformer_forward(p->g, &s->attn, x, p->context);
    return x;
}

static tensor *forward_input(const pass *p, const stage *s, tensor *x) {
    x = forward_stage(p, s, x);
    return s->sampler.weight ? nn_conv2d(p->g, x, &s->sampler, 2, 1) : x;
}

/* Halving rounds an odd size up, and doubling it again gives one too many: the last column or row is dropped, which is
 * what nearest-neighbour resampling to the skip's size does in other tools. */
static tensor *crop_like(const pass *p, tensor *x, const tensor *like) {
    if (x->ne[0] == like->ne[0] && x->ne[1] == like->ne[1]) return x;
    struct ggml_context *ctx = p->g->ctx;
    return ggml_cont(
        ctx, ggml_view_4d(ctx, x, like->ne[0], like->ne[1], x->ne[2], x->ne[3], x->nb[1], x->nb[2], x->nb[3], 0));
}

static tensor *forward_output(const pass *p, const stage *s, tensor *x, tensor *skip) {
    x = forward_stage(p, s, ggml_concat(p->g->ctx, crop_like(p, x, skip), skip, 2));
    return s->sampler.weight ? nn_conv2d_same(p->g, nn_upsample2(p->g, x), &s->sampler) : x;
}

static tensor *forward(const unet *u, const pass *p, tensor *x) {
    tensor *skips[MAX_STAGES];
    skips[0] = x = nn_conv2d_same(p->g, x, &u->conv_in);
    for (int i = 1; i < u->inputs; i++) {
        if (!graph_has_room(p->g, STAGE_OPERATIONS)) return x;
        skips[i] = x = forward_input(p, &u->input[i], x);
    }
    x = unet_resnet_forward(p->g, &u->middle1, x, p->emb);
    x = unet_transformer_forward(p->g, &u->middle_attn, x, p->context);
    x = unet_resnet_forward(p->g, &u->middle2, x, p->emb);
    for (int i = 0; i < u->outputs; i++) {
        if (!graph_has_room(p->g, STAGE_OPERATIONS)) return x;
        x = forward_output(p, &u->output[i], x, skips[u->inputs - 1 - i]);
    }
    return nn_conv2d_same(p->g, unet_norm_silu(p->g, x, &u->out_norm), &u->out_conv);
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
    p.emb = nn_silu(g, nn_linear(g, nn_silu(g, nn_linear(g, t, &u->time1)), &u->time2));
    p.context = graph_input_f32(g, in->context, u->info.context_dim, in->tokens, in->n, 1);
    tensor *x = graph_input_f32(g, in->x, in->w, in->h, u->info.in_channels, in->n);
    graph_output(g, forward(u, &p, x), call->out);
    return true;
}

bool unet_eval(unet *u, const unet_input *in, float *out, err *e) {
    if (in->n < 1 || in->tokens < 1 || in->w < 1 || in->h < 1) {
        return err_set(e, ERR_INVALID, "a batch of %d latents of %dx%d with %d tokens", in->n, in->w, in->h,
                       in->tokens);
    }
    eval_call call = {u, in, out};
    return backend_compute(u->b, build, &call, e) ? true : err_wrap(e, "UNet");
}
