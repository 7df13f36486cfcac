/* worker.c - mysti_llm_worker: the HTTP face of the engine. docs/worker-protocol.md has the protocol.
 *
 * The loop thread parses requests and hands them over; everything else happens on the engine thread. A completion stays
 * a job until its last event; the step function carries cancellations to the engine and lets it do one step. The loop
 * listens before ggml is touched: its devices are initialised on the engine thread. */
#include "base/log.h"
#include "base/str.h"
#include "llm/devices.h"
#include "llm/engine.h"
#include "llm/protocol.h"
#include "worker/worker.h"

#include <llama.h>
#include <stdlib.h>
#include <string.h>

enum { BODY_MAX = 64 << 20, EVENT_MAX = 32 << 20, ROOM_MIN = 16 * 1024 };

/* A completion or embeddings under way: the job's argument, and a member of the service's list while the engine has it.
 */
typedef struct stream {
    struct service *service;
    worker_job *job;
    llm_completion completion; /* until it is submitted; or */
    llm_embedding embedding;   /* likewise */
    uint64_t id;               /* the engine's */
    struct stream *next;
} stream;

typedef struct service {
    worker *w;
    /* Engine thread. */
    llm_engine *engine;  /* NULL: no model */
    char *path;          /* of the model */
    llm_options options; /* it was opened with */
    worker_job *loading; /* the load under way */
    stream *streams;
} service;

/* ---- completions: engine thread ---- */

static void unlink_stream(stream *s) {
    stream **at = &s->service->streams;
    while (*at && *at != s) at = &(*at)->next;
    if (*at) *at = s->next;
}

static void adopt_stream(stream *s) {
    s->next = s->service->streams;
    s->service->streams = s;
}

static void send_line(stream *s, buf *line) {
    worker_job_line(s->job, buf_str(line), line->len);
    buf_free(line);
}

static void on_started(void *ctx, const llm_usage *u) {
    buf line;
    buf_init(&line, EVENT_MAX);
    llm_write_start(&line, u);
    send_line(ctx, &line);
}

static void on_tokens(void *ctx, const int32_t *ids, size_t count, const char *text, size_t len) {
    (void)len;
    buf line;
    buf_init(&line, EVENT_MAX);
    llm_write_text(&line, ids, count, text);
    send_line(ctx, &line);
}

/* From here on the stream may be freed by the loop at any time. */
static void on_done(void *ctx, llm_finish why, const llm_usage *u) {
    stream *s = ctx;
    buf line;
    buf_init(&line, EVENT_MAX);
    llm_write_done(&line, why, u);
    unlink_stream(s);
    worker_job_done(s->job, buf_str(&line), line.len);
    buf_free(&line);
}

static void on_failed(void *ctx, const err *e) {
    stream *s = ctx;
    unlink_stream(s);
    worker_job_fail(s->job, e);
}

/* Cancelled ones are ready, so that they never hold up a step that would end them. */
static bool on_ready(void *ctx) {
    const stream *s = ctx;
    return worker_job_room(s->job) >= ROOM_MIN || worker_job_cancelled(s->job);
}

static void run_complete(worker_job *job, void *arg) {
    stream *s = arg;
    service *v = s->service;
    err e = {0};
    s->job = job;
    if (!v->engine) {
        err_set(&e, ERR_CONFLICT, "no model is loaded");
        worker_job_fail(job, &e);
        return;
    }
    llm_sink sink = {
        .started = on_started, .tokens = on_tokens, .done = on_done, .failed = on_failed, .ready = on_ready, .ctx = s};
    s->id = llm_engine_submit(v->engine, &s->completion.request, &sink, &e);
    if (!s->id) {
        worker_job_fail(job, &e);
        return;
    }
    llm_completion_free(&s->completion); /* the engine has its copy */
    adopt_stream(s);
}

/* ---- embeddings: engine thread ---- */

static void on_vector(void *ctx, size_t index, const float *v, int n) {
    buf line;
    buf_init(&line, EVENT_MAX);
    llm_write_vector(&line, index, v, n);
    send_line(ctx, &line);
}

static void on_embedded(void *ctx, int prompt_tokens) {
    stream *s = ctx;
    buf line;
    buf_init(&line, EVENT_MAX);
    llm_write_embedded(&line, prompt_tokens);
    unlink_stream(s);
    worker_job_done(s->job, buf_str(&line), line.len);
    buf_free(&line);
}

static void run_embed(worker_job *job, void *arg) {
    stream *s = arg;
    service *v = s->service;
    err e = {0};
    s->job = job;
    llm_embed_sink sink = {.vector = on_vector, .done = on_embedded, .failed = on_failed, .ctx = s};
    if (!v->engine)
        err_set(&e, ERR_CONFLICT, "no model is loaded");
    else if ((s->id = llm_engine_embed(v->engine, &s->embedding.request, &sink, &e)) != 0)
        adopt_stream(s);
    if (e.code) worker_job_fail(job, &e);
}

/* ---- both: engine thread ---- */

