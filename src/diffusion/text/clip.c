/* clip.c - see clip.h. A transformer that normalises before each part, with a causal mask. */
#include "diffusion/text/clip.h"

#include "base/str.h"
#include "diffusion/model/clip_layer.h"
#include "diffusion/text/tok_clip.h"

#include <stdlib.h>
#include <string.h>

enum { HEAD = 64, MAX_LAYERS = 128 };

/* OpenCLIP's own tokenizer fills up with zeros; diffusers' files of SD 2 have 23 of ViT-H's 24 layers. */
const clip_form clip_sd1 = {"cond_stage_model.transformer.", "clip_l", .padding = TOK_CLIP_EOS, .first_skip = 1};
const clip_form clip_sd2 = {
    "cond_stage_model.transformer.", "clip_l", .exact_gelu = true, .padding = 0, .first_skip = 2, .cut_layers = 23};
const clip_form clip_sdxl_l = {"cond_stage_model.transformer.", "clip_l", .is_plain = true, .padding = TOK_CLIP_EOS,
                               .first_skip = 2};
const clip_form clip_sdxl_g = {"conditioner.embedders.1.transformer.",
                               "clip_g",
                               .exact_gelu = true,
                               .is_plain = true,
                               .pools = true,
                               .padding = 0,
                               .first_skip = 2};

struct clip {
    backend *b;
    const clip_form *form;
    tensor *tokens;    /* [dim, 49408] ([49408, dim]) */
    tensor *positions; /* [dim, 77] */
    clip_layer *layers;
    layer final_norm;
    tensor *projection;         /* [in, out], or as OpenCLIP keeps it [out, in]; NULL when it does not pool */
    bool is_projection_flipped; /* the latter */
    int count;
    int64_t dim, pooled_dim;
    int heads;
};

static int head_count(int64_t dim) {
    int heads = (int)(dim / HEAD);
    while (heads > 1 && dim % heads) heads--;
    return heads > 1 ? heads : 1;
}

/* OpenCLIP multiplies from the left, so that its matrix is the transpose of a linear layer's. */
static void load_projection(clip *c, const layers *top) {
    c->is_projection_flipped = !layers_has(top, "text_projection.weight");
    if (!c->is_projection_flipped) {
        c->pooled_dim = layers_dim(top, "text_projection.weight", 1);
        c->projection = layer_linear(top, "text_projection", c->dim, c->pooled_dim).weight;
        return;
    }
    c->pooled_dim = layers_dim(top, "text_projection", 0);
    c->projection = layer_matrix(top, "text_projection", c->pooled_dim, c->dim);
}

/* Every token number has its row: the look-up on the device is not checked again. */
static bool load(clip *c, weights *w, err *e) {
    bool ok = true;
    const layers top = layers_at(w, c->form->prefix, &ok, e), l = layers_below(&top, "text_model.");
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
        c->layers[i] = clip_layer_load(&one, c->dim);
    }
    c->final_norm = layer_norm(&l, "final_layer_norm", c->dim);
    if (c->form->pools) load_projection(c, &top);
    return ok;
}

clip *clip_open(weights *w, backend *b, const clip_form *form, err *e) {
    clip *c = mem_alloc(1, sizeof *c);
    c->b = b;
    c->form = form;
    if (load(c, w, e)) return c;
    clip_close(c);
    return NULL;
}

void clip_close(clip *c) {
    if (!c) return;
    free(c->layers);
    free(c);
}

const clip_form *clip_form_of(const clip *c) {
    return c->form;
}

int clip_dim(const clip *c) {
    return (int)c->dim;
}

int clip_pooled_dim(const clip *c) {
    return (int)c->pooled_dim;
}

/* --- Forward ----------------------------------------------------------------------------------------------------- */

typedef struct encode_call {
    clip *c;
    const int32_t *tokens; /* [chunks * 77] */
    float *fixed, *kept;   /* [chunks * 77, dim], [chunks * 77]: see put_learned(); NULL: there are none */
    int chunks;
    int depth; /* layers to run for the rows */
    float *out;
    float *pooled; /* or NULL */
} encode_call;

/* x: [dim, 77, chunks], the last layer's output -> [pooled_dim] */
static tensor *pool(graph *g, const encode_call *call, tensor *x) {
    const clip *c = call->c;
    int at = 0;
    while (at < PROMPT_CHUNK - 1 && call->tokens[at] != TOK_CLIP_EOS) at++;
    x = nn_layer_norm(g, ggml_view_1d(g->ctx, x, c->dim, (size_t)at * x->nb[1]), &c->final_norm);
    tensor *matrix = c->projection;
    if (c->is_projection_flipped) {
        if (matrix->type != GGML_TYPE_F32) matrix = ggml_cast(g->ctx, matrix, GGML_TYPE_F32);
        matrix = ggml_cont(g->ctx, ggml_transpose(g->ctx, matrix));
    }
    return ggml_mul_mat(g->ctx, matrix, x);
}

