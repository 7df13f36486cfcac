/* llm_relay.c - see llm_relay.h.
 *
 * One `answer` per request: wait until the worker is ready with the right model, send, pass on line by line; start
 * over with the tokens so far when the worker died. It owns nothing of the worker and borrows the client's http_req,
 * which it ends exactly once.
 *
 * A death is counted against every answer that was under way, until that has got on by a token. So a long answer may
 * outlive any number of deaths, and one that kills the worker by itself is given up after DEATHS_MAX. Before that it
 * is a suspect, and suspects are sent one at a time: it dies alone, and the others go on. */
#include "server/llm_relay.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/str.h"
#include "net/http_lines.h"
#include "server/llm_api.h"
#include "server/llm_embeddings.h"
#include "server/models.h"
#include "server/routes.h"
#include "server/workers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    LINE_MAX_BYTES = 1 << 20,
    TEXT_MAX = 16 << 20,
    VECTORS_MAX = 256 << 20, /* of 2048 texts, as numbers */
    DEATHS_MAX = 3,          /* in a row, without a token in between */
    SUSPECT_DEATHS = 2,      /* from so many on, it is sent when no other suspect is under way */
    DEATH_WAIT_MS = 6000,
    DEATH_POLL_MS = 5,
};

typedef struct answer {
    llm_relay *relay;
    struct answer *next;
    http_req *req; /* NULL once the client is gone or answered */
    llm_request request;
    char *model; /* its id, as clients see it */
    llm_head head;

    worker_wait *wait; /* for a worker with its model */
    http_call *call;   /* the stream from the worker */
    http_lines lines;
    uv_timer_t timer; /* between a broken stream and the news of the death */
    bool working;     /* workers_work_begin() was called */
    bool loading;     /* routes_load_llm() is under way: it cannot be taken back */
    bool dropped;     /* nobody waits any more; freed when the load has ended */
    bool held;        /* a suspect: waits until another one is cleared, or is no more */
    int deaths;
    unsigned restarts_seen; /* of the worker, when the request was sent */
    int64_t broke_at;

    int32_t *tokens; /* made so far */
    size_t token_count, token_cap;
    buf text; /* of an answer that does not stream, or its vectors */
    char finish[16];
    llm_usage usage;
    bool done; /* the worker said so */
    err error; /* or failed: code 0 when not */
} answer;

struct llm_relay {
    app *app;
    answer *answers; /* the newest first */
    size_t count;
};

/* One request alone does not count: it is the one that asks. */
bool llm_relay_busy(const llm_relay *r) {
    return r->answers && r->answers->next;
}

/* The stream of a process that died may have broken already: such an answer waits for the news on its timer. */
void llm_relay_write_running(const llm_relay *r, buf *out) {
    for (const answer *a = r->answers; a; a = a->next)
        if (a->working || uv_is_active((const uv_handle_t *)&a->timer))
            buf_printf(out, "%s%s", out->len ? "," : "", a->head.id);
}

/* ---- ends ------------------------------------------------------------------------------------------------------- */

static void stop_working(answer *a, bool ok) {
    if (a->working) workers_work_end(a->relay->app->workers, WORKER_LLM, ok);
    a->working = false;
}

static void free_closed(uv_handle_t *h) {
    answer *a = h->data;
    llm_request_free(&a->request);
    http_lines_free(&a->lines);
    buf_free(&a->text);
    free(a->tokens);
    free(a->model);
    free(a);
}

static void release_suspect(llm_relay *r);

/* Lets go of everything; the http_req has been ended or is gone. Never from inside on_line. */
static void drop(answer *a) {
    stop_working(a, a->done && !a->error.code);
    if (a->wait) workers_wait_cancel(a->wait);
    if (a->call) http_call_abort(a->call);
    answer **at = &a->relay->answers;
    while (*at != a) at = &(*at)->next;
    *at = a->next;
    a->relay->count--;
    a->dropped = true;
    release_suspect(a->relay);
    if (!a->loading) uv_close((uv_handle_t *)&a->timer, free_closed);
}

/* Where the text is that may be too long. */
static const char *text_param(llm_shape shape) {
    return shape == LLM_CHAT ? "messages" : shape == LLM_EMBEDDING ? "input" : "prompt";
}

