/* taesd.c - see taesd.h. Both halves are one list of layers, whose kinds are told by which tensors their numbers have.
 */
#include "diffusion/model/taesd.h"

#include "base/path.h"
#include "base/str.h"
#include "diffusion/load/weights.h"
#include "diffusion/model/layers.h"
#include "diffusion/model/tiles.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ENTRIES_MAX = 32, COLOURS = 3, CONVS = 3 };

typedef enum entry_kind { ENTRY_CONV, ENTRY_BLOCK, ENTRY_UP, ENTRY_RELU } entry_kind;

typedef struct entry {
    entry_kind kind;
    layer convs[CONVS]; /* of a block; a convolution is the first */
    layer skip;         /* of a block whose width changes; weight NULL without */
    int stride;
} entry;

typedef struct half {
    entry entries[ENTRIES_MAX];
    int count; /* 0: not there */
    int64_t in, out;
} half;

struct taesd {
    backend *b;
    weights *w;
    half encoder, decoder;
};

/* --- reading ------------------------------------------------------------------------------------------------------ */

/* Where a half's layers are: the prefix of their names. Only a decoder begins with a clamp, which has no tensors; in
 * diffusers' lists it is no layer either. */
typedef struct place {
    const char *prefix;
    int first; /* the number of the first convolution */
} place;

static const place ENCODERS[] = {{"encoder.layers.", 0}, {"taesd_encoder.", 0}, {"encoder.", 0}, {"", 0}};
static const place DECODERS[] = {{"decoder.layers.", 0}, {"taesd_decoder.", 1}, {"decoder.", 1}, {"", 1}};
enum { PLACES = sizeof ENCODERS / sizeof *ENCODERS };

static bool has_weight(const layers *l, const char *part, int n, const char *rest) {
    char name[64];
    snprintf(name, sizeof name, "%s%d%s", part, n, rest);
    return layers_has(l, name);
}

static int64_t dim_of(const layers *l, int n, const char *rest, int dim) {
    char name[64];
    snprintf(name, sizeof name, "%d%s", n, rest);
    return layers_dim(l, name, dim);
}

static entry load_block(const layers *top, int n, int64_t *channels) {
    const layers l = layers_below(top, "%d.", n);
    const int64_t in = *channels, out = dim_of(top, n, ".conv.0.weight", 3);
    entry y = {.kind = ENTRY_BLOCK};
    int64_t c = in;
    for (int i = 0; i < CONVS; i++) {
        char name[16];
        snprintf(name, sizeof name, "conv.%d", 2 * i);
        y.convs[i] = layer_conv(&l, name, 3, c, out);
        c = out;
    }
    if (layers_has(&l, "skip.weight")) y.skip = layer_conv_plain(&l, "skip", 1, in, out);
    *channels = out;
    return y;
}

/* Without a bias it halves the size, in the encoder. */
static entry load_conv(const layers *top, int n, bool is_encoder, int64_t *channels) {
    char name[16];
    const int64_t in = *channels, out = dim_of(top, n, ".weight", 3);
    const bool has_bias = has_weight(top, "", n, ".bias");
    entry y = {.kind = ENTRY_CONV, .stride = is_encoder && !has_bias ? 2 : 1};
    snprintf(name, sizeof name, "%d", n);
    y.convs[0] = has_bias ? layer_conv(top, name, 3, in, out) : layer_conv_plain(top, name, 3, in, out);
    *channels = out;
    return y;
}

/* Numbers without tensors are an activation behind the first convolution, and enlargements. */
static void load_half(half *h, const layers *top, int first, bool is_encoder) {
    int64_t channels = dim_of(top, first, ".weight", 2);
    h->in = channels;
    for (int n = first, gap = 0; gap < 2 && h->count < ENTRIES_MAX; n++) {
        if (has_weight(top, "", n, ".conv.0.weight")) {
            h->entries[h->count++] = load_block(top, n, &channels);
        } else if (has_weight(top, "", n, ".weight")) {
            h->entries[h->count++] = load_conv(top, n, is_encoder, &channels);
        } else {
            gap++;
            const bool is_first = n == first + 1;
            const bool goes_on = has_weight(top, "", n + 1, ".weight") || has_weight(top, "", n + 1, ".conv.0.weight");
            if (goes_on) h->entries[h->count++] = (entry){.kind = is_first ? ENTRY_RELU : ENTRY_UP};
            if (goes_on) gap = 0;
        }
    }
    h->out = channels;
}

static bool find_half(taesd *t, half *h, const place places[PLACES], bool is_encoder, err *e) {
    bool ok = true;
    for (int i = 0; i < PLACES && !h->count; i++) {
        const layers top = layers_at(t->w, places[i].prefix, &ok, e);
        const int64_t colours = dim_of(&top, places[i].first, ".weight", is_encoder ? 2 : 3);
        if (colours == 0 || (is_encoder && colours != COLOURS)) continue;
        load_half(h, &top, places[i].first, is_encoder);
        if (ok && (is_encoder ? h->in : h->out) != COLOURS) h->count = 0; /* the other half, alone in its file */
    }
    return ok;
}

static int count_kind(const half *h, bool is_up) {
    int n = 0;
    for (int i = 0; i < h->count; i++)
        n += is_up ? h->entries[i].kind == ENTRY_UP : h->entries[i].kind == ENTRY_CONV && h->entries[i].stride == 2;
    return n;
}

