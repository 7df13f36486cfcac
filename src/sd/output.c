#include "sd/output.h"

#include "base/file.h"
#include "base/log.h"
#include "base/path.h"
#include "base/str.h"
#include "diffusion/image/metadata.h"
#include "diffusion/sample/sampler.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

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

bool output_write(const output_target *t, int index, const image *picture, const char *parameters, output_file *out,
                  err *e) {
    char *thumbs = path_join(t->dir, ".thumbs");
    err why = {0};
    path_make_dirs(thumbs, NULL); /* where it fails, writing there fails */
    free(thumbs);
    if (!output_write_picture(t, index, picture, parameters, out, e)) return false;
    if (write_thumb(t->dir, out->thumb, picture, &why)) return true;
    log_warn("sd", "'%s' has no thumbnail: %s", out->name, why.msg);
    out->thumb[0] = 0;
    return true;
}

void output_parameters(const output_origin *o, buf *out) {
    const diffusion_params *p = o->params;
    const schedule *implied = NULL;
    const sampler *kind = sampler_find(p->sampler, &implied);
    const schedule *chosen = str_empty(p->schedule) ? NULL : schedule_find(p->schedule);
    if (!chosen) chosen = implied;
    rng_kind noise = RNG_CUDA;
    rng_kind_from_name(p->rng, &noise);

    metadata m = {.prompt = str_dup(p->prompt), .negative_prompt = str_dup(p->negative)};
    metadata_setf(&m, "Steps", "%d", p->steps);
    metadata_set(&m, "Sampler", kind ? kind->label : p->sampler);
    if (chosen) metadata_set(&m, "Schedule type", chosen->label);
    metadata_setf(&m, "CFG scale", "%g", (double)p->cfg_scale);
    metadata_setf(&m, "Seed", "%" PRIu64, o->seed);
    metadata_setf(&m, "Size", "%dx%d", o->width, o->height);
    if (o->model) metadata_set(&m, "Model", o->model);
    if (p->init) metadata_setf(&m, "Denoising strength", "%g", (double)p->strength);
    if (p->clip_skip > 1) metadata_setf(&m, "Clip skip", "%d", p->clip_skip);
    if (p->eta != 1.0f) metadata_setf(&m, "Eta", "%g", (double)p->eta);
    metadata_set(&m, "RNG", noise == RNG_CPU ? "CPU" : "NV");
    metadata_set(&m, "Version", "Mysti " MYSTI_VERSION);
    metadata_format(&m, out);
    metadata_free(&m);
}
