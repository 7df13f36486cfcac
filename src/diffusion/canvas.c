#include "diffusion/canvas.h"

#include <string.h>

static bool too_large(const char *what, err *e) {
    return err_set(e, ERR_INVALID, "%s: cannot be scaled, or is too large", what);
}

/* Writes `src` into `dst` at x, y; it must fit. */
static void put_at(image *dst, const image *src, int x, int y) {
    const size_t c = (size_t)dst->channels, bytes = (size_t)src->width * c;
    for (int row = 0; row < src->height; row++)
        memcpy(dst->px + ((size_t)(y + row) * (size_t)dst->width + (size_t)x) * c, src->px + (size_t)row * bytes,
               bytes);
}

/* `src` at x, y of a new picture, whose border goes on with its last pixels. */
static bool surround(image *dst, const image *src, int x, int y, int width, int height) {
    const size_t c = (size_t)src->channels, stride = (size_t)width * c;
    if (!image_alloc(dst, width, height, src->channels)) return false;
    put_at(dst, src, x, y);
    for (int row = y; row < y + src->height; row++) {
        unsigned char *line = dst->px + (size_t)row * stride;
        for (int i = 0; i < x; i++) memcpy(line + (size_t)i * c, line + (size_t)x * c, c);
        const int last = x + src->width - 1;
        for (int i = last + 1; i < width; i++) memcpy(line + (size_t)i * c, line + (size_t)last * c, c);
    }
    for (int row = 0; row < y; row++) memcpy(dst->px + (size_t)row * stride, dst->px + (size_t)y * stride, stride);
    const int last = y + src->height - 1;
    for (int row = last + 1; row < height; row++)
        memcpy(dst->px + (size_t)row * stride, dst->px + (size_t)last * stride, stride);
    return true;
}

/* ---- the whole picture ------------------------------------------------------------------------------------------ */

/* Scaled to the request's size; a picture of that size stays as it is, to the byte. */
static bool fit(image *out, const image *src, const request *r) {
    if (src->width == r->init_width && src->height == r->init_height) return image_copy(out, src);
    return image_crop_to_fit(out, src, r->init_width, r->init_height);
}

static bool make_whole(canvas *c, const request *r, err *e) {
    const diffusion_extend *x = &r->params->extend;
    image rgb = {0}, fitted = {0};
    bool ok = image_convert(&rgb, r->params->init, 3, 255) && fit(&fitted, &rgb, r) &&
              surround(&c->whole, &fitted, x->left, x->top, fitted.width + x->left + x->right,
                       fitted.height + x->top + x->bottom);
    image_free(&rgb);
    image_free(&fitted);
    return ok || too_large("init_image", e);
}

/* ---- the mask --------------------------------------------------------------------------------------------------- */

/* The caller's, made as large as the initial picture, blurred there, and scaled with it. */
static bool read_mask(image *out, const request *r) {
    const diffusion_inpaint *m = &r->params->inpaint;
    const image *init = r->params->init;
    image own = {0}, scaled = {0};
    bool ok = mask_from_image(&own, m->mask);
    if (ok && (own.width != init->width || own.height != init->height)) {
        ok = image_crop_to_fit(&scaled, &own, init->width, init->height);
        image_free(&own);
        own = scaled;
    }
    if (ok && m->invert) mask_invert(&own);
    if (ok) mask_blur(&own, m->blur);
    ok = ok && fit(out, &own, r);
    image_free(&own);
    return ok;
}

/* How white a pixel is that lies `depth` (from 0) inside of the old picture, seen from a side that is extended. */
static int ramp(int depth, int feather) {
    return depth < 0 ? 255 : depth < feather ? 255 * (feather - depth) / (feather + 1) : 0;
}

static int largest(int a, int b) {
    return a > b ? a : b;
}

/* The new area, and the way over from the old one. */
static void add_extension(image *mask, const diffusion_extend *x) {
    for (int row = 0; row < mask->height; row++) {
        const int top = x->top ? ramp(row - x->top, x->feather) : 0;
        const int bottom = x->bottom ? ramp(mask->height - x->bottom - 1 - row, x->feather) : 0;
        for (int col = 0; col < mask->width; col++) {
            const int left = x->left ? ramp(col - x->left, x->feather) : 0;
            const int right = x->right ? ramp(mask->width - x->right - 1 - col, x->feather) : 0;
            unsigned char *px = mask->px + (size_t)row * (size_t)mask->width + (size_t)col;
            *px = (unsigned char)largest(*px, largest(largest(top, bottom), largest(left, right)));
        }
    }
}