static void fail(answer *a, const err *e) {
    if (!http_reply_begun(a->req)) {
        bool too_long = e->code == ERR_TOO_LARGE && a->token_count == 0;
        if (e->code == ERR_NOT_FOUND)
            http_reply_error(a->req, 503, "model_not_loaded", "model", "%s", e->msg);
        else if (too_long) /* clients that shorten the conversation look for this code, or for these words */
            http_reply_error(a->req, 400, "context_length_exceeded", text_param(a->request.shape),
                             "the model's maximum context length is exceeded: %s", e->msg);
        else
            routes_reply_named(a->req, http_status_of(e->code), err_name(e->code), NULL, e);
    } else {
        buf out;
        buf_init(&out, LINE_MAX_BYTES);
        llm_write_error_event(e, &out);
        http_reply_write(a->req, out.data, out.len);
        http_reply_end(a->req);
        buf_free(&out);
    }
    drop(a);
}

static void finish(answer *a) {
    buf out;
    buf_init(&out, a->text.max * 2);
    if (a->request.shape == LLM_EMBEDDING) {
        llm_embeddings_write(&a->head, &a->text, &a->usage, &out);
        http_reply(a->req, 200, "application/json", out.data, out.len);
    } else if (!a->request.stream) {
        llm_write_completion(&a->head, buf_str(&a->text), a->finish, &a->usage, &out);
        http_reply(a->req, 200, "application/json", out.data, out.len);
    } else {
        llm_write_last_chunk(&a->head, a->finish, &out);
        if (a->request.include_usage) llm_write_usage_chunk(&a->head, &a->usage, &out);
        buf_puts(&out, "data: [DONE]\n\n");
        http_reply_write(a->req, out.data, out.len);
        http_reply_end(a->req);
    }
    buf_free(&out);
    drop(a);
}

static void client_gone(void *ctx, http_req *req) {
    (void)req;
    drop(ctx);
}

/* ---- what the worker says --------------------------------------------------------------------------------------- */

static void client_caught_up(void *ctx, http_req *req) {
    (void)req;
    answer *a = ctx;
    if (a->call) http_call_resume(a->call);
}

static void pass_on(answer *a, const buf *out) {
    if (http_reply_write(a->req, out->data, out->len)) return;
    if (a->call) http_call_pause(a->call);
    http_req_on_drain(a->req, client_caught_up, a);
}

static void on_start(answer *a, const json_in *line) {
    json_get_int(line, "prompt_tokens", &a->usage.prompt_tokens, 0, INT32_MAX, NULL);
    if (!a->request.stream || http_reply_begun(a->req)) return;
    http_header_add(a->req, "Cache-Control", "no-cache");
    http_header_add(a->req, "X-Accel-Buffering", "no");
    http_reply_begin(a->req, 200, "text/event-stream");
    buf out;
    buf_init(&out, LINE_MAX_BYTES);
    llm_write_first_chunk(&a->head, &out);
    if (out.len) pass_on(a, &out);
    buf_free(&out);
}

static void remember_tokens(answer *a, const json_in *line) {
    yyjson_val *ids = yyjson_obj_get(line->val, "ids");
    yyjson_arr_iter it = yyjson_arr_iter_with(ids);
    for (yyjson_val *id; (id = yyjson_arr_iter_next(&it));) {
        if (a->token_count == a->token_cap) {
            a->token_cap = a->token_cap ? a->token_cap * 2 : 64;
            a->tokens = mem_resize(a->tokens, a->token_cap * sizeof a->tokens[0]);
        }
        a->tokens[a->token_count++] = (int32_t)yyjson_get_int(id);
    }
}

static bool on_token(answer *a, const json_in *line) {
    const char *text = "";
    remember_tokens(a, line);
    if (a->deaths) { /* it has got on */
        a->deaths = 0;
        release_suspect(a->relay);
    }
    if (!json_get_str(line, "text", &text, &a->error)) return false;
    if (!*text) return true;
    if (!a->request.stream) {
        if (buf_puts(&a->text, text)) return true;
        return err_set(&a->error, ERR_TOO_LARGE, "the answer is longer than %d bytes", TEXT_MAX);
    }
    buf out;
    buf_init(&out, LINE_MAX_BYTES * 8);
    llm_write_text_chunk(&a->head, text, &out);
    pass_on(a, &out);
    buf_free(&out);
    return true;
}