static void cancel_gone(service *v) {
    for (stream *s = v->streams; s;) {
        stream *next = s->next; /* s ends in here */
        if (worker_job_cancelled(s->job)) llm_engine_cancel(v->engine, s->id);
        s = next;
    }
}

static bool engine_step(void *ctx) {
    service *v = ctx;
    if (!v->engine) return false;
    cancel_gone(v);
    if (!llm_engine_step(v->engine)) return false;
    worker_alive(v->w);
    return true;
}

/* In the middle of a step. When nobody waits for its results any more, the rest is left out. */
static bool on_computing(void *ctx) {
    const service *v = ctx;
    worker_alive(v->w);
    for (const stream *s = v->streams; s; s = s->next)
        if (!worker_job_cancelled(s->job)) return true;
    return !v->streams;
}

/* ---- the model: engine thread ---- */

static bool on_loading(void *ctx, float done) {
    const service *v = ctx;
    worker_progress(v->w, "loading", (int)(done * 100), 100);
    return !v->loading || !worker_job_cancelled(v->loading);
}

static llm_engine *open_model(service *v, const char *path, const llm_options *o, err *e) {
    llm_hooks hooks = {.loading = on_loading, .computing = on_computing, .ctx = v};
    llm_options actual = *o;
    actual.max_threads = worker_threads(v->w);
    log_info("llm", "loading %s", path);
    return llm_engine_open(path, &actual, &hooks, e);
}

static void close_model(service *v, const err *why) {
    llm_engine_close(v->engine, why);
    v->engine = NULL;
    free(v->path);
    v->path = NULL;
    worker_set_model(v->w, NULL);
}

static void adopt(service *v, llm_engine *engine, const char *path, const llm_options *o) {
    const llm_info *i = llm_engine_describe(engine);
    v->engine = engine;
    str_set(&v->path, path);
    v->options = *o;
    worker_set_model(v->w, path);
    log_info("llm", "loaded: %s, %d slots of %d tokens, %d threads%s", i->description, i->slots, i->n_ctx, i->threads,
             i->generates ? "" : ", for embeddings");
}

/* The old model had to go for the new one, and the new one failed. */
static void restore(service *v, const char *path, const llm_options *o) {
    err e = {0};
    worker_job *cancelled_or_not = v->loading;
    v->loading = NULL; /* a client that is gone does not stop this one */
    llm_engine *old = open_model(v, path, o, &e);
    v->loading = cancelled_or_not;
    if (old)
        adopt(v, old, path, o);
    else
        log_error("llm", "the previous model can't be loaded again: %s", e.msg);
}

/* The new model is opened beside the old one, which so stays when the new one is no good. Only where memory does not
 * suffice for both is the old one closed first. */
static bool replace_model(service *v, const char *path, const llm_options *o, err *e) {
    err replaced = {0};
    err_set(&replaced, ERR_CONFLICT, "another model was loaded");
    llm_engine *engine = open_model(v, path, o, e);
    if (engine) {
        close_model(v, &replaced);
        adopt(v, engine, path, o);
        return true;
    }
    if (e->code != ERR_MEMORY || !v->engine) return false;
    log_info("llm", "not enough memory beside the present model, which is closed first: %s", e->msg);
    char *old_path = str_dup(v->path);
    llm_options old_options = v->options;
    close_model(v, &replaced);
    engine = open_model(v, path, o, e);
    if (engine)
        adopt(v, engine, path, o);
    else
        restore(v, old_path, &old_options);
    free(old_path);
    return engine != NULL;
}

typedef struct load_request {
    service *service;
    char *path;
    llm_options options;
} load_request;

static void reply_load_error(worker_job *job, const err *e, const char *loaded) {
    buf body;
    buf_init(&body, 64 * 1024);
    int status = http_status_of(e->code);
    llm_write_load_error(&body, status >= 500 ? "server_error" : "invalid_request_error", e, loaded);
    worker_job_reply(job, status, buf_str(&body), body.len);
    buf_free(&body);
}

static void run_load(worker_job *job, void *arg) {
    load_request *r = arg;
    service *v = r->service;
    err e = {0};
    worker_set_activity(v->w, WORKER_LOADING);
    v->loading = job;
    bool ok = replace_model(v, r->path, &r->options, &e);
    v->loading = NULL;
    worker_set_activity(v->w, WORKER_BUSY);
    if (!ok) {
        log_error("llm", "load %s: %s", r->path, e.msg);
        err_wrap(&e, "load '%.80s'", r->path);
        reply_load_error(job, &e, v->path);
        return;
    }
    buf body;
    buf_init(&body, 64 * 1024);
    llm_write_info(&body, llm_engine_describe(v->engine));
    worker_job_reply(job, 200, buf_str(&body), body.len);
    buf_free(&body);
}

static void run_unload(worker_job *job, void *arg) {
    service *v = arg;
    if (v->engine) {
        log_info("llm", "unloading %s", v->path);
        close_model(v, NULL);
    }
    worker_job_reply(job, 200, "{}", 2);
}

/* ---- the small ones: engine thread ---- */

