/* sd_runner.c - see sd_runner.h.
 *
 * One job at a time: make sure that its model is loaded, stream /internal/generate, hand the lines to the queue. When
 * the stream breaks, the news of the death is awaited, so that the queue hears the cause. */
#include "server/sd_runner.h"

#include "base/log.h"
#include "base/path.h"
#include "base/str.h"
#include "net/http_lines.h"
#include "server/controlnets.h"
#include "server/embeddings.h"
#include "server/ip_adapters.h"
#include "server/loras.h"
#include "server/routes.h"
#include "server/upscalers.h"
#include "server/workers.h"

#include <stdlib.h>
#include <string.h>

enum { LINE_MAX_BYTES = 8 << 20, DEATH_WAIT_MS = 6000 };

struct sd_runner {
    app *app;
    bool active;   /* between start() and the end */
    char *body;    /* of the request */
    bool upscales; /* it is for /internal/upscale, else for /internal/generate */
    worker_wait *wait;
    http_call *call;
    http_lines lines;
    bool refused; /* the answer is one error, collected in lines.rest */
    bool ended;   /* a done or error line came */
    bool working;
    bool loading;      /* routes_load_image() is under way */
    unsigned load_run; /* tells its callback from that of a cancelled job */
    uv_timer_t timer;
    unsigned restarts_seen;
};

static void reset(sd_runner *r, bool ok) {
    if (r->working) workers_work_end(r->app->workers, WORKER_SD, ok);
    if (r->wait) workers_wait_cancel(r->wait);
    if (r->call) http_call_abort(r->call);
    uv_timer_stop(&r->timer);
    free(r->body);
    r->body = NULL;
    r->wait = NULL;
    r->call = NULL;
    r->working = r->active = r->loading = false;
    r->load_run++;
}

/* Tells the queue, which may start the next job at once. */
static void end(sd_runner *r, const err *why) {
    err copy = why ? *why : (err){0};
    reset(r, !why && r->ended);
    jobs_runner_end(r->app->jobs, copy.code ? &copy : NULL);
}

/* ---- the stream ------------------------------------------------------------------------------------------------- */

static bool on_line(void *ctx, const char *line, size_t len) {
    sd_runner *r = ctx;
    if (strstr(line, "\"event\":\"done\"") || strstr(line, "\"event\":\"error\"")) {
        yyjson_doc *doc = json_parse(line, len, NULL);
        const char *event = yyjson_get_str(yyjson_obj_get(yyjson_doc_get_root(doc), "event"));
        if (str_eq(event, "done") || str_eq(event, "error")) r->ended = true;
        yyjson_doc_free(doc);
    }
    jobs_runner_line(r->app->jobs, line, len);
    return r->active;
}

static void on_headers(void *ctx, http_call *call) {
    ((sd_runner *)ctx)->refused = http_call_status(call) != 200;
}

static void on_data(void *ctx, const char *data, size_t len) {
    sd_runner *r = ctx;
    err e = {0};
    if (r->refused)
        buf_append(&r->lines.rest, data, len);
    else if (!http_lines_feed(&r->lines, data, len, &e) && r->active)
        end(r, &e);
}

static void no_news(uv_timer_t *t) {
    err e = {0};
    err_set(&e, ERR_CRASHED, "the connection to the image worker broke");
    end(t->data, &e);
}

static void on_done(void *ctx, const err *e) {
    sd_runner *r = ctx;
    r->call = NULL;
    err why = {0};
    if (r->refused && !e) {
        routes_read_error(buf_str(&r->lines.rest), r->lines.rest.len, &why);
        end(r, &why);
    } else if (r->ended) {
        end(r, NULL);
    } else if (workers_view(r->app->workers, WORKER_SD).restarts != r->restarts_seen) {
        sd_runner_worker_died(r, workers_view(r->app->workers, WORKER_SD).last_crash);
    } else {
        uv_timer_start(&r->timer, no_news, DEATH_WAIT_MS, 0); /* the exit will be reported in a moment */
    }
}

