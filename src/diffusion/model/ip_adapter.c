#include "diffusion/model/ip_adapter.h"

#include "base/path.h"
#include "base/str.h"
#include "diffusion/load/ip_adapter_form.h"
#include "diffusion/load/weights.h"
#include "diffusion/model/layers.h"

#include <stdlib.h>

enum { MAX_DEPTH = 32, HEAD = 64, TOKENS_MAX = 1024 };

/* One layer of the resampler. */
typedef struct reading_layer {
    layer norm_image, norm_queries, q, kv, out; /* to_kv holds keys, then values */
    layer norm, fc1, fc2;
} reading_layer;

struct ip_adapter {
    backend *b;
    weights *w;
    ip_adapter_form form;
    unet_image_attention *layers; /* owned, form.count */
    int64_t context_dim;
    int64_t image_dim; /* width of what it reads of a picture */
    int tokens;

    layer proj, norm; /* without a resampler */

    tensor *queries; /* [inner, tokens] */
    layer proj_in, proj_out, norm_out;
    reading_layer *readers; /* owned */
    int depth, heads;
    int64_t inner;
};

/* --- reading ------------------------------------------------------------------------------------------------------ */

static bool read_form(ip_adapter *a, const char *path, err *e) {
    tensor_file *f = tensor_file_open_header(path, e);
    if (!f) return false;
    const bool ok = ip_adapter_form_read(f, &a->form, e);
    tensor_file_close(f);
    return ok;
}

static void load_projection(ip_adapter *a, const layers *l) {
    const int64_t out = layers_dim(l, "proj.weight", 1);
    a->image_dim = layers_dim(l, "proj.weight", 0);
    a->tokens = (int)(out / a->context_dim);
    if (out % a->context_dim || a->tokens < 1 || a->tokens > TOKENS_MAX)
        layers_fail(l, ERR_UNSUPPORTED, "an IP-Adapter for tokens of another width than %d", (int)a->context_dim);
    a->proj = layer_linear(l, "proj", a->image_dim, out);
    a->norm = layer_norm(l, "norm", a->context_dim);
}

static reading_layer load_reader(const layers *l, int64_t dim, int64_t inner) {
    const int64_t hidden = layers_dim(l, "1.1.weight", 1);
    return (reading_layer){
        .norm_image = layer_norm(l, "0.norm1", dim),
        .norm_queries = layer_norm(l, "0.norm2", dim),
        .q = layer_linear(l, "0.to_q", dim, inner),
        .kv = layer_linear(l, "0.to_kv", dim, 2 * inner),
        .out = layer_linear(l, "0.to_out", inner, dim),
        .norm = layer_norm(l, "1.0", dim),
        .fc1 = layer_linear(l, "1.1", dim, hidden),
        .fc2 = layer_linear(l, "1.3", hidden, dim),
    };
}

static void load_resampler(ip_adapter *a, const layers *l) {
    const int64_t dim = layers_dim(l, "latents", 0);
    a->image_dim = layers_dim(l, "proj_in.weight", 0);
    a->tokens = (int)layers_dim(l, "latents", 1);
    a->inner = layers_dim(l, "layers.0.0.to_q.weight", 1);
    a->depth = layers_count(l, "layers.", MAX_DEPTH);
    a->heads = (int)(a->inner / HEAD);
    if (a->tokens < 1 || a->tokens > TOKENS_MAX || a->depth < 1 || a->heads < 1 || a->inner % HEAD)
        layers_fail(l, ERR_FORMAT, "the IP-Adapter's resampler has no layers with heads of %d channels", HEAD);
    a->queries = layer_matrix(l, "latents", dim, a->tokens);
    a->proj_in = layer_linear(l, "proj_in", a->image_dim, dim);
    a->proj_out = layer_linear(l, "proj_out", dim, a->context_dim);
    a->norm_out = layer_norm(l, "norm_out", a->context_dim);
    a->readers = mem_alloc((size_t)a->depth + 1, sizeof *a->readers);
    for (int i = 0; i < a->depth && *l->ok; i++) {
        const layers one = layers_below(l, "layers.%d.", i);
        a->readers[i] = load_reader(&one, dim, a->inner);
    }
}

static bool fits(const ip_adapter *a, const layers *top, const unet *u) {
    char key[IP_ADAPTER_NAME_MAX], weight[IP_ADAPTER_NAME_MAX + 8];
    bool same = a->form.count == unet_crosses(u);
    for (int i = 0; same && i < a->form.count; i++) {
        ip_adapter_key_name(i, key);
        snprintf(weight, sizeof weight, "%s.weight", key);
        same = layers_dim(top, weight, 0) == a->context_dim && layers_dim(top, weight, 1) == unet_cross_channels(u, i);
    }
    return same || layers_fail(top, ERR_UNSUPPORTED,
                               "an IP-Adapter for another UNet than the model's: of %s, with %d cross-attentions, the "
                               "model has %d, with text %d wide",
                               a->form.family, a->form.count, unet_crosses(u), (int)a->context_dim);
}

static void load_attentions(ip_adapter *a, const layers *top, const unet *u) {
    char name[IP_ADAPTER_NAME_MAX];
    a->layers = mem_alloc((size_t)a->form.count + 1, sizeof *a->layers);
    for (int i = 0; i < a->form.count && *top->ok; i++) {
        ip_adapter_key_name(i, name);
        a->layers[i].k = layer_linear(top, name, a->context_dim, unet_cross_channels(u, i));
        ip_adapter_value_name(i, name);
        a->layers[i].v = layer_linear(top, name, a->context_dim, unet_cross_channels(u, i));
    }
}

