/* routes_images.c - pictures made while the client waits, looking into one, and what can be asked for. */
#include "server/routes.h"

#include "base/base64.h"
#include "base/str.h"
#include "diffusion/image/metadata.h"
#include "diffusion/image/upscalers.h"
#include "server/image_answer.h"
#include "server/image_request.h"
#include "server/model_lists.h"
#include "server/uploads.h"
#include "server/upscalers.h"

#include <stdlib.h>
#include <string.h>

enum { OPTIONS_JSON_MAX = 64 * 1024 * 1024 };

/* ---- making: a job, and somebody who waits for it ---------------------------------------------------------------- */

typedef struct waiting {
    app *a;
    http_req *req; /* NULL: the client went away before the job existed */
    int64_t job;   /* 0: not yet */
    job_waiter *waiter;
    bool as_url;
} waiting;

static void on_gone(void *ctx, http_req *req) {
    (void)req;
    waiting *w = ctx;
    w->req = NULL;
    if (!w->job) return; /* on_submitted finds out */
    jobs_unwait(w->a->jobs, w->waiter);
    jobs_cancel(w->a->jobs, w->job, NULL);
    free(w);
}

static void on_over(void *ctx, const job *j) {
    waiting *w = ctx;
    http_req *req = w->req;
    if (j->status == JOB_DONE) {
        image_answer_start(req, w->a->cfg.output_dir, j, w->as_url);
    } else {
        http_req_on_close(req, NULL, NULL);
        if (j->status == JOB_CANCELLED)
            http_reply_error(req, 409, "cancelled", NULL, "the job %s was cancelled", j->name);
        else if (j->error.code)
            routes_reply_invalid(req, &j->error);
        else
            http_reply_error(req, 503, "stopping", NULL, "the server is stopping; %s goes on at its next start",
                             j->name);
    }
    free(w);
}

static void on_submitted(void *ctx, const image_request_result *r) {
    waiting *w = ctx;
    if (!w->req) {
        if (r->job) jobs_cancel(w->a->jobs, r->job->id, NULL);
        free(w);
        return;
    }
    if (!r->job) {
        http_req_on_close(w->req, NULL, NULL);
        routes_reply_refusal(w->a, w->req, r);
        free(w);
        return;
    }
    w->job = r->job->id;
    w->as_url = r->as_url;
    w->waiter = jobs_wait(w->a->jobs, w->job, on_over, w);
}

static void make(app *a, http_req *req, unsigned flags) {
    waiting *w = mem_alloc(1, sizeof *w);
    *w = (waiting){.a = a, .req = req};
    http_req_on_close(req, on_gone, w);
    size_t len;
    char *body = http_req_take_body(req, &len);
    image_request_submit(a, body, len, http_req_header(req, "Content-Type"), flags, on_submitted, w);
}

static void post_generations(void *ctx, http_req *req) {
    make(ctx, req, 0);
}

static void post_edits(void *ctx, http_req *req) {
    make(ctx, req, IMAGE_REQUEST_NEEDS_INIT | IMAGE_REQUEST_EDIT);
}

static void post_variations(void *ctx, http_req *req) {
    make(ctx, req, IMAGE_REQUEST_NEEDS_INIT | IMAGE_REQUEST_VARIATION);
}

static void post_upscale(void *ctx, http_req *req) {
    make(ctx, req, IMAGE_REQUEST_UPSCALE);
}

/* ---- looking into one -------------------------------------------------------------------------------------------- */

typedef struct inspection {
    app *a;
    http_req *req;
    char *body, *path;
    size_t len;
    err why;
} inspection;

static void inspection_free(inspection *i) {
    free(i->body);
    free(i->path);
    free(i);
}

static void do_store(db_conn *c, void *arg) {
    (void)c;
    inspection *i = arg;
    const char *text = NULL;
    yyjson_doc *doc = json_parse(i->body, i->len, &i->why);
    json_in root = json_root(doc);
    char *name = NULL;
    if (doc && json_need_str(&root, "image", &text, &i->why)) name = uploads_take(i->a->uploads, text, &i->why);
    if (name) i->path = uploads_path(i->a->uploads, name, &i->why);
    if (text && !i->path) err_wrap(&i->why, "image");
    free(name);
    yyjson_doc_free(doc);
}

static void write_number(buf *out, const metadata *m, const char *field, const char *key) {
    double v;
    if (metadata_get_f64(m, field, &v)) buf_printf(out, ",\"%s\":%.15g", key, v);
}

