/* image_request.c - see image_request.h. */
#include "server/image_request.h"
#include "server/controlnets.h"
#include "server/embeddings.h"
#include "server/image_fields.h"
#include "server/ip_adapters.h"
#include "server/loras.h"
#include "server/models.h"
#include "server/routes.h"
#include "server/uploads.h"
#include "server/upscalers.h"
#include "server/wildcards.h"
#include "server/workers.h"
#include "base/path.h"
#include "base/str.h"
#include "net/http_multipart.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct request {
    app *a;
    char *body, *content_type;
    size_t len;
    unsigned flags;
    image_params params; /* zeroed until it was read */
    image_request_result result;
    image_request_done done;
    void *ctx;
    bool looked; /* the model folder was read anew for it */
} request;

static void finish(request *r, const job *j) {
    r->result.job = j;
    r->done(r->ctx, &r->result);
    image_params_free(&r->params);
    free(r->content_type);
    free(r->body);
    free(r);
}

static void refuse(request *r, const char *name) {
    r->result.code = name;
    finish(r, NULL);
}

/* ---- reading (disk thread) -------------------------------------------------------------------------------------- */

/* "outpaint[left]" is a member of an inner object, as clients write it in forms; of two with one name the first counts.
 */
static void add_field(yyjson_mut_doc *doc, yyjson_mut_val *obj, const http_part *p) {
    const char *key = p->name, *open = strchr(key, '[');
    size_t len = strlen(key);
    if (open && open > key && len > (size_t)(open - key) + 2 && key[len - 1] == ']') {
        yyjson_mut_val *inner = yyjson_mut_obj_getn(obj, key, (size_t)(open - key));
        if (!inner) {
            inner = yyjson_mut_obj(doc);
            yyjson_mut_obj_add(obj, yyjson_mut_strncpy(doc, key, (size_t)(open - key)), inner);
        }
        if (!yyjson_mut_is_obj(inner)) return;
        obj = inner;
        key = open + 1;
        len -= (size_t)(key - p->name) + 1;
    }
    if (!yyjson_mut_obj_getn(obj, key, len))
        yyjson_mut_obj_add(obj, yyjson_mut_strncpy(doc, key, len), yyjson_mut_strncpy(doc, p->data, p->len));
}

/* Text fields become strings of a JSON object; the readers of parameters take numbers as text too. */
static bool add_fields(yyjson_mut_doc *doc, yyjson_mut_val *obj, const http_multipart *m, err *e) {
    for (size_t i = 0; i < http_multipart_count(m); i++) {
        const http_part *p = http_multipart_part(m, i);
        if (p->filename) continue;
        if (!str_is_utf8(p->data, p->len) || memchr(p->data, 0, p->len))
            return err_set(e, ERR_INVALID, "%.60s: not text", p->name);
        add_field(doc, obj, p);
    }
    return true;
}

/* A file of the form, under one of these names (NULL-terminated), becomes *name. */
static bool store_file(request *r, const http_multipart *m, const char *const *names, char **name, err *e) {
    const http_part *file = NULL;
    for (size_t i = 0; i < http_multipart_count(m); i++) {
        const http_part *p = http_multipart_part(m, i);
        if (!p->filename || !field_find(p->name, names)) continue;
        if (file) return err_set(e, ERR_UNSUPPORTED, "%s: more than one picture", p->name);
        file = p;
    }
    if (!file) return true;
    char *stored = uploads_store(r->a->uploads, file->data, file->len, e);
    if (!stored) return err_wrap(e, "%s", file->name);
    free(*name);
    *name = stored;
    return true;
}

static bool store_files(request *r, const http_multipart *m, err *e) {
    static const char *const of_image[] = {"image", "image[]", "init_image", NULL}, *const of_mask[] = {"mask", NULL};
    return store_file(r, m, of_image, &r->params.init_image, e) && store_file(r, m, of_mask, &r->params.edits.mask, e);
}

