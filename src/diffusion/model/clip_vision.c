#include "diffusion/model/clip_vision.h"

#include "base/path.h"
#include "base/str.h"
#include "diffusion/image/resample.h"
#include "diffusion/load/weights.h"
#include "diffusion/model/clip_layer.h"

#include <math.h>
#include <stdlib.h>

enum { COLOURS = 3, MAX_LAYERS = 128, SIDE_MAX = 1024, HEADS = 16, VIT_B = 768, VIT_B_HEADS = 12, VIT_L = 1024 };

static const float colour_mean[] = {0.48145466f, 0.4578275f, 0.40821073f};
static const float colour_deviation[] = {0.26862954f, 0.26130258f, 0.27577711f};

struct clip_vision {
    backend *b;
    weights *w;
    tensor *whole;     /* [dim], the token that becomes the vector of the picture */
    layer patches;     /* [patch, patch, 3, dim], no bias */
    tensor *positions; /* [dim, tokens] */
    layer norm_in, norm_out;
    clip_layer *layers;
    layer projection; /* weight NULL when the file has none */
    int count, heads, patch;
    clip_vision_info info;
};

/* --- reading ------------------------------------------------------------------------------------------------------ */

/* Tokens are one for the whole and a square of patches. */
static bool read_sizes(clip_vision *v, const layers *l) {
    clip_vision_info *i = &v->info;
    i->dim = (int)layers_dim(l, "embeddings.class_embedding", 0);
    i->tokens = (int)layers_dim(l, "embeddings.position_embedding.weight", 1);
    v->patch = (int)layers_dim(l, "embeddings.patch_embedding.weight", 0);
    v->count = layers_count(l, "encoder.layers.", MAX_LAYERS);
    v->heads = i->dim == VIT_B ? VIT_B_HEADS : HEADS;
    if (i->dim < 1 || i->tokens < 2 || v->patch < 1 || v->count < 2)
        return layers_fail(l, ERR_UNSUPPORTED, "the file holds no CLIP vision encoder");
    const int side = (int)lround(sqrt((double)(i->tokens - 1)));
    i->size = side * v->patch;
    if (side * side != i->tokens - 1 || v->patch > SIDE_MAX || i->size > SIDE_MAX || i->dim % v->heads)
        return layers_fail(l, ERR_UNSUPPORTED, "a CLIP vision encoder of %d tokens, %d wide: none that is known",
                           i->tokens, i->dim);
    return true;
}

static bool load(clip_vision *v, const char *path, err *e) {
    bool ok = true;
    if (!(v->w = weights_open(&(weights_files){.model = path}, e))) return false;
    const layers top = layers_at(v->w, "", &ok, e), l = layers_below(&top, "vision_model.");
    if (!read_sizes(v, &l)) return false;
    const int64_t dim = v->info.dim;
    v->whole = layer_parameter(&l, "embeddings.class_embedding", dim);
    v->patches = layer_conv_plain(&l, "embeddings.patch_embedding", v->patch, COLOURS, dim);
    v->positions = layer_matrix(&l, "embeddings.position_embedding.weight", dim, v->info.tokens);
    v->norm_in = layer_norm(&l, "pre_layrnorm", dim); /* spelled so */
    v->norm_out = layer_norm(&l, "post_layernorm", dim);
    v->layers = mem_alloc((size_t)v->count, sizeof *v->layers);
    for (int i = 0; i < v->count && ok; i++) {
        const layers one = layers_below(&l, "encoder.layers.%d.", i);
        v->layers[i] = clip_layer_load(&one, dim);
    }
    if (layers_has(&top, "visual_projection.weight")) {
        v->info.projected = (int)layers_dim(&top, "visual_projection.weight", 1);
        v->projection = layer_linear(&top, "visual_projection", dim, v->info.projected);
    }
    return ok && weights_commit(v->w, "", backend_handle(v->b), NULL, NULL, e);
}

clip_vision *clip_vision_open(const char *path, backend *b, err *e) {
    clip_vision *v = mem_alloc(1, sizeof *v);
    v->b = b;
    if (load(v, path, e)) return v;
    clip_vision_close(v);
    err_wrap(e, "'%.60s'", path_base(path));
    return NULL;
}

void clip_vision_close(clip_vision *v) {
    if (!v) return;
    free(v->layers);
    weights_close(v->w);
    free(v);
}

clip_vision_info clip_vision_describe(const clip_vision *v) {
    return v->info;
}