void sd_runner_worker_died(sd_runner *r, const char *cause) {
    if (!r->working || r->ended) return;
    err e = {0};
    err_set(&e, ERR_CRASHED, "%s", cause);
    end(r, &e);
}

/* ---- start ------------------------------------------------------------------------------------------------------ */

static void send_job(sd_runner *r) {
    const http_call_opts opts = {.method = "POST",
                                 .path = r->upscales ? "/internal/upscale" : "/internal/generate",
                                 .body = r->body,
                                 .body_len = strlen(r->body),
                                 .on_headers = on_headers,
                                 .on_data = on_data,
                                 .on_done = on_done,
                                 .ctx = r};
    http_lines_free(&r->lines);
    http_lines_init(&r->lines, LINE_MAX_BYTES, on_line, r);
    r->refused = r->ended = false;
    err e = {0};
    r->call = workers_call(r->app->workers, WORKER_SD, &opts, &e);
    if (!r->call) {
        end(r, &e);
        return;
    }
    r->restarts_seen = workers_view(r->app->workers, WORKER_SD).restarts;
    r->working = true;
    workers_work_begin(r->app->workers, WORKER_SD);
}

static void on_ready(void *ctx, const err *e) {
    sd_runner *r = ctx;
    r->wait = NULL;
    if (!e) {
        send_job(r);
        return;
    }
    err why = *e;
    /* Nothing of the job was tried: it goes back to the head of the queue, and waits there with those behind it. */
    if (workers_view(r->app->workers, WORKER_SD).state == SUP_SAFE_MODE) why.code = ERR_CANCELLED;
    end(r, &why);
}

/* A load cannot be taken back: its answer may come for a job that was cancelled since. */
typedef struct model_load {
    sd_runner *runner;
    unsigned run;
} model_load;

static void on_model_loaded(void *ctx, const char *answer, const err *e) {
    (void)answer;
    model_load *l = ctx;
    sd_runner *r = l->runner;
    bool stale = l->run != r->load_run;
    free(l);
    if (stale) {
        jobs_kick(r->app->jobs);
        return;
    }
    r->loading = false;
    err why = e ? *e : (err){0};
    if (why.code == ERR_BUSY) why.code = ERR_CANCELLED; /* another load came first, or a death: no fault of the job */
    if (e)
        end(r, &why);
    else
        r->wait = workers_when_ready(r->app->workers, WORKER_SD, on_ready, r);
}

static void load_other(sd_runner *r, const model_entry *m) {
    model_load *l = mem_alloc(1, sizeof *l);
    *l = (model_load){.runner = r, .run = r->load_run};
    r->loading = true;
    jobs_runner_phase(r->app->jobs, "loading");
    routes_load_image(r->app, m, NULL, on_model_loaded, l);
}

/* Of a job whose pictures have different prompts: what each one has by itself. */
static bool write_pictures(const models *m, const image_params *p, buf *out, err *e) {
    bool ok = true;
    buf_puts(out, ",\"pictures\":[");
    for (size_t i = 0; ok && i < p->texts.count; i++) {
        buf_puts(out, i ? ",{" : "{");
        json_write_member(out, "prompt", p->texts.each[i].prompt);
        json_write_member(out, "negative_prompt", p->texts.each[i].negative_prompt);
        buf_putc(out, ',');
        ok = loras_write(m, p, p->texts.each[i].prompt, out, e);
        buf_putc(out, '}');
    }
    buf_putc(out, ']');
    return ok;
}

/* The request without its closing brace, to which members are added until close_body(). */
static void open_body(const sd_runner *r, buf *out) {
    buf_init(out, LINE_MAX_BYTES);
    buf_append(out, r->body, strlen(r->body) - 1);
}

static void close_body(sd_runner *r, buf *out) {
    buf_putc(out, '}');
    free(r->body);
    r->body = buf_take(out, NULL);
}

