#include "sd/request.h"

#include "base/path.h"
#include "base/str.h"

#include <stdlib.h>
#include <string.h>

#define SEED_MAX ((UINT64_C(1) << 53) - 1)

/* Limits that only keep numbers representable; what makes sense is the engine's to say. */
enum { ANY_INT = 1 << 20 };

static bool read_path(const json_in *o, const char *key, const char **out, err *e) {
    if (!json_get_str(o, key, out, e)) return false;
    if (str_empty(*out)) *out = NULL;
    return true;
}

static bool read_files(const json_in *o, diffusion_files *f, err *e) {
    bool ok = read_path(o, "model", &f->model, e) && read_path(o, "diffusion_model", &f->diffusion_model, e) &&
              read_path(o, "vae", &f->vae, e) && read_path(o, "clip_l", &f->clip_l, e) &&
              read_path(o, "clip_g", &f->clip_g, e) && read_path(o, "t5xxl", &f->t5xxl, e) &&
              read_path(o, "llm", &f->llm, e) && read_path(o, "taesd", &f->taesd, e);
    if (ok && !f->model && !f->diffusion_model) return err_set(e, ERR_INVALID, "model: required");
    return ok;
}

static bool read_load(load_request *r, const json_in *o, err *e) {
    const char *prediction = NULL;
    if (!read_files(o, &r->files, e) || !json_get_str(o, "prediction", &prediction, e)) return false;
    if (diffusion_prediction_from_name(prediction, &r->prediction)) return true;
    return err_set(e, ERR_INVALID, "prediction: unknown '%.60s' (auto, eps, v)", prediction);
}

bool load_request_read(load_request *r, const char *body, size_t len, err *e) {
    *r = (load_request){.doc = json_parse(body, len, e)};
    if (!r->doc) return false;
    json_in o = json_root(r->doc);
    if (read_load(r, &o, e)) return true;
    load_request_free(r);
    return false;
}

void load_request_free(load_request *r) {
    yyjson_doc_free(r->doc);
    r->doc = NULL;
}

static bool read_tiling(const json_in *o, diffusion_tiling *out, err *e) {
    static const char *const names[] = {"auto", "off", "on"};
    const char *name = names[DIFFUSION_TILING_AUTO];
    if (!json_get_str(o, "vae_tiling", &name, e)) return false;
    for (int i = 0; i < 3; i++) {
        if (!str_eq(name, names[i])) continue;
        *out = (diffusion_tiling)i;
        return true;
    }
    return err_set(e, ERR_INVALID, "vae_tiling: unknown '%.60s' (auto, on, off)", name);
}

static bool read_vae(const json_in *o, bool *tiny, err *e) {
    const char *name = "full";
    if (!json_get_str(o, "vae", &name, e)) return false;
    *tiny = str_eq(name, "taesd");
    return *tiny || str_eq(name, "full") || err_set(e, ERR_INVALID, "vae: unknown '%.60s' (full, taesd)", name);
}

static bool read_real(const json_in *o, const char *key, float *out, err *e) {
    return json_get_float(o, key, out, -1e6f, 1e6f, e);
}

static bool read_sampling(const json_in *o, diffusion_sampling *s, err *e) {
    return read_real(o, "eta", &s->eta, e) && read_real(o, "s_noise", &s->s_noise, e) &&
           read_real(o, "s_churn", &s->s_churn, e) && read_real(o, "s_tmin", &s->s_tmin, e) &&
           read_real(o, "s_tmax", &s->s_tmax, e) && read_real(o, "guidance_start", &s->guidance_start, e) &&
           read_real(o, "guidance_end", &s->guidance_end, e) &&
           read_real(o, "guidance_rescale", &s->guidance_rescale, e) &&
           read_real(o, "dynamic_threshold", &s->threshold, e) &&
           read_real(o, "dynamic_threshold_limit", &s->threshold_limit, e) &&
           json_get_u64(o, "subseed", &s->subseed, e) && read_real(o, "subseed_strength", &s->subseed_strength, e) &&
           json_get_int(o, "seed_resize_from_w", &s->seed_from_width, -ANY_INT, ANY_INT, e) &&
           json_get_int(o, "seed_resize_from_h", &s->seed_from_height, -ANY_INT, ANY_INT, e) &&
           json_get_int(o, "cache_interval", &s->cache_interval, -ANY_INT, ANY_INT, e) &&
           json_get_int(o, "diffusion_tile", &s->tile, -ANY_INT, ANY_INT, e) &&
           json_get_int(o, "diffusion_tile_overlap", &s->tile_overlap, -ANY_INT, ANY_INT, e) &&
           json_get_int(o, "eta_noise_seed_delta", &s->noise_seed_delta, INT32_MIN, INT32_MAX, e);
}