static bool load(taesd *t, const char *path, err *e) {
    if (!(t->w = weights_open(&(weights_files){.model = path}, e))) return false;
    if (!find_half(t, &t->decoder, DECODERS, false, e) || !find_half(t, &t->encoder, ENCODERS, true, e)) return false;
    const bool fits = (!t->decoder.count || count_kind(&t->decoder, true) == 3) &&
                      (!t->encoder.count || count_kind(&t->encoder, false) == 3);
    if (!fits || (!t->decoder.count && !t->encoder.count))
        return err_set(e, ERR_UNSUPPORTED, "'%.60s' holds no TAESD", path_base(path));
    return weights_commit(t->w, "", backend_handle(t->b), NULL, NULL, e);
}

taesd *taesd_open(const char *path, backend *b, err *e) {
    taesd *t = mem_alloc(1, sizeof *t);
    t->b = b;
    if (load(t, path, e)) return t;
    taesd_close(t);
    return NULL;
}

void taesd_close(taesd *t) {
    if (!t) return;
    weights_close(t->w);
    free(t);
}

int taesd_channels(const taesd *t) {
    return (int)(t->decoder.count ? t->decoder.in : t->encoder.out);
}
bool taesd_can_encode(const taesd *t) {
    return t->encoder.count > 0;
}
bool taesd_can_decode(const taesd *t) {
    return t->decoder.count > 0;
}

/* --- forward ------------------------------------------------------------------------------------------------------ */

static tensor *forward_block(graph *g, const entry *b, tensor *x) {
    tensor *y = x;
    for (int i = 0; i < CONVS; i++) {
        y = nn_conv2d_same(g, y, &b->convs[i]);
        if (i + 1 < CONVS) y = ggml_relu(g->ctx, y);
    }
    tensor *skip = b->skip.weight ? nn_conv2d_same(g, x, &b->skip) : x;
    return ggml_relu(g->ctx, ggml_add(g->ctx, y, skip));
}

static tensor *forward(graph *g, const half *h, tensor *x) {
    for (int i = 0; i < h->count; i++) {
        const entry *n = &h->entries[i];
        switch (n->kind) {
        case ENTRY_CONV:
            x = nn_conv2d(g, x, &n->convs[0], n->stride, 1);
            break;
        case ENTRY_BLOCK:
            x = forward_block(g, n, x);
            break;
        case ENTRY_UP:
            x = nn_upsample2(g, x);
            break;
        case ENTRY_RELU:
            x = ggml_relu(g->ctx, x);
            break;
        }
    }
    return x;
}

/* Latents beyond about three are drawn in softly. */
static tensor *clamp(graph *g, tensor *z) {
    return ggml_scale(g->ctx, ggml_tanh(g->ctx, ggml_scale(g->ctx, z, 1.0f / 3.0f)), 3.0f);
}

typedef struct call {
    const taesd *t;
    bool decode;
    const planes *in;
    float *out;
} call;

/* Its pixels are 0..1. */
static bool build(graph *g, void *ctx, err *e) {
    (void)e;
    const call *c = ctx;
    tensor *x = graph_input_f32(g, c->in->data, c->in->w, c->in->h, c->in->c, 1);
    x = c->decode ? ggml_scale_bias(g->ctx, forward(g, &c->t->decoder, clamp(g, x)), 2.0f, -1.0f)
                  : forward(g, &c->t->encoder, ggml_scale_bias(g->ctx, x, 0.5f, 0.5f));
    graph_output(g, x, c->out);
    return true;
}

static bool decode_tile(void *ctx, const planes *in, planes *out, err *e) {
    const taesd *t = ctx;
    return backend_compute(t->b, build, &(call){t, true, in, out->data}, e);
}

static bool encode_tile(void *ctx, const planes *in, planes *out, err *e) {
    const taesd *t = ctx;
    return backend_compute(t->b, build, &(call){t, false, in, out->data}, e);
}

bool taesd_decode(taesd *t, const latent *z, float *rgb, int tile, taesd_progress progress, void *ctx, err *e) {
    if (!taesd_can_decode(t)) return err_set(e, ERR_UNSUPPORTED, "this TAESD has no decoder");
    if (z->n != 1 || z->c != (int)t->decoder.in || z->w < 1 || z->h < 1)
        return err_set(e, ERR_INVALID, "TAESD: latents of [%d,%d,%d,%d] do not fit", z->n, z->c, z->h, z->w);
    const planes in = {z->c, z->h, z->w, z->data};
    planes out = {COLOURS, z->h * TAESD_FACTOR, z->w * TAESD_FACTOR, rgb};
    const tiles all = {
        .in = &in, .out = &out, .in_unit = 1, .out_unit = TAESD_FACTOR, .size = tile, .overlap = tile / 4};
    return tiles_run(&all, decode_tile, t, progress, ctx, e) || err_wrap(e, "TAESD decoder");
}

bool taesd_encode(taesd *t, const float *rgb, int width, int height, latent *z, int tile, taesd_progress progress,
                  void *ctx, err *e) {
    const int w = width / TAESD_FACTOR, h = height / TAESD_FACTOR, zc = (int)t->encoder.out;
    if (!taesd_can_encode(t)) return err_set(e, ERR_UNSUPPORTED, "this TAESD has no encoder");
    if (w < 1 || h < 1 || w * TAESD_FACTOR != width || h * TAESD_FACTOR != height)
        return err_set(e, ERR_INVALID, "TAESD: a picture of %dx%d is no multiple of %d", width, height, TAESD_FACTOR);
    planes in = planes_new(COLOURS, height, width), out = {zc, h, w, z->data};
    memcpy(in.data, rgb, planes_size(&in) * sizeof *rgb);
    const tiles all = {
        .in = &in, .out = &out, .in_unit = TAESD_FACTOR, .out_unit = 1, .size = tile, .overlap = tile / 4};
    const bool ok = tiles_run(&all, encode_tile, t, progress, ctx, e);
    z->n = 1, z->c = zc, z->h = h, z->w = w;
    planes_free(&in);
    return ok || err_wrap(e, "TAESD encoder");
}
