#include "sd/output.h"

#include "base/file.h"
#include "base/log.h"
#include "base/path.h"
#include "base/str.h"
#include "diffusion/image/metadata.h"
#include "diffusion/image/upscalers.h"
#include "diffusion/load/tensor_file.h"
#include "diffusion/sample/sampler.h"
#include "diffusion/text/lora_tag.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THUMB_SIDE = 256, THUMB_QUALITY = 80, FILE_MAX_BYTES = 512 << 20 };

void output_names(const output_target *t, int index, output_file *out) {
    char stem[220];
    if (t->count > 1)
        snprintf(stem, sizeof stem, "%.200s-%d", t->stem, index);
    else
        snprintf(stem, sizeof stem, "%.200s", t->stem);
    snprintf(out->name, sizeof out->name, "%s%s", stem, image_format_ext(t->format));
    snprintf(out->thumb, sizeof out->thumb, ".thumbs/%s.webp", stem);
}

static bool write_image(const char *dir, const char *name, const image *img, image_format format, int quality,
                        const char *parameters, size_t *bytes, err *e) {
    buf b;
    buf_init(&b, FILE_MAX_BYTES);
    char *path = path_join(dir, name);
    bool ok = image_encode(&b, img, format, quality, parameters, e) && file_write_atomic(path, b.data, b.len, e);
    if (bytes) *bytes = b.len;
    free(path);
    buf_free(&b);
    return ok;
}

static bool write_thumb(const char *dir, const char *name, const image *picture, err *e) {
    int longest = picture->width > picture->height ? picture->width : picture->height;
    if (longest <= THUMB_SIDE) return write_image(dir, name, picture, IMAGE_WEBP, THUMB_QUALITY, NULL, NULL, e);
    int w = (picture->width * THUMB_SIDE + longest / 2) / longest;
    int h = (picture->height * THUMB_SIDE + longest / 2) / longest;
    image small = {0};
    bool ok = image_resize(&small, picture, w > 0 ? w : 1, h > 0 ? h : 1) ||
              err_set(e, ERR_INTERNAL, "cannot scale to %dx%d", w, h);
    ok = ok && write_image(dir, name, &small, IMAGE_WEBP, THUMB_QUALITY, NULL, NULL, e);
    image_free(&small);
    return ok;
}

bool output_write_picture(const output_target *t, int index, const image *picture, const char *parameters,
                          output_file *out, err *e) {
    output_names(t, index, out);
    out->width = picture->width;
    out->height = picture->height;
    return write_image(t->dir, out->name, picture, t->format, t->quality, parameters, &out->bytes, e) ||
           err_wrap(e, "save the picture");
}

/* Where it fails, writing there fails. */
static void make_folders(const output_target *t) {
    char *thumbs = path_join(t->dir, ".thumbs");
    path_make_dirs(thumbs, NULL);
    free(thumbs);
}

static void add_thumb(const output_target *t, const image *picture, output_file *out) {
    err why = {0};
    if (write_thumb(t->dir, out->thumb, picture, &why)) return;
    log_warn("sd", "'%s' has no thumbnail: %s", out->name, why.msg);
    out->thumb[0] = 0;
}

bool output_write(const output_target *t, int index, const image *picture, const char *parameters, output_file *out,
                  err *e) {
    make_folders(t);
    if (!output_write_picture(t, index, picture, parameters, out, e)) return false;
    add_thumb(t, picture, out);
    return true;
}

void output_remove(const output_target *t, const output_file *f) {
    char *path = path_join(t->dir, f->name), *thumb = path_join(t->dir, f->thumb);
    remove(path);
    if (f->thumb[0]) remove(thumb);
    free(thumb);
    free(path);
}

bool output_find(const output_target *t, int index, output_file *out, buf *parameters) {
    output_names(t, index, out);
    char *path = path_join(t->dir, out->name), *thumb = path_join(t->dir, out->thumb);
    image picture = {0};
    buf file;
    buf_init(&file, FILE_MAX_BYTES);
    bool found =
        file_read(path, &file, NULL) && image_decode(&picture, file.data, file.len, IMAGE_ALPHA_KEEP, NULL, NULL);
    if (found) {
        out->width = picture.width;
        out->height = picture.height;
        out->bytes = file.len;
        metadata_read(parameters, file.data, file.len, NULL);
        if (!path_exists(thumb)) {
            make_folders(t);
            add_thumb(t, &picture, out);
        }
    }
    image_free(&picture);
    buf_free(&file);
    free(thumb);
    free(path);
    return found;
}

