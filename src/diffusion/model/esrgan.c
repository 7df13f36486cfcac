/* esrgan.c - see esrgan.h. Reading the layers, the two networks, then pictures in tiles. Pixels become channels and
 * back outside of the graph, where it is a copy. */
#include "diffusion/model/esrgan.h"

#include "base/path.h"
#include "base/str.h"
#include "diffusion/load/weights.h"
#include "diffusion/model/layers.h"

#include <stdlib.h>
#include <string.h>

enum { THIRDS = 3, CONVS = UPSCALER_CONVS_MAX, COLOURS = 3 };

static const float slope = 0.2f, residual = 0.2f;

typedef struct dense {
    layer convs[CONVS];
} dense;

typedef struct rrdb {
    dense thirds[THIRDS];
} rrdb;

struct esrgan {
    backend *b;
    weights *w;
    upscaler_form form;
    int64_t width; /* channels within */

    layer first, body, full, last;
    layer ups[UPSCALER_UPS_MAX];
    rrdb blocks[UPSCALER_BLOCKS_MAX];

    layer convs[UPSCALER_BLOCKS_MAX + 2]; /* compact */
    tensor *slopes[UPSCALER_BLOCKS_MAX + 2];
};

/* --- reading ------------------------------------------------------------------------------------------------------ */

/* Each convolution of a dense block sees the block's input and all results before. */
static void load_dense(esrgan *u, const layers *l, int block, int third) {
    char name[UPSCALER_NAME_MAX], weight[UPSCALER_NAME_MAX + 8];
    int64_t in = u->width;
    for (int i = 0; i < CONVS; i++) {
        upscaler_name_dense(&u->form, block, third, i, name);
        snprintf(weight, sizeof weight, "%s.weight", name);
        const int64_t out = i + 1 < CONVS ? layers_dim(l, weight, 3) : u->width;
        u->blocks[block].thirds[third].convs[i] = layer_conv(l, name, 3, in, out);
        in += out;
    }
}

static void load_rrdb(esrgan *u, const layers *l) {
    const upscaler_form *f = &u->form;
    char name[UPSCALER_NAME_MAX], weight[UPSCALER_NAME_MAX + 8];
    upscaler_name_first(f, name);
    snprintf(weight, sizeof weight, "%s.weight", name);
    u->width = layers_dim(l, weight, 3);
    u->first = layer_conv(l, name, 3, COLOURS * f->shrink * f->shrink, u->width);
    for (int i = 0; i < f->blocks; i++)
        for (int k = 0; k < THIRDS; k++) load_dense(u, l, i, k);
    upscaler_name_body(f, name);
    u->body = layer_conv(l, name, 3, u->width, u->width);
    for (int i = 0; i < f->ups; i++) {
        upscaler_name_up(f, i, name);
        u->ups[i] = layer_conv(l, name, 3, u->width, u->width);
    }
    upscaler_name_full(f, name);
    u->full = layer_conv(l, name, 3, u->width, u->width);
    upscaler_name_last(f, name);
    u->last = layer_conv(l, name, 3, u->width, COLOURS);
}

static void load_compact(esrgan *u, const layers *l) {
    const int count = u->form.blocks + 2, scale = u->form.scale;
    char name[UPSCALER_NAME_MAX];
    int64_t in = COLOURS;
    u->width = layers_dim(l, "body.0.weight", 3);
    for (int i = 0; i < count; i++) {
        const int64_t out = i + 1 < count ? u->width : COLOURS * scale * scale;
        snprintf(name, sizeof name, "body.%d", 2 * i);
        u->convs[i] = layer_conv(l, name, 3, in, out);
        if (i + 1 < count) {
            snprintf(name, sizeof name, "body.%d", 2 * i + 1);
            u->slopes[i] = layer_vector(l, name, out);
        }
        in = out;
    }
}

static bool read_form(esrgan *u, const char *path, err *e) {
    tensor_file *f = tensor_file_open_header(path, e);
    if (!f) return false;
    bool ok = upscaler_form_read(f, &u->form, e);
    if (ok && u->form.kind == UPSCALER_NONE)
        ok = err_set(e, ERR_UNSUPPORTED, "holds no upscaler that is known (ESRGAN, Real-ESRGAN)");
    tensor_file_close(f);
    return ok || err_wrap(e, "'%.60s'", path_base(path));
}

static bool load(esrgan *u, const char *path, err *e) {
    bool ok = true;
    if (!read_form(u, path, e) || !(u->w = weights_open(&(weights_files){.model = path}, e))) return false;
    const layers l = layers_at(u->w, "", &ok, e);
    if (u->form.kind == UPSCALER_RRDB)
        load_rrdb(u, &l);
    else
        load_compact(u, &l);
    return ok && weights_commit(u->w, "", backend_handle(u->b), NULL, NULL, e);
}

