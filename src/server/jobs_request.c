/* jobs_request.c - a job as the worker is asked for it. */
#include "server/jobs_impl.h"

#include "base/path.h"
#include "base/str.h"
#include "json/json.h"

#include <stdlib.h>

/* The path behind the name that a job's parameters have for a picture; *path stays NULL without one. */
static bool find_picture(const jobs *q, const char *field, const char *name, char **path, err *e) {
    if (!name) return true;
    *path = str_eq(name, EDITS_MASK_ALPHA) ? str_dup(name) : uploads_path(q->uploads, name, e);
    return *path || err_wrap(e, "%s", field);
}

static bool write_upscale(const jobs *q, const job *j, buf *out, err *e) {
    const image_params *p = &j->params;
    char *image = p->init_image ? uploads_path(q->uploads, p->init_image, e) : NULL;
    if (!image) return err_wrap(e, "image");
    char *checkpoint = jobs_checkpoint_path(q, j);
    buf_printf(out, "{\"job\":\"%s\",\"factor\":%.9g,\"seed\":%lld,\"quality\":%d", j->name, p->factor,
               (long long)p->seed, p->output_compression);
    json_write_member(out, "image", image);
    json_write_member(out, "output_dir", q->output_dir);
    json_write_member(out, "file_stem", j->file_stem);
    json_write_member(out, "format", p->output_format);
    json_write_member(out, "checkpoint", checkpoint);
    buf_putc(out, '}');
    free(checkpoint);
    free(image);
    return true;
}

bool jobs_write_request(const jobs *q, const job *j, buf *out, err *e) {
    const image_params *p = &j->params;
    if (p->is_upscale) return write_upscale(q, j, out, e);
    char *init = NULL, *mask = NULL;
    if (!find_picture(q, "init_image", p->init_image, &init, e)) return false;
    if (!find_picture(q, "mask", p->edits.mask, &mask, e)) {
        free(init);
        return false;
    }
    char *checkpoint = jobs_checkpoint_path(q, j), *model = p->model ? path_stem(p->model) : NULL;
    buf_printf(out, "{\"job\":\"%s\"", j->name);
    json_write_member(out, "prompt", p->texts.count ? p->texts.each[0].prompt : p->prompt);
    json_write_member(out, "negative_prompt", p->texts.count ? p->texts.each[0].negative_prompt : p->negative_prompt);
    if (p->width) buf_printf(out, ",\"width\":%d", p->width); /* without: the model's own */
    if (p->height) buf_printf(out, ",\"height\":%d", p->height);
    buf_printf(out, ",\"steps\":%d,\"cfg_scale\":%.9g,\"seed\":%lld,\"n\":%d,\"clip_skip\":%d", p->steps, p->cfg_scale,
               (long long)p->seed, p->n, p->clip_skip);
    json_write_member(out, "sampler", p->sampler);
    json_write_member(out, "scheduler", p->scheduler);
    json_write_member(out, "rng", p->rng);
    json_write_member(out, "emphasis", p->emphasis);
    json_write_member(out, "vae", p->vae);
    json_write_member(out, "init_image", init);
    json_write_member(out, "mask", mask);
    buf_putc(out, ',');
    image_edits_write(&p->edits, out);
    image_sampling_write(&p->sampling, out);
    buf_printf(out, "\"strength\":%.9g,\"vae_tiling\":\"auto\",\"quality\":%d,\"preview\":true", p->strength,
               p->output_compression);
    json_write_member(out, "output_dir", q->output_dir);
    json_write_member(out, "file_stem", j->file_stem);
    json_write_member(out, "format", p->output_format);
    json_write_member(out, "model_name", model ? model : "");
    json_write_member(out, "checkpoint", checkpoint);
    buf_putc(out, '}');
    free(model);
    free(checkpoint);
    free(mask);
    free(init);
    return true;
}
