/* vae.c - see vae.h. First the two networks, then their forward passes, then pictures in tiles. */
#include "diffusion/model/vae.h"

#include "base/str.h"
#include "diffusion/model/tiles.h"
#include "diffusion/model/vae_blocks.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LEVELS = 8, MAX_BLOCKS = 8, MAX_CHANNELS = 128, DEFAULT_TILE = 64 };

typedef struct level {
    vae_resnet blocks[MAX_BLOCKS];
    int count;
    layer sampler; /* down in the encoder, up in the decoder; weight NULL without */
} level;

typedef struct half {
    layer conv_in, norm_out, conv_out;
    layer quant; /* 1x1, behind the encoder or before the decoder; weight NULL without */
    vae_middle mid;
    level levels[MAX_LEVELS]; /* [0] is the full resolution */
} half;

struct vae {
    backend *b;
    half encoder, decoder;
    int levels, tile;
    vae_info info;
};

/* --- Reading ----------------------------------------------------------------------------------------------------- */

/* The residual blocks of one level; *channels is their input's width and becomes their output's. */
static level load_level(const layers *l, int64_t *channels) {
    level y = {.count = layers_count(l, "block.", MAX_BLOCKS)};
    if (layers_count(l, "attn.", MAX_BLOCKS))
        layers_fail(l, ERR_UNSUPPORTED, "'%s' attends outside of the middle, which is not supported", l->prefix);
    for (int i = 0; i < y.count; i++) {
        const layers block = layers_below(l, "block.%d.", i);
        const int64_t out = layers_dim(&block, "conv1.weight", 3);
        y.blocks[i] = vae_resnet_load(&block, *channels, out);
        *channels = out;
    }
    return y;
}

static void load_decoder(vae *v, const layers *top) {
    const layers l = layers_below(top, "decoder.");
    half *d = &v->decoder;
    const int64_t zc = layers_dim(&l, "conv_in.weight", 2);
    int64_t c = layers_dim(&l, "conv_in.weight", 3);
    v->levels = layers_count(&l, "up.", MAX_LEVELS);
    v->info.latent_channels = (int)zc;
    if (v->levels < 1) layers_fail(&l, ERR_FORMAT, "the decoder has no levels");
    if (zc > MAX_CHANNELS) layers_fail(&l, ERR_FORMAT, "more than %d channels in a latent", MAX_CHANNELS);
    if (layers_has_any(top, "post_quant_conv.")) d->quant = layer_conv(top, "post_quant_conv", 1, zc, zc);
    d->conv_in = layer_conv(&l, "conv_in", 3, zc, c);
    d->mid = vae_middle_load(&l, c);
    for (int i = v->levels - 1; i >= 0; i--) {
        const layers one = layers_below(&l, "up.%d.", i);
        d->levels[i] = load_level(&one, &c);
        if (i) d->levels[i].sampler = layer_conv(&one, "upsample.conv", 3, c, c);
    }
    d->norm_out = layer_group_norm(&l, "norm_out", c);
    d->conv_out = layer_conv(&l, "conv_out", 3, c, 3);
}

static void load_encoder(vae *v, const layers *top) {
    const layers l = layers_below(top, "encoder.");
    half *n = &v->encoder;
    int64_t c = layers_dim(&l, "conv_in.weight", 3);
    const int64_t moments = 2 * v->info.latent_channels;
    n->conv_in = layer_conv(&l, "conv_in", 3, 3, c);
    for (int i = 0; i < v->levels; i++) {
        const layers one = layers_below(&l, "down.%d.", i);
        n->levels[i] = load_level(&one, &c);
        if (i + 1 < v->levels) n->levels[i].sampler = layer_conv(&one, "downsample.conv", 3, c, c);
    }
    n->mid = vae_middle_load(&l, c);
    n->norm_out = layer_group_norm(&l, "norm_out", c);
    n->conv_out = layer_conv(&l, "conv_out", 3, c, moments);
    if (layers_has_any(top, "quant_conv.")) n->quant = layer_conv(top, "quant_conv", 1, moments, moments);
}

static bool load(vae *v, weights *w, err *e) {
    bool ok = true;
    const layers top = layers_at(w, "first_stage_model.", &ok, e);
    if (!layers_has(&top, "decoder.conv_in.weight")) return err_set(e, ERR_NOT_FOUND, "no VAE in the model");
    load_decoder(v, &top);
    v->info.can_encode = ok && layers_has_any(&top, "encoder.");
    if (v->info.can_encode) load_encoder(v, &top);
    v->info.factor = 1 << (v->levels > 0 ? v->levels - 1 : 0);
    return ok;
}

vae *vae_open(weights *w, backend *b, float scale, err *e) {
    vae *v = mem_alloc(1, sizeof *v);
    v->b = b;
    v->tile = DEFAULT_TILE;
    v->info.scale = scale;
    if (load(v, w, e)) return v;
    vae_close(v);
    return NULL;
}

void vae_close(vae *v) {
    free(v);
}
vae_info vae_describe(const vae *v) {
    return v->info;
}
void vae_tile_limit(vae *v, int tile) {
    v->tile = tile < 8 ? 8 : tile;
}

/* --- Forward ----------------------------------------------------------------------------------------------------- */