static void on_worker_done(answer *a, const json_in *line) {
    const char *reason = "stop";
    json_get_str(line, "finish_reason", &reason, NULL);
    if (str_eq(reason, "cancelled")) { /* not by us, who would not be listening any more */
        err_set(&a->error, ERR_CANCELLED, "the LLM worker stopped");
        return;
    }
    json_get_int(line, "prompt_tokens", &a->usage.prompt_tokens, 0, INT32_MAX, NULL);
    json_get_int(line, "completion_tokens", &a->usage.completion_tokens, 0, INT32_MAX, NULL);
    str_copy(a->finish, sizeof a->finish, reason);
    a->done = true;
}

static bool on_line(void *ctx, const char *text, size_t len) {
    answer *a = ctx;
    yyjson_doc *doc = json_parse(text, len, &a->error);
    if (!doc) return false;
    json_in line = json_root(doc);
    const char *event = "";
    bool ok = json_get_str(&line, "event", &event, &a->error);
    if (str_eq(event, "start"))
        on_start(a, &line);
    else if (str_eq(event, "token"))
        ok = on_token(a, &line);
    else if (str_eq(event, "embedding"))
        ok = llm_embeddings_add(&a->request, &line, &a->text, &a->error);
    else if (str_eq(event, "done"))
        on_worker_done(a, &line);
    else if (str_eq(event, "error"))
        ok = routes_read_error(text, len, &a->error);
    yyjson_doc_free(doc);
    return ok;
}

/* ---- sending, and sending again --------------------------------------------------------------------------------- */

static void wait_for_worker(answer *a);

static void on_headers(void *ctx, http_call *call) {
    answer *a = ctx;
    if (http_call_status(call) != 200) a->lines.on_line = NULL; /* the body is one error, collected as text */
}

static void give_up(answer *a) {
    const char *cause = workers_view(a->relay->app->workers, WORKER_LLM).last_crash;
    err_set(&a->error, ERR_CRASHED, "the LLM worker crashed %d times during this request (%s)", a->deaths,
            cause ? cause : "its answer broke off");
    fail(a, &a->error);
}

static bool is_suspect(const answer *a) {
    return a->deaths >= SUSPECT_DEATHS;
}

static bool suspect_under_way(const llm_relay *r) {
    for (const answer *a = r->answers; a; a = a->next)
        if (is_suspect(a) && !a->held) return true;
    return false;
}

/* The oldest suspect that is held may go, if no other is under way. */
static void release_suspect(llm_relay *r) {
    answer *next = NULL;
    if (suspect_under_way(r)) return;
    for (answer *a = r->answers; a; a = a->next)
        if (a->held) next = a;
    if (!next) return;
    next->held = false;
    wait_for_worker(next);
}

static void take_up_again(answer *a) {
    if (a->deaths >= DEATHS_MAX) {
        give_up(a);
        return;
    }
    a->held = is_suspect(a);
    if (a->held)
        release_suspect(a->relay);
    else
        wait_for_worker(a);
}

/* The stream breaks when the process dies, but the news of its death may come a moment later. */
static void send_again(uv_timer_t *t) {
    answer *a = t->data;
    bool known = workers_view(a->relay->app->workers, WORKER_LLM).restarts != a->restarts_seen;
    if (!known && clock_mono_ms() - a->broke_at <= DEATH_WAIT_MS)
        uv_timer_start(&a->timer, send_again, DEATH_POLL_MS, 0);
    else
        take_up_again(a);
}

/* The worker broke off. Its death is known by now, or will be soon; then it is started again by itself. */
static void broke_off(answer *a) {
    stop_working(a, false);
    bool again = ++a->deaths < DEATHS_MAX;
    log_warn("server", "LLM stream %s broke off after %zu tokens%s", a->head.id, a->token_count,
             again ? "; it goes on when the worker is back" : " and is given up");
    a->broke_at = clock_mono_ms();
    uv_timer_start(&a->timer, send_again, DEATH_POLL_MS, 0);
}

/* a->error is what the worker said. */
static void refused(answer *a) {
    if (a->error.code != ERR_CANCELLED) {
        fail(a, &a->error);
        return;
    }
    /* Not by us: the process is being ended, or the model was unloaded. */
    err why = a->error;
    a->error = (err){0};
    if (a->call) http_call_abort(a->call);
    a->call = NULL;
    if (workers_view(a->relay->app->workers, WORKER_LLM).model_id) {
        broke_off(a);
    } else {
        err_set(&a->error, ERR_NOT_FOUND, "%s", why.msg);
        fail(a, &a->error);
    }
}