/* What a field of text says instead; it becomes the name of a stored file. */
static bool take_text(request *r, const char *field, char **text, err *e) {
    if (!*text || str_eq(*text, EDITS_MASK_ALPHA)) return true;
    char *name = uploads_take(r->a->uploads, *text, e);
    if (!name) return err_wrap(e, "%s", field);
    free(*text);
    *text = name;
    return true;
}

static bool take_controls(request *r, err *e) {
    char field[40];
    for (size_t i = 0; i < r->params.controls.count; i++) {
        snprintf(field, sizeof field, "controlnet[%zu].image", i);
        if (!take_text(r, field, &r->params.controls.at[i].image, e)) return false;
    }
    return take_text(r, "ip_adapter.image", &r->params.ip_adapter.image, e);
}

/* How the answer comes. What would make it a stream is refused: such a client would wait for events in vain. */
static bool read_response_format(request *r, const json_in *body, err *e) {
    const char *format = NULL;
    if (!json_get_str(body, "response_format", &format, e)) return false;
    r->result.as_url = str_eq(format, "url");
    if (!str_empty(format) && !r->result.as_url && !str_eq(format, "b64_json"))
        return err_set(e, ERR_INVALID, "response_format: '%.40s' is none of b64_json, url", format);
    json_in stream = json_at(body, "stream");
    return !(yyjson_is_true(stream.val) || yyjson_equals_str(stream.val, "true")) ||
           err_set(e, ERR_UNSUPPORTED, "stream: not supported for images; see /v1/jobs/{id}/events");
}

/* `type` and the presence of an image must fit each other. */
static bool check_type(request *r, const json_in *body, err *e) {
    const char *type = NULL;
    bool has_image = r->params.init_image != NULL;
    if (!(r->flags & IMAGE_REQUEST_STRICT)) return true;
    if (!json_get_str(body, "type", &type, e)) return false;
    if (!type) return true;
    if (str_eq(type, "upscale")) return true;
    if (str_eq(type, "img2img")) return has_image || err_set(e, ERR_INVALID, "init_image: required for img2img");
    if (!str_eq(type, "txt2img"))
        return err_set(e, ERR_INVALID, "type: '%.40s' is none of txt2img, img2img, upscale", type);
    return !has_image || err_set(e, ERR_INVALID, "init_image: not for txt2img; the type is img2img");
}

/* A picture of the history by its number. */
static bool read_image_id(request *r, db_conn *c, const json_in *body, err *e) {
    int64_t id = 0;
    if (!json_has(body, "image_id")) return true;
    const char *text = yyjson_get_str(json_at(body, "image_id").val);
    if (!(text ? str_to_i64(text, &id) : json_get_i64(body, "image_id", &id, 0, INT64_MAX, NULL)) || id < 1)
        return err_set(e, ERR_INVALID, "image_id: expected the number of a picture");
    sqlite3_stmt *s = db_query(c, e, "SELECT file FROM images WHERE id = ?", "i", id);
    if (!s || !db_next(c, s, e)) return err_set(e, ERR_NOT_FOUND, "image_id: there is no picture %lld", (long long)id);
    str_set(&r->params.init_image, db_text(s, 0));
    db_end(s);
    return true;
}

/* How the picture was made stays with what becomes of it; the request says the rest. */
static void inherit(image_params *p, image_params *from) {
    from->is_upscale = true;
    str_set(&from->upscaler, p->upscaler);
    str_set(&from->init_image, p->init_image);
    from->factor = p->factor;
    from->n = 1;
    from->output_format = p->output_format;
    from->output_compression = p->output_compression;
    image_params_free(p);
    *p = *from;
}