/* The engine's own, or a network of the model folder; NULL: unknown here. */
static const char *find_hires_upscaler(const models *all, const char *name) {
    const upscaler *own = name ? upscaler_find(name) : NULL;
    if (own || !name) return own ? own->name : NULL;
    const model_entry *network = upscalers_find(all, "", name, NULL);
    return network ? network->id : NULL;
}

/* Hires fix, as far as its upscaler is known. */
static void write_hires(const models *all, const metadata *m, buf *out) {
    const char *resize = metadata_get(m, "Hires resize");
    const char *name = find_hires_upscaler(all, metadata_get(m, "Hires upscaler"));
    double scale = 0, strength;
    int width, height;
    const bool sized = resize && str_to_size(resize, &width, &height);
    if (!name || (!metadata_get_f64(m, "Hires upscale", &scale) && !sized)) return;
    buf_puts(out, ",\"hires\":{\"upscaler\":");
    json_quote(out, name);
    if (sized)
        buf_printf(out, ",\"width\":%d,\"height\":%d", width, height);
    else
        buf_printf(out, ",\"scale\":%.15g", scale);
    if (metadata_get_f64(m, "Denoising strength", &strength)) buf_printf(out, ",\"strength\":%.15g", strength);
    write_number(out, m, "Hires steps", "steps");
    buf_putc(out, '}');
}

/* A1111 writes a hash in brackets behind the name. type: NULL for any. */
static const model_entry *find_named(const models *all, const char *type, const char *text) {
    const char *hash = strstr(text, " [");
    char *name = str_ndup(text, hash ? (size_t)(hash - text) : strlen(text));
    const model_entry *found = type ? models_find_of(all, type, name, NULL) : models_find(all, name, NULL);
    free(name);
    return found;
}

static void write_refiner(const models *all, const metadata *m, buf *out) {
    const char *text = metadata_get(m, "Refiner");
    const model_entry *found = text ? find_named(all, NULL, text) : NULL;
    if (found) json_write_member(out, "refiner", found->id);
}

static void name_by_id(const models *all, const char *type, char **name) {
    const model_entry *found = find_named(all, type, *name);
    if (found) str_set(name, found->id);
}

/* Files that are not there keep the name that the text has for them, so that somebody can say which they are. */
static void write_networks(const models *all, const metadata *m, buf *out) {
    image_controls controls = {0};
    image_ip_adapter adapter = {0};
    image_controls_read_metadata(&controls, m);
    image_ip_adapter_read_metadata(&adapter, m);
    for (size_t i = 0; i < controls.count; i++) name_by_id(all, "controlnet", &controls.at[i].model);
    if (adapter.model) name_by_id(all, "ip_adapter", &adapter.model);
    if (controls.count || adapter.model) {
        buf_puts(out, ",\"networks\":{");
        image_controls_write(&controls, out);
        image_ip_adapter_write(&adapter, out);
        out->len--; /* the last comma */
        buf_putc(out, '}');
    }
    image_controls_free(&controls);
    image_ip_adapter_free(&adapter);
}

/* A1111's fields as ours; what cannot be told from the text is left out. */
static void write_params(const models *all, const metadata *m, buf *out) {
    int width, height;
    int64_t seed;
    buf_puts(out, "{\"prompt\":");
    json_quote(out, m->prompt ? m->prompt : "");
    buf_puts(out, ",\"negative_prompt\":");
    json_quote(out, m->negative_prompt ? m->negative_prompt : "");
    write_number(out, m, "Steps", "steps");
    write_number(out, m, "CFG scale", "cfg_scale");
    write_number(out, m, "Clip skip", "clip_skip");
    write_number(out, m, "Denoising strength", "strength");
    write_number(out, m, "Image CFG scale", "image_cfg_scale");
    if (metadata_get_i64(m, "Seed", &seed)) buf_printf(out, ",\"seed\":%lld", (long long)seed);
    if (metadata_get_size(m, &width, &height)) buf_printf(out, ",\"width\":%d,\"height\":%d", width, height);
    image_sampling_write_metadata(m, out);
    image_params_write_names(metadata_get(m, "Sampler"), metadata_get(m, "Schedule type"), metadata_get(m, "RNG"),
                             metadata_get(m, "Emphasis"), out);
    write_hires(all, m, out);
    write_refiner(all, m, out);
    buf_putc(out, '}');
}