static bool read_params(const json_in *o, diffusion_params *p, err *e) {
    bool preview = false;
    diffusion_params_init(p);
    bool ok = json_get_str(o, "prompt", &p->prompt, e) && json_get_str(o, "negative_prompt", &p->negative, e) &&
              json_get_int(o, "width", &p->width, 0, ANY_INT, e) &&
              json_get_int(o, "height", &p->height, 0, ANY_INT, e) &&
              json_get_int(o, "steps", &p->steps, -ANY_INT, ANY_INT, e) &&
              json_get_float(o, "cfg_scale", &p->cfg_scale, -1e6f, 1e6f, e) &&
              json_get_float(o, "image_cfg_scale", &p->image_cfg_scale, -1e6f, 1e6f, e) &&
              json_get_str(o, "sampler", &p->sampler, e) && json_get_str(o, "scheduler", &p->schedule, e) &&
              json_get_str(o, "rng", &p->rng, e) && json_get_str(o, "emphasis", &p->emphasis, e) &&
              json_get_u64(o, "seed", &p->seed, e) && json_get_int(o, "n", &p->batch, -ANY_INT, ANY_INT, e) &&
              json_get_int(o, "clip_skip", &p->clip_skip, -ANY_INT, ANY_INT, e) &&
              json_get_float(o, "strength", &p->strength, -1e6f, 1e6f, e) && read_sampling(o, &p->sampling, e) &&
              read_tiling(o, &p->tiling, e) && read_vae(o, &p->tiny_vae, e) &&
              json_get_bool(o, "preview", &preview, e) && read_path(o, "checkpoint", &p->checkpoint, e);
    if (!ok) return false;
    p->preview_every = preview ? 1 : 0;
    return p->seed <= SEED_MAX || err_set(e, ERR_INVALID, "seed: more than 2^53-1");
}

static bool read_lora(const json_in *o, diffusion_lora *out, err *e) {
    *out = (diffusion_lora){.unet = 1, .te = 1};
    return json_need_str(o, "path", &out->path, e) && json_need_str(o, "name", &out->name, e) &&
           json_get_float(o, "unet", &out->unet, -1e6f, 1e6f, e) && json_get_float(o, "te", &out->te, -1e6f, 1e6f, e) &&
           json_get_bool(o, "in_prompt", &out->is_in_prompt, e);
}

static bool read_loras(diffusion_lora out[DIFFUSION_LORAS_MAX], size_t *out_count, const json_in *o, err *e) {
    json_in list;
    if (!json_get_arr(o, "loras", false, &list, e)) return false;
    const size_t count = yyjson_arr_size(list.val);
    if (count > DIFFUSION_LORAS_MAX) return err_set(e, ERR_INVALID, "loras: more than %d", DIFFUSION_LORAS_MAX);
    for (size_t i = 0; i < count; i++) {
        const json_in item = json_item(&list, i);
        if (!read_lora(&item, &out[i], e)) return false;
    }
    *out_count = count;
    return true;
}

static bool read_pictures(generate_request *r, const json_in *o, err *e) {
    json_in list;
    if (!json_get_arr(o, "pictures", false, &list, e)) return false;
    const size_t count = yyjson_arr_size(list.val);
    if (!count) return true;
    if (r->params.batch < 1 || count != (size_t)r->params.batch)
        return err_set(e, ERR_INVALID, "pictures: %zu for a batch of %d", count, r->params.batch);
    r->pictures = mem_alloc(count, sizeof *r->pictures);
    for (size_t i = 0; i < count; i++) {
        const json_in item = json_item(&list, i);
        picture_request *p = &r->pictures[i];
        p->prompt = p->negative = "";
        if (!json_get_str(&item, "prompt", &p->prompt, e) || !json_get_str(&item, "negative_prompt", &p->negative, e) ||
            !read_loras(p->loras, &p->lora_count, &item, e))
            return false;
    }
    return true;
}

/* The value of one of a list's names. */
static bool read_choice(const json_in *o, const char *key, const char *const *names, int *out, err *e) {
    const char *name = names[*out];
    if (!json_get_str(o, key, &name, e)) return false;
    for (int i = 0; names[i]; i++) {
        if (!str_eq(name, names[i])) continue;
        *out = i;
        return true;
    }
    return err_set(e, ERR_INVALID, "%s: unknown '%.60s'", json_at(o, key).path, name);
}

