/* engine.h - the engine thread and its queue. It runs the service's functions and knows nothing of sockets. */
#ifndef MYSTI_WORKER_ENGINE_H
#define MYSTI_WORKER_ENGINE_H

#include "worker/job.h"

typedef struct engine {
    const worker_service *service;
    worker_state *state;
    uv_async_t *ended; /* sent as the thread's last act */
    uv_thread_t thread;
    int64_t refreshed_at; /* engine thread: the memory figures */

    uv_mutex_t lock; /* guards the rest */
    uv_cond_t wake;
    worker_job *first, *last;
    size_t queued;
    int64_t waiting_since; /* monotonic: when the engine could have taken up the first of them */
    bool woken;            /* something changed that engine_step may want to see */
    bool stopping;         /* end when all jobs have ended */
    bool failed;           /* engine_init did */
} engine;

/* `ended` must be initialised; it is borrowed until the thread has been joined. */
void engine_init(engine *en, const worker_service *service, worker_state *state, uv_async_t *ended);
bool engine_start(engine *en, err *e);

/* False when the queue is full or the engine stops; the job stays the caller's. */
bool engine_queue(engine *en, worker_job *job);

/* Any thread: a job waits for longer than an engine with nothing else to do leaves it waiting. */
bool engine_is_late(engine *en);

void engine_wake(void *en); /* any thread */

/* No new jobs; the thread ends behind those it has (cancel them to make that soon). */
void engine_stop(engine *en);

/* Engine thread: asks the service for its memory figures, if the last ones are a second old (or `now`). */
void engine_refresh_memory(engine *en, bool now);

/* After `ended`: waits for the thread itself. True when engine_init had succeeded. */
bool engine_join(engine *en);

/* When nobody can queue or wake any more. */
void engine_free(engine *en);

#endif
