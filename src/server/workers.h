/* workers.h - the two worker processes as the server sees them: kept alive, kept loaded, talked to.
 *
 * Joins the pure supervisor table with real processes, heartbeats and the saved recovery state. Nothing that happens to
 * one worker delays the other. Loop thread only. */
#ifndef MYSTI_SERVER_WORKERS_H
#define MYSTI_SERVER_WORKERS_H

#include "net/http_client.h"
#include "proc/heartbeat.h"
#include "proc/supervisor.h"
#include "server/app.h"

typedef enum worker_id { WORKER_SD, WORKER_LLM, WORKER_COUNT } worker_id;

typedef struct workers workers;

/* What is known about one worker; strings are borrowed until the next callback of the loop. */
typedef struct worker_view {
    const char *name;  /* "sd", "llm" */
    const char *title; /* "SD Worker", "LLM Worker" */
    sup_state state;
    int pid, port;
    const char *model_id;        /* chosen model (loaded, being restored, or unloaded for idleness), or NULL */
    bool loaded;                 /* it is in the worker now */
    bool loading;                /* a load is under way */
    unsigned restarts;           /* since the server's start */
    int64_t last_crash_ms;       /* wall time; 0: never */
    const char *last_crash;      /* "killed by signal 9 (SIGKILL)", or NULL */
    const worker_health *health; /* the last answer */
} worker_view;

/* Who wants to know. All optional. */
typedef struct workers_listener {
    void *ctx;
    void (*changed)(void *ctx, worker_id id); /* state, model or activity */
    /* The process ended without being asked to; `cause` as in worker_view.last_crash. Streams to it have broken, or do
     * so now. */
    void (*died)(void *ctx, worker_id id, const char *cause);
} workers_listener;

/* Reads what was loaded before (unless told not to); nothing is started yet. */
workers *workers_new(app *a, const workers_listener *listener);

/* What to load at the start instead of what was loaded before: a worker's /internal/load body (copied). */
void workers_choose(workers *w, worker_id id, const char *model_id, const char *body);

/* Spawns both. */
void workers_start(workers *w);

/* Ends both (SIGTERM, then SIGKILL) and calls `done` when they are gone. */
void workers_stop(workers *w, void (*done)(void *ctx), void *ctx);
void workers_free(workers *w);

worker_view workers_view(workers *w, worker_id id);

/* Appends the worker as /health and the `worker` event show it: {"state", "activity", "model", ...}. */
void workers_write(workers *w, worker_id id, buf *out);

/* Starts a call to a worker, with its token added. NULL (ERR_BUSY) while no process answers. */
http_call *workers_call(workers *w, worker_id id, const http_call_opts *opts, err *e);
http_call *workers_fetch(workers *w, worker_id id, const http_call_opts *opts, size_t max_body, http_fetch_fn *fn,
                         void *ctx, err *e);

/* Loads a model, in any state but backoff; it also leaves safe mode. `body` is the worker's /internal/load request
 * (copied), `model_id` its name for people. fn gets the worker's answer (JSON, borrowed) or the error; with success the
 * recovery state has been saved. One load per worker at a time: ERR_BUSY to fn otherwise. */
typedef void worker_load_fn(void *ctx, const char *answer, const err *e);
void workers_load(workers *w, worker_id id, const char *model_id, const char *body, worker_load_fn *fn, void *ctx);

/* Unloads, and forgets the recovery state. */
void workers_unload(workers *w, worker_id id, worker_load_fn *fn, void *ctx);

/* Calls fn once the worker is ready with its chosen model: at once, after a restart, or after loading again what
 * idleness unloaded. Errors: ERR_NOT_FOUND when no model is chosen, ERR_BUSY in safe mode or when the load failed. */
typedef void worker_ready_fn(void *ctx, const err *e);
typedef struct worker_wait worker_wait;
worker_wait *workers_when_ready(workers *w, worker_id id, worker_ready_fn *fn, void *ctx);

/* Calls fn once workers_load() can be called: the process is ready, with or without a model, or in safe mode, and no
 * load is under way. Error: ERR_BUSY, the server stops. */
worker_wait *workers_when_up(workers *w, worker_id id, worker_ready_fn *fn, void *ctx);

void workers_wait_cancel(worker_wait *wait); /* fn is not called any more */

/* Brackets around a piece of work: the idle clock stands still between them. `ok`: it succeeded (the crash tally ends).
 */
void workers_work_begin(workers *w, worker_id id);
void workers_work_end(workers *w, worker_id id, bool ok);

/* Leaves safe mode: restores the model again. */
void workers_retry(workers *w, worker_id id);

#endif
