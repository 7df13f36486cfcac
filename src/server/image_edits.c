/* image_edits.c - see image_edits.h. */
#include "server/image_edits.h"
#include "base/str.h"
#include "diffusion/image/upscalers.h"
#include "server/image_fields.h"
#include "server/image_params.h"

#include <stdlib.h>

#define HIRES_STRENGTH_MIN 0.01

const char *const image_edits_keys[] = {"mask",         "mask_invert", "mask_blur", "mask_fill",       "inpaint_area",
                                        "mask_padding", "outpaint",    "hires",     "image_cfg_scale", NULL};

static const char *const fills[] = {"original", "fill", "latent_noise", "latent_nothing", NULL};
static const char *const areas[] = {"whole", "masked", NULL};

static const image_edits defaults = {.mask_blur = 4,
                                     .mask_padding = 32,
                                     .outpaint = {.feather = 32},
                                     .hires = {.strength = 0.7},
                                     .image_cfg_scale = 1.5};

void image_edits_init(image_edits *x) {
    *x = defaults;
    x->hires.upscaler = str_dup(upscaler_names[0]);
}

void image_edits_free(image_edits *x) {
    free(x->mask);
    free(x->hires.upscaler);
    x->mask = x->hires.upscaler = NULL;
}

void image_edits_copy(image_edits *to, const image_edits *from) {
    *to = *from;
    to->mask = str_dup(from->mask);
    to->hires.upscaler = str_dup(from->hires.upscaler);
}

/* ---- reading ---------------------------------------------------------------------------------------------------- */

/* One that is none of the engine's own is looked for among the networks when the model is chosen. */
static bool read_upscaler(const json_in *in, char **out, err *e) {
    const char *text = NULL;
    if (!json_get_str(in, "upscaler", &text, e)) return false;
    const upscaler *own = upscaler_find(text);
    if (!str_empty(text)) str_set(out, own ? own->name : text);
    return true;
}

/* A number of pixels that latents can have. */
static bool read_pixels(const json_in *in, const char *key, int *out, int min, int max, err *e) {
    int v = 0;
    if (!field_int(in, key, &v, 0, max, e)) return false;
    if (v && v < min)
        return err_set(e, ERR_INVALID, "%s: %d is not between %d and %d", json_at(in, key).path, v, min, max);
    if (v % 8) return err_set(e, ERR_INVALID, "%s: %d is not a multiple of 8", json_at(in, key).path, v);
    *out = v;
    return true;
}

static bool read_outpaint(image_outpaint *o, const json_in *in, err *e) {
    const int most = EDITS_OUTPAINT_MAX;
    return read_pixels(in, "left", &o->left, 0, most, e) && read_pixels(in, "right", &o->right, 0, most, e) &&
           read_pixels(in, "top", &o->top, 0, most, e) && read_pixels(in, "bottom", &o->bottom, 0, most, e) &&
           field_int(in, "feather", &o->feather, 0, EDITS_FEATHER_MAX, e);
}

static bool read_hires(image_hires *h, const json_in *in, err *e) {
    bool ok = field_real(in, "scale", &h->scale, 1, EDITS_HIRES_SCALE_MAX, e) &&
              read_pixels(in, "width", &h->width, PARAMS_SIZE_MIN, PARAMS_SIZE_MAX, e) &&
              read_pixels(in, "height", &h->height, PARAMS_SIZE_MIN, PARAMS_SIZE_MAX, e) &&
              field_int(in, "steps", &h->steps, 0, PARAMS_STEPS_MAX, e) &&
              field_real(in, "strength", &h->strength, HIRES_STRENGTH_MIN, 1, e) && read_upscaler(in, &h->upscaler, e);
    if (!ok || h->scale > 0 || h->width || h->height) return ok;
    return err_set(e, ERR_INVALID, "hires.scale: required, or width, or height");
}

/* The object below `key`; in->val is NULL when there is none. Its document, if any, is to be freed. */
static bool open_object(const json_in *body, const char *key, const char *const *keys, size_t count, bool strict,
                        json_in *in, yyjson_doc **doc, err *e) {
    field_json(body, key, in, doc);
    if (!in->val) return true;
    if (!yyjson_is_obj(in->val)) return field_wrong_type(in, "object", e);
    return !strict || json_check_keys(in, keys, count, e) || err_wrap(e, "%s", key);
}

static bool read_objects(image_edits *x, const json_in *body, bool strict, err *e) {
    static const char *const sides[] = {"left", "right", "top", "bottom", "feather"};
    static const char *const of_hires[] = {"scale", "width", "height", "steps", "strength", "upscaler"};
    json_in in;
    yyjson_doc *doc;
    bool ok = open_object(body, "outpaint", sides, 5, strict, &in, &doc, e);
    if (ok && in.val) ok = read_outpaint(&x->outpaint, &in, e);
    yyjson_doc_free(doc);
    if (!ok) return false;
    ok = open_object(body, "hires", of_hires, 6, strict, &in, &doc, e);
    if (ok && in.val) ok = read_hires(&x->hires, &in, e);
    yyjson_doc_free(doc);
    return ok;
}

