/* vae.c - see vae.h. First the two networks, then their forward passes on one tile, then tiles. */
#include "diffusion/model/vae.h"

#include "base/str.h"
#include "diffusion/model/vae_blocks.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LEVELS = 8, MAX_BLOCKS = 8, DEFAULT_TILE = 64 };
static const float sd1_scale = 0.18215f;

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
    if (layers_has(top, "post_quant_conv.weight")) d->quant = layer_conv(top, "post_quant_conv", 1, zc, zc);
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
    if (layers_has(top, "quant_conv.weight")) n->quant = layer_conv(top, "quant_conv", 1, moments, moments);
}

static bool load(vae *v, weights *w, err *e) {
    bool ok = true;
    const layers top = layers_at(w, "first_stage_model.", &ok, e);
    if (!layers_has(&top, "decoder.conv_in.weight")) return err_set(e, ERR_NOT_FOUND, "no VAE in the model");
    load_decoder(v, &top);
    v->info.can_encode = ok && layers_has(&top, "encoder.conv_in.weight");
    if (v->info.can_encode) load_encoder(v, &top);
    v->info.factor = 1 << (v->levels > 0 ? v->levels - 1 : 0);
    v->info.scale = sd1_scale;
    return ok;
}

vae *vae_open(weights *w, backend *b, err *e) {
    vae *v = mem_alloc(1, sizeof *v);
    v->b = b;
    v->tile = DEFAULT_TILE;
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
        if (i) x = nn_conv2d_same(g, nn_upsample2(g, x), &d->levels[i].sampler);
    }
    return nn_conv2d_same(g, vae_norm_silu(g, x, &d->norm_out), &d->conv_out);
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
    x = nn_conv2d_same(g, vae_norm_silu(g, vae_middle_forward(g, &n->mid, x), &n->norm_out), &n->conv_out);
    return n->quant.weight ? nn_conv2d_same(g, x, &n->quant) : x;
}

/* --- Tiles ------------------------------------------------------------------------------------------------------- */

/* Planes of one size in host memory. */
typedef struct planes {
    int c, h, w;
    float *data;
} planes;

/* A direction of work: what goes in, what comes out, and the tile at hand. Sizes of tiles are in latents. */
typedef struct job {
    const vae *v;
    bool decode;
    planes in, out;
    int in_factor, out_factor; /* pixels per latent on either side: factor or 1 */
    float *weight;             /* [out.h, out.w]: the sum of the tiles' shares of each pixel; NULL for a single tile */
    planes tile_in, tile_out;
} job;

static float *plane_row(const planes *p, int c, int y) {
    return p->data + ((size_t)c * (size_t)p->h + (size_t)y) * (size_t)p->w;
}

static bool build_tile(graph *g, void *ctx, err *e) {
    (void)e;
    const job *j = ctx;
    tensor *x = graph_input_f32(g, j->tile_in.data, j->tile_in.w, j->tile_in.h, j->tile_in.c, 1);
    graph_output(g, j->decode ? forward_decoder(g, j->v, x) : forward_encoder(g, j->v, x), j->tile_out.data);
    return true;
}

/* Tiles along one axis of `size` latents: the last one ends at the edge. */
static int tile_count(int size, int tile, int overlap) {
    return size <= tile ? 1 : (size - overlap + tile - overlap - 1) / (tile - overlap);
}

static int tile_start(int index, int size, int tile, int overlap) {
    const int start = index * (tile - overlap);
    return start + tile > size ? (size > tile ? size - tile : 0) : start;
}

/* A tile's share of a pixel: rises over the overlap from every edge that is not the picture's own. */
static float share(int at, int size, int start, int whole, int overlap) {
    float low = 1, high = 1;
    if (start > 0) low = ((float)at + 0.5f) / (float)overlap;
    if (start + size < whole) high = ((float)(size - at) - 0.5f) / (float)overlap;
    return fminf(1.0f, fminf(low, high));
}

static void cut_tile(job *j, int x, int y) {
    for (int c = 0; c < j->in.c; c++)
        for (int r = 0; r < j->tile_in.h; r++)
            memcpy(plane_row(&j->tile_in, c, r), plane_row(&j->in, c, y * j->in_factor + r) + x * j->in_factor,
                   (size_t)j->tile_in.w * sizeof(float));
}