static void inherit_from_history(request *r, db_conn *c) {
    err why = {0};
    image_params *p = &r->params, from;
    if (!p->is_upscale || !p->init_image || str_starts(p->init_image, "upload:")) return;
    sqlite3_stmt *s = db_query(c, &why, "SELECT params FROM images WHERE file = ?", "s", p->init_image);
    if (!s || !db_next(c, s, &why)) return;
    yyjson_doc *doc = json_parse(db_text(s, 0), strlen(db_text(s, 0)), &why);
    json_in root = json_root(doc);
    if (doc && image_params_read(&from, &root, 0, &why)) inherit(p, &from);
    yyjson_doc_free(doc);
    db_end(s);
}

/* What each route asks for, and what must fit. */
static bool check_picture(request *r, bool is_form, err *e) {
    image_params *p = &r->params;
    if ((r->flags & IMAGE_REQUEST_NEEDS_INIT || p->is_upscale) && !p->init_image)
        return err_set(e, ERR_INVALID, "%s: required", is_form || p->is_upscale ? "image" : "init_image");
    if (p->is_upscale) return true;
    if ((r->flags & IMAGE_REQUEST_EDIT) && !p->edits.mask && !image_edits_extends(&p->edits))
        p->edits.mask = str_dup(EDITS_MASK_ALPHA);
    return image_edits_check(&p->edits, p->init_image != NULL, e);
}

static bool read_params(request *r, const json_in *body, err *e) {
    const unsigned how = (r->flags & IMAGE_REQUEST_STRICT ? IMAGE_PARAMS_STRICT : 0) |
                         (r->flags & IMAGE_REQUEST_VARIATION ? IMAGE_PARAMS_NO_PROMPT : 0) |
                         (r->flags & IMAGE_REQUEST_UPSCALE ? IMAGE_PARAMS_UPSCALE : 0);
    if (!image_params_read(&r->params, body, how, e)) return false;
    image_texts_free(&r->params.texts); /* they are the server's to say */
    return true;
}

/* ---- wildcards -------------------------------------------------------------------------------------------------- */

/* The two prompts draw apart, so that changing one leaves the other as it is. */
static bool resolve_picture(request *r, wildcards *w, int i, err *e) {
    image_params *p = &r->params;
    enum { BYTES_MAX = 4 * PARAMS_PROMPT_MAX };
    const uint64_t seed = (uint64_t)p->seed + (p->sampling.subseed_strength > 0 ? 0 : (uint64_t)i);
    char *prompt = wildcards_resolve(w, p->prompt, seed, BYTES_MAX, e);
    if (!prompt) return err_wrap(e, "prompt");
    char *negative = wildcards_resolve(w, p->negative_prompt, ~seed, BYTES_MAX, e);
    if (!negative) {
        free(prompt);
        return err_wrap(e, "negative_prompt");
    }
    image_texts_add(&p->texts, prompt, negative);
    return true;
}

/* Of each picture by its seed, as it would be alone. Reads files; done once, so that a job that is taken up again says
 * the same. */
static bool resolve_wildcards(request *r, err *e) {
    image_params *p = &r->params;
    if (p->is_upscale || !(wildcards_are_in(p->prompt) || wildcards_are_in(p->negative_prompt))) return true;
    const config *c = &r->a->cfg;
    char *folders[WILDCARDS_FOLDERS] = {path_join(c->model_dir, "wildcards"), path_join(c->data_dir, "wildcards")};
    wildcards *w = wildcards_open((const char *const *)folders);
    bool ok = true;
    image_params_draw_seed(p);
    for (int i = 0; ok && i < p->n; i++) ok = resolve_picture(r, w, i, e);
    wildcards_close(w);
    for (int i = 0; i < WILDCARDS_FOLDERS; i++) free(folders[i]);
    return ok;
}

static bool read_body(request *r, db_conn *c, yyjson_doc *doc, const http_multipart *m, err *e) {
    json_in body = json_root(doc);
    if (!read_params(r, &body, e) || !read_image_id(r, c, &body, e) || !read_response_format(r, &body, e)) return false;
    const char *field = r->params.is_upscale || !json_has(&body, "init_image") ? "image" : "init_image";
    if (!take_text(r, field, &r->params.init_image, e) || !take_text(r, "mask", &r->params.edits.mask, e) ||
        !take_controls(r, e) || (m && !store_files(r, m, e)) || !check_picture(r, m != NULL, e))
        return false;
    inherit_from_history(r, c);
    return check_type(r, &body, e) && resolve_wildcards(r, e);
}