/* The prompt, with a tag for each LoRA that was asked for beside it: a tag is how A1111's text says it. */
static char *prompt_with_tags(const diffusion_params *p) {
    buf b;
    buf_init(&b, 1 << 20);
    buf_puts(&b, p->prompt ? p->prompt : "");
    for (size_t i = 0; i < p->lora_count; i++) {
        const diffusion_lora *l = &p->loras[i];
        if (l->is_in_prompt || !l->name) continue;
        if (b.len) buf_putc(&b, ' ');
        lora_tag_write(l->name, (double)l->te, (double)l->unet, &b);
    }
    return buf_take(&b, NULL);
}

/* "name: 0123456789ab, ...": by the beginning of what kohya's trainer wrote of the tensors' SHA-256, sites find a LoRA.
 * Those without are left out. */
static void add_hashes(const diffusion_params *p, metadata *m) {
    enum { SHORT = 12 };
    buf b;
    buf_init(&b, 1 << 16);
    for (size_t i = 0; i < p->lora_count; i++) {
        const diffusion_lora *l = &p->loras[i];
        const char *hash;
        tensor_file *f = l->name ? tensor_file_open_header(l->path, NULL) : NULL;
        if (f && tensor_file_meta_str(f, "sshs_model_hash", &hash) && strlen(hash) >= SHORT)
            buf_printf(&b, "%s%s: %.*s", b.len ? ", " : "", l->name, SHORT, hash);
        tensor_file_close(f);
    }
    if (b.len) metadata_set(m, "Lora hashes", buf_str(&b));
    buf_free(&b);
}

/* In A1111's words. */
static void add_inpainting(const diffusion_params *p, metadata *m) {
    static const char *const fills[] = {"original", "fill", "latent noise", "latent nothing"};
    const diffusion_inpaint *i = &p->inpaint;
    const diffusion_extend *x = &p->extend;
    if (i->mask) metadata_setf(m, "Mask blur", "%g", (double)i->blur);
    if (i->mask && i->invert) metadata_set(m, "Mask mode", "Inpaint not masked");
    if (i->only_masked) {
        metadata_set(m, "Inpaint area", "Only masked");
        metadata_setf(m, "Masked area padding", "%d", i->padding);
    }
    if (i->fill != DIFFUSION_FILL_ORIGINAL) metadata_set(m, "Masked content", fills[i->fill]);
    if (x->left || x->right || x->top || x->bottom) {
        metadata_setf(m, "Outpaint", "left %d right %d top %d bottom %d", x->left, x->right, x->top, x->bottom);
        metadata_setf(m, "Outpaint feather", "%d", x->feather);
    }
}

/* As A1111's extension writes them. */
static void add_controls(const diffusion_params *p, metadata *m) {
    static const char *const modes[] = {"Balanced", "My prompt is more important", "ControlNet is more important"};
    for (size_t i = 0; i < p->control_count; i++) {
        const diffusion_control *c = &p->controls[i];
        const bool is_canny = c->preprocessor == DIFFUSION_PREPROCESS_CANNY;
        char key[24], thresholds[64] = "";
        snprintf(key, sizeof key, "ControlNet %zu", i);
        if (is_canny) snprintf(thresholds, sizeof thresholds, ", Threshold A: %d, Threshold B: %d", c->low, c->high);
        metadata_setf(m, key,
                      "Module: %s, Model: %s, Weight: %g, Resize Mode: Crop and Resize%s, Guidance Start: %g, "
                      "Guidance End: %g, Control Mode: %s",
                      diffusion_preprocessors()[c->preprocessor], c->name ? c->name : "?", (double)c->weight,
                      thresholds, (double)c->start, (double)c->end, modes[c->mode]);
    }
}

static void add_ip_adapter(const diffusion_ip_adapter *a, metadata *m) {
    if (str_empty(a->path)) return;
    metadata_setf(m, "IP-Adapter", "Model: %s, Weight: %g, Guidance Start: %g, Guidance End: %g",
                  a->name ? a->name : "?", (double)a->weight, (double)a->start, (double)a->end);
}

static bool has_hires(const diffusion_params *p) {
    return p->hires.width || p->hires.height || p->hires.scale != 0.0f;
}

static void add_hires(const diffusion_params *p, metadata *m) {
    const diffusion_hires *h = &p->hires;
    const upscaler *u = upscaler_find(h->upscaler);
    if (!has_hires(p)) return;
    metadata_setf(m, "Denoising strength", "%g", (double)h->strength);
    if (h->width || h->height)
        metadata_setf(m, "Hires resize", "%dx%d", h->width, h->height);
    else
        metadata_setf(m, "Hires upscale", "%g", (double)h->scale);
    if (h->steps) metadata_setf(m, "Hires steps", "%d", h->steps);
    char *network = h->network ? path_stem(h->network) : NULL;
    metadata_set(m, "Hires upscaler", network ? network : u ? u->label : h->upscaler);
    free(network);
}