static bool read_control(const json_in *o, diffusion_control *out, const char **picture, err *e) {
    int preprocessor = 0, mode = 0;
    diffusion_control_init(out);
    bool ok = json_need_str(o, "path", &out->path, e) && json_get_str(o, "name", &out->name, e) &&
              json_need_str(o, "image", picture, e) && read_real(o, "weight", &out->weight, e) &&
              read_real(o, "start", &out->start, e) && read_real(o, "end", &out->end, e) &&
              json_get_int(o, "low_threshold", &out->low, -ANY_INT, ANY_INT, e) &&
              json_get_int(o, "high_threshold", &out->high, -ANY_INT, ANY_INT, e) &&
              read_choice(o, "preprocessor", diffusion_preprocessors(), &preprocessor, e) &&
              read_choice(o, "mode", diffusion_control_modes(), &mode, e);
    out->preprocessor = (diffusion_preprocessor)preprocessor;
    out->mode = (diffusion_control_mode)mode;
    return ok;
}

static bool read_controls(generate_request *r, const json_in *o, err *e) {
    json_in list;
    if (!json_get_arr(o, "controlnet", false, &list, e)) return false;
    const size_t count = yyjson_arr_size(list.val);
    if (count > DIFFUSION_CONTROLS_MAX)
        return err_set(e, ERR_INVALID, "controlnet: more than %d", DIFFUSION_CONTROLS_MAX);
    for (size_t i = 0; i < count; i++) {
        const json_in item = json_item(&list, i);
        if (!read_control(&item, &r->controls[i], &r->control_images[i], e)) return false;
    }
    r->params.controls = r->controls;
    r->params.control_count = count;
    return true;
}

static bool read_embeddings(generate_request *r, const json_in *o, err *e) {
    json_in list;
    if (!json_get_arr(o, "embeddings", false, &list, e)) return false;
    const size_t count = yyjson_arr_size(list.val);
    if (count > DIFFUSION_EMBEDDINGS_MAX)
        return err_set(e, ERR_INVALID, "embeddings: more than %d", DIFFUSION_EMBEDDINGS_MAX);
    for (size_t i = 0; i < count; i++) {
        const json_in item = json_item(&list, i);
        diffusion_embedding *m = &r->embeddings[i];
        if (!json_need_str(&item, "name", &m->name, e) || !json_need_str(&item, "path", &m->path, e)) return false;
    }
    r->params.embeddings = r->embeddings;
    r->params.embedding_count = count;
    return true;
}

static bool read_ip_adapter(generate_request *r, const json_in *o, err *e) {
    diffusion_ip_adapter *a = &r->params.ip_adapter;
    json_in in;
    if (!json_get_obj(o, "ip_adapter", false, &in, e)) return false;
    if (!in.val) return true;
    return json_need_str(&in, "path", &a->path, e) && json_get_str(&in, "name", &a->name, e) &&
           json_need_str(&in, "clip_vision", &a->clip_vision, e) &&
           json_need_str(&in, "image", &r->ip_adapter_image, e) && read_real(&in, "weight", &a->weight, e) &&
           read_real(&in, "start", &a->start, e) && read_real(&in, "end", &a->end, e);
}

static bool read_fill(const json_in *o, diffusion_fill *out, err *e) {
    const char *const *names = diffusion_fills();
    const char *name = names[*out];
    if (!json_get_str(o, "mask_fill", &name, e)) return false;
    for (int i = 0; names[i]; i++) {
        if (!str_eq(name, names[i])) continue;
        *out = (diffusion_fill)i;
        return true;
    }
    return err_set(e, ERR_INVALID, "mask_fill: unknown '%.60s' (original, fill, latent_noise, latent_nothing)", name);
}

static bool read_inpaint(generate_request *r, const json_in *o, err *e) {
    diffusion_inpaint *m = &r->params.inpaint;
    const char *area = "whole";
    bool ok = read_path(o, "mask", &r->mask, e) && json_get_bool(o, "mask_invert", &m->invert, e) &&
              json_get_float(o, "mask_blur", &m->blur, -1e6f, 1e6f, e) && read_fill(o, &m->fill, e) &&
              json_get_str(o, "inpaint_area", &area, e) &&
              json_get_int(o, "mask_padding", &m->padding, -ANY_INT, ANY_INT, e);
    m->only_masked = str_eq(area, "masked");
    return ok && (m->only_masked || str_eq(area, "whole") ||
                  err_set(e, ERR_INVALID, "inpaint_area: unknown '%.60s' (whole, masked)", area));
}