static bool read_multipart(request *r, db_conn *c, err *e) {
    http_multipart *m = http_multipart_parse(r->content_type, r->body, r->len, e);
    if (!m) return false;
    yyjson_mut_doc *fields = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *obj = yyjson_mut_obj(fields);
    yyjson_mut_doc_set_root(fields, obj);
    bool ok = add_fields(fields, obj, m, e);
    yyjson_doc *doc = ok ? yyjson_mut_doc_imut_copy(fields, NULL) : NULL;
    ok = ok && read_body(r, c, doc, m, e);
    yyjson_doc_free(doc);
    yyjson_mut_doc_free(fields);
    http_multipart_free(m);
    return ok;
}

static bool read_json(request *r, db_conn *c, err *e) {
    yyjson_doc *doc = json_parse(r->body, r->len, e);
    bool ok = doc && read_body(r, c, doc, NULL, e);
    yyjson_doc_free(doc);
    return ok;
}

static void do_read(db_conn *c, void *arg) {
    request *r = arg;
    bool form = r->content_type && str_starts(r->content_type, "multipart/");
    if (!(form ? read_multipart(r, c, &r->result.why) : read_json(r, c, &r->result.why)) && !r->result.why.code)
        err_set(&r->result.why, ERR_INTERNAL, "the request could not be read");
    free(r->body); /* it may be large, and the job may wait long */
    r->body = NULL;
}

/* ---- finding the model ------------------------------------------------------------------------------------------ */

static bool is_image_model(const model_entry *m, err *e) {
    const bool fits = str_eq(m->type, "image") || str_eq(m->type, "diffusion_model");
    return models_check(m, fits, "an image model", e) || err_wrap(e, "model");
}

static void on_submitted(void *ctx, const err *why, const job *j) {
    request *r = ctx;
    if (why) r->result.why = *why;
    if (why && why->code == ERR_BUSY) r->result.code = "queue_full";
    finish(r, j);
}

/* No model is needed; the picture keeps the one that drew it. */
static bool choose_upscaler(request *r, err *e) {
    const model_entry *m = upscalers_find(r->a->models, "upscaler", r->params.upscaler, e);
    if (m) str_set(&r->params.upscaler, m->id);
    return m != NULL;
}

/* Any checkpoint whose latents are of the same kind; that is the worker's to say. */
static bool choose_refiner(request *r, err *e) {
    if (!r->params.refiner || r->params.is_upscale) return true;
    err why = {0};
    const model_entry *m = models_find(r->a->models, r->params.refiner, &why);
    if (!m) return err_set(e, (err_code)why.code, "refiner: %s (GET /v1/models lists them)", why.msg);
    if (!models_check(m, str_eq(m->type, "image"), "a whole checkpoint", e)) return err_wrap(e, "refiner");
    str_set(&r->params.refiner, m->id);
    return true;
}

/* An id that the client named becomes the index's own; without one the job keeps the model that is active now. */
static bool choose_model(request *r, const char **code, err *e) {
    worker_view worker = workers_view(r->a->workers, WORKER_SD);
    const char *active = worker.model_id, *wanted = r->params.model;
    if (worker.state == SUP_SAFE_MODE) {
        *code = "worker_safe_mode";
        return err_set(e, ERR_BUSY, "the image worker crashed again and again: load another model, or retry");
    }
    if (r->params.is_upscale) return choose_upscaler(r, e);
    if (!wanted && !active) {
        *code = "model_not_loaded";
        return err_set(e, ERR_BUSY, "no image model is loaded: load one, or name one in `model`");
    }
    if (!wanted || str_eq(wanted, active)) {
        str_set(&r->params.model, active);
        return true;
    }
    const model_entry *m = models_find(r->a->models, wanted, e);
    *code = m ? "model_unsupported" : "model_not_found";
    if (!m || !is_image_model(m, e)) return false;
    str_set(&r->params.model, m->id);
    return true;
}