/* Adds the finished tile with its shares. */
static void blend_tile(job *j, int x0, int y0, int overlap) {
    const int f = j->out_factor, x = x0 * f, y = y0 * f;
    for (int r = 0; r < j->tile_out.h; r++) {
        const float sy = share(r, j->tile_out.h, y, j->out.h, overlap * f);
        for (int k = 0; k < j->tile_out.w; k++) {
            const float s = sy * share(k, j->tile_out.w, x, j->out.w, overlap * f);
            for (int c = 0; c < j->out.c; c++)
                plane_row(&j->out, c, y + r)[x + k] += s * plane_row(&j->tile_out, c, r)[k];
            j->weight[(size_t)(y + r) * (size_t)j->out.w + (size_t)(x + k)] += s;
        }
    }
}

static void divide_by_weight(job *j) {
    const size_t n = (size_t)j->out.w * (size_t)j->out.h;
    for (int c = 0; c < j->out.c; c++)
        for (size_t i = 0; i < n; i++) j->out.data[(size_t)c * n + i] /= j->weight[i];
}

static planes new_planes(int c, int h, int w) {
    return (planes){c, h, w, mem_alloc((size_t)c * (size_t)h * (size_t)w, sizeof(float))};
}

static bool run_tiles(job *j, int w, int h, vae_progress progress, void *ctx, err *e) {
    const int tile = j->v->tile, overlap = tile / 4 ? tile / 4 : 1;
    const int tw = w < tile ? w : tile, th = h < tile ? h : tile;
    const int nx = tile_count(w, tile, overlap), ny = tile_count(h, tile, overlap);
    j->tile_in = new_planes(j->in.c, th * j->in_factor, tw * j->in_factor);
    j->tile_out = new_planes(j->out.c, th * j->out_factor, tw * j->out_factor);
    j->weight = mem_alloc((size_t)j->out.w * (size_t)j->out.h, sizeof(float));
    memset(j->out.data, 0, (size_t)j->out.c * (size_t)j->out.h * (size_t)j->out.w * sizeof(float));
    bool ok = true;
    for (int i = 0; i < nx * ny && ok; i++) {
        const int x = tile_start(i % nx, w, tile, overlap), y = tile_start(i / nx, h, tile, overlap);
        cut_tile(j, x, y);
        ok = backend_compute(j->v->b, build_tile, j, e);
        if (ok) blend_tile(j, x, y, overlap);
        if (ok && progress) progress(ctx, i + 1, nx * ny);
    }
    if (ok) divide_by_weight(j);
    free(j->tile_in.data);
    free(j->tile_out.data);
    free(j->weight);
    return ok;
}

/* w, h: the size in latents. */
static bool run(job *j, int w, int h, vae_progress progress, void *ctx, err *e) {
    if (w > j->v->tile || h > j->v->tile) return run_tiles(j, w, h, progress, ctx, e);
    j->tile_in = j->in;
    j->tile_out = j->out;
    if (!backend_compute(j->v->b, build_tile, j, e)) return false;
    if (progress) progress(ctx, 1, 1);
    return true;
}

/* --- Both directions --------------------------------------------------------------------------------------------- */

bool vae_decode(vae *v, const latent *z, float *rgb, vae_progress progress, void *ctx, err *e) {
    if (z->n != 1 || z->c != v->info.latent_channels || z->w < 1 || z->h < 1)
        return err_set(e, ERR_INVALID, "VAE: latents of [%d,%d,%d,%d] do not fit", z->n, z->c, z->h, z->w);
    const int f = v->info.factor;
    planes scaled = new_planes(z->c, z->h, z->w);
    for (size_t i = 0; i < latent_size(z); i++) scaled.data[i] = z->data[i] / v->info.scale;
    job j = {
        .v = v, .decode = true, .in = scaled, .out = {3, z->h * f, z->w * f, rgb}, .in_factor = 1, .out_factor = f};
    const bool ok = run(&j, z->w, z->h, progress, ctx, e);
    free(scaled.data);
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
    planes in = {3, height, width, mem_alloc((size_t)3 * (size_t)height * (size_t)width, sizeof(float))};
    memcpy(in.data, rgb, (size_t)3 * (size_t)height * (size_t)width * sizeof(float));
    planes moments = new_planes(2 * zc, h, w);
    job j = {.v = v, .in = in, .out = moments, .in_factor = f, .out_factor = 1};
    const bool ok = run(&j, w, h, progress, ctx, e);
    z->n = 1, z->c = zc, z->h = h, z->w = w;
    if (ok) sample(moments.data, noise, v->info.scale, z);
    free(in.data);
    free(moments.data);
    return ok ? true : err_wrap(e, "VAE encoder");
}
