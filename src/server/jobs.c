/* jobs.c - see jobs.h and jobs_impl.h: who waits, what runs, and who is told. */
#include "server/jobs_impl.h"

#include "base/clock.h"
#include "base/str.h"
#include "json/json.h"

#include <stdio.h>
#include <stdlib.h>

enum { ATTEMPTS_MAX = 20 }; /* starts that came to nothing for other reasons than a worker's death */

struct job_waiter {
    int64_t id;
    job_over over;
    void *ctx;
    job_waiter *next;
};

/* ---- looking ---------------------------------------------------------------------------------------------------- */

job *jobs_live(const jobs *q, int64_t id) {
    if (q->running && q->running->id == id) return q->running;
    size_t i = job_list_index(&q->waiting, id);
    if (i < q->waiting.count) return q->waiting.at[i];
    i = job_list_index(&q->leaving, id);
    return i < q->leaving.count ? q->leaving.at[i] : NULL;
}

const job *jobs_find(const jobs *q, int64_t id) {
    return jobs_live(q, id);
}

db *jobs_db(const jobs *q) {
    return q->db;
}

const job *jobs_running(const jobs *q) {
    return q->running;
}

size_t jobs_waiting(const jobs *q) {
    return q->waiting.count;
}

int jobs_retry_after_s(const jobs *q) {
    double s = q->last_job_ms / 1000;
    return s < 1 ? 1 : s > 600 ? 600 : (int)s;
}

void jobs_write(const jobs *q, const job *j, buf *out) {
    size_t i = job_list_index(&q->waiting, j->id);
    job_write(j, i < q->waiting.count ? (int)i + 1 : 0, out);
}

void jobs_write_progress(const jobs *q, buf *out) {
    const job *j = q->running;
    if (!j) {
        buf_puts(out, "{\"step\":0,\"steps\":0,\"time\":0,\"phase\":\"idle\",\"job\":null}");
        return;
    }
    double seconds = (double)(clock_wall_ms() - j->started_ms) / 1000;
    buf_printf(out, "{\"step\":%d,\"steps\":%d,\"time\":%.3f,\"phase\":", j->step, job_steps(j), seconds);
    json_quote(out, j->phase[0] ? j->phase : "starting");
    buf_printf(out, ",\"job\":\"%s\"}", j->name);
}

char *jobs_checkpoint_path(const jobs *q, const job *j) {
    return str_fmt("%s/%s.ckpt", q->checkpoint_dir, j->name);
}

/* ---- telling ---------------------------------------------------------------------------------------------------- */

void jobs_publish(jobs *q, const job *j, unsigned flags) {
    buf json;
    buf_init(&json, JOB_JSON_MAX);
    jobs_write(q, j, &json);
    if (!json.full) events_publish(q->events, "job", j->name, buf_str(&json), json.len, flags);
    buf_free(&json);
}

static void call_waiters(jobs *q, const job *j) {
    for (job_waiter **p = &q->waiters; *p;) {
        job_waiter *w = *p;
        if (w->id != j->id) {
            p = &w->next;
            continue;
        }
        *p = w->next;
        w->over(w->ctx, j);
        free(w);
        p = &q->waiters; /* the callback may have changed the list */
    }
}

void jobs_tell_end(jobs *q, const job *j) {
    jobs_publish(q, j, EVENT_LAST);
    call_waiters(q, j);
}

/* ---- running ---------------------------------------------------------------------------------------------------- */

static void reset_progress(job *j) {
    j->phase[0] = 0;
    j->step = j->image = j->tiles = 0;
    j->phase_since_ms = clock_mono_ms();
}

static void start(jobs *q, job *j) {
    buf body;
    err why = {0};
    buf_init(&body, JOB_JSON_MAX);
    j->attempts++;
    j->error = (err){0};
    if (!j->started_ms) j->started_ms = clock_wall_ms();
    if (!jobs_write_request(q, j, &body, &why)) {
        jobs_end(q, j, JOB_FAILED, &why);
    } else {
        j->status = JOB_RUNNING;
        reset_progress(j);
        q->running = j;
        q->finished = false;
        q->outcome = (err){0};
        jobs_save(q, j);
        jobs_publish(q, j, 0);
        q->runner.start(q->runner.ctx, j, buf_str(&body), body.len);
    }
    buf_free(&body);
}