/* In the size that was asked for, or else the model's own. */
static bool check_memory(const request *r, err *e) {
    const image_params *p = &r->params;
    if (p->is_upscale) return true; /* the worker sees to it */
    const model_entry *m = models_find(r->a->models, p->model, NULL);
    int width = p->width ? p->width : m ? m->width : 0, height = p->height ? p->height : m ? m->height : 0;
    image_edits_size(&p->edits, &width, &height);
    const int tile = (int)p->sampling.diffusion_tile; /* what is computed at once */
    if (tile && tile < width) width = tile;
    if (tile && tile < height) height = tile;
    memory_state memory = routes_memory(r->a, WORKER_SD);
    return memory_plan_generate(&memory, width, height, routes_loaded_bytes(r->a, WORKER_SD), e);
}

/* A name that is not found may only not have been seen yet: the server has just started, or a LoRA has just come. */
static bool must_look_again(request *r) {
    const models *m = r->a->models;
    bool unknown = false;
    if (r->result.why.code || r->looked) return false;
    const model_entry *network;
    if (r->params.is_upscale) return !upscalers_find(m, "upscaler", r->params.upscaler, NULL);
    if (!upscalers_of_hires(m, &r->params, &network, NULL)) return true;
    if (r->params.refiner && !models_find(m, r->params.refiner, NULL)) return true;
    if (r->params.model && !models_find(m, r->params.model, NULL) && !models_scanned(m)) return true;
    loras_check(m, &r->params, &unknown, NULL);
    if (!unknown) controlnets_resolve(m, &r->params, &unknown, NULL);
    if (!unknown) ip_adapters_resolve(m, &r->params, &unknown, NULL);
    return unknown;
}

/* What the request names beside its model. */
static bool check_names(request *r, err *e) {
    bool unknown;
    return r->params.is_upscale ||
           (loras_check(r->a->models, &r->params, &unknown, e) && embeddings_choose(r->a->models, &r->params, e) &&
            controlnets_resolve(r->a->models, &r->params, &unknown, e) &&
            ip_adapters_resolve(r->a->models, &r->params, &unknown, e));
}

/* By its id from now on. */
static bool choose_hires_network(request *r, err *e) {
    const model_entry *m;
    if (!upscalers_of_hires(r->a->models, &r->params, &m, e)) return false;
    if (m) str_set(&r->params.edits.hires.upscaler, m->id);
    return true;
}

static void on_read(void *arg) {
    request *r = arg;
    if (must_look_again(r)) {
        r->looked = true;
        models_refresh(r->a->models, on_read, r);
        return;
    }
    const char *code = NULL;
    if (r->result.why.code) {
        finish(r, NULL);
    } else if (!choose_model(r, &code, &r->result.why)) {
        refuse(r, code); /* NULL: by the error's own code */
    } else if (!choose_refiner(r, &r->result.why) || !choose_hires_network(r, &r->result.why) ||
               !check_names(r, &r->result.why) || !check_memory(r, &r->result.why)) {
        finish(r, NULL);
    } else {
        image_params_draw_seed(&r->params);
        jobs_submit(r->a->jobs, &r->params, on_submitted, r);
    }
}

void image_request_submit(app *a, char *body, size_t len, const char *content_type, unsigned flags,
                          image_request_done done, void *ctx) {
    request *r = mem_alloc(1, sizeof *r);
    *r = (request){.a = a,
                   .body = body,
                   .len = len,
                   .content_type = str_dup(content_type),
                   .flags = flags,
                   .done = done,
                   .ctx = ctx};
    db_submit(a->db, do_read, on_read, r);
}