/* --- the picture -------------------------------------------------------------------------------------------------- */

/* Pixels as planes, 0..255. */
static float *raw_planes(const image *rgb) {
    const size_t cells = (size_t)rgb->width * (size_t)rgb->height;
    float *planes = mem_alloc(COLOURS * cells, sizeof *planes);
    for (size_t i = 0; i < cells; i++)
        for (size_t c = 0; c < COLOURS; c++) planes[c * cells + i] = (float)rgb->px[i * COLOURS + c];
    return planes;
}

/* A reduced picture has whole numbers as colours, as Pillow makes it. */
static float normed(float value, size_t colour) {
    const float v = roundf(fminf(fmaxf(value, 0.0f), 255.0f)) / 255.0f;
    return (v - colour_mean[colour]) / colour_deviation[colour];
}

float *clip_vision_planes(const clip_vision *v, const image *rgb) {
    image plain = {0};
    if (!image_convert(&plain, rgb, COLOURS, 255)) return NULL;
    const int size = v->info.size, w = plain.width, h = plain.height, least = w < h ? w : h;
    const plane_size from = {h, w}, to = {(int)((int64_t)size * h / least), (int)((int64_t)size * w / least)};
    float *raw = raw_planes(&plain);
    float *scaled = mem_alloc(COLOURS * (size_t)to.height * (size_t)to.width, sizeof *scaled);
    float *out = mem_alloc(COLOURS * (size_t)size * (size_t)size, sizeof *out);
    resample_planes(raw, COLOURS, from, scaled, to, RESAMPLE_BICUBIC_ANTIALIAS);
    const int top = (to.height - size) / 2, left = (to.width - size) / 2;
    for (int c = 0; c < COLOURS; c++)
        for (int y = 0; y < size; y++)
            for (int x = 0; x < size; x++)
                out[((size_t)c * (size_t)size + (size_t)y) * (size_t)size + (size_t)x] = normed(
                    scaled[((size_t)c * (size_t)to.height + (size_t)(top + y)) * (size_t)to.width + (size_t)(left + x)],
                    (size_t)c);
    free(scaled);
    free(raw);
    image_free(&plain);
    return out;
}

/* --- forward ------------------------------------------------------------------------------------------------------ */

typedef struct encode_call {
    const clip_vision *v;
    const float *planes;
    float *projected, *hidden;
} encode_call;

/* [dim, tokens]: the whole's token, then the patches, line by line. */
static tensor *embed(graph *g, const clip_vision *v, const float *planes) {
    tensor *x = graph_input_f32(g, planes, v->info.size, v->info.size, COLOURS, 1);
    x = nn_to_sequence(g, nn_conv2d(g, x, &v->patches, v->patch, 0));
    tensor *positions = v->positions;
    if (positions->type != GGML_TYPE_F32) positions = ggml_cast(g->ctx, positions, GGML_TYPE_F32);
    x = ggml_concat(g->ctx, ggml_reshape_3d(g->ctx, v->whole, v->info.dim, 1, 1), x, 1);
    return nn_layer_norm(g, ggml_add(g->ctx, x, positions), &v->norm_in);
}

static bool build(graph *g, void *ctx, err *e) {
    (void)e;
    const encode_call *call = ctx;
    const clip_vision *v = call->v;
    tensor *x = embed(g, v, call->planes);
    const clip_layer_form form = {.heads = v->heads, .exact_gelu = v->info.dim != VIT_L};
    const int last = v->count - 1;
    for (int i = 0; i < last; i++) x = clip_layer_forward(g, &v->layers[i], &form, x);
    if (call->hidden) graph_output(g, x, call->hidden);
    if (!call->projected) return true;
    x = clip_layer_forward(g, &v->layers[last], &form, x);
    x = nn_layer_norm(g, ggml_view_1d(g->ctx, x, v->info.dim, 0), &v->norm_out);
    graph_output(g, nn_linear(g, x, &v->projection), call->projected);
    return true;
}

bool clip_vision_encode(clip_vision *v, const float *planes, float *projected, float *hidden, err *e) {
    if (projected && !v->projection.weight)
        return err_set(e, ERR_UNSUPPORTED, "the CLIP vision encoder has no projection (visual_projection.weight)");
    encode_call call = {v, planes, projected, hidden};
    return backend_compute(v->b, build, &call, e) || err_wrap(e, "CLIP vision encoder");
}
