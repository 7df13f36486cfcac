/* routes_workers.c - health, loading and unloading of models, leaving safe mode, and the text routes. */
#include "server/routes.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/path.h"
#include "base/str.h"
#include "server/llm_api.h"
#include "server/llm_relay.h"
#include "server/memory_plan.h"

#include <stdlib.h>
#include <string.h>

enum { BODY_MAX = 1 << 16, CHAT_BODY_MAX = 32 << 20 };

static void write_worker(app *a, worker_id id, buf *out) {
    workers_write(a->workers, id, out);
}

static void get_health(void *ctx, http_req *req) {
    app *a = ctx;
    bool ok = workers_view(a->workers, WORKER_SD).state == SUP_READY &&
              workers_view(a->workers, WORKER_LLM).state == SUP_READY;
    buf out;
    buf_init(&out, BODY_MAX);
    buf_printf(&out,
               "{\"status\":\"%s\",\"version\":\"%s\",\"uptime_ms\":%lld,\"workers\":{\"sd\":", ok ? "ok" : "degraded",
               MYSTI_VERSION, (long long)(clock_wall_ms() - a->started_ms));
    write_worker(a, WORKER_SD, &out);
    buf_puts(&out, ",\"llm\":");
    write_worker(a, WORKER_LLM, &out);
    buf_puts(&out, "}}");
    routes_reply_json(req, 200, &out);
}

/* ---- what a worker is sent -------------------------------------------------------------------------------------- */

static const char *const components[] = {"vae", "clip_l", "clip_g", "t5xxl", "llm", "taesd"};
enum { COMPONENT_COUNT = sizeof components / sizeof components[0] };

memory_state routes_memory(app *a, worker_id id) {
    memory_state m = {0};
    const worker_health *h = workers_view(a->workers, id).health;
    for (size_t i = 0; h && i < h->memory_count && m.count < MEMORY_DEVICES_MAX; i++) {
        memory_device *d = &m.devices[m.count++];
        str_copy(d->name, sizeof d->name, h->memory[i].device);
        d->total = (int64_t)h->memory[i].total;
        d->free = (int64_t)h->memory[i].free;
    }
    memory_info host = memory_status();
    if (m.count == 0 && host.total > 0) { /* the worker has only just started, and told nothing yet */
        m.devices[0] = (memory_device){.name = "CPU", .total = (int64_t)host.total, .free = (int64_t)host.available};
        m.count = 1;
    }
    return m;
}

int64_t routes_loaded_bytes(app *a, worker_id id) {
    worker_view v = workers_view(a->workers, id);
    const model_entry *m = v.loaded && v.model_id ? models_find(a->models, v.model_id, NULL) : NULL;
    return m ? m->size : 0;
}

static bool is_diffusion_only(const model_entry *m) {
    return str_eq(m->type, "diffusion_model");
}

static bool write_image_body(app *a, const model_entry *m, const json_in *body, buf *out, err *e) {
    bool moved = is_diffusion_only(m);
    if (moved && str_iends(m->path, ".gguf"))
        log_info("server", "Smart fallback: Moving GGUF from model_path to diffusion_model_path");
    buf_putc(out, '{');
    json_write_member(out, "model", moved ? NULL : m->path);
    const char *diffusion = NULL, *prediction = NULL;
    if (body &&
        (!json_get_str(body, "diffusion_model", &diffusion, e) || !json_get_str(body, "prediction", &prediction, e)))
        return false;
    if (diffusion && *diffusion) {
        const model_entry *d = models_find(a->models, diffusion, e);
        if (!d) return err_wrap(e, "diffusion_model");
        json_write_member(out, "diffusion_model", d->path);
    } else {
        json_write_member(out, "diffusion_model", moved ? m->path : NULL);
    }
    for (size_t i = 0; i < COMPONENT_COUNT; i++) {
        const char *name = NULL;
        if (body && !json_get_str(body, components[i], &name, e)) return false;
        if (str_empty(name)) continue;
        const model_entry *part = models_find(a->models, name, e);
        if (!part) return err_wrap(e, "%s", components[i]);
        json_write_member(out, components[i], part->path);
    }
    if (prediction) json_write_member(out, "prediction", prediction);
    buf_putc(out, '}');
    return true;
}

static bool is_image_model(const model_entry *m, err *e) {
    return models_check(m, str_eq(m->type, "image") || is_diffusion_only(m), "an image model", e);
}

static bool is_text_model(const model_entry *m, err *e) {
    return models_check(m, str_eq(m->type, "llm"), "a text model", e);
}

