/* worker.h - what both workers are: a small HTTP server around one engine thread.
 *
 * Two threads. The loop thread (the one that called worker_run) owns the sockets and answers /internal/health at any
 * time; it listens before anything slow is done. The engine thread owns the model and all tensor code. Requests go to
 * the engine as jobs through one queue; lines and answers come back through another. Nothing else is shared, except
 * the health record, which has a lock of its own.
 *
 * A worker ends when its stdin reaches EOF (the server is gone: at once), when its parent dies (Linux), on SIGTERM
 * or SIGINT (jobs are cancelled; exit code 0 within 2 s, however long the engine takes), or on a crash, which leaves
 * signal, job, model and a backtrace on stderr.
 *
 * Every request needs the token: X-Mysti-Token equal to the environment's MYSTI_TOKEN, or, without that, to the first
 * line of stdin. */
#ifndef MYSTI_WORKER_WORKER_H
#define MYSTI_WORKER_WORKER_H

#include "base/args.h"
#include "base/err.h"
#include "net/http_router.h"
#include "proc/health.h"

typedef struct worker worker;         /* one per process */
typedef struct worker_job worker_job; /* one request on its way through the engine */

/* Exit codes of worker_run beside 0. */
enum { WORKER_EXIT_USAGE = 2, WORKER_EXIT_PORT = 3, WORKER_EXIT_ENGINE = 4 };

typedef struct worker_service {
    const char *program; /* "mysti_sd_worker" */
    const char *name;    /* "sd": the service in health, and the component in the log */

    /* Options beside the common ones (--port, --threads, --parent-pid, -v, --version, -h). */
    const arg_spec *args;
    size_t arg_count;

    /* Routes beside GET /internal/health. The handlers run on the loop thread with `ctx`, after the token was checked;
     * they must not compute or read files, but worker_submit(). */
    const http_route *routes;
    size_t route_count;

    /* Loop thread, options parsed, before listening. -1 to go on, else the exit code (for --list-devices and the
     * like, and for options that make no sense). May be NULL. */
    int (*start)(void *ctx, worker *w);

    /* The rest runs on the engine thread.
     * engine_init: first of all: backends. A failure ends the process with WORKER_EXIT_ENGINE. May be NULL. */
    bool (*engine_init)(void *ctx, err *e);
    /* For engines that work on several jobs at once. Called after every job handed over, every cancel, whenever a slow
     * reader has caught up, and at least once a second; and again at once as long as it returns true (there is work).
     * NULL for an engine that finishes each job in its function. */
    bool (*engine_step)(void *ctx);
    void (*engine_fini)(void *ctx); /* last of all; may be NULL */
    /* Fills in memory per device, at most `cap`, returns how many. Called after engine_init and at most once a second
     * from worker_progress() and between jobs. May be NULL. */
    size_t (*memory)(void *ctx, worker_memory *out, size_t cap);
    int engine_nice; /* 0..19: lowers the priority of the engine thread and of those it starts, not of the loop */

    void *ctx;
} worker_service;

/* The whole life of a worker process; returns its exit code. */
int worker_run(int argc, char **argv, const worker_service *s);

int worker_threads(const worker *w); /* --threads, or what suits this machine: never 0 */

/* ---- jobs: loop thread ---- */

enum { WORKER_QUEUE_MAX = 256 };

/* From a handler: takes the request over and queues `run` for the engine thread. `id` (may be NULL) names the job in
 * health and in crash reports. `arg` is freed by free_arg (may be NULL) on the loop thread after the job has ended.
 * A full queue (503) and a stopping worker ("cancelled") answer by themselves.
 * The request's body is gone when `run` is called: parse it in the handler, into `arg`. */
void worker_submit(worker *w, http_req *req, const char *id, void (*run)(worker_job *job, void *arg), void *arg,
                   void (*free_arg)(void *arg));

/* ---- jobs: engine thread ----
 * A job lives until it is ended, exactly once, by worker_job_reply, _done or _fail; by the time its function returns
 * unless the service has an engine_step. A job cancelled before its turn is ended without its function being called. */

/* True when the client is gone or the worker stops: wind up and end the job. Any thread; cheap; never turns back. */
bool worker_job_cancelled(const worker_job *job);

/* A whole answer (JSON). */
void worker_job_reply(worker_job *job, int status, const char *json, size_t len);

/* A line of an event stream (one JSON object, no newline); the first one begins the answer: 200, NDJSON.
 * When the reader is WORKER_STREAM_MAX behind, it waits for him. False when the job is cancelled. */
bool worker_job_line(worker_job *job, const char *json, size_t len);

/* The same for what only matters while it is new (previews): never waits, and takes the place of an earlier one that
 * has not been sent yet. */
void worker_job_latest(worker_job *job, const char *json, size_t len);

/* How many bytes of lines the job takes now without waiting: for engines that must not wait for one reader. */
size_t worker_job_room(const worker_job *job);

/* The last line, and the end of the stream. */
void worker_job_done(worker_job *job, const char *json, size_t len);

/* The job failed: the error envelope with a fitting status, or, in a stream, {"event":"error","error":{...}}. */
void worker_job_fail(worker_job *job, const err *e);

enum { WORKER_STREAM_MAX = 256 * 1024 };

/* ---- health: engine thread; worker_alive() from any thread ----
 * A worker is busy from the start of a job's function to its end, and while engine_step returns true. */

void worker_set_activity(worker *w, worker_activity a); /* WORKER_LOADING while a model is loaded */
void worker_set_model(worker *w, const char *path);     /* NULL: none */

/* A step was finished; phase is one of the protocol's words, or NULL for the one before. */
void worker_progress(worker *w, const char *phase, int step, int steps);

/* A sign of life in long work without steps (a tensor loaded, a graph node finished). Costs nothing much: call it
 * freely. The server ends a worker that is at work without one for a minute or 20 steps. */
void worker_alive(worker *w);

#endif