void jobs_kick(jobs *q) {
    while (!q->closing && !q->running && q->waiting.count && q->runner.ready(q->runner.ctx))
        start(q, job_list_remove(&q->waiting, 0));
}

static void requeue(jobs *q, job *j) {
    j->status = JOB_INTERRUPTED;
    reset_progress(j);
    job_list_insert(&q->waiting, 0, j);
    jobs_save(q, j);
    jobs_publish(q, j, 0);
}

static void fail_as_poison(jobs *q, job *j, const err *cause) {
    err why;
    char message[400];
    err_set(&why, ERR_CRASHED, "the image worker died %d times while making this picture; last: %s", j->deaths,
            cause->msg);
    snprintf(message, sizeof message, "Job %s is given up: %s. Other settings or another model may do better.", j->name,
             why.msg);
    events_alert(q->events, "error", "job_failed", "sd", j->name, message);
    jobs_end(q, j, JOB_FAILED, &why);
}

static void on_death(jobs *q, job *j, const err *cause) {
    if (++j->deaths >= JOBS_DEATHS_MAX) {
        fail_as_poison(q, j, cause);
        return;
    }
    char message[400];
    snprintf(message, sizeof message,
             "Job %s was interrupted (%s). It goes on by itself when the image worker is back.", j->name, cause->msg);
    events_alert(q->events, "error", "job_interrupted", "sd", j->name, message);
    requeue(q, j);
}

/* The work came to nothing, but not by a fault of the job: the worker was stopped. */
static void on_interruption(jobs *q, job *j, const err *why) {
    if (j->attempts >= ATTEMPTS_MAX)
        jobs_end(q, j, JOB_FAILED, why);
    else
        requeue(q, j);
}

static void finish_by_word(jobs *q, job *j) {
    if (!q->outcome.code)
        jobs_complete(q, j);
    else if (q->outcome.code == ERR_CANCELLED) /* not by us: the worker is being stopped */
        on_interruption(q, j, &q->outcome);
    else
        jobs_end(q, j, JOB_FAILED, &q->outcome);
}

void jobs_runner_end(jobs *q, const err *why) {
    static const err broke_off = {.code = ERR_CRASHED, .msg = "its answer broke off"};
    job *j = q->running;
    if (!j) return;
    q->running = NULL;
    if (q->finished)
        finish_by_word(q, j);
    else if (!why || why->code == ERR_CRASHED)
        on_death(q, j, why ? why : &broke_off);
    else if (why->code == ERR_CANCELLED)
        on_interruption(q, j, why);
    else
        jobs_end(q, j, JOB_FAILED, why);
    jobs_kick(q);
}

/* ---- submitting, waiting, cancelling ---------------------------------------------------------------------------- */

typedef struct submission {
    jobs *q;
    job *j;
    err why;
    jobs_submitted done;
    void *ctx;
} submission;

static void do_insert(db_conn *c, void *arg) {
    submission *s = arg;
    job_insert(c, s->j, &s->why);
}

static void inserted(void *arg) {
    submission *s = arg;
    jobs *q = s->q;
    q->submitting--;
    if (s->why.code) {
        s->done(s->ctx, &s->why, NULL);
        job_free(s->j);
    } else {
        job_list_insert(&q->waiting, q->waiting.count, s->j);
        jobs_publish(q, s->j, 0);
        s->done(s->ctx, NULL, s->j);
        jobs_kick(q);
    }
    free(s);
}