typedef struct tokenize_request {
    service *service;
    char *text;
    bool add_special;
} tokenize_request;

static void run_tokenize(worker_job *job, void *arg) {
    tokenize_request *r = arg;
    int32_t *tokens;
    size_t count;
    err e = {0};
    if (!r->service->engine)
        err_set(&e, ERR_CONFLICT, "no model is loaded");
    else if (llm_engine_tokenize(r->service->engine, r->text, r->add_special, &tokens, &count, &e)) {
        buf body;
        buf_init(&body, EVENT_MAX);
        llm_write_tokens(&body, tokens, count);
        free(tokens);
        worker_job_reply(job, 200, buf_str(&body), body.len);
        buf_free(&body);
        return;
    }
    worker_job_fail(job, &e);
}

static void run_devices(worker_job *job, void *arg) {
    (void)arg;
    buf body;
    buf_init(&body, 64 * 1024);
    llm_devices_write(&body);
    worker_job_reply(job, 200, buf_str(&body), body.len);
    buf_free(&body);
}

static bool engine_init(void *ctx, err *e) {
    (void)ctx;
    (void)e;
    llama_backend_init();
    return true;
}

static void engine_fini(void *ctx) {
    service *v = ctx;
    close_model(v, NULL);
    llama_backend_free();
}

static size_t memory(void *ctx, worker_memory *out, size_t cap) {
    (void)ctx;
    return llm_devices_memory(out, cap);
}

/* ---- handlers: loop thread ---- */

static void free_stream(void *arg) {
    stream *s = arg;
    llm_completion_free(&s->completion);
    llm_embedding_free(&s->embedding);
    free(s);
}

static void on_complete(void *ctx, http_req *req) {
    service *v = ctx;
    size_t len;
    const char *body = http_req_body(req, &len);
    err e = {0};
    stream *s = mem_alloc(1, sizeof *s);
    s->service = v;
    if (llm_completion_parse(&s->completion, body, len, &e)) {
        worker_submit(v->w, req, s->completion.id, run_complete, s, free_stream);
        return;
    }
    free_stream(s);
    http_reply_err(req, &e);
}

static void on_embed(void *ctx, http_req *req) {
    service *v = ctx;
    size_t len;
    const char *body = http_req_body(req, &len);
    err e = {0};
    stream *s = mem_alloc(1, sizeof *s);
    s->service = v;
    if (llm_embedding_parse(&s->embedding, body, len, &e)) {
        worker_submit(v->w, req, s->embedding.id, run_embed, s, free_stream);
        return;
    }
    free_stream(s);
    http_reply_err(req, &e);
}

static void free_load(void *arg) {
    load_request *r = arg;
    free(r->path);
    free(r);
}

static void on_load(void *ctx, http_req *req) {
    service *v = ctx;
    size_t len;
    const char *body = http_req_body(req, &len);
    err e = {0};
    load_request *r = mem_alloc(1, sizeof *r);
    r->service = v;
    if (llm_load_parse(body, len, &r->path, &r->options, &e)) {
        worker_submit(v->w, req, NULL, run_load, r, free_load);
        return;
    }
    free_load(r);
    http_reply_err(req, &e);
}

static void free_tokenize(void *arg) {
    tokenize_request *r = arg;
    free(r->text);
    free(r);
}

static void on_tokenize(void *ctx, http_req *req) {
    service *v = ctx;
    size_t len;
    const char *body = http_req_body(req, &len);
    err e = {0};
    tokenize_request *r = mem_alloc(1, sizeof *r);
    r->service = v;
    if (llm_tokenize_parse(body, len, &r->text, &r->add_special, &e)) {
        worker_submit(v->w, req, NULL, run_tokenize, r, free_tokenize);
        return;
    }
    free_tokenize(r);
    http_reply_err(req, &e);
}

static void on_unload(void *ctx, http_req *req) {
    service *v = ctx;
    worker_submit(v->w, req, NULL, run_unload, v, NULL);
}

static void on_devices(void *ctx, http_req *req) {
    service *v = ctx;
    worker_submit(v->w, req, NULL, run_devices, v, NULL);
}

static int start(void *ctx, worker *w) {
    service *v = ctx;
    v->w = w;
    return -1;
}

int main(int argc, char **argv) {
    static const http_route routes[] = {
        {"POST", "/internal/load", on_load, 0},
        {"POST", "/internal/unload", on_unload, 0},
        {"POST", "/internal/complete", on_complete, BODY_MAX},
        {"POST", "/internal/embed", on_embed, BODY_MAX},
        {"POST", "/internal/tokenize", on_tokenize, BODY_MAX},
        {"GET", "/internal/devices", on_devices, 0},
    };
    service v = {0};
    worker_service s = {.program = "mysti_llm_worker",
                        .name = "llm",
                        .routes = routes,
                        .route_count = sizeof routes / sizeof *routes,
                        .start = start,
                        .engine_init = engine_init,
                        .engine_step = engine_step,
                        .engine_fini = engine_fini,
                        .memory = memory,
                        .ctx = &v};
    return worker_run(argc, argv, &s);
}
