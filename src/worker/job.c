/* job.c - see job.h and worker.h.
 *
 * Lines collect in job->pending until the loop takes them. The loop takes all at once and stops taking while the socket
 * is full; then pending fills up to WORKER_STREAM_MAX, and the engine waits (or sees no room). So a slow reader costs
 * bounded memory and never blocks the loop. */
#include "worker/job.h"
#include "base/str.h"
#include "json/json.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { PENDING_MAX_BYTES = 64 << 20, ALIVE_NS = 1000000000 };

struct worker_job {
    job_hub *hub;
    char id[64];
    void (*run)(worker_job *job, void *arg);
    void *arg;
    void (*free_arg)(void *arg);
    atomic_bool cancelled;
    worker_job *queue_next; /* the engine's queue, guarded by it */

    /* Loop thread. */
    http_req *req; /* NULL: the client is gone, or has been answered */
    bool begun;    /* the stream's head is out */
    bool blocked;  /* the socket is full: on_drain comes */
    worker_job *all_next, **all_link;

    /* Guarded by the hub's lock. */
    worker_job *outbox_next;
    bool in_outbox;

    /* Guarded by `lock`. */
    uv_mutex_t lock;
    uv_cond_t room; /* pending was taken, or the job was cancelled */
    buf pending;    /* lines, or the body of the whole answer */
    buf latest;     /* a line that may still be replaced */
    int status;     /* of a whole answer; 0 for a stream */
    err failure;    /* the whole answer is this error */
    bool streaming; /* a line has been written, or may be: the answer is a stream */
    bool ended;     /* by the engine, which does not touch the job any more */
};

/* ---- engine -> loop (the loop's side is at the end of the file)
 * ---------------------------------------------------------------------------------------- */

/* Last in every call of the engine that ends a job: the loop may free it any time from here on. */
static void post(worker_job *job) {
    job_hub *hub = job->hub;
    uv_mutex_lock(&hub->lock);
    if (!job->in_outbox) {
        job->in_outbox = true;
        job->outbox_next = hub->outbox;
        hub->outbox = job;
    }
    uv_async_send(&hub->async); /* under the lock: the hub cannot be closed before the loop has taken the job */
    uv_mutex_unlock(&hub->lock);
}

static void put_line(buf *to, const char *json, size_t len) {
    buf_append(to, json, len);
    buf_putc(to, '\n');
}

/* Waiting for a slow reader is no hang of ours, so it counts as life. */
static bool wait_for_room(worker_job *job) {
    while (job->pending.len > 0 && job->pending.len >= WORKER_STREAM_MAX && !worker_job_cancelled(job)) {
        worker_state_alive(job->hub->state);
        uv_cond_timedwait(&job->room, &job->lock, ALIVE_NS);
    }
    return !worker_job_cancelled(job);
}

bool worker_job_line(worker_job *job, const char *json, size_t len) {
    uv_mutex_lock(&job->lock);
    bool ok = wait_for_room(job);
    if (ok) {
        job->streaming = true;
        put_line(&job->pending, json, len);
    }
    uv_mutex_unlock(&job->lock);
    if (ok) post(job);
    return ok;
}

void worker_job_latest(worker_job *job, const char *json, size_t len) {
    if (worker_job_cancelled(job)) return;
    uv_mutex_lock(&job->lock);
    job->streaming = true;
    buf_clear(&job->latest);
    put_line(&job->latest, json, len);
    uv_mutex_unlock(&job->lock);
    post(job);
}

size_t worker_job_room(const worker_job *job) {
    worker_job *j = (worker_job *)(uintptr_t)job; /* only the lock is touched */
    uv_mutex_lock(&j->lock);
    size_t used = j->pending.len;
    uv_mutex_unlock(&j->lock);
    return used < WORKER_STREAM_MAX ? WORKER_STREAM_MAX - used : 0;
}

bool worker_job_cancelled(const worker_job *job) {
    return atomic_load_explicit(&job->cancelled, memory_order_relaxed);
}

