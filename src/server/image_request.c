/* image_request.c - see image_request.h. */
#include "server/image_request.h"
#include "server/models.h"
#include "server/routes.h"
#include "server/uploads.h"
#include "server/workers.h"
#include "base/str.h"
#include "net/http_multipart.h"

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

/* Text fields become strings of a JSON object; the readers of parameters take numbers as text too. */
static bool add_fields(yyjson_mut_doc *doc, yyjson_mut_val *obj, const http_multipart *m, err *e) {
    for (size_t i = 0; i < http_multipart_count(m); i++) {
        const http_part *p = http_multipart_part(m, i);
        if (p->filename) continue;
        if (!str_is_utf8(p->data, p->len) || memchr(p->data, 0, p->len))
            return err_set(e, ERR_INVALID, "%.60s: not text", p->name);
        yyjson_mut_val *key = yyjson_mut_strcpy(doc, p->name);
        if (!yyjson_mut_obj_getn(obj, p->name, strlen(p->name)))
            yyjson_mut_obj_add(obj, key, yyjson_mut_strncpy(doc, p->data, p->len));
    }
    return true;
}

static bool store_file(request *r, const http_multipart *m, err *e) {
    const http_part *file = http_multipart_find(m, "image");
    if (!file) file = http_multipart_find(m, "image[]");
    if (!file) file = http_multipart_find(m, "init_image");
    if (!file || !file->filename) return true;
    char *name = uploads_store(r->a->uploads, file->data, file->len, e);
    if (!name) return err_wrap(e, "%s", file->name);
    free(r->params.init_image);
    r->params.init_image = name;
    return true;
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
    if (str_eq(type, "img2img")) return has_image || err_set(e, ERR_INVALID, "init_image: required for img2img");
    if (!str_eq(type, "txt2img")) return err_set(e, ERR_INVALID, "type: '%.40s' is none of txt2img, img2img", type);
    return !has_image || err_set(e, ERR_INVALID, "init_image: not for txt2img; the type is img2img");
}

static bool read_body(request *r, yyjson_doc *doc, const http_multipart *m, err *e) {
    json_in body = json_root(doc);
    if (!image_params_read(&r->params, &body, (r->flags & IMAGE_REQUEST_STRICT) != 0, e)) return false;
    if (!read_response_format(r, &body, e)) return false;
    if (r->params.init_image) { /* before the form's file, which then replaces it */
        char *name = uploads_take(r->a->uploads, r->params.init_image, e);
        if (!name) return err_wrap(e, "init_image");
        free(r->params.init_image);
        r->params.init_image = name;
    }
    if (m && !store_file(r, m, e)) return false;
    if ((r->flags & IMAGE_REQUEST_NEEDS_INIT) && !r->params.init_image)
        return err_set(e, ERR_INVALID, "init_image: required");
    return check_type(r, &body, e);
}

static bool read_multipart(request *r, err *e) {
    http_multipart *m = http_multipart_parse(r->content_type, r->body, r->len, e);
    if (!m) return false;
    yyjson_mut_doc *fields = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *obj = yyjson_mut_obj(fields);
    yyjson_mut_doc_set_root(fields, obj);
    bool ok = add_fields(fields, obj, m, e);
    yyjson_doc *doc = ok ? yyjson_mut_doc_imut_copy(fields, NULL) : NULL;
    ok = ok && read_body(r, doc, m, e);
    yyjson_doc_free(doc);
    yyjson_mut_doc_free(fields);
    http_multipart_free(m);
    return ok;
}

static bool read_json(request *r, err *e) {
    yyjson_doc *doc = json_parse(r->body, r->len, e);
    bool ok = doc && read_body(r, doc, NULL, e);
    yyjson_doc_free(doc);
    return ok;
}

static void do_read(db_conn *c, void *arg) {
    request *r = arg;
    (void)c;
    bool form = r->content_type && str_starts(r->content_type, "multipart/");
    if (!(form ? read_multipart(r, &r->result.why) : read_json(r, &r->result.why)) && !r->result.why.code)
        err_set(&r->result.why, ERR_INTERNAL, "the request could not be read");
    free(r->body); /* it may be large, and the job may wait long */
    r->body = NULL;
}

/* ---- finding the model ------------------------------------------------------------------------------------------ */

static bool is_image_model(const model_entry *m, err *e) {
    if (!str_eq(m->type, "image") && !str_eq(m->type, "diffusion_model"))
        return err_set(e, ERR_UNSUPPORTED, "model: '%.80s' is not an image model but of type %s", m->id, m->type);
    return m->supported ||
           err_set(e, ERR_UNSUPPORTED, "model: '%.80s': %s", m->id, m->reason ? m->reason : "unsupported");
}

static void on_submitted(void *ctx, const err *why, const job *j) {
    request *r = ctx;
    if (why) r->result.why = *why;
    if (why && why->code == ERR_BUSY) r->result.code = "queue_full";
    finish(r, j);
}

/* An id that the client named becomes the index's own; without one the job keeps the model that is active now. */
static bool choose_model(request *r, const char **code, err *e) {
    worker_view worker = workers_view(r->a->workers, WORKER_SD);
    const char *active = worker.model_id, *wanted = r->params.model;
    if (worker.state == SUP_SAFE_MODE) {
        *code = "worker_safe_mode";
        return err_set(e, ERR_BUSY, "the image worker crashed again and again: load another model, or retry");
    }
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
    const model_entry *m = models_find(r->a->models, p->model, NULL);
    int width = p->width ? p->width : m ? m->width : 0, height = p->height ? p->height : m ? m->height : 0;
    memory_state memory = routes_memory(r->a, WORKER_SD);
    return memory_plan_generate(&memory, width, height, e);
}

static void on_read(void *arg) {
    request *r = arg;
    if (r->params.model && !models_find(r->a->models, r->params.model, NULL) && !models_scanned(r->a->models)) {
        models_refresh(r->a->models, on_read, r); /* the server has only just started */
        return;
    }
    const char *code = NULL;
    if (r->result.why.code) {
        finish(r, NULL);
    } else if (!choose_model(r, &code, &r->result.why)) {
        refuse(r, code);
    } else if (!check_memory(r, &r->result.why)) {
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