static void on_data(void *ctx, const char *data, size_t len) {
    answer *a = ctx;
    if (!a->lines.on_line) {
        buf_append(&a->lines.rest, data, len);
        return;
    }
    err e = {0};
    if (!http_lines_feed(&a->lines, data, len, &e) && !a->error.code) a->error = e;
    if (a->error.code)
        refused(a);
    else if (a->done)
        finish(a);
}

static void on_done(void *ctx, const err *e) {
    answer *a = ctx;
    http_call *call = a->call;
    a->call = NULL;
    if (e) {
        broke_off(a);
        return;
    }
    int status = http_call_status(call);
    if (status != 200) {
        if (routes_read_error(buf_str(&a->lines.rest), a->lines.rest.len, &a->error))
            err_set(&a->error, ERR_INTERNAL, "the LLM worker answered with status %d", status);
        refused(a);
        return;
    }
    broke_off(a); /* it ended without its last line */
}

static void send_request(answer *a) {
    buf body;
    buf_init(&body, 64 << 20);
    llm_request_write(&a->request, a->head.id, a->tokens, a->token_count, &body);
    const bool embedding = a->request.shape == LLM_EMBEDDING;
    if (embedding) buf_clear(&a->text); /* it is simply repeated */
    http_lines_free(&a->lines);
    http_lines_init(&a->lines, LINE_MAX_BYTES, on_line, a);
    const http_call_opts opts = {.method = "POST",
                                 .path = embedding ? "/internal/embed" : "/internal/complete",
                                 .body = body.data,
                                 .body_len = body.len,
                                 .on_headers = on_headers,
                                 .on_data = on_data,
                                 .on_done = on_done,
                                 .ctx = a};
    err e = {0};
    workers *w = a->relay->app->workers;
    a->call = workers_call(w, WORKER_LLM, &opts, &e);
    buf_free(&body);
    if (!a->call) {
        fail(a, &e);
        return;
    }
    a->restarts_seen = workers_view(w, WORKER_LLM).restarts;
    a->working = true;
    workers_work_begin(w, WORKER_LLM);
}

static void on_ready(void *ctx, const err *e) {
    answer *a = ctx;
    a->wait = NULL;
    if (e) {
        a->error = *e;
        fail(a, &a->error);
    } else {
        send_request(a);
    }
}

static void wait_for_worker(answer *a) {
    a->wait = workers_when_ready(a->relay->app->workers, WORKER_LLM, on_ready, a);
}

/* ---- the right model -------------------------------------------------------------------------------------------- */

static void look_for_model(answer *a);

static void on_up(void *ctx, const err *e) {
    answer *a = ctx;
    a->wait = NULL;
    if (e) {
        a->error = *e;
        fail(a, &a->error);
    } else {
        look_for_model(a);
    }
}

static void wait_for_process(answer *a) {
    a->wait = workers_when_up(a->relay->app->workers, WORKER_LLM, on_up, a);
}

static void on_model_loaded(void *ctx, const char *json, const err *e) {
    (void)json;
    answer *a = ctx;
    a->loading = false;
    if (a->dropped) {
        uv_close((uv_handle_t *)&a->timer, free_closed);
    } else if (e && e->code == ERR_CRASHED && ++a->deaths < DEATHS_MAX) {
        wait_for_process(a); /* perhaps it was not the model: once more */
    } else if (e) {
        a->error = *e;
        fail(a, &a->error);
    } else {
        wait_for_worker(a);
    }
}

static bool is_up(sup_state state) {
    return state == SUP_READY || state == SUP_SAFE_MODE;
}

static void name_model(answer *a, const char *id) {
    str_set(&a->model, id);
    a->head.model = a->model;
}

/* A model that is asked for by name must exist, or nothing is done: the one that runs stays. Another LLM than the
 * chosen one is loaded first, unless that would break answers under way. */
static bool choose_model(answer *a, err *e) {
    app *top = a->relay->app;
    worker_view v = workers_view(top->workers, WORKER_LLM);
    const char *wanted = a->request.model;
    if (!wanted || str_eq(wanted, v.model_id)) { /* its file may be gone: what counts is in memory */
        name_model(a, v.model_id ? v.model_id : "none");
        wait_for_worker(a);
        return true;
    }
    const model_entry *m = models_find(top->models, wanted, e);
    if (!m) return false;
    if (!str_eq(m->type, "llm"))
        return err_set(e, ERR_INVALID, "model: '%.100s' is not a text model but of type %s", m->id, m->type);
    name_model(a, m->id);
    if (str_eq(m->id, v.model_id)) {
        wait_for_worker(a);
        return true;
    }
    if (!is_up(v.state)) { /* it is being started again: that is no reason to send the client away */
        wait_for_process(a);
        return true;
    }
    if (v.loaded && llm_relay_busy(a->relay))
        return err_set(e, ERR_BUSY, "model '%.80s' is not loaded, and '%.80s' is answering other requests", m->id,
                       v.model_id);
    a->loading = true;
    routes_load_llm(top, m, NULL, on_model_loaded, a);
    return true;
}