bool image_edits_read(image_edits *x, const json_in *body, bool strict, err *e) {
    const char *mask = NULL, *area = NULL;
    bool ok = json_get_str(body, "mask", &mask, e) && field_bool(body, "mask_invert", &x->mask_invert, e) &&
              field_real(body, "mask_blur", &x->mask_blur, 0, EDITS_MASK_BLUR_MAX, e) &&
              field_name(body, "mask_fill", NULL, fills, &x->mask_fill, e) &&
              field_name(body, "inpaint_area", NULL, areas, &area, e) &&
              field_int(body, "mask_padding", &x->mask_padding, 0, EDITS_MASK_PADDING_MAX, e) &&
              field_real(body, "image_cfg_scale", &x->image_cfg_scale, 0, 50, e) && read_objects(x, body, strict, e);
    if (!ok) return false;
    if (!str_empty(mask)) str_set(&x->mask, mask);
    if (area) x->only_masked = area == areas[1];
    return true;
}

/* ---- what they mean --------------------------------------------------------------------------------------------- */

bool image_edits_extends(const image_edits *x) {
    const image_outpaint *o = &x->outpaint;
    return o->left || o->right || o->top || o->bottom;
}

bool image_edits_has_hires(const image_edits *x) {
    return x->hires.scale > 0 || x->hires.width || x->hires.height;
}

bool image_edits_check(const image_edits *x, bool has_init, err *e) {
    if (has_init) {
        if (image_edits_has_hires(x)) return err_set(e, ERR_INVALID, "hires: not together with init_image");
        return !x->only_masked || x->mask || image_edits_extends(x) ||
               err_set(e, ERR_INVALID, "inpaint_area: 'masked' needs a mask");
    }
    if (x->mask) return err_set(e, ERR_INVALID, "mask: needs an initial picture (init_image)");
    return !image_edits_extends(x) ||
           err_set(e, ERR_INVALID, "outpaint: needs an initial picture (init_image) to extend");
}

static int in_proportion(int side, int from, int to) {
    return (int)((int64_t)side * to / from);
}

void image_edits_size(const image_edits *x, int *width, int *height) {
    const image_hires *h = &x->hires;
    const int w = *width, tall = *height;
    if (!image_edits_has_hires(x) || w < 1 || tall < 1) return;
    if (!h->width && !h->height) {
        *width = (int)(w * h->scale);
        *height = (int)(tall * h->scale);
        return;
    }
    *width = h->width ? h->width : in_proportion(w, tall, h->height);
    *height = h->height ? h->height : in_proportion(tall, w, h->width);
}

/* ---- writing ---------------------------------------------------------------------------------------------------- */

static bool differ(double a, double b) {
    return a < b || a > b;
}

static void end_object(buf *out) {
    out->data[out->len - 1] = '}'; /* the last comma */
    buf_putc(out, ',');
}

static void write_hires(const image_hires *h, buf *out) {
    buf_puts(out, "\"hires\":{");
    if (h->scale > 0) field_write_real(out, "scale", h->scale);
    if (h->width) buf_printf(out, "\"width\":%d,", h->width);
    if (h->height) buf_printf(out, "\"height\":%d,", h->height);
    if (h->steps) buf_printf(out, "\"steps\":%d,", h->steps);
    field_write_real(out, "strength", h->strength);
    field_write_string(out, "upscaler", h->upscaler);
    end_object(out);
}

void image_edits_write(const image_edits *x, buf *out) {
    const image_outpaint *o = &x->outpaint;
    const bool extends = image_edits_extends(x);
    if (x->mask && x->mask_invert) buf_puts(out, "\"mask_invert\":true,");
    if (x->mask) field_write_real(out, "mask_blur", x->mask_blur);
    if (x->mask || extends) {
        field_write_string(out, "mask_fill", x->mask_fill ? x->mask_fill : fills[extends]);
        field_write_string(out, "inpaint_area", areas[x->only_masked]);
        buf_printf(out, "\"mask_padding\":%d,", x->mask_padding);
    }
    if (extends)
        buf_printf(out, "\"outpaint\":{\"left\":%d,\"right\":%d,\"top\":%d,\"bottom\":%d,\"feather\":%d},", o->left,
                   o->right, o->top, o->bottom, o->feather);
    if (image_edits_has_hires(x)) write_hires(&x->hires, out);
    if (differ(x->image_cfg_scale, defaults.image_cfg_scale))
        field_write_real(out, "image_cfg_scale", x->image_cfg_scale);
}

void image_edits_write_lists(buf *out) {
    field_write_names(out, "upscalers", upscaler_names);
    field_write_names(out, "mask_fills", fills);
    field_write_names(out, "inpaint_areas", areas);
}

void image_edits_write_limits(buf *out) {
    buf_printf(out,
               "\"mask_blur\":[0,%d],\"mask_padding\":[0,%d],\"outpaint\":[0,%d],\"outpaint_feather\":[0,%d],"
               "\"hires_scale\":[1,%d],\"hires_steps\":[0,%d],\"hires_strength\":[%g,1],\"image_cfg_scale\":[0,50],",
               EDITS_MASK_BLUR_MAX, EDITS_MASK_PADDING_MAX, EDITS_OUTPAINT_MAX, EDITS_FEATHER_MAX,
               EDITS_HIRES_SCALE_MAX, PARAMS_STEPS_MAX, HIRES_STRENGTH_MIN);
}