void routes_load_image(app *a, const model_entry *m, const json_in *body, worker_load_fn *fn, void *ctx) {
    err e = {0};
    buf out;
    buf_init(&out, BODY_MAX);
    if (is_image_model(m, &e) && write_image_body(a, m, body, &out, &e))
        workers_load(a->workers, WORKER_SD, m->id, buf_str(&out), fn, ctx);
    else
        fn(ctx, NULL, &e);
    buf_free(&out);
}

void routes_load_llm(app *a, const model_entry *m, const json_in *options, worker_load_fn *fn, void *ctx) {
    const config *c = &a->cfg;
    err e = {0};
    int n_ctx = (int)c->n_ctx, layers = (int)c->n_gpu_layers, slots = (int)c->llm_slots;
    memory_state memory = routes_memory(a, WORKER_LLM);
    bool ok = is_text_model(m, &e);
    if (ok && options)
        ok = json_get_int(options, "n_ctx", &n_ctx, 0, 1 << 22, &e) &&
             json_get_int(options, "n_gpu_layers", &layers, -1, 10000, &e) &&
             json_get_int(options, "slots", &slots, 1, 64, &e);
    ok = ok && memory_plan_llm(&memory, m->size, n_ctx ? n_ctx : 4096, 0, routes_loaded_bytes(a, WORKER_LLM), &e);
    if (!ok) {
        fn(ctx, NULL, &e);
        return;
    }
    buf out;
    buf_init(&out, BODY_MAX);
    buf_puts(&out, "{\"path\":");
    json_quote(&out, m->path);
    buf_printf(&out, ",\"n_ctx\":%d,\"n_gpu_layers\":%d,\"threads\":%lld,\"slots\":%d}", n_ctx, layers,
               (long long)c->llm_threads, slots);
    workers_load(a->workers, WORKER_LLM, m->id, buf_str(&out), fn, ctx);
    buf_free(&out);
}

/* ---- load and unload -------------------------------------------------------------------------------------------- */

/* A request that waits for its load. The load goes on when the client leaves. */
typedef struct load_wait {
    http_req *req; /* NULL: gone */
    char *model_id, *type, *family;
    int64_t started_ms;
} load_wait;

static void load_wait_free(load_wait *w) {
    free(w->model_id);
    free(w->type);
    free(w->family);
    free(w);
}

static void load_client_gone(void *ctx, http_req *req) {
    (void)req;
    ((load_wait *)ctx)->req = NULL;
}

/* 404 for an id nobody has, 422 for a file that is broken or of the wrong kind, 507 for one that is too big. */
static void reply_load_error(http_req *req, const err *e) {
    int status = e->code == ERR_FORMAT || e->code == ERR_UNSUPPORTED ? 422
                 : e->code == ERR_MEMORY                             ? 507
                                                                     : http_status_of(e->code);
    const char *code = e->code == ERR_NOT_FOUND ? "model_not_found" : err_name(e->code);
    routes_reply_named(req, status, code, status == 404 || status == 422 || status == 507 ? "model_id" : NULL, e);
}

static void on_loaded(void *ctx, const char *answer, const err *e) {
    load_wait *w = ctx;
    if (w->req && e) {
        reply_load_error(w->req, e);
    } else if (w->req) {
        buf out;
        buf_init(&out, 1 << 20);
        buf_puts(&out, "{\"model_id\":");
        json_quote(&out, w->model_id);
        buf_printf(&out, ",\"type\":\"%s\",\"family\":", w->type);
        json_quote(&out, w->family ? w->family : "");
        buf_printf(&out, ",\"load_ms\":%lld,\"worker\":%s}", (long long)(clock_mono_ms() - w->started_ms), answer);
        routes_reply_json(w->req, 200, &out);
    }
    load_wait_free(w);
}

typedef void load_fn(app *a, const model_entry *m, const json_in *body, worker_load_fn *fn, void *ctx);

/* The id in the body; NULL when it was answered. */
static const char *wanted_model(http_req *req, const json_in *root) {
    err e = {0};
    const char *id = NULL;
    if (json_get_str(root, "model_id", &id, &e) && (id || json_get_str(root, "model", &id, &e)) &&
        (id || json_need_str(root, "model_id", &id, &e)))
        return id;
    routes_reply_invalid(req, &e);
    return NULL;
}

static void load_found(app *a, http_req *req, load_fn *load, const model_entry *m, const json_in *root) {
    load_wait *w = mem_alloc(1, sizeof *w);
    *w = (load_wait){.req = req,
                     .model_id = str_dup(m->id),
                     .type = str_dup(m->type),
                     .family = str_dup(m->family),
                     .started_ms = clock_mono_ms()};
    http_req_on_close(req, load_client_gone, w);
    load(a, m, root, on_loaded, w);
}

/* A request for a model that is not in the index, which is read anew: the file may have come a moment ago. */
typedef struct search {
    app *a;
    http_req *req; /* NULL: gone */
    load_fn *load;
} search;

