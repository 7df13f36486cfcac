/* unet.c - see unet.h. Its first half is unet_encoder.c's. Channel counts and resolutions are followed while reading,
 * so that a network whose parts do not fit is refused then and the forward pass needs no checks. */
#include "diffusion/model/unet.h"

#include "base/str.h"
#include "diffusion/model/unet_encoder.h"

#include <stdlib.h>

struct unet {
    backend *b;
    unet_encoder first;
    unet_stage output[UNET_STAGES_MAX];
    int outputs;
    layer out_norm, out_conv;
    int out_channels, deep_channels;
    const unet_attention **cross; /* owned; each of the stages' cross-attentions */
    const unet_resnet **resnet;   /* owned; each of their residual blocks */
    int crosses, resnets;
};

/* --- Reading ----------------------------------------------------------------------------------------------------- */

/* Where the reader stands in the second half, and how many skip connections are left for it. */
typedef struct reading {
    unet *u;
    layers top;
    unet_place at;
    int skips;
} reading;

static void load_output(reading *r, int i) {
    unet_stage *s = &r->u->output[i];
    const layers l = layers_below(&r->top, "output_blocks.%d.", i);
    const unet_skip *skips = r->u->first.skips;
    if (!r->skips || skips[r->skips - 1].level != r->at.level) {
        layers_fail(&l, ERR_FORMAT, "'%s' has no counterpart in the first half", l.prefix);
        return;
    }
    r->u->deep_channels = (int)r->at.channels; /* the last one's stays */
    unet_stage_load(s, &l, &r->at, r->at.channels + skips[--r->skips].channels);
    const char *up = s->attn.blocks ? "2.conv" : "1.conv";
    if (!layers_has_any(&l, up)) return;
    s->sampler = layer_conv(&l, up, 3, r->at.channels, r->at.channels);
    r->at.level--;
}

static void count_parts(unet *u, unet_stage *s) {
    unet_transformer *t = &s->attn;
    if (s->has_resnet) {
        u->resnet = mem_resize(u->resnet, (size_t)(u->resnets + 1) * sizeof *u->resnet);
        s->res.number = u->resnets;
        u->resnet[u->resnets++] = &s->res;
    }
    t->first = u->crosses;
    u->cross = mem_resize(u->cross, (size_t)(u->crosses + t->depth + 1) * sizeof *u->cross);
    for (int i = 0; i < t->depth; i++) u->cross[u->crosses++] = &t->blocks[i].cross;
}

/* Down, up, middle: the order of diffusers' attention processors. */
static void number_parts(unet *u) {
    for (int i = 0; i < u->first.inputs; i++) count_parts(u, &u->first.input[i]);
    for (int i = 0; i < u->outputs; i++) count_parts(u, &u->output[i]);
    for (int i = 0; i < u->first.middles; i++) count_parts(u, &u->first.middle[i]);
}

static bool load(unet *u, weights *w, err *e) {
    bool ok = true;
    reading r = {.u = u, .top = layers_at(w, "model.diffusion_model.", &ok, e)};
    if (!layers_has(&r.top, "input_blocks.0.0.weight")) return err_set(e, ERR_NOT_FOUND, "no UNet in the model");
    unet_encoder_load(&u->first, &r.top);
    r.at = u->first.end;
    r.skips = u->first.inputs;
    u->outputs = layers_count(&r.top, "output_blocks.", UNET_STAGES_MAX);
    for (int i = 0; i < u->outputs && ok; i++) load_output(&r, i);
    if (ok && (r.skips || r.at.level)) layers_fail(&r.top, ERR_FORMAT, "the two halves of the UNet do not fit");
    u->out_channels = (int)layers_dim(&r.top, "out.2.weight", 3);
    u->out_norm = layer_group_norm(&r.top, "out.0", r.at.channels);
    u->out_conv = layer_conv(&r.top, "out.2", 3, r.at.channels, u->out_channels);
    u->first.end.context_dim = r.at.context_dim;
    if (ok) number_parts(u);
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
    unet_encoder_free(&u->first);
    for (int i = 0; i < UNET_STAGES_MAX; i++) unet_transformer_free(&u->output[i].attn);
    free(u->cross);
    free(u->resnet);
    free(u);
}

unet_info unet_describe(const unet *u) {
    return (unet_info){.in_channels = u->first.in_channels,
                       .out_channels = u->out_channels,
                       .context_dim = u->first.end.context_dim,
                       .label_dim = u->first.label_dim,
                       .levels = u->first.end.level + 1};
}

bool unet_is_on_cpu(const unet *u) {
    return backend_is_cpu(u->b);
}

int unet_deep_channels(const unet *u) {
    return u->deep_channels;
}

int unet_crosses(const unet *u) {
    return u->crosses;
}

int64_t unet_cross_channels(const unet *u, int i) {
    return u->cross[i]->out.weight->ne[1];
}

int unet_resnets(const unet *u) {
    return u->resnets;
}

int64_t unet_resnet_channels(const unet *u, int i) {
    return u->resnet[i]->emb.weight->ne[1];
}

const unet_encoder *unet_first_half(const unet *u) {
    return &u->first;
}

/* --- Forward ----------------------------------------------------------------------------------------------------- */

/* Halving rounds an odd size up, and doubling it again gives one too many: the last column or row is dropped, which is
 * what nearest-neighbour resampling to the skip's size does in other tools. */
static tensor *crop_like(graph *g, tensor *x, const tensor *like) {
    if (x->ne[0] == like->ne[0] && x->ne[1] == like->ne[1]) return x;
    return ggml_cont(
        g->ctx, ggml_view_4d(g->ctx, x, like->ne[0], like->ne[1], x->ne[2], x->ne[3], x->nb[1], x->nb[2], x->nb[3], 0));
}