/* Names are looked up now: what is in the folder may have changed while the job waited. */
static bool add_files(sd_runner *r, const job *j, err *e) {
    const models *m = r->app->models;
    const image_params *p = &j->params;
    const model_entry *network;
    buf out;
    open_body(r, &out);
    buf_putc(&out, ',');
    const char *name = p->refiner;
    const model_entry *refiner = name ? models_find(m, name, e) : NULL;
    bool ok = (refiner || !name) && loras_write(m, p, p->texts.count ? p->texts.each[0].prompt : p->prompt, &out, e);
    buf_putc(&out, ',');
    ok = ok && embeddings_write(m, p, &out, e) && (!image_texts_differ(&p->texts) || write_pictures(m, p, &out, e));
    buf_putc(&out, ',');
    ok = ok && controlnets_write(m, r->app->uploads, p, &out, e);
    buf_putc(&out, ',');
    ok = ok && ip_adapters_write(m, r->app->uploads, p, &out, e) && upscalers_of_hires(m, p, &network, e);
    if (ok && refiner) json_write_member(&out, "refiner", refiner->path);
    if (ok && network) json_write_member(&out, "hires_network", network->path);
    close_body(r, &out);
    return ok;
}

static bool add_upscaler(sd_runner *r, const job *j, err *e) {
    const model_entry *m = upscalers_find(r->app->models, "upscaler", j->params.upscaler, e);
    if (!m) return false;
    char *name = path_stem(m->id);
    buf out;
    open_body(r, &out);
    json_write_member(&out, "upscaler", m->path);
    json_write_member(&out, "upscaler_name", name);
    close_body(r, &out);
    free(name);
    return true;
}

/* Needs the process, and no model in it. */
static void begin_upscale(sd_runner *r, const job *j) {
    err e = {0};
    if (!add_upscaler(r, j, &e)) {
        end(r, &e);
    } else if (workers_view(r->app->workers, WORKER_SD).state != SUP_READY) {
        err_set(&e, ERR_CANCELLED, "the image worker is not there"); /* since ready() was asked: the job waits on */
        end(r, &e);
    } else {
        send_job(r);
    }
}

/* Everything that can fail at once is told from here, on a later turn of the loop. */
static void begin(uv_timer_t *t) {
    sd_runner *r = t->data;
    const job *j = jobs_running(r->app->jobs);
    if (j && j->params.is_upscale) {
        begin_upscale(r, j);
        return;
    }
    const char *wanted = j ? j->params.model : NULL, *chosen = workers_view(r->app->workers, WORKER_SD).model_id;
    err e = {0};
    bool other = wanted && !str_eq(wanted, chosen); /* the chosen one may be in memory still, though its file is gone */
    const model_entry *m = other ? models_find(r->app->models, wanted, &e) : NULL;
    if ((other && !m) || (j && !add_files(r, j, &e)))
        end(r, &e);
    else if (m && !str_eq(m->id, chosen))
        load_other(r, m);
    else
        r->wait = workers_when_ready(r->app->workers, WORKER_SD, on_ready, r);
}

static void start(void *ctx, const job *j, const char *body, size_t len) {
    sd_runner *r = ctx;
    r->upscales = j->params.is_upscale;
    r->active = true;
    r->ended = false;
    r->body = str_ndup(body, len);
    uv_timer_start(&r->timer, begin, 0, 0);
}

/* In safe mode the queue waits: a retry, or another model, goes on with it. */
static bool ready(void *ctx) {
    sd_runner *r = ctx;
    worker_view v = workers_view(r->app->workers, WORKER_SD);
    return !r->active && !v.loading && v.state == SUP_READY;
}

static void cancel(void *ctx) {
    reset(ctx, false);
}

sd_runner *sd_runner_new(app *a) {
    sd_runner *r = mem_alloc(1, sizeof *r);
    r->app = a;
    uv_timer_init(a->loop, &r->timer);
    r->timer.data = r;
    http_lines_init(&r->lines, LINE_MAX_BYTES, on_line, r);
    return r;
}

static void free_closed(uv_handle_t *h) {
    free(h->data);
}

void sd_runner_free(sd_runner *r) {
    if (!r) return;
    reset(r, false);
    http_lines_free(&r->lines);
    uv_close((uv_handle_t *)&r->timer, free_closed);
}

job_runner sd_runner_interface(sd_runner *r) {
    return (job_runner){.ctx = r, .ready = ready, .start = start, .cancel = cancel};
}