static void search_client_gone(void *ctx, http_req *req) {
    (void)req;
    ((search *)ctx)->req = NULL;
}

static void load_any(app *a, http_req *req, load_fn *load, bool searched);

static void on_searched(void *ctx) {
    search *s = ctx;
    if (s->req) {
        http_req_on_close(s->req, NULL, NULL);
        load_any(s->a, s->req, s->load, true);
    }
    free(s);
}

static void load_any(app *a, http_req *req, load_fn *load, bool searched) {
    json_in root;
    yyjson_doc *doc = routes_body(req, &root);
    const char *id = doc ? wanted_model(req, &root) : NULL;
    err e = {0};
    const model_entry *m = id ? models_find(a->models, id, &e) : NULL;
    if (m) {
        load_found(a, req, load, m, &root);
    } else if (id && e.code == ERR_NOT_FOUND && !searched) {
        search *s = mem_alloc(1, sizeof *s);
        *s = (search){a, req, load};
        http_req_on_close(req, search_client_gone, s);
        models_refresh(a->models, on_searched, s);
    } else if (id) {
        http_reply_error(req, 404, "model_not_found", "model_id", "%s", e.msg);
    }
    yyjson_doc_free(doc);
}

static void post_load_image(void *ctx, http_req *req) {
    load_any(ctx, req, routes_load_image, false);
}
static void post_load_llm(void *ctx, http_req *req) {
    load_any(ctx, req, routes_load_llm, false);
}

typedef struct unload_wait {
    http_req *req;
} unload_wait;

static void unload_client_gone(void *ctx, http_req *req) {
    (void)req;
    ((unload_wait *)ctx)->req = NULL;
}

static void on_unloaded(void *ctx, const char *answer, const err *e) {
    (void)answer;
    unload_wait *w = ctx;
    if (w->req && e)
        reply_load_error(w->req, e);
    else if (w->req)
        http_reply(w->req, 200, "application/json", "{}", 2);
    free(w);
}

static void unload_any(app *a, http_req *req, worker_id id) {
    unload_wait *w = mem_alloc(1, sizeof *w);
    w->req = req;
    http_req_on_close(req, unload_client_gone, w);
    workers_unload(a->workers, id, on_unloaded, w);
}

static void post_unload_image(void *ctx, http_req *req) {
    unload_any(ctx, req, WORKER_SD);
}
static void post_unload_llm(void *ctx, http_req *req) {
    unload_any(ctx, req, WORKER_LLM);
}

static void post_retry(void *ctx, http_req *req) {
    app *a = ctx;
    const char *name = http_req_param(req, "worker");
    for (int id = 0; id < WORKER_COUNT; id++) {
        if (!str_eq(name, workers_view(a->workers, (worker_id)id).name)) continue;
        workers_retry(a->workers, (worker_id)id);
        buf out;
        buf_init(&out, BODY_MAX);
        write_worker(a, (worker_id)id, &out);
        routes_reply_json(req, 200, &out);
        return;
    }
    http_reply_error(req, 404, NULL, NULL, "there is no worker '%s'; there are sd and llm", name);
}

void routes_workers(route_list *l) {
    static const http_route routes[] = {
        {"GET", "/health", get_health, 0},
        {"GET", "/v1/health", get_health, 0},
        {"POST", "/v1/models/load", post_load_image, BODY_MAX},
        {"POST", "/v1/models/unload", post_unload_image, BODY_MAX},
        {"POST", "/v1/llm/load", post_load_llm, BODY_MAX},
        {"POST", "/v1/llm/unload", post_unload_llm, BODY_MAX},
        {"POST", "/v1/workers/{worker}/retry", post_retry, BODY_MAX},
    };
    route_list_add(l, routes, sizeof routes / sizeof routes[0]);
}

/* ---- text ------------------------------------------------------------------------------------------------------- */

static void get_instruction(void *ctx, http_req *req) {
    (void)ctx;
    buf out;
    buf_init(&out, BODY_MAX);
    buf_puts(&out, "{\"instruction\":");
    json_quote(&out, llm_enhance_instruction);
    buf_puts(&out, "}");
    routes_reply_json(req, 200, &out);
}

void routes_text(route_list *l) {
    static const http_route routes[] = {
        {"POST", "/v1/chat/completions", llm_relay_chat, CHAT_BODY_MAX},
        {"POST", "/v1/completions", llm_relay_completion, CHAT_BODY_MAX},
        {"POST", "/v1/prompt/enhance", llm_relay_enhance, CHAT_BODY_MAX},
        {"POST", "/v1/embeddings", llm_relay_embeddings, CHAT_BODY_MAX},
        {"GET", "/v1/prompt/enhance", get_instruction, 0},
    };
    route_list_add(l, routes, sizeof routes / sizeof routes[0]);
}