static tensor *forward_level(graph *g, const level *l, tensor *x) {
    for (int i = 0; i < l->count; i++) x = vae_resnet_forward(g, &l->blocks[i], x);
    return x;
}

/* z: [w, h, zc, 1] -> [w factor, h factor, 3, 1] */
static tensor *forward_decoder(graph *g, const vae *v, tensor *z) {
    const half *d = &v->decoder;
    if (d->quant.weight) z = nn_conv2d_same(g, z, &d->quant);
    tensor *x = vae_middle_forward(g, &d->mid, nn_conv2d_same(g, z, &d->conv_in));
    for (int i = v->levels - 1; i >= 0; i--) {
        x = forward_level(g, &d->levels[i], x);
        if (i) x = nn_conv2d_doubled_wide(g, x, &d->levels[i].sampler);
    }
    return vae_norm_conv(g, x, &d->norm_out, &d->conv_out, NULL);
}

/* rgb: [w, h, 3, 1] -> mean and log variance [w / factor, h / factor, 2 zc, 1] */
static tensor *forward_encoder(graph *g, const vae *v, tensor *rgb) {
    const half *n = &v->encoder;
    tensor *x = nn_conv2d_same(g, rgb, &n->conv_in);
    for (int i = 0; i < v->levels; i++) {
        const level *l = &n->levels[i];
        x = forward_level(g, l, x);
        if (i + 1 < v->levels) x = nn_downsample_asym(g, x, &l->sampler);
    }
    x = vae_norm_conv(g, vae_middle_forward(g, &n->mid, x), &n->norm_out, &n->conv_out, NULL);
    return n->quant.weight ? nn_conv2d_same(g, x, &n->quant) : x;
}

/* --- Both directions --------------------------------------------------------------------------------------------- */

typedef struct tile_call {
    const vae *v;
    bool decode;
    const planes *in;
    planes *out;
} tile_call;

static bool build_tile(graph *g, void *ctx, err *e) {
    (void)e;
    const tile_call *call = ctx;
    const planes *in = call->in;
    tensor *x = graph_input_f32(g, in->data, in->w, in->h, in->c, 1);
    graph_output(g, call->decode ? forward_decoder(g, call->v, x) : forward_encoder(g, call->v, x), call->out->data);
    return true;
}

static bool decode_tile(void *ctx, const planes *in, planes *out, err *e) {
    const vae *v = ctx;
    tile_call call = {v, true, in, out};
    return backend_compute(v->b, build_tile, &call, e);
}

static bool encode_tile(void *ctx, const planes *in, planes *out, err *e) {
    const vae *v = ctx;
    tile_call call = {v, false, in, out};
    return backend_compute(v->b, build_tile, &call, e);
}

bool vae_decode(vae *v, const latent *z, float *rgb, vae_progress progress, void *ctx, err *e) {
    if (z->n != 1 || z->c != v->info.latent_channels || z->w < 1 || z->h < 1)
        return err_set(e, ERR_INVALID, "VAE: latents of [%d,%d,%d,%d] do not fit", z->n, z->c, z->h, z->w);
    const int f = v->info.factor;
    planes scaled = planes_new(z->c, z->h, z->w), out = {3, z->h * f, z->w * f, rgb};
    for (size_t i = 0; i < latent_size(z); i++) scaled.data[i] = z->data[i] / v->info.scale;
    const tiles t = {.in = &scaled, .out = &out, .in_unit = 1, .out_unit = f, .size = v->tile, .overlap = v->tile / 4};
    const bool ok = tiles_run(&t, decode_tile, v, progress, ctx, e);
    planes_free(&scaled);
    return ok ? true : err_wrap(e, "VAE decoder");
}

/* Draws from the posterior: moments hold the mean, then the logarithm of the variance. */
static void sample(const float *moments, const float *noise, float scale, latent *z) {
    const size_t n = latent_size(z);
    for (size_t i = 0; i < n; i++) {
        const float log_variance = fminf(fmaxf(moments[n + i], -30.0f), 20.0f);
        const float drawn = noise ? expf(0.5f * log_variance) * noise[i] : 0.0f;
        z->data[i] = (moments[i] + drawn) * scale;
    }
}

bool vae_encode(vae *v, const float *rgb, int width, int height, const float *noise, latent *z, vae_progress progress,
                void *ctx, err *e) {
    const int f = v->info.factor, w = width / f, h = height / f, zc = v->info.latent_channels;
    if (!v->info.can_encode) return err_set(e, ERR_UNSUPPORTED, "this VAE has no encoder");
    if (w < 1 || h < 1 || w * f != width || h * f != height)
        return err_set(e, ERR_INVALID, "VAE: a picture of %dx%d is no multiple of %d", width, height, f);
    planes in = planes_new(3, height, width), moments = planes_new(2 * zc, h, w);
    memcpy(in.data, rgb, planes_size(&in) * sizeof(float));
    const tiles t = {.in = &in, .out = &moments, .in_unit = f, .out_unit = 1, .size = v->tile, .overlap = v->tile / 4};
    const bool ok = tiles_run(&t, encode_tile, v, progress, ctx, e);
    z->n = 1, z->c = zc, z->h = h, z->w = w;
    if (ok) sample(moments.data, noise, v->info.scale, z);
    planes_free(&in);
    planes_free(&moments);
    return ok ? true : err_wrap(e, "VAE encoder");
}