static bool write_inspection(const models *all, const char *body, size_t len, buf *out, err *e) {
    yyjson_doc *doc = json_parse(body, len, e);
    json_in root = json_root(doc);
    int width = 0, height = 0;
    const char *text = NULL;
    bool ok = doc && json_get_int(&root, "width", &width, 0, 1 << 20, e) &&
              json_get_int(&root, "height", &height, 0, 1 << 20, e) && json_get_str(&root, "parameters", &text, e);
    if (ok) {
        buf_printf(out, "{\"width\":%d,\"height\":%d,\"parameters\":", width, height);
        if (text) {
            json_quote(out, text);
            buf_puts(out, ",\"params\":");
            metadata m = {0};
            metadata_parse(&m, text);
            write_params(all, &m, out);
            write_networks(all, &m, out);
            metadata_free(&m);
        } else {
            buf_puts(out, "null,\"params\":null");
        }
        buf_putc(out, '}');
    }
    yyjson_doc_free(doc);
    return ok;
}

static void on_inspected(void *ctx, int status, const char *body, size_t len, const err *e) {
    inspection *i = ctx;
    err why = {0};
    buf out;
    buf_init(&out, IMAGE_REQUEST_BODY_MAX);
    if (e)
        err_set(&why, ERR_BUSY, "the image worker did not answer: %s", e->msg);
    else if (status != 200)
        routes_read_error(body, len, &why);
    else
        write_inspection(i->a->models, body, len, &out, &why);
    if (why.code)
        routes_reply_invalid(i->req, &why);
    else
        http_reply(i->req, 200, "application/json", buf_str(&out), out.len);
    buf_free(&out);
    inspection_free(i);
}

static void on_stored(void *arg) {
    inspection *i = arg;
    buf body;
    buf_init(&body, 16 * 1024);
    if (i->path) {
        buf_puts(&body, "{\"path\":");
        json_quote(&body, i->path);
        buf_putc(&body, '}');
        const http_call_opts call = {.method = "POST",
                                     .path = "/internal/inspect",
                                     .body = buf_str(&body),
                                     .body_len = body.len,
                                     .idle_timeout_ms = 30000};
        if (workers_fetch(i->a->workers, WORKER_SD, &call, 32 << 20, on_inspected, i, &i->why)) {
            buf_free(&body);
            return;
        }
    }
    routes_reply_invalid(i->req, &i->why);
    buf_free(&body);
    inspection_free(i);
}

/* Without an on_close the request stays valid until it is answered, also when the client is gone. */
static void post_inspect(void *ctx, http_req *req) {
    inspection *i = mem_alloc(1, sizeof *i);
    *i = (inspection){.a = ctx, .req = req};
    i->body = http_req_take_body(req, &i->len);
    db_submit(i->a->db, do_store, on_stored, i);
}

/* ---- options ----------------------------------------------------------------------------------------------------- */

/* What a request may name, from the engine's tables and the model folder. */
static void get_options(void *ctx, http_req *req) {
    static const char *const lists[][2] = {{"loras", "lora"},
                                           {"embeddings", "embedding"},
                                           {"upscaler_files", "upscaler"},
                                           {"controlnets", "controlnet"},
                                           {"ip_adapters", "ip_adapter"},
                                           {"clip_vision", "clip_vision"}};
    app *a = ctx;
    buf out;
    buf_init(&out, OPTIONS_JSON_MAX);
    image_params_write_options(&out);
    out.len--; /* the closing brace */
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        buf_printf(&out, ",\"%s\":", lists[i][0]);
        model_list_write(a->models, lists[i][1], &out);
    }
    buf_putc(&out, '}');
    routes_reply_json(req, 200, &out);
}

void routes_images(route_list *l) {
    static const http_route routes[] = {
        {"POST", "/v1/images/generations", post_generations, IMAGE_REQUEST_BODY_MAX},
        {"POST", "/v1/images/edits", post_edits, IMAGE_REQUEST_BODY_MAX},
        {"POST", "/v1/images/upscale", post_upscale, IMAGE_REQUEST_BODY_MAX},
        {"POST", "/v1/images/variations", post_variations, IMAGE_REQUEST_BODY_MAX},
        {"POST", "/v1/images/inspect", post_inspect, IMAGE_REQUEST_BODY_MAX},
        {"GET", "/v1/options", get_options, 0},
    };
    route_list_add(l, routes, sizeof routes / sizeof routes[0]);
}
