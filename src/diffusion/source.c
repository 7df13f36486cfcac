#include "diffusion/source.h"

#include "base/str.h"
#include "diffusion/image/resample.h"
#include "diffusion/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int source_appended(const diffusion *d) {
    return unet_describe(d->unet).in_channels - vae_describe(d->vae).latent_channels;
}

float *source_planes(const image *rgb) {
    const size_t n = (size_t)rgb->width * (size_t)rgb->height;
    float *planes = mem_alloc(3 * n, sizeof(float));
    for (size_t i = 0; i < n; i++) {
        for (size_t c = 0; c < 3; c++) planes[c * n + i] = (float)rgb->px[3 * i + c] / 127.5f - 1.0f;
    }
    return planes;
}

bool source_encode(diffusion *d, const request *r, const float *planes, float *latents, vae_progress progress,
                   void *ctx, err *e) {
    latent z = {.n = 1, .c = r->channels, .h = r->rows, .w = r->columns, .data = latents};
    vae_tile_limit(d->vae, memory_choose_tile(d, r));
    return vae_encode(d->vae, planes, r->width, r->height, NULL, &z, progress, ctx, e);
}

/* ---- the mask ---------------------------------------------------------------------------------------------------- */

/* Reduced as Pillow's bicubic filter does, then rounded: half a cell counts as white. */
static float *latent_mask(const image *mask, const request *r) {
    const size_t pixels = image_bytes(mask), cells = (size_t)r->rows * (size_t)r->columns;
    float *gray = mem_alloc(pixels, sizeof *gray), *out = mem_alloc(cells, sizeof *out);
    for (size_t i = 0; i < pixels; i++) gray[i] = (float)mask->px[i];
    resample_planes(gray, 1, (plane_size){mask->height, mask->width}, out, (plane_size){r->rows, r->columns},
                    RESAMPLE_BICUBIC_ANTIALIAS);
    for (size_t i = 0; i < cells; i++) out[i] = out[i] >= 127.499f ? 1.0f : 0.0f;
    free(gray);
    return out;
}

/* ---- what the network sees besides ---------------------------------------------------------------------------------
 */

static bool is_white(const image *mask, size_t i) {
    return !mask->px || mask->px[i] >= 128;
}

/* The picture with gray instead of what is drawn anew: 0 is the middle of -1..1. */
static float *masked_planes(const canvas *c, const request *r) {
    const size_t n = (size_t)r->width * (size_t)r->height;
    float *planes = c->part.px ? source_planes(&c->part) : mem_alloc(3 * n, sizeof(float));
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < 3 && is_white(&c->mask, i); k++) planes[k * n + i] = 0.0f;
    return planes;
}

/* [1 + channels, rows, columns]: the mask, then the latents of what it leaves. */
static bool append_masked(source *s, diffusion *d, const request *r, vae_progress progress, void *ctx, err *e) {
    const size_t cells = (size_t)r->rows * (size_t)r->columns;
    const int factor = r->width / r->columns;
    s->appended = mem_alloc(cells + request_values(r), sizeof(float));
    for (size_t i = 0; i < cells; i++) { /* a cell is what its first pixel is */
        const size_t row = i / (size_t)r->columns, col = i % (size_t)r->columns;
        const size_t px = (row * (size_t)r->width + col) * (size_t)factor;
        s->appended[i] = is_white(&s->canvas.mask, px) ? 1.0f : 0.0f;
    }
    float *planes = masked_planes(&s->canvas, r);
    const bool ok = source_encode(d, r, planes, s->appended + cells, progress, ctx, e);
    free(planes);
    return ok;
}

/* The initial picture's latents, without the scale that the ones to be denoised have. */
static void append_latents(source *s, const diffusion *d, const request *r) {
    const size_t n = request_values(r);
    const float scale = vae_describe(d->vae).scale;
    s->appended = mem_alloc(n, sizeof(float));
    for (size_t i = 0; i < n; i++) s->appended[i] = s->latents[i] / scale;
}

static bool append(source *s, diffusion *d, const request *r, vae_progress progress, void *ctx, err *e) {
    if (d->info.inpaints) return append_masked(s, d, r, progress, ctx, e);
    if (d->info.edits) append_latents(s, d, r);
    return true;
}

/* ---- the whole -----------------------------------------------------------------------------------------------------
 */

static bool encode_picture(source *s, diffusion *d, const request *r, vae_progress progress, void *ctx, err *e) {
    if (!canvas_open(&s->canvas, r, e)) return false;
    s->latents = mem_alloc(request_values(r), sizeof(float));
    if (s->canvas.mask.px) s->mask = latent_mask(&s->canvas.mask, r);
    float *planes = source_planes(&s->canvas.part);
    const bool ok = source_encode(d, r, planes, s->latents, progress, ctx, e);
    free(planes);
    return ok || err_wrap(e, "init_image");
}

bool source_open(source *s, diffusion *d, const request *r, vae_progress progress, void *ctx, err *e) {
    *s = (source){0};
    bool ok = (!r->params->init || encode_picture(s, d, r, progress, ctx, e)) && append(s, d, r, progress, ctx, e);
    if (!ok) source_close(s);
    return ok;
}

void source_close(source *s) {
    canvas_close(&s->canvas);
    free(s->latents);
    free(s->mask);
    free(s->start);
    free(s->appended);
    *s = (source){0};
}

/* Of the picture's own seed, as A1111 draws it: the same values that are sampling's first noise. */
static void fill_anew(source *s, const request *r, rng *noise) {
    const diffusion_fill fill = r->params->inpaint.fill;
    const size_t n = request_values(r), cells = (size_t)r->rows * (size_t)r->columns;
    if (!s->mask || (fill != DIFFUSION_FILL_NOISE && fill != DIFFUSION_FILL_NOTHING)) return;
    float *drawn = mem_alloc(n, sizeof *drawn);
    if (fill == DIFFUSION_FILL_NOISE) rng_normal(noise, 0, drawn);
    for (size_t i = 0; i < n; i++)
        if (s->mask[i % cells] != 0.0f) s->start[i] = drawn[i];
    free(drawn);
}

void source_begin(source *s, const request *r, rng *noise) {
    const size_t n = request_values(r);
    if (!s->latents) return;
    if (!s->start) s->start = mem_alloc(n, sizeof(float));
    memcpy(s->start, s->latents, n * sizeof(float));
    fill_anew(s, r, noise);
}