static void look_for_model(answer *a) {
    err e = {0};
    if (choose_model(a, &e)) return;
    if (e.code == ERR_NOT_FOUND || e.code == ERR_CONFLICT) {
        http_reply_error(a->req, 404, "model_not_found", "model", "%s", e.msg);
        drop(a);
    } else {
        fail(a, &e);
    }
}

static void handle(app *top, http_req *req, llm_shape shape);

/* A request that came before the model folder was walked for the first time. */
typedef struct early_request {
    app *top;
    http_req *req;
    llm_shape shape;
} early_request;

static void handle_again(void *ctx) {
    early_request *r = ctx;
    handle(r->top, r->req, r->shape);
    free(r);
}

static void handle_after_scan(app *top, http_req *req, llm_shape shape) {
    early_request *r = mem_alloc(1, sizeof *r);
    *r = (early_request){top, req, shape};
    models_refresh(top->models, handle_again, r);
}

static void handle(app *top, http_req *req, llm_shape shape) {
    size_t len;
    const char *body = http_req_body(req, &len);
    err e = {0};
    if (top->llm->count >= LLM_RELAY_MAX) {
        err_set(&e, ERR_BUSY, "%d text requests are being answered or wait already", LLM_RELAY_MAX);
        routes_reply_named(req, 429, "queue_full", NULL, &e);
        return;
    }
    llm_request request = {0};
    yyjson_doc *doc = json_parse(body, len, &e);
    json_in root = json_root(doc);
    bool ok = doc && llm_request_read(&request, shape, &root, &e);
    yyjson_doc_free(doc);
    if (!ok) {
        routes_reply_invalid(req, &e);
        return;
    }
    if (request.model && !models_find(top->models, request.model, NULL) && !models_scanned(top->models)) {
        llm_request_free(&request);
        handle_after_scan(top, req, shape);
        return;
    }
    http_req_drop_body(req);

    answer *a = mem_alloc(1, sizeof *a);
    *a = (answer){.relay = top->llm, .req = req, .request = request, .next = top->llm->answers};
    top->llm->answers = a;
    top->llm->count++;
    unsigned char raw[12];
    file_random(raw, sizeof raw);
    const char *kind = shape == LLM_EMBEDDING ? "embd" : shape == LLM_COMPLETION ? "cmpl" : "chatcmpl";
    int n = snprintf(a->head.id, sizeof a->head.id, "%s-", kind);
    for (size_t i = 0; i < sizeof raw; i++)
        n += snprintf(a->head.id + n, sizeof a->head.id - (size_t)n, "%02x", raw[i]);
    a->head.shape = shape;
    a->head.created = clock_wall_ms() / 1000;
    buf_init(&a->text, shape == LLM_EMBEDDING ? VECTORS_MAX : TEXT_MAX);
    http_lines_init(&a->lines, LINE_MAX_BYTES, on_line, a);
    uv_timer_init(top->loop, &a->timer);
    a->timer.data = a;
    http_req_on_close(req, client_gone, a);
    look_for_model(a);
}

void llm_relay_chat(void *ctx, http_req *req) {
    handle(ctx, req, LLM_CHAT);
}
void llm_relay_completion(void *ctx, http_req *req) {
    handle(ctx, req, LLM_COMPLETION);
}
void llm_relay_enhance(void *ctx, http_req *req) {
    handle(ctx, req, LLM_ENHANCE);
}

void llm_relay_embeddings(void *ctx, http_req *req) {
    handle(ctx, req, LLM_EMBEDDING);
}

llm_relay *llm_relay_new(app *a) {
    llm_relay *r = mem_alloc(1, sizeof *r);
    r->app = a;
    return r;
}

void llm_relay_stop(llm_relay *r) {
    err e = {0};
    err_set(&e, ERR_BUSY, "the server is stopping");
    while (r->answers) fail(r->answers, &e);
}

void llm_relay_free(llm_relay *r) {
    if (!r) return;
    llm_relay_stop(r);
    free(r);
}