static bool load(ip_adapter *a, const char *path, const unet *u, err *e) {
    bool ok = true;
    if (!read_form(a, path, e) || !(a->w = weights_open(&(weights_files){.model = path}, e))) return false;
    const layers top = layers_at(a->w, "", &ok, e), proj = layers_below(&top, "image_proj.");
    a->context_dim = unet_describe(u).context_dim;
    if (!fits(a, &top, u)) return false;
    load_attentions(a, &top, u);
    if (a->form.has_resampler)
        load_resampler(a, &proj);
    else
        load_projection(a, &proj);
    return ok && weights_commit(a->w, "", backend_handle(a->b), NULL, NULL, e);
}

ip_adapter *ip_adapter_open(const char *path, const unet *u, backend *b, err *e) {
    ip_adapter *a = mem_alloc(1, sizeof *a);
    a->b = b;
    if (load(a, path, u, e)) return a;
    ip_adapter_close(a);
    err_wrap(e, "'%.60s'", path_base(path));
    return NULL;
}

void ip_adapter_close(ip_adapter *a) {
    if (!a) return;
    free(a->layers);
    free(a->readers);
    weights_close(a->w);
    free(a);
}

int ip_adapter_tokens(const ip_adapter *a) {
    return a->tokens;
}

const unet_image_attention *ip_adapter_layers(const ip_adapter *a) {
    return a->layers;
}

/* --- forward ------------------------------------------------------------------------------------------------------ */

/* [c, t] -> its channels from .. from + count */
static tensor *columns(graph *g, tensor *x, int64_t from, int64_t count) {
    return ggml_cont(g->ctx, ggml_view_2d(g->ctx, x, count, x->ne[1], x->nb[1], (size_t)from * x->nb[0]));
}

/* The queries attend to the picture and to themselves. x: [dim, patches], y: [dim, tokens]. */
static tensor *forward_reader(graph *g, const ip_adapter *a, const reading_layer *l, tensor *x, tensor *y) {
    tensor *queries = nn_layer_norm(g, y, &l->norm_queries);
    tensor *kv = nn_linear(g, ggml_concat(g->ctx, nn_layer_norm(g, x, &l->norm_image), queries, 1), &l->kv);
    tensor *h = nn_attention(g, nn_linear(g, queries, &l->q), columns(g, kv, 0, a->inner),
                             columns(g, kv, a->inner, a->inner), a->heads, false);
    y = ggml_add(g->ctx, y, nn_linear(g, h, &l->out));
    h = nn_gelu(g, nn_linear(g, nn_layer_norm(g, y, &l->norm), &l->fc1));
    return ggml_add(g->ctx, y, nn_linear(g, h, &l->fc2));
}

static tensor *resample(graph *g, const ip_adapter *a, tensor *code) {
    tensor *y = a->queries, *x = nn_linear(g, code, &a->proj_in);
    if (y->type != GGML_TYPE_F32) y = ggml_cast(g->ctx, y, GGML_TYPE_F32);
    for (int i = 0; i < a->depth; i++) y = forward_reader(g, a, &a->readers[i], x, y);
    return nn_layer_norm(g, nn_linear(g, y, &a->proj_out), &a->norm_out);
}

static tensor *project(graph *g, const ip_adapter *a, tensor *code) {
    tensor *y = ggml_reshape_2d(g->ctx, nn_linear(g, code, &a->proj), a->context_dim, a->tokens);
    return nn_layer_norm(g, y, &a->norm);
}

typedef struct project_call {
    const ip_adapter *a;
    const float *code; /* [rows, image_dim] */
    int rows;
    float *out;
} project_call;

static bool build(graph *g, void *ctx, err *e) {
    (void)e;
    const project_call *call = ctx;
    tensor *code = graph_input_f32(g, call->code, call->a->image_dim, call->rows, 1, 1);
    graph_output(g, call->a->form.has_resampler ? resample(g, call->a, code) : project(g, call->a, code), call->out);
    return true;
}

static bool make_tokens(const ip_adapter *a, const float *code, int rows, float *out, err *e) {
    project_call call = {a, code, rows, out};
    return backend_compute(a->b, build, &call, e) || err_wrap(e, "IP-Adapter");
}

/* No picture is a vector of zeros; the plus kind reads the encoding of a picture of zeros, as it was trained. */
bool ip_adapter_encode(ip_adapter *a, clip_vision *v, const image *picture, float *shown, float *blank, err *e) {
    const clip_vision_info info = clip_vision_describe(v);
    const bool plus = a->form.has_resampler;
    const int rows = plus ? info.tokens : 1, dim = plus ? info.dim : info.projected;
    if (dim != a->image_dim)
        return err_set(e, ERR_UNSUPPORTED,
                       "the IP-Adapter reads %d values of a picture, the CLIP vision encoder gives %d",
                       (int)a->image_dim, dim);
    float *planes = clip_vision_planes(v, picture);
    if (!planes) return err_set(e, ERR_MEMORY, "the picture is too large");
    float *zeros = mem_alloc(3 * (size_t)info.size * (size_t)info.size, sizeof *zeros);
    float *code = mem_alloc((size_t)rows * (size_t)dim, sizeof *code);
    float *none = mem_alloc((size_t)rows * (size_t)dim, sizeof *none);
    bool ok = clip_vision_encode(v, planes, plus ? NULL : code, plus ? code : NULL, e) &&
              (!plus || clip_vision_encode(v, zeros, NULL, none, e)) && make_tokens(a, code, rows, shown, e) &&
              make_tokens(a, none, rows, blank, e);
    free(none);
    free(code);
    free(zeros);
    free(planes);
    return ok;
}
