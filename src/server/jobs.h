/* jobs.h - the image queue: every request for a picture is a job, one runs at a time.
 *
 * The queue lives in memory and is mirrored to SQLite; a job is on the disk before its client hears of it. A server
 * that starts finds what was queued and what ran. When the worker dies, its job goes back to the front; a job that saw
 * two workers die is poison and fails with the cause.
 *
 * A job is done for everybody once its pictures and its end are in the database, not before: whoever sees it done finds
 * the pictures, also after a restart. What the database cannot take (disk full) is tried again; meanwhile the worker is
 * free for the next job, and this one runs on in the phase "recording".
 *
 * The worker is behind `job_runner`, so that the queue needs no process to be tested. All on the loop thread. */
#ifndef MYSTI_SERVER_JOBS_H
#define MYSTI_SERVER_JOBS_H

#include "server/db.h"
#include "server/events.h"
#include "server/history.h"
#include "server/job.h"
#include "server/uploads.h"

#include <uv.h>

enum { JOBS_QUEUE_MAX = 256, JOBS_DEATHS_MAX = 2 };

typedef struct jobs jobs;

/* What the queue needs from the image worker. */
typedef struct job_runner {
    void *ctx;

    /* The worker can take a job now. When this becomes true later, call jobs_kick(). */
    bool (*ready)(void *ctx);

    /* Loads j->params.model first if another image model (or none) is loaded, then sends `body` to /internal/generate.
     * Never fails at once: answers come as jobs_runner_line() for every line of the worker's stream, then exactly one
     * jobs_runner_end(), neither before this returns. `j` and `body` are borrowed during the call. */
    void (*start)(void *ctx, const job *j, const char *body, size_t len);

    /* Closes the stream, which makes the worker stop within a step. No line and no end comes afterwards. ready() is
     * false until the worker can take the next job. */
    void (*cancel)(void *ctx);
} job_runner;

typedef struct jobs_config {
    uv_loop_t *loop;
    db *db;
    history *history;
    events *events;
    const uploads *uploads;
    const char *output_dir, *checkpoint_dir; /* absolute; copied; must exist */
    job_runner runner;
} jobs_config;

/* Takes up what the database holds (blocks: for the start of the program). Nothing runs before jobs_kick(). */
jobs *jobs_open(const jobs_config *config, err *e);

/* Cancels the runner, saves the running job as interrupted and calls all waiters (their job is not over). In order:
 * jobs_close, db_close, events_close, jobs_free. */
void jobs_close(jobs *q);
void jobs_free(jobs *q);

/* The worker may be ready: starts the next job if so. */
void jobs_kick(jobs *q);

/* ---- from the runner -------------------------------------------------------------------------------------------- */

/* One NDJSON line of the running job's stream. */
void jobs_runner_line(jobs *q, const char *line, size_t len);

/* The stream is over. `why`: NULL after `done` or `error`; ERR_CRASHED with the cause when the worker died: the job is
 * taken up again; ERR_CANCELLED when the worker was stopped: likewise; another code when the job could not be started
 * (model missing, too big, no worker, ...): that is the job's error. */
void jobs_runner_end(jobs *q, const err *why);

/* Reports a phase of the runner's own: "loading" while start() loads another model. */
void jobs_runner_phase(jobs *q, const char *phase);

/* ---- from routes ------------------------------------------------------------------------------------------------ */

/* `j` is borrowed during the call; NULL when `why` is set: ERR_BUSY when the queue is full, ERR_IO when the disk is. */
typedef void (*jobs_submitted)(void *ctx, const err *why, const job *j);

/* `p` is copied; seed drawn, model resolved, init_image a name of uploads_take(). */
void jobs_submit(jobs *q, const image_params *p, jobs_submitted done, void *ctx);

/* Called once with the job when it is over: done, its pictures are in the history. */
typedef struct job_waiter job_waiter;
typedef void (*job_over)(void *ctx, const job *j);
job_waiter *jobs_wait(jobs *q, int64_t id, job_over over, void *ctx); /* NULL: not in the queue */
void jobs_unwait(jobs *q, job_waiter *w);                             /* not after `over` was called */

/* ERR_NOT_FOUND when it is not in the queue (perhaps over: see jobs_get); ERR_CONFLICT when it is over or all its
 * pictures are made. The job may be freed afterwards. */
bool jobs_cancel(jobs *q, int64_t id, err *e);

db *jobs_db(const jobs *q);
const job *jobs_find(const jobs *q, int64_t id); /* in the queue or running; else NULL */
const job *jobs_running(const jobs *q);          /* or NULL */
size_t jobs_waiting(const jobs *q);
int jobs_retry_after_s(const jobs *q); /* for 429 */

/* JSON as docs/api.md has it, from memory or the disk. */
typedef void (*jobs_done)(void *ctx, const err *why, const char *json, size_t len);
void jobs_get(jobs *q, int64_t id, jobs_done done, void *ctx); /* ERR_NOT_FOUND */
/* status NULL or "": all; several with commas between. before 0: from the newest. limit is cut to 1..200. */
void jobs_list(jobs *q, const char *status, int64_t before, int limit, jobs_done done, void *ctx);

/* Appends the job as it is now, with its place in the queue. */
void jobs_write(const jobs *q, const job *j, buf *out);

/* Appends {"step", "steps", "time", "phase", "job"} of the running job, or phase idle. */
void jobs_write_progress(const jobs *q, buf *out);

#endif