static bool read_extend(diffusion_extend *x, const json_in *o, err *e) {
    json_in in = {0};
    if (!json_get_obj(o, "outpaint", false, &in, e)) return false;
    if (!in.val) return true;
    return json_get_int(&in, "left", &x->left, -ANY_INT, ANY_INT, e) &&
           json_get_int(&in, "right", &x->right, -ANY_INT, ANY_INT, e) &&
           json_get_int(&in, "top", &x->top, -ANY_INT, ANY_INT, e) &&
           json_get_int(&in, "bottom", &x->bottom, -ANY_INT, ANY_INT, e) &&
           json_get_int(&in, "feather", &x->feather, -ANY_INT, ANY_INT, e);
}

static bool read_hires(diffusion_hires *h, const json_in *o, err *e) {
    json_in in = {0};
    if (!json_get_obj(o, "hires", false, &in, e)) return false;
    if (!in.val) return true;
    return json_get_float(&in, "scale", &h->scale, -1e6f, 1e6f, e) &&
           json_get_int(&in, "width", &h->width, 0, ANY_INT, e) &&
           json_get_int(&in, "height", &h->height, 0, ANY_INT, e) &&
           json_get_int(&in, "steps", &h->steps, -ANY_INT, ANY_INT, e) &&
           json_get_float(&in, "strength", &h->strength, -1e6f, 1e6f, e) &&
           json_get_str(&in, "upscaler", &h->upscaler, e) && read_path(o, "hires_network", &h->network, e);
}

static bool read_target(const json_in *o, const char **dir, const char **stem, image_format *format, int *quality,
                        err *e) {
    const char *name = "png";
    *quality = 90;
    if (!json_need_str(o, "output_dir", dir, e) || !json_need_str(o, "file_stem", stem, e) ||
        !json_get_str(o, "format", &name, e) || !json_get_int(o, "quality", quality, 1, 100, e))
        return false;
    if (!path_is_plain_name(*stem) || strlen(*stem) > 200)
        return err_set(e, ERR_INVALID, "file_stem: not a plain file name");
    *format = image_format_by_name(name);
    return *format != IMAGE_UNKNOWN || err_set(e, ERR_INVALID, "format: unknown '%.60s' (png, jpeg, webp)", name);
}

static bool read_output(generate_request *r, const json_in *o, err *e) {
    return read_target(o, &r->output_dir, &r->file_stem, &r->format, &r->quality, e) &&
           json_get_str(o, "model_name", &r->model_name, e);
}

static bool read_generate(generate_request *r, const json_in *o, err *e) {
    return json_get_str(o, "job", &r->job, e) && read_params(o, &r->params, e) &&
           read_loras(r->loras, &r->params.lora_count, o, e) && read_pictures(r, o, e) && read_embeddings(r, o, e) &&
           read_controls(r, o, e) && read_ip_adapter(r, o, e) && read_path(o, "init_image", &r->init_image, e) &&
           read_path(o, "refiner", &r->refiner, e) && read_real(o, "switch_at", &r->params.refiner.switch_at, e) &&
           read_inpaint(r, o, e) && read_extend(&r->params.extend, o, e) && read_hires(&r->params.hires, o, e) &&
           read_output(r, o, e);
}

bool generate_request_read(generate_request *r, const char *body, size_t len, err *e) {
    *r = (generate_request){.doc = json_parse(body, len, e)};
    if (!r->doc) return false;
    json_in o = json_root(r->doc);
    const bool ok = read_generate(r, &o, e);
    r->params.loras = r->loras;
    if (ok) return true;
    generate_request_free(r);
    return false;
}

void generate_request_free(generate_request *r) {
    free(r->pictures);
    r->pictures = NULL;
    yyjson_doc_free(r->doc);
    r->doc = NULL;
}

static bool read_upscale(upscale_request *r, const json_in *o, err *e) {
    return json_get_str(o, "job", &r->job, e) && json_need_str(o, "image", &r->image, e) &&
           json_need_str(o, "upscaler", &r->upscaler, e) && json_get_str(o, "upscaler_name", &r->upscaler_name, e) &&
           json_get_float(o, "factor", &r->factor, -1e6f, 1e6f, e) &&
           json_get_int(o, "tile", &r->tile, -ANY_INT, ANY_INT, e) && read_path(o, "checkpoint", &r->checkpoint, e) &&
           json_get_i64(o, "seed", &r->seed, 0, (int64_t)SEED_MAX, e) &&
           read_target(o, &r->output_dir, &r->file_stem, &r->format, &r->quality, e);
}

bool upscale_request_read(upscale_request *r, const char *body, size_t len, err *e) {
    *r = (upscale_request){.doc = json_parse(body, len, e)};
    if (!r->doc) return false;
    json_in o = json_root(r->doc);
    if (read_upscale(r, &o, e)) return true;
    upscale_request_free(r);
    return false;
}

void upscale_request_free(upscale_request *r) {
    yyjson_doc_free(r->doc);
    r->doc = NULL;
}
