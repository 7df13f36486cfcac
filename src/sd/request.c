#include "sd/request.h"

#include "base/path.h"
#include "base/str.h"

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
              read_path(o, "llm", &f->llm, e);
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

static bool read_params(const json_in *o, diffusion_params *p, err *e) {
    bool preview = false;
    diffusion_params_init(p);
    bool ok =
        json_get_str(o, "prompt", &p->prompt, e) && json_get_str(o, "negative_prompt", &p->negative, e) &&
        json_get_int(o, "width", &p->width, 0, ANY_INT, e) && json_get_int(o, "height", &p->height, 0, ANY_INT, e) &&
        json_get_int(o, "steps", &p->steps, -ANY_INT, ANY_INT, e) &&
        json_get_float(o, "cfg_scale", &p->cfg_scale, -1e6f, 1e6f, e) && json_get_str(o, "sampler", &p->sampler, e) &&
        json_get_str(o, "scheduler", &p->schedule, e) && json_get_str(o, "rng", &p->rng, e) &&
        json_get_u64(o, "seed", &p->seed, e) && json_get_int(o, "n", &p->batch, -ANY_INT, ANY_INT, e) &&
        json_get_int(o, "clip_skip", &p->clip_skip, -ANY_INT, ANY_INT, e) &&
        json_get_float(o, "strength", &p->strength, -1e6f, 1e6f, e) &&
        json_get_float(o, "eta", &p->eta, -1e6f, 1e6f, e) && read_tiling(o, &p->tiling, e) &&
        json_get_bool(o, "preview", &preview, e) && read_path(o, "checkpoint", &p->checkpoint, e);
    if (!ok) return false;
    p->preview_every = preview ? 1 : 0;
    return p->seed <= SEED_MAX || err_set(e, ERR_INVALID, "seed: more than 2^53-1");
}

static bool read_output(generate_request *r, const json_in *o, err *e) {
    const char *format = "png";
    r->quality = 90;
    if (!json_need_str(o, "output_dir", &r->output_dir, e) || !json_need_str(o, "file_stem", &r->file_stem, e) ||
        !json_get_str(o, "format", &format, e) || !json_get_int(o, "quality", &r->quality, 1, 100, e) ||
        !json_get_str(o, "model_name", &r->model_name, e)) {
        return false;
    }
    if (!path_is_plain_name(r->file_stem) || strlen(r->file_stem) > 200) {
        return err_set(e, ERR_INVALID, "file_stem: not a plain file name");
    }
    r->format = image_format_by_name(format);
    return r->format != IMAGE_UNKNOWN || err_set(e, ERR_INVALID, "format: unknown '%.60s' (png, jpeg, webp)", format);
}

static bool read_generate(generate_request *r, const json_in *o, err *e) {
    return json_get_str(o, "job", &r->job, e) && read_params(o, &r->params, e) &&
           read_path(o, "init_image", &r->init_image, e) && read_output(r, o, e);
}

bool generate_request_read(generate_request *r, const char *body, size_t len, err *e) {
    *r = (generate_request){.doc = json_parse(body, len, e)};
    if (!r->doc) return false;
    json_in o = json_root(r->doc);
    if (read_generate(r, &o, e)) return true;
    generate_request_free(r);
    return false;
}

void generate_request_free(generate_request *r) {
    yyjson_doc_free(r->doc);
    r->doc = NULL;
}
