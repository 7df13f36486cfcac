/* clip.c - see clip.h. A transformer that normalises before each part, with a causal mask. */
#include "diffusion/text/clip.h"

#include "base/str.h"
#include "diffusion/model/layers.h"
#include "diffusion/model/nn.h"
#include "diffusion/text/tok_clip.h"

#include <stdlib.h>

enum { HEAD = 64, MAX_LAYERS = 128 };

typedef struct clip_layer {
    layer norm1, q, k, v, out;
    layer norm2, fc1, fc2;
} clip_layer;

struct clip {
    backend *b;
    tensor *tokens;    /* [dim, 49408] ([49408, dim]) */
    tensor *positions; /* [dim, 77] */
    clip_layer *layers;
    layer final_norm;
    int count;
    int64_t dim;
    int heads;
};

static clip_layer load_layer(const layers *l, int64_t dim) {
    const int64_t hidden = layers_dim(l, "mlp.fc1.weight", 1);
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

static int head_count(int64_t dim) {
    int heads = (int)(dim / HEAD);
    while (heads > 1 && dim % heads) heads--;
    return heads > 1 ? heads : 1;
}

/* Every token number has its row: the look-up on the device is not checked again. */
static bool load(clip *c, weights *w, err *e) {
    bool ok = true;
    const layers l = layers_at(w, "cond_stage_model.transformer.text_model.", &ok, e);
    c->dim = layers_dim(&l, "final_layer_norm.weight", 0);
    c->heads = head_count(c->dim);
    c->count = layers_count(&l, "encoder.layers.", MAX_LAYERS);
    if (ok && (c->dim < 1 || c->count < 1)) return err_set(e, ERR_NOT_FOUND, "no CLIP text encoder in the model");
    char name[160];
    str_copy(name, sizeof name, layers_below(&l, "embeddings.token_embedding.weight").prefix);
    c->tokens = ok ? weights_tensor(w, e, WEIGHTS_EMBEDDING, name, c->dim, TOK_CLIP_COUNT) : NULL;
    str_copy(name, sizeof name, layers_below(&l, "embeddings.position_embedding.weight").prefix);
    c->positions = c->tokens ? weights_tensor(w, e, WEIGHTS_EMBEDDING, name, c->dim, PROMPT_CHUNK) : NULL;
    ok = ok && c->positions;
    c->layers = mem_alloc((size_t)c->count + 1, sizeof *c->layers);
    for (int i = 0; i < c->count && ok; i++) {
        const layers one = layers_below(&l, "encoder.layers.%d.", i);
        c->layers[i] = load_layer(&one, c->dim);
    }
    c->final_norm = layer_norm(&l, "final_layer_norm", c->dim);
    return ok;
}

clip *clip_open(weights *w, backend *b, err *e) {
    clip *c = mem_alloc(1, sizeof *c);
    c->b = b;
    if (load(c, w, e)) return c;
    clip_close(c);
    return NULL;
}

void clip_close(clip *c) {
    if (!c) return;
    free(c->layers);
    free(c);
}

int clip_dim(const clip *c) {
    return (int)c->dim;
}
int clip_layers(const clip *c) {
    return c->count;
}

/* --- Forward ----------------------------------------------------------------------------------------------------- */

/* x: [dim, 77, chunks] */
static tensor *forward_layer(graph *g, const clip *c, const clip_layer *l, tensor *x) {
    tensor *h = nn_layer_norm(g, x, &l->norm1);
    h = nn_attention(g, nn_linear(g, h, &l->q), nn_linear(g, h, &l->k), nn_linear(g, h, &l->v), c->heads, true);
    x = ggml_add(g->ctx, x, nn_linear(g, h, &l->out));
    h = nn_layer_norm(g, x, &l->norm2);
    h = nn_gelu_quick(g, nn_linear(g, h, &l->fc1));
    return ggml_add(g->ctx, x, nn_linear(g, h, &l->fc2));
}

typedef struct encode_call {
    clip *c;
    const prompt *p;
    int depth; /* layers to run */
    float *out;
} encode_call;

static bool build(graph *g, void *ctx, err *e) {
    (void)e;
    const encode_call *call = ctx;
    const clip *c = call->c;
    tensor *ids = graph_input_i32(g, call->p->tokens, (int64_t)call->p->chunks * PROMPT_CHUNK);
    tensor *x = ggml_get_rows(g->ctx, c->tokens, ids);
    x = ggml_reshape_3d(g->ctx, x, c->dim, PROMPT_CHUNK, call->p->chunks);
    tensor *positions = c->positions;
    if (positions->type != GGML_TYPE_F32) positions = ggml_cast(g->ctx, positions, GGML_TYPE_F32);
    x = ggml_add(g->ctx, x, positions);
    for (int i = 0; i < call->depth; i++) x = forward_layer(g, c, &c->layers[i], x);
    graph_output(g, nn_layer_norm(g, x, &c->final_norm), call->out);
    return true;
}

bool clip_encode(clip *c, const prompt *p, int skip, float *out, err *e) {
    int depth = c->count - (skip > 1 ? skip - 1 : 0);
    if (depth < 1) depth = 1;
    encode_call call = {c, p, depth, out};
    if (!backend_compute(c->b, build, &call, e)) return err_wrap(e, "text encoder");
    for (int i = 0; i < p->chunks; i++)
        prompt_emphasize(p, i, out + (size_t)i * PROMPT_CHUNK * (size_t)c->dim, (int)c->dim);
    return true;
}
