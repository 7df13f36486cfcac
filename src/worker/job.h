/* job.h - requests on their way through the engine, and what comes back. The public half is in worker.h.
 *
 * A job is shared by the two threads. The loop owns the request (job->req, NULL once the client is gone) and frees the
 * job; the engine owns it in between, from the moment it is queued until it ends it. What passes back goes through
 * job->lock; the hub's outbox tells the loop which jobs have something for it. */
#ifndef MYSTI_WORKER_JOB_H
#define MYSTI_WORKER_JOB_H

#include "worker/state.h"
#include "worker/worker.h"

typedef struct job_hub {
    uv_async_t async; /* the outbox has something */
    uv_mutex_t lock;  /* guards outbox */
    worker_job *outbox;
    worker_job *all; /* loop thread: every job that exists */
    worker_state *state;
    void (*wake_engine)(void *ctx); /* from any thread: a job was cancelled, or has room again */
    void *ctx;
} job_hub;

void job_hub_init(job_hub *hub, uv_loop_t *loop, worker_state *state, void (*wake_engine)(void *ctx), void *ctx);
void job_hub_close(job_hub *hub); /* the engine has ended and all jobs are gone */

/* ---- loop thread ---- */

worker_job *job_new(job_hub *hub, http_req *req, const char *id, void (*run)(worker_job *job, void *arg), void *arg,
                    void (*free_arg)(void *arg));
void job_cancel_all(job_hub *hub);
void job_flush_all(job_hub *hub); /* as the async callback does */

/* ---- engine thread ---- */

void job_run(worker_job *job); /* or ends it, if it was cancelled */
const char *job_id(const worker_job *job);

/* For the engine's queue. */
worker_job *job_next(const worker_job *job);
void job_set_next(worker_job *job, worker_job *next);

#endif
