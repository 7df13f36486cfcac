/* engine.c - see engine.h. */
#include "worker/engine.h"
#include "base/clock.h"
#include "base/log.h"
#include "worker/crash.h"
#include "worker/worker_os.h"

#define TICK_NS UINT64_C(1000000000) /* engine_step is called at least once a second */

enum { REFRESH_MS = 1000, LATE_MS = 1000 };

void engine_init(engine *en, const worker_service *service, worker_state *state, uv_async_t *ended) {
    *en = (engine){.service = service, .state = state, .ended = ended};
    uv_mutex_init(&en->lock);
    uv_cond_init(&en->wake);
}

/* ---- the queue --------------------------------------------------------------------------------------------- */

bool engine_queue(engine *en, worker_job *job) {
    uv_mutex_lock(&en->lock);
    bool ok = en->queued < WORKER_QUEUE_MAX && !en->stopping;
    if (ok) {
        job_set_next(job, NULL);
        if (en->last)
            job_set_next(en->last, job);
        else
            en->first = job;
        if (en->queued == 0) en->waiting_since = clock_mono_ms();
        en->last = job;
        en->queued++;
        uv_cond_signal(&en->wake);
    }
    uv_mutex_unlock(&en->lock);
    return ok;
}

bool engine_is_late(engine *en) {
    uv_mutex_lock(&en->lock);
    bool late = en->first && clock_mono_ms() - en->waiting_since > LATE_MS;
    uv_mutex_unlock(&en->lock);
    return late;
}

void engine_wake(void *ctx) {
    engine *en = ctx;
    uv_mutex_lock(&en->lock);
    en->woken = true;
    uv_cond_signal(&en->wake);
    uv_mutex_unlock(&en->lock);
}

void engine_stop(engine *en) {
    uv_mutex_lock(&en->lock);
    en->stopping = true;
    uv_cond_signal(&en->wake);
    uv_mutex_unlock(&en->lock);
}

/* The next job, or NULL: there is none. Waits for one, for a wake-up or for a second, unless there is other work. */
static worker_job *next_job(engine *en, bool working, bool *stopping) {
    uv_mutex_lock(&en->lock);
    if (!en->first && !en->woken && !en->stopping && !working) uv_cond_timedwait(&en->wake, &en->lock, TICK_NS);
    worker_job *job = en->first;
    if (job) {
        en->first = job_next(job);
        if (!en->first) en->last = NULL;
        en->queued--;
        en->waiting_since = clock_mono_ms();
    } else {
        en->woken = false;
    }
    *stopping = en->stopping;
    uv_mutex_unlock(&en->lock);
    return job;
}

/* ---- the thread -------------------------------------------------------------------------------------------- */

void engine_refresh_memory(engine *en, bool now) {
    if (!en->service->memory) return;
    if (!now && clock_mono_ms() - en->refreshed_at < REFRESH_MS) return;
    worker_memory figures[WORKER_MEMORY_MAX] = {0};
    size_t n = en->service->memory(en->service->ctx, figures, WORKER_MEMORY_MAX);
    worker_state_memory(en->state, figures, n);
    en->refreshed_at = clock_mono_ms();
}

static bool start_service(engine *en) {
    const worker_service *s = en->service;
    err e = {0};
    if (s->engine_nice > 0) worker_os_lower_priority(s->engine_nice);
    if (s->engine_init && !s->engine_init(s->ctx, &e)) {
        log_error(s->name, "%s", e.msg);
        return false;
    }
    engine_refresh_memory(en, true);
    worker_state_activity(en->state, WORKER_IDLE);
    return true;
}

static void run_one(engine *en, worker_job *job) {
    worker_state_job(en->state, job_id(job));
    worker_state_activity(en->state, WORKER_BUSY);
    job_run(job); /* the job may be gone afterwards */
}

static void rest(engine *en) {
    worker_state_activity(en->state, WORKER_IDLE);
    worker_state_job(en->state, "");
}

static void work(engine *en) {
    const worker_service *s = en->service;
    bool working = false, stopping = false;
    for (;;) {
        worker_job *job = next_job(en, working, &stopping);
        bool was_working = job || working;
        if (job) run_one(en, job);
        working = s->engine_step && s->engine_step(s->ctx);
        if (working && !was_working) worker_state_activity(en->state, WORKER_BUSY);
        if (was_working && !working) rest(en);
        engine_refresh_memory(en, was_working && !working);
        if (stopping && !job && !working) break;
    }
}

static void engine_main(void *ctx) {
    engine *en = ctx;
    crash_thread_begin();
    bool ok = start_service(en);
    if (ok) {
        work(en);
        if (en->service->engine_fini) en->service->engine_fini(en->service->ctx);
    }
    crash_thread_end();
    uv_mutex_lock(&en->lock);
    en->failed = !ok;
    en->stopping = true;
    uv_mutex_unlock(&en->lock);
    uv_async_send(en->ended);
}

/* A driver may hang while the service begins: then a worker that is loading makes no progress, which is noticed. */
bool engine_start(engine *en, err *e) {
    worker_state_activity(en->state, WORKER_LOADING);
    int rc = uv_thread_create(&en->thread, engine_main, en);
    return rc == 0 || err_set(e, ERR_IO, "start the engine thread: %s", uv_strerror(rc));
}

bool engine_join(engine *en) {
    uv_thread_join(&en->thread);
    return !en->failed;
}

void engine_free(engine *en) {
    uv_mutex_destroy(&en->lock);
    uv_cond_destroy(&en->wake);
}