void worker_job_reply(worker_job *job, int status, const char *json, size_t len) {
    uv_mutex_lock(&job->lock);
    job->status = status;
    if (!buf_append(&job->pending, json, len)) err_set(&job->failure, ERR_TOO_LARGE, "the answer is too large");
    job->ended = true;
    post(job);
    uv_mutex_unlock(&job->lock);
}

static void end_stream(worker_job *job, const char *json, size_t len) {
    job->streaming = true;
    buf_clear(&job->latest); /* a preview is of no use any more */
    put_line(&job->pending, json, len);
}

void worker_job_done(worker_job *job, const char *json, size_t len) {
    uv_mutex_lock(&job->lock);
    end_stream(job, json, len);
    job->ended = true;
    post(job);
    uv_mutex_unlock(&job->lock);
}

static void end_stream_with_error(worker_job *job, const err *e) {
    buf envelope, text;
    buf_init(&envelope, 16 * 1024);
    buf_init(&text, 16 * 1024);
    const char *type = http_status_of(e->code) >= 500 ? "server_error" : "invalid_request_error";
    json_write_error(&envelope, type, err_name(e->code), NULL, e->msg);
    buf_printf(&text, "{\"event\":\"error\",%s", buf_str(&envelope) + 1); /* behind the envelope's brace */
    end_stream(job, buf_str(&text), text.len);
    buf_free(&envelope);
    buf_free(&text);
}

void worker_job_fail(worker_job *job, const err *e) {
    uv_mutex_lock(&job->lock);
    if (job->streaming)
        end_stream_with_error(job, e);
    else
        job->failure = *e;
    job->ended = true;
    post(job);
    uv_mutex_unlock(&job->lock);
}

void job_run(worker_job *job) {
    if (!worker_job_cancelled(job)) {
        job->run(job, job->arg);
        return;
    }
    err e = {0};
    err_set(&e, ERR_CANCELLED, "cancelled before it began");
    worker_job_fail(job, &e);
}

const char *job_id(const worker_job *job) {
    return job->id;
}

worker_job *job_next(const worker_job *job) {
    return job->queue_next;
}

void job_set_next(worker_job *job, worker_job *next) {
    job->queue_next = next;
}

/* ---- loop thread: the answer ------------------------------------------------------------------------------- */

static void flush(worker_job *job);

static void free_job(worker_job *job) {
    *job->all_link = job->all_next;
    if (job->all_next) job->all_next->all_link = job->all_link;
    if (job->free_arg) job->free_arg(job->arg);
    buf_free(&job->pending);
    buf_free(&job->latest);
    uv_mutex_destroy(&job->lock);
    uv_cond_destroy(&job->room);
    free(job);
}

/* Frees the job if nobody needs it. The engine's last call may have put it into the outbox while the loop was already
 * looking at it: then the next pass finds it there and comes here again. */
static void free_if_over(worker_job *job) {
    uv_mutex_lock(&job->lock);
    bool ended = job->ended;
    uv_mutex_unlock(&job->lock);
    uv_mutex_lock(&job->hub->lock);
    bool posted = job->in_outbox;
    uv_mutex_unlock(&job->hub->lock);
    if (ended && !job->req && !posted) free_job(job);
}

static void cancel(worker_job *job) {
    atomic_store_explicit(&job->cancelled, true, memory_order_relaxed);
    uv_mutex_lock(&job->lock);
    uv_cond_broadcast(&job->room);
    uv_mutex_unlock(&job->lock);
    job->hub->wake_engine(job->hub->ctx);
}

static void on_client_gone(void *ctx, http_req *req) {
    (void)req;
    worker_job *job = ctx;
    job->req = NULL;
    cancel(job);
    free_if_over(job);
}

static void on_drain(void *ctx, http_req *req) {
    (void)req;
    worker_job *job = ctx;
    job->blocked = false;
    flush(job);
}