esrgan *esrgan_open(const char *path, backend *b, err *e) {
    esrgan *u = mem_alloc(1, sizeof *u);
    u->b = b;
    if (load(u, path, e)) return u;
    esrgan_close(u);
    return NULL;
}

void esrgan_close(esrgan *u) {
    if (!u) return;
    weights_close(u->w);
    free(u);
}

int esrgan_scale(const esrgan *u) {
    return u->form.scale;
}

/* --- forward ------------------------------------------------------------------------------------------------------ */

static tensor *leaky(graph *g, tensor *x) {
    return ggml_leaky_relu(g->ctx, x, slope, false);
}

static tensor *forward_dense(graph *g, const dense *d, tensor *x) {
    tensor *all = x, *y = NULL;
    for (int i = 0; i < CONVS; i++) {
        y = nn_conv2d_same(g, all, &d->convs[i]);
        if (i + 1 < CONVS) all = nn_join(g, all, leaky(g, y));
    }
    return ggml_add(g->ctx, ggml_scale(g->ctx, y, residual), x);
}

static tensor *forward_block(graph *g, const rrdb *r, tensor *x) {
    tensor *y = x;
    for (int i = 0; i < THIRDS; i++) y = forward_dense(g, &r->thirds[i], y);
    return ggml_add(g->ctx, ggml_scale(g->ctx, y, residual), x);
}

static tensor *forward_rrdb(graph *g, const esrgan *u, tensor *x) {
    x = nn_conv2d_same(g, x, &u->first);
    tensor *y = x;
    for (int i = 0; i < u->form.blocks; i++) y = forward_block(g, &u->blocks[i], y);
    x = ggml_add(g->ctx, x, nn_conv2d_same(g, y, &u->body));
    for (int i = 0; i < u->form.ups; i++) x = leaky(g, nn_conv2d_doubled(g, x, &u->ups[i]));
    return nn_conv2d_same(g, leaky(g, nn_conv2d_same(g, x, &u->full)), &u->last);
}

/* Slopes of their own for what is negative in each channel (PReLU, He et al. 2015). */
static tensor *sloped(graph *g, tensor *x, tensor *slopes) {
    tensor *positive = ggml_relu(g->ctx, x), *negative = ggml_sub(g->ctx, x, positive);
    return ggml_add(g->ctx, positive,
                    ggml_mul(g->ctx, negative, ggml_reshape_4d(g->ctx, slopes, 1, 1, slopes->ne[0], 1)));
}

static tensor *forward_compact(graph *g, const esrgan *u, tensor *x) {
    const int last = u->form.blocks + 1;
    for (int i = 0; i < last; i++) x = sloped(g, nn_conv2d_same(g, x, &u->convs[i]), u->slopes[i]);
    return nn_conv2d_same(g, x, &u->convs[last]);
}

/* --- pixels and channels ------------------------------------------------------------------------------------------ */

/* n x n pixels of a plane <-> n^2 channels of one: channel (c n + dy) n + dx (torch's pixel_shuffle and its reverse).
 */
static void to_channels(const planes *in, planes *out, int n) {
    for (int c = 0; c < out->c; c++) {
        const int dx = c % n, dy = c / n % n, from = c / (n * n);
        for (int y = 0; y < out->h; y++)
            for (int x = 0; x < out->w; x++)
                out->data[((size_t)c * (size_t)out->h + (size_t)y) * (size_t)out->w + (size_t)x] =
                    in->data[((size_t)from * (size_t)in->h + (size_t)(y * n + dy)) * (size_t)in->w +
                             (size_t)(x * n + dx)];
    }
}

/* And each pixel of the picture enlarged to n x n added, from which a compact network gives the difference. */
static void to_pixels(const planes *channels, const planes *picture, planes *out, int n) {
    const size_t plane = (size_t)channels->h * (size_t)channels->w;
    float *to = out->data;
    for (int c = 0; c < out->c; c++) {
        for (int y = 0; y < out->h; y++) {
            for (int x = 0; x < out->w; x++) {
                const size_t at = (size_t)(y / n) * (size_t)channels->w + (size_t)(x / n);
                const size_t from = (size_t)((c * n + y % n) * n + x % n);
                *to++ = channels->data[from * plane + at] + picture->data[(size_t)c * plane + at];
            }
        }
    }
}

/* --- tiles -------------------------------------------------------------------------------------------------------- */

typedef struct call {
    const esrgan *u;
    const planes *in;
    float *out;
} call;

static bool build(graph *g, void *ctx, err *e) {
    (void)e;
    const call *c = ctx;
    tensor *x = graph_input_f32(g, c->in->data, c->in->w, c->in->h, c->in->c, 1);
    tensor *y = c->u->form.kind == UPSCALER_RRDB ? forward_rrdb(g, c->u, x) : forward_compact(g, c->u, x);
    graph_output(g, y, c->out);
    return true;
}