static void add_refiner(const output_origin *o, metadata *m) {
    if (!o->refiner) return;
    char *name = path_stem(o->refiner);
    metadata_set(m, "Refiner", name);
    metadata_setf(m, "Refiner switch at", "%g", (double)o->params->refiner.switch_at);
    free(name);
}

static void add_real(metadata *m, const char *key, float v, float usual) {
    if (v != usual) metadata_setf(m, key, "%g", (double)v);
}

/* What is not as usual, by A1111's words where it has some. */
static void add_sampling(const output_origin *o, const sampler *kind, metadata *m) {
    const diffusion_sampling *s = &o->params->sampling;
    if (s->eta >= 0.0f && kind && kind->traits & SAMPLER_ETA) add_real(m, "Eta", s->eta, kind->eta);
    add_real(m, "Sigma churn", s->s_churn, 0.0f);
    add_real(m, "Sigma tmin", s->s_tmin, 0.0f);
    add_real(m, "Sigma tmax", s->s_tmax, 0.0f);
    add_real(m, "Sigma noise", s->s_noise, 1.0f);
    if (s->noise_seed_delta) metadata_setf(m, "ENSD", "%d", s->noise_seed_delta);
    if (s->subseed_strength > 0.0f) {
        metadata_setf(m, "Variation seed", "%" PRIu64, o->subseed);
        metadata_setf(m, "Variation seed strength", "%g", (double)s->subseed_strength);
    }
    if (s->seed_from_width || s->seed_from_height)
        metadata_setf(m, "Seed resize from", "%dx%d", s->seed_from_width, s->seed_from_height);
    if (s->cache_interval > 1) metadata_setf(m, "Cache interval", "%d", s->cache_interval);
    if (s->tile) {
        metadata_setf(m, "Diffusion tile", "%d", s->tile);
        metadata_setf(m, "Diffusion tile overlap", "%d", s->tile_overlap);
    }
    add_real(m, "CFG rescale", s->guidance_rescale, 0.0f);
    add_real(m, "Guidance start", s->guidance_start, 0.0f);
    add_real(m, "Guidance end", s->guidance_end, 1.0f);
    if (s->threshold > 0.0f) {
        metadata_setf(m, "Dynamic threshold", "%g", (double)s->threshold);
        metadata_setf(m, "Dynamic threshold limit", "%g", (double)s->threshold_limit);
    }
}

void output_parameters(const output_origin *o, buf *out) {
    const diffusion_params *p = o->params;
    const schedule *implied = NULL;
    const sampler *kind = sampler_find(p->sampler, &implied);
    const schedule *chosen = str_empty(p->schedule) ? NULL : schedule_find(p->schedule);
    if (!chosen) chosen = implied;
    rng_kind noise = RNG_CUDA;
    rng_kind_from_name(p->rng, &noise);

    metadata m = {.prompt = prompt_with_tags(p), .negative_prompt = str_dup(p->negative)};
    metadata_setf(&m, "Steps", "%d", p->steps);
    metadata_set(&m, "Sampler", kind ? kind->label : p->sampler);
    if (chosen) metadata_set(&m, "Schedule type", chosen->label);
    metadata_setf(&m, "CFG scale", "%g", (double)p->cfg_scale);
    metadata_setf(&m, "Seed", "%" PRIu64, o->seed);
    if (has_hires(p) && p->width && p->height) /* the first pass's, as A1111 has it */
        metadata_setf(&m, "Size", "%dx%d", p->width, p->height);
    else
        metadata_setf(&m, "Size", "%dx%d", o->width, o->height);
    if (o->model) metadata_set(&m, "Model", o->model);
    if (p->init) metadata_setf(&m, "Denoising strength", "%g", (double)p->strength);
    if (p->init) add_inpainting(p, &m);
    if (o->edits) metadata_setf(&m, "Image CFG scale", "%g", (double)p->image_cfg_scale);
    add_hires(p, &m);
    add_controls(p, &m);
    add_ip_adapter(&p->ip_adapter, &m);
    add_refiner(o, &m);
    if (p->tiny_vae) metadata_set(&m, "VAE", "TAESD");
    if (p->clip_skip > 1) metadata_setf(&m, "Clip skip", "%d", p->clip_skip);
    if (!str_empty(p->emphasis) && !str_eq(p->emphasis, "a1111")) metadata_set(&m, "Emphasis", p->emphasis);
    add_sampling(o, kind, &m);
    add_hashes(p, &m);
    metadata_set(&m, "RNG", noise == RNG_CPU ? "CPU" : "NV");
    metadata_set(&m, "Version", "Mysti " MYSTI_VERSION);
    metadata_format(&m, out);
    metadata_free(&m);
}