/* All lines there are, and whether they are the last. */
static bool take_lines(worker_job *job, buf *out) {
    uv_mutex_lock(&job->lock);
    *out = job->pending;
    buf_init(&job->pending, PENDING_MAX_BYTES);
    buf_append(out, buf_str(&job->latest), job->latest.len);
    buf_clear(&job->latest);
    bool ended = job->ended;
    uv_cond_broadcast(&job->room);
    uv_mutex_unlock(&job->lock);
    return ended;
}

static void flush_stream(worker_job *job) {
    buf lines;
    bool ended = take_lines(job, &lines);
    if (lines.len > 0) job->hub->wake_engine(job->hub->ctx);
    if (lines.len > 0 && !job->begun) {
        job->begun = true;
        http_reply_begin(job->req, 200, "application/x-ndjson");
    }
    bool room = lines.len == 0 || http_reply_write(job->req, lines.data, lines.len);
    buf_free(&lines);
    if (ended) {
        http_reply_end(job->req); /* what waits is sent by the server */
        job->req = NULL;
    } else if (!room) {
        job->blocked = true;
        http_req_on_drain(job->req, on_drain, job);
    }
}

/* The engine has ended the job, so nothing changes under our feet. */
static void send_whole(worker_job *job) {
    if (job->failure.code)
        http_reply_err(job->req, &job->failure);
    else
        http_reply(job->req, job->status, "application/json", job->pending.data, job->pending.len);
    job->req = NULL;
}

static void flush(worker_job *job) {
    uv_mutex_lock(&job->lock);
    bool whole = job->ended && !job->streaming;
    uv_mutex_unlock(&job->lock);
    if (job->req && whole)
        send_whole(job);
    else if (job->req && !job->blocked)
        flush_stream(job);
    free_if_over(job);
}

static worker_job *take_posted(job_hub *hub) {
    uv_mutex_lock(&hub->lock);
    worker_job *job = hub->outbox;
    if (job) {
        hub->outbox = job->outbox_next;
        job->in_outbox = false;
    }
    uv_mutex_unlock(&hub->lock);
    return job;
}

void job_flush_all(job_hub *hub) {
    for (worker_job *job; (job = take_posted(hub));) flush(job);
}

static void on_async(uv_async_t *async) {
    job_flush_all(async->data);
}

/* ---- loop thread: birth and cancellation ------------------------------------------------------------------- */

worker_job *job_new(job_hub *hub, http_req *req, const char *id, void (*run)(worker_job *job, void *arg), void *arg,
                    void (*free_arg)(void *arg)) {
    worker_job *job = mem_alloc(1, sizeof *job);
    job->hub = hub;
    str_copy(job->id, sizeof job->id, id ? id : "");
    job->run = run;
    job->arg = arg;
    job->free_arg = free_arg;
    job->req = req;
    atomic_init(&job->cancelled, false);
    uv_mutex_init(&job->lock);
    uv_cond_init(&job->room);
    buf_init(&job->pending, PENDING_MAX_BYTES);
    buf_init(&job->latest, PENDING_MAX_BYTES);
    job->all_next = hub->all;
    job->all_link = &hub->all;
    if (hub->all) hub->all->all_link = &job->all_next;
    hub->all = job;
    http_req_on_close(req, on_client_gone, job);
    return job;
}

void job_cancel_all(job_hub *hub) {
    for (worker_job *job = hub->all; job; job = job->all_next) cancel(job);
}

void job_hub_init(job_hub *hub, uv_loop_t *loop, worker_state *state, void (*wake_engine)(void *ctx), void *ctx) {
    *hub = (job_hub){.state = state, .wake_engine = wake_engine, .ctx = ctx};
    uv_mutex_init(&hub->lock);
    uv_async_init(loop, &hub->async, on_async);
    hub->async.data = hub;
}

static void on_async_closed(uv_handle_t *handle) {
    job_hub *hub = handle->data;
    uv_mutex_destroy(&hub->lock);
}

void job_hub_close(job_hub *hub) {
    uv_close((uv_handle_t *)&hub->async, on_async_closed);
}