static bool compact_tile(const esrgan *u, const planes *rgb, planes *out, err *e) {
    const int n = u->form.scale;
    planes channels = planes_new(COLOURS * n * n, rgb->h, rgb->w);
    const bool ok = backend_compute(u->b, build, &(call){u, rgb, channels.data}, e);
    if (ok) to_pixels(&channels, rgb, out, n);
    planes_free(&channels);
    return ok;
}

bool esrgan_tile(void *esrgan_ctx, const planes *rgb, planes *out, err *e) {
    const esrgan *u = esrgan_ctx;
    const int n = u->form.shrink;
    if (u->form.kind == UPSCALER_COMPACT) return compact_tile(u, rgb, out, e);
    if (n == 1) return backend_compute(u->b, build, &(call){u, rgb, out->data}, e);
    planes channels = planes_new(COLOURS * n * n, rgb->h / n, rgb->w / n);
    to_channels(rgb, &channels, n);
    const bool ok = backend_compute(u->b, build, &(call){u, &channels, out->data}, e);
    planes_free(&channels);
    return ok;
}

/* In units of `shrink` pixels. */
static tiles plan(const esrgan *u, const planes *in, planes *out, int tile) {
    const int n = u->form.shrink;
    return (tiles){.in = in,
                   .out = out,
                   .in_unit = n,
                   .out_unit = n * u->form.scale,
                   .size = tile / n,
                   .overlap = ESRGAN_OVERLAP / n};
}

static int up_to(int v, int multiple) {
    return (v + multiple - 1) / multiple * multiple;
}

int esrgan_tiles(const esrgan *u, int width, int height, int tile) {
    const planes in = {COLOURS, up_to(height, u->form.shrink), up_to(width, u->form.shrink), NULL};
    const tiles t = plan(u, &in, NULL, tile);
    return tiles_count(&t);
}

/* The last row and column again, until the size is a multiple. */
static planes padded(const planes *p, int multiple) {
    planes out = planes_new(p->c, up_to(p->h, multiple), up_to(p->w, multiple));
    float *to = out.data;
    for (int c = 0; c < out.c; c++)
        for (int y = 0; y < out.h; y++)
            for (int x = 0; x < out.w; x++) {
                const int from_y = y < p->h ? y : p->h - 1, from_x = x < p->w ? x : p->w - 1;
                *to++ = p->data[((size_t)c * (size_t)p->h + (size_t)from_y) * (size_t)p->w + (size_t)from_x];
            }
    return out;
}

static void crop(const planes *from, planes *to) {
    for (int c = 0; c < to->c; c++)
        for (int y = 0; y < to->h; y++)
            memcpy(to->data + ((size_t)c * (size_t)to->h + (size_t)y) * (size_t)to->w,
                   from->data + ((size_t)c * (size_t)from->h + (size_t)y) * (size_t)from->w,
                   (size_t)to->w * sizeof(float));
}

bool esrgan_run(const esrgan *u, const planes *rgb, planes *out, int tile, tiles_fn fn, void *fn_ctx,
                tiles_progress progress, void *progress_ctx, err *e) {
    const int n = u->form.shrink;
    if (rgb->w % n == 0 && rgb->h % n == 0) {
        const tiles t = plan(u, rgb, out, tile);
        return tiles_run(&t, fn, fn_ctx, progress, progress_ctx, e);
    }
    planes in = padded(rgb, n), whole = planes_new(COLOURS, in.h * u->form.scale, in.w * u->form.scale);
    const tiles t = plan(u, &in, &whole, tile);
    const bool ok = tiles_run(&t, fn, fn_ctx, progress, progress_ctx, e);
    if (ok) crop(&whole, out);
    planes_free(&in);
    planes_free(&whole);
    return ok;
}

/* At full size four planes of the network's width live at once; with some room for the rest. */
static size_t tile_bytes(const esrgan *u, int tile) {
    const size_t pixels = (size_t)tile * (size_t)tile;
    const size_t enlarged = u->form.kind == UPSCALER_COMPACT ? 1 : (size_t)u->form.scale * (size_t)u->form.scale;
    const size_t dense_channels = 12; /* in widths: a block's inputs and results, concatenated more than once */
    return pixels * (enlarged * 4 + dense_channels) * (size_t)u->width * sizeof(float) + ((size_t)64 << 20);
}

int esrgan_choose_tile(const esrgan *u, size_t free_bytes) {
    static const int SIZES[] = {ESRGAN_TILE_MAX, 128, 96, 64};
    for (size_t i = 0; i < sizeof SIZES / sizeof *SIZES; i++)
        if (free_bytes == 0 || tile_bytes(u, SIZES[i]) <= free_bytes) return SIZES[i];
    return ESRGAN_TILE_MIN;
}