static tensor *forward_output(const unet_pass *p, const unet_stage *s, tensor *x, tensor *skip) {
    x = unet_stage_forward(p, s, nn_join(p->g, crop_like(p->g, x, skip), skip));
    return s->sampler.weight ? nn_conv2d_doubled(p->g, x, &s->sampler) : x;
}

/* Adds the next of what a ControlNet gives, and moves on behind it. */
static tensor *add_control(graph *g, tensor *x, const float **control) {
    if (!*control) return x;
    tensor *more = graph_input_f32(g, *control, x->ne[0], x->ne[1], x->ne[2], x->ne[3]);
    *control += ggml_nelements(x);
    return ggml_add(g->ctx, x, more);
}

static tensor *forward_end(const unet *u, const unet_pass *p, tensor *x) {
    return unet_norm_conv(p->g, x, &u->out_norm, &u->out_conv, NULL);
}

/* deep: NULL, or receives what goes into the last block. */
static tensor *forward(const unet *u, const unet_pass *p, tensor *x, const float *control, float *deep) {
    tensor *skips[UNET_STAGES_MAX];
    x = unet_encoder_forward(&u->first, p, x, NULL, skips);
    if (!graph_has_room(p->g, UNET_STAGE_OPERATIONS)) return x;
    for (int i = 0; i < u->first.inputs; i++) skips[i] = add_control(p->g, skips[i], &control);
    x = add_control(p->g, x, &control);
    for (int i = 0; i < u->outputs; i++) {
        if (!graph_has_room(p->g, UNET_STAGE_OPERATIONS)) return x;
        if (deep && i == u->outputs - 1) graph_output(p->g, x = crop_like(p->g, x, skips[0]), deep);
        x = forward_output(p, &u->output[i], x, skips[u->first.inputs - 1 - i]);
    }
    return forward_end(u, p, x);
}

static tensor *forward_shallow(const unet *u, const unet_pass *p, tensor *x, const float *control, const float *deep) {
    tensor *skip = add_control(p->g, nn_conv2d_same(p->g, x, &u->first.conv_in), &control);
    tensor *below = graph_input_f32(p->g, deep, x->ne[0], x->ne[1], u->deep_channels, x->ne[3]);
    return forward_end(u, p, forward_output(p, &u->output[u->outputs - 1], below, skip));
}

typedef struct eval_call {
    const unet *u;
    const unet_input *in;
    const float *known; /* what goes into the last block; NULL: it has to be computed, */
    float *deep;        /* and left here; may be NULL */
    float *out;
} eval_call;

static bool build(graph *g, void *ctx, err *e) {
    (void)e;
    const eval_call *call = ctx;
    const unet *u = call->u;
    const unet_input *in = call->in;
    const unet_pass p = unet_encoder_begin(&u->first, g, in);
    tensor *x = graph_input_f32(g, in->x, in->w, in->h, u->first.in_channels, in->n);
    x = call->known ? forward_shallow(u, &p, x, in->control, call->known) : forward(u, &p, x, in->control, call->deep);
    graph_output(g, x, call->out);
    return true;
}

static bool eval(eval_call *call, err *e) {
    if (!unet_input_check(call->in, e)) return false;
    return backend_compute(call->u->b, build, call, e) ? true : err_wrap(e, "UNet");
}

bool unet_eval(unet *u, const unet_input *in, float *out, err *e) {
    return eval(&(eval_call){.u = u, .in = in, .out = out}, e);
}

bool unet_eval_keeping(unet *u, const unet_input *in, float *deep, float *out, err *e) {
    return eval(&(eval_call){.u = u, .in = in, .deep = deep, .out = out}, e);
}

bool unet_eval_shallow(unet *u, const unet_input *in, const float *deep, float *out, err *e) {
    return eval(&(eval_call){.u = u, .in = in, .known = deep, .out = out}, e);
}

typedef struct keys_call {
    const unet *u;
    const float *context;
    int n, tokens;
    const unet_keys *out;
} keys_call;

static bool build_keys(graph *g, void *ctx, err *e) {
    (void)e;
    const keys_call *call = ctx;
    tensor *text = graph_input_f32(g, call->context, call->u->first.end.context_dim, call->tokens, call->n, 1);
    for (int i = 0; i < call->u->crosses; i++) {
        graph_output(g, nn_linear(g, text, &call->u->cross[i]->k), call->out[i].k);
        graph_output(g, nn_linear(g, text, &call->u->cross[i]->v), call->out[i].v);
    }
    return true;
}

bool unet_make_keys(unet *u, const float *context, int n, int tokens, const unet_keys *out, err *e) {
    keys_call call = {u, context, n, tokens, out};
    return backend_compute(u->b, build_keys, &call, e) || err_wrap(e, "UNet");
}

typedef struct times_call {
    const unet *u;
    const float *timesteps, *label;
    int n;
    float *const *out;
} times_call;

static bool build_times(graph *g, void *ctx, err *e) {
    (void)e;
    const times_call *call = ctx;
    tensor *emb = unet_encoder_embed(&call->u->first, g, call->timesteps, call->label, call->n);
    for (int i = 0; i < call->u->resnets; i++)
        graph_output(g, unet_resnet_time(g, call->u->resnet[i], emb), call->out[i]);
    return true;
}

bool unet_make_times(unet *u, const float *timesteps, const float *label, int n, float *const *out, err *e) {
    times_call call = {u, timesteps, label, n, out};
    return backend_compute(u->b, build_times, &call, e) || err_wrap(e, "UNet");
}