/* Of the whole picture's size. */
static bool make_mask(image *out, const canvas *c, const request *r, err *e) {
    const diffusion_params *p = r->params;
    image own = {0};
    bool ok = image_alloc(out, c->whole.width, c->whole.height, 1);
    if (ok && p->inpaint.mask) {
        ok = read_mask(&own, r);
        if (ok) put_at(out, &own, p->extend.left, p->extend.top);
        image_free(&own);
    }
    if (!ok) return too_large("mask", e);
    add_extension(out, &p->extend);
    return mask_bounds(out, 0).width || err_set(e, ERR_INVALID, "mask: nothing is left to be drawn, it is empty");
}

/* ---- the part that is sampled ----------------------------------------------------------------------------------- */

/* The region, scaled into width x height in its own proportions; what remains goes on with its border. */
static bool take_part(image *out, const image *src, mask_region g, int width, int height) {
    const bool wide = (double)g.width / g.height > (double)width / height;
    int w = wide ? width : (int)((int64_t)g.width * height / g.height);
    int h = wide ? (int)((int64_t)g.height * width / g.width) : height;
    w = largest(w, 1), h = largest(h, 1);
    image cut = {0}, scaled = {0};
    bool ok = image_crop(&cut, src, g.x, g.y, g.width, g.height) && image_resize(&scaled, &cut, w, h) &&
              surround(out, &scaled, width / 2 - w / 2, height / 2 - h / 2, width, height);
    image_free(&cut);
    image_free(&scaled);
    return ok;
}

/* Twice the mask, so that whatever the model may change by half or more is seen as it made it; A1111 does so, too. */
static void strengthen(image *overlay) {
    const size_t n = image_bytes(overlay);
    for (size_t i = 0; i < n; i++) overlay->px[i] = overlay->px[i] < 128 ? (unsigned char)(2 * overlay->px[i]) : 255;
}

/* `mask` becomes the overlay. */
static bool choose_part(canvas *c, const request *r, image *mask, err *e) {
    const diffusion_inpaint *m = &r->params->inpaint;
    c->region = (mask_region){0, 0, c->whole.width, c->whole.height};
    c->overlay = *mask;
    *mask = (image){0};
    bool ok;
    if (c->overlay.px && m->only_masked) {
        c->region = mask_region_expand(mask_bounds(&c->overlay, m->padding), r->width, r->height, &c->whole);
        ok = take_part(&c->part, &c->whole, c->region, r->width, r->height) &&
             take_part(&c->mask, &c->overlay, c->region, r->width, r->height);
    } else {
        ok = image_copy(&c->part, &c->whole) && (!c->overlay.px || image_copy(&c->mask, &c->overlay));
        if (ok) strengthen(&c->overlay);
    }
    if (!ok) return too_large("init_image", e);
    if (c->mask.px && m->fill == DIFFUSION_FILL_COLOURS) mask_fill(&c->part, &c->mask);
    return true;
}

/* The enlarged first pass, of which a second one may show the middle only. */
static bool show_enlarged(const request *r, const image *src, image *out) {
    const int unit = r->width / r->columns, width = r->enlarged_columns * unit, height = r->enlarged_rows * unit;
    image large = {0};
    const bool ok = image_crop_to_fit(&large, src, width, height) &&
                    image_crop(out, &large, (r->enlarged_columns - r->columns) / 2 * unit,
                               (r->enlarged_rows - r->rows) / 2 * unit, r->width, r->height);
    image_free(&large);
    return ok;
}

bool canvas_show(const canvas *c, const request *r, const image *src, image *out) {
    image whole = {0};
    if (r->enlarged_columns) return show_enlarged(r, src, out);
    if (!c->whole.px || !r->params->inpaint.only_masked) return image_crop_to_fit(out, src, r->width, r->height);
    const bool ok = image_crop_to_fit(&whole, src, c->whole.width, c->whole.height) &&
                    take_part(out, &whole, c->region, r->width, r->height);
    image_free(&whole);
    return ok;
}

bool canvas_open(canvas *c, const request *r, err *e) {
    image mask = {0};
    *c = (canvas){0};
    bool ok = make_whole(c, r, e) && (!request_has_mask(r->params) || make_mask(&mask, c, r, e)) &&
              choose_part(c, r, &mask, e);
    image_free(&mask);
    if (!ok) canvas_close(c);
    return ok;
}

void canvas_close(canvas *c) {
    image_free(&c->whole);
    image_free(&c->overlay);
    image_free(&c->part);
    image_free(&c->mask);
}

bool canvas_finish(const canvas *c, image *made, err *e) {
    if (!c->overlay.px) return true;
    image whole = {0}, small = {0};
    bool ok = image_copy(&whole, &c->whole) && image_crop_to_fit(&small, made, c->region.width, c->region.height);
    if (ok) {
        put_at(&whole, &small, c->region.x, c->region.y);
        mask_blend(&whole, &c->whole, &c->overlay);
        image_free(made);
        *made = whole;
    } else {
        image_free(&whole);
    }
    image_free(&small);
    return ok || too_large("init_image", e);
}