void jobs_submit(jobs *q, const image_params *p, jobs_submitted done, void *ctx) {
    err why = {0};
    if (q->closing)
        err_set(&why, ERR_BUSY, "the server is stopping");
    else if (q->waiting.count + q->submitting + (q->running ? 1 : 0) >= JOBS_QUEUE_MAX)
        err_set(&why, ERR_BUSY, "the queue is full: %d jobs are waiting", JOBS_QUEUE_MAX);
    if (why.code) {
        done(ctx, &why, NULL);
        return;
    }
    q->submitting++;
    submission *s = mem_alloc(1, sizeof *s);
    *s = (submission){.q = q, .j = job_new(p), .done = done, .ctx = ctx};
    db_submit(q->db, do_insert, inserted, s);
}

job_waiter *jobs_wait(jobs *q, int64_t id, job_over over, void *ctx) {
    if (!jobs_live(q, id)) return NULL;
    job_waiter *w = mem_alloc(1, sizeof *w);
    *w = (job_waiter){.id = id, .over = over, .ctx = ctx, .next = q->waiters};
    q->waiters = w;
    return w;
}

void jobs_unwait(jobs *q, job_waiter *w) {
    for (job_waiter **p = &q->waiters; *p; p = &(*p)->next) {
        if (*p != w) continue;
        *p = w->next;
        free(w);
        return;
    }
}

/* The last picture is being written: too late to save any work, and its file must be listed. */
static bool is_saving_last(const job *j) {
    return j->status == JOB_RUNNING && str_eq(j->phase, "saving") && j->image + 1 >= j->params.n;
}

bool jobs_cancel(jobs *q, int64_t id, err *e) {
    static const err cancelled = {.code = ERR_CANCELLED, .msg = "cancelled"};
    job *j = jobs_live(q, id);
    if (!j) return err_set(e, ERR_NOT_FOUND, "there is no job j-%lld in the queue", (long long)id);
    if (job_is_over(j->status))
        return err_set(e, ERR_CONFLICT, "job %s is over: %s", j->name, job_status_name(j->status));
    if (j->made || is_saving_last(j))
        return err_set(e, ERR_CONFLICT, "there is nothing left to stop: the pictures of %s are made", j->name);
    if (j == q->running) {
        q->running = NULL;
        q->runner.cancel(q->runner.ctx);
    } else {
        job_list_remove(&q->waiting, job_list_index(&q->waiting, id));
    }
    jobs_end(q, j, JOB_CANCELLED, &cancelled);
    jobs_kick(q);
    return true;
}

/* ---- opening and closing ---------------------------------------------------------------------------------------- */

jobs *jobs_open(const jobs_config *config, err *e) {
    jobs *q = mem_alloc(1, sizeof *q);
    *q = (jobs){
        .loop = config->loop,
        .db = config->db,
        .history = config->history,
        .events = config->events,
        .uploads = config->uploads,
        .output_dir = str_dup(config->output_dir),
        .checkpoint_dir = str_dup(config->checkpoint_dir),
        .runner = config->runner,
        .retry = mem_alloc(1, sizeof(uv_timer_t)),
    };
    uv_timer_init(q->loop, q->retry);
    uv_unref((uv_handle_t *)q->retry);
    q->retry->data = q;
    if (jobs_recover(q, e)) return q;
    jobs_close(q);
    jobs_free(q);
    return NULL;
}

static void free_timer(uv_handle_t *h) {
    free(h);
}

void jobs_close(jobs *q) {
    if (!q || q->closing) return;
    q->closing = true;
    uv_close((uv_handle_t *)q->retry, free_timer);
    job *j = q->running;
    q->running = NULL;
    if (j) {
        q->runner.cancel(q->runner.ctx);
        requeue(q, j);
    }
    while (q->waiters) {
        job_waiter *w = q->waiters;
        q->waiters = w->next;
        const job *waited = jobs_live(q, w->id);
        if (waited) w->over(w->ctx, waited);
        free(w);
    }
}

void jobs_free(jobs *q) {
    if (!q) return;
    jobs_forget_pictures(q);
    job_list_free(&q->waiting);
    job_list_free(&q->leaving);
    free(q->output_dir);
    free(q->checkpoint_dir);
    free(q);
}