static bool build(graph *g, void *ctx, err *e) {
    (void)e;
    const encode_call *call = ctx;
    const clip *c = call->c;
    const clip_layer_form form = {.heads = c->heads, .is_causal = true, .exact_gelu = c->form->exact_gelu};
    tensor *ids = graph_input_i32(g, call->tokens, (int64_t)call->chunks * PROMPT_CHUNK);
    tensor *x = ggml_get_rows(g->ctx, c->tokens, ids);
    if (call->fixed) {
        const int64_t count = (int64_t)call->chunks * PROMPT_CHUNK;
        x = ggml_mul(g->ctx, x, graph_input_f32(g, call->kept, 1, count, 1, 1));
        x = ggml_add(g->ctx, x, graph_input_f32(g, call->fixed, c->dim, count, 1, 1));
    }
    x = ggml_reshape_3d(g->ctx, x, c->dim, PROMPT_CHUNK, call->chunks);
    tensor *positions = c->positions;
    if (positions->type != GGML_TYPE_F32) positions = ggml_cast(g->ctx, positions, GGML_TYPE_F32);
    x = ggml_add(g->ctx, x, positions);
    for (int i = 0; i < call->depth; i++) x = clip_layer_forward(g, &c->layers[i], &form, x);
    graph_output(g, c->form->is_plain ? x : nn_layer_norm(g, x, &c->final_norm), call->out);
    if (!call->pooled) return true;
    for (int i = call->depth; i < c->count; i++) x = clip_layer_forward(g, &c->layers[i], &form, x);
    graph_output(g, pool(g, call, x), call->pooled);
    return true;
}

/* The prompt's tokens with what comes behind the end of each chunk's text as the encoder knows it. Free with free(). */
static int32_t *padded_tokens(const prompt *p, int32_t padding) {
    int32_t *tokens = mem_alloc((size_t)p->chunks * PROMPT_CHUNK, sizeof *tokens);
    for (int i = 0; i < p->chunks; i++) {
        bool ended = false;
        for (int k = i * PROMPT_CHUNK; k < (i + 1) * PROMPT_CHUNK; k++) {
            tokens[k] = ended ? padding : p->tokens[k];
            ended = ended || p->tokens[k] == TOK_CLIP_EOS;
        }
    }
    return tokens;
}

/* Learned vectors take the place of rows of the vocabulary: those are multiplied by `kept`, 0 for a learned token and 1
 * for others, and `fixed` is added, the vector or 0. The token itself becomes one of the vocabulary. */
static void put_learned(encode_call *call, int32_t *tokens, const float *learned) {
    const size_t count = (size_t)call->chunks * PROMPT_CHUNK, dim = (size_t)call->c->dim;
    for (size_t i = 0; learned && i < count; i++) {
        if (tokens[i] < PROMPT_LEARNED) continue;
        if (!call->fixed) {
            call->fixed = mem_alloc(count * dim, sizeof *call->fixed);
            call->kept = mem_alloc(count, sizeof *call->kept);
            for (size_t k = 0; k < count; k++) call->kept[k] = 1.0f;
        }
        memcpy(call->fixed + i * dim, learned + (size_t)(tokens[i] - PROMPT_LEARNED) * dim, dim * sizeof *learned);
        call->kept[i] = 0.0f;
        tokens[i] = 0;
    }
}

static int depth_for(const clip *c, int skip) {
    const int whole = c->count == c->form->cut_layers ? c->count + 1 : c->count;
    const int depth = whole - ((skip > c->form->first_skip ? skip : c->form->first_skip) - 1);
    return depth < 1 ? 1 : depth;
}

static bool encode_plain(clip *c, const prompt *p, const float *learned, int skip, float *out, float *pooled, err *e) {
    int32_t *tokens = padded_tokens(p, c->form->padding);
    encode_call call = {.c = c,
                        .tokens = tokens,
                        .chunks = p->chunks,
                        .depth = depth_for(c, skip),
                        .out = out,
                        .pooled = c->form->pools ? pooled : NULL};
    put_learned(&call, tokens, learned);
    const bool ok = backend_compute(c->b, build, &call, e);
    free(call.fixed);
    free(call.kept);
    free(tokens);
    return ok || err_wrap(e, "text encoder");
}

/* An empty chunk is encoded behind the others where the weights need one. */
bool clip_encode(clip *c, const prompt *p, const float *learned, int skip, float *out, float *pooled, err *e) {
    const size_t chunk = PROMPT_CHUNK * (size_t)c->dim, rows = (size_t)p->chunks * chunk;
    float *with_empty = NULL;
    prompt longer = {0};
    if (prompt_needs_empty(p)) {
        with_empty = mem_alloc(rows + chunk, sizeof *with_empty);
        prompt_copy(&longer, p, p->chunks + 1);
    }
    const bool ok = encode_plain(c, with_empty ? &longer : p, learned, skip, with_empty ? with_empty : out, pooled, e);
    if (ok && with_empty) memcpy(out, with_empty, rows * sizeof *out);
    const float *empty = with_empty ? with_empty + rows : NULL;
    for (int i = 0; ok && i < p->chunks; i++) prompt_emphasize(p, i, out + (size_t)i * chunk, empty, (int)c->dim);
    prompt_free(&longer);
    free(with_empty);
    return ok;
}
