/* jobs.c - see jobs.h.
 *
 * A job is in exactly one of three places: `waiting` (queued or interrupted, in order), `running`, or `leaving` (the
 * worker has nothing to do for it any more, but its end or a picture is not in the database yet). What is in none of
 * them lives in the database only. */
#include "server/jobs.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/path.h"
#include "base/str.h"
#include "json/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    RETRY_MS = 2000,       /* until what the disk refused is tried again */
    ATTEMPTS_MAX = 20,     /* starts that came to nothing for other reasons than a worker's death */
    FINISHED_KEPT = 10000, /* jobs that are over and older than this many are forgotten; their pictures stay */
    JOB_JSON_MAX = 16 * 1024 * 1024,
};

struct job_waiter {
    int64_t id;
    job_over over;
    void *ctx;
    job_waiter *next;
};

typedef struct job_list {
    job **at;
    size_t count;
} job_list;

/* A finished picture on its way into the history. */
typedef struct picture {
    jobs *q;
    history_picture p;
    char *file, *thumb, *parameters; /* behind p's pointers */
    image_params params;
    struct picture *next; /* in jobs.unrecorded */
} picture;

struct jobs {
    uv_loop_t *loop;
    db *db;
    history *history;
    events *events;
    const uploads *uploads;
    char *output_dir, *checkpoint_dir;
    job_runner runner;

    job_list waiting, leaving;
    job *running;
    bool finished;     /* the running job's stream said `done` or `error` */
    err outcome;       /* of `error` */
    size_t submitting; /* on their way into the database: they count against the limit */
    job_waiter *waiters;
    picture *unrecorded; /* the disk refused them */
    uv_timer_t *retry;
    bool closing;
    double last_job_ms; /* how long the last one took, for Retry-After */
};

/* ---- lists ------------------------------------------------------------------------------------------------------ */

static void list_insert(job_list *l, size_t index, job *j) {
    l->at = mem_resize(l->at, (l->count + 1) * sizeof *l->at);
    memmove(l->at + index + 1, l->at + index, (l->count - index) * sizeof *l->at);
    l->at[index] = j;
    l->count++;
}

static size_t list_index(const job_list *l, int64_t id) {
    size_t i = 0;
    while (i < l->count && l->at[i]->id != id) i++;
    return i;
}

static job *list_remove(job_list *l, size_t index) {
    job *j = l->at[index];
    l->count--;
    memmove(l->at + index, l->at + index + 1, (l->count - index) * sizeof *l->at);
    return j;
}

static void list_free(job_list *l) {
    for (size_t i = 0; i < l->count; i++) job_free(l->at[i]);
    free(l->at);
}

static job *find(const jobs *q, int64_t id) {
    if (q->running && q->running->id == id) return q->running;
    size_t i = list_index(&q->waiting, id);
    if (i < q->waiting.count) return q->waiting.at[i];
    i = list_index(&q->leaving, id);
    return i < q->leaving.count ? q->leaving.at[i] : NULL;
}

const job *jobs_find(const jobs *q, int64_t id) {
    return find(q, id);
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
    size_t i = list_index(&q->waiting, j->id);
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

static void publish(jobs *q, const job *j, unsigned flags) {
    buf json;
    buf_init(&json, JOB_JSON_MAX);
    jobs_write(q, j, &json);
    if (!json.full) events_publish(q->events, "job", j->name, buf_str(&json), json.len, flags);
    buf_free(&json);
}

static void set_phase(job *j, const char *phase) {
    if (str_eq(j->phase, phase)) return;
    str_copy(j->phase, sizeof j->phase, phase);
    j->phase_since_ms = clock_mono_ms();
}

/* ---- saving ----------------------------------------------------------------------------------------------------- */

typedef struct save {
    jobs *q;
    job state;        /* a shallow copy: job_update() looks at no pointer */
    char *checkpoint; /* to be removed, or NULL */
    bool uploads;     /* its image may be one that nobody needs any more */
    err why;
} save;

/* And the enlarged tiles beside it (docs/worker-protocol.md). */
static void remove_checkpoint(const char *path) {
    char *tiles = str_fmt("%s.tiles", path);
    remove(path);
    remove(tiles);
    free(tiles);
}

static void do_save(db_conn *c, void *arg) {
    save *s = arg;
    if (!job_update(c, &s->state, &s->why)) return;
    if (s->checkpoint) remove_checkpoint(s->checkpoint);
    if (s->uploads) uploads_collect(s->q->uploads, c);
}

static char *checkpoint_path(const jobs *q, const job *j) {
    return str_fmt("%s/%s.ckpt", q->checkpoint_dir, j->name);
}

static void saved(void *arg);

static void submit_save(jobs *q, const job *state) {
    save *s = mem_alloc(1, sizeof *s);
    bool over = job_is_over(state->status);
    const image_params *p = &state->params;
    *s = (save){.q = q,
                .state = *state,
                .checkpoint = over ? checkpoint_path(q, state) : NULL,
                .uploads = over && (p->init_image || p->controls.count || p->ip_adapter.image)};
    db_submit(q->db, do_save, saved, s);
}

/* What the database refuses now it may take later: there may be room on the disk by then. */
static bool may_pass(const err *why) {
    return why->code == ERR_IO || why->code == ERR_BUSY || why->code == ERR_MEMORY;
}

static void on_retry(uv_timer_t *t);

/* A picture or the end of the job is kept in memory until the database takes it. */
static void delay(jobs *q, job *j, const err *why) {
    if (q->closing) return; /* the row still makes the job run again, which finds its pictures made */
    if (!uv_is_active((uv_handle_t *)q->retry)) uv_timer_start(q->retry, on_retry, RETRY_MS, 0);
    if (j->delayed) return;
    j->delayed = true;
    if (j->made) publish(q, j, 0);
    char message[400];
    snprintf(message, sizeof message,
             "What job %s has finished is kept, and enters the history as soon as it can be written (%s).", j->name,
             why->msg);
    events_alert(q->events, "error", "history_delayed", NULL, j->name, message);
}

/* ---- the end of a job ------------------------------------------------------------------------------------------- */

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

static void tell_end(jobs *q, const job *j) {
    publish(q, j, EVENT_LAST);
    call_waiters(q, j);
}

static void log_end(const job *j) {
    log_info("jobs", "%s %s%s%s", j->name, job_status_name(j->status), j->error.code ? ": " : "", j->error.msg);
}

/* Saves the end of a job that has left the worker, behind all its pictures: a server that is killed before runs the job
 * again, and so loses none of them. */
static void save_end(jobs *q, job *j) {
    if (j->saving || !job_all_recorded(j)) return;
    j->saving = true;
    job end = *j;
    if (j->made) {
        end.status = j->error.code ? JOB_FAILED : JOB_DONE;
        end.finished_ms = clock_wall_ms();
    }
    submit_save(q, &end);
}

/* From now on the job lives in the database only; also when that is damaged and takes nothing any more. */
static void end_saved(jobs *q, job *j, const save *s) {
    j->saving = false;
    if (may_pass(&s->why)) {
        delay(q, j, &s->why);
        return;
    }
    if (s->why.code) log_error("jobs", "the end of %s is not saved: %s", j->name, s->why.msg);
    if (j->made) {
        j->made = false;
        j->status = s->state.status;
        j->finished_ms = s->state.finished_ms;
        log_end(j);
        tell_end(q, j);
    }
    list_remove(&q->leaving, list_index(&q->leaving, j->id));
    job_free(j);
}

static void saved(void *arg) {
    save *s = arg;
    job *j = find(s->q, s->state.id);
    if (job_is_over(s->state.status)) {
        end_saved(s->q, j, s); /* it does not leave before */
    } else {
        /* only an older state: the row still makes the job run again after a restart */
        if (s->why.code && !(j && j->save_failed))
            log_error("jobs", "j-%lld is not saved: %s", (long long)s->state.id, s->why.msg);
        if (j) j->save_failed = s->why.code != 0;
    }
    free(s->checkpoint);
    free(s);
}

static void take_leave(jobs *q, job *j) {
    if (j->started_ms) q->last_job_ms = (double)(clock_wall_ms() - j->started_ms);
    list_insert(&q->leaving, q->leaving.count, j);
}

/* The worker has made all pictures and is free. Nobody hears of a job that is done before its pictures can be listed
 * and a restart of the server knows of it too: until then it runs on, on a full disk for as long as that is full. */
static void complete(jobs *q, job *j) {
    j->made = true;
    set_phase(j, JOB_PHASE_RECORDING);
    if (j->delayed) publish(q, j, 0); /* else it takes no longer than a write */
    take_leave(q, j);
    save_end(q, j);
}

typedef struct farewell {
    jobs *q;
    int64_t id;
} farewell;

static void nothing_to_do(db_conn *c, void *arg) {
    (void)c;
    (void)arg;
}

static void say_farewell(void *arg) {
    farewell *f = arg;
    const job *j = find(f->q, f->id);
    if (j) tell_end(f->q, j);
    free(f);
}

/* Failed or cancelled: clients learn of it once the pictures that are on their way are recorded or refused. */
static void end_job(jobs *q, job *j, job_status status, const err *why) {
    j->status = status;
    j->finished_ms = clock_wall_ms();
    j->error = *why;
    log_end(j);
    take_leave(q, j);
    /* before the save that may free the job */
    farewell *f = mem_alloc(1, sizeof *f);
    *f = (farewell){q, j->id};
    db_submit(q->db, nothing_to_do, say_farewell, f);
    save_end(q, j);
}

/* ---- pictures --------------------------------------------------------------------------------------------------- */

static void picture_free(picture *p) {
    free(p->file);
    free(p->thumb);
    free(p->parameters);
    image_params_free(&p->params);
    free(p);
}

/* It will never be listed: a strange name, a damaged database. Its job does not end well. */
static void refuse_picture(jobs *q, job *j, const picture *p, const err *why) {
    char message[400];
    snprintf(message, sizeof message, "The picture '%s' is not in the history: %s", p->p.file, why->msg);
    events_alert(q->events, "error", "history_failed", NULL, j->name, message);
    if (!j->error.code) j->error = *why;
    job_drop_result(j, p->p.file);
}

static void on_recorded(void *ctx, const err *why, int64_t id, bool fresh, const char *json, size_t len) {
    picture *p = ctx;
    jobs *q = p->q;
    job *j = find(q, p->p.job); /* NULL: the same picture of another attempt was faster */
    if (j && why && may_pass(why) && !q->closing) {
        p->next = q->unrecorded;
        q->unrecorded = p;
        delay(q, j, why);
        return;
    }
    if (j && !why) {
        job_add_result(j, id, p->p.seed, p->p.file, json);
        if (fresh) events_publish(q->events, "image", j->name, json, len, 0);
    } else if (j && !may_pass(why)) {
        refuse_picture(q, j, p, why);
    }
    if (j && (j->made || job_is_over(j->status))) save_end(q, j);
    picture_free(p);
}

static void on_retry(uv_timer_t *t) {
    jobs *q = t->data;
    picture *p = q->unrecorded;
    q->unrecorded = NULL;
    while (p) {
        picture *next = p->next;
        history_record(q->history, &p->p, on_recorded, p);
        p = next;
    }
    for (size_t i = 0; i < q->leaving.count; i++) save_end(q, q->leaving.at[i]);
}

/* ---- running ---------------------------------------------------------------------------------------------------- */

/* The path behind the name that a job's parameters have for a picture; *path stays NULL without one. */
static bool find_picture(const jobs *q, const char *field, const char *name, char **path, err *e) {
    if (!name) return true;
    *path = str_eq(name, EDITS_MASK_ALPHA) ? str_dup(name) : uploads_path(q->uploads, name, e);
    return *path || err_wrap(e, "%s", field);
}

/* The requests of docs/worker-protocol.md. */
static bool write_upscale(const jobs *q, const job *j, buf *out, err *e) {
    const image_params *p = &j->params;
    char *image = p->init_image ? uploads_path(q->uploads, p->init_image, e) : NULL;
    if (!image) return err_wrap(e, "image");
    char *checkpoint = checkpoint_path(q, j);
    buf_printf(out, "{\"job\":\"%s\",\"factor\":%.9g,\"seed\":%lld,\"quality\":%d", j->name, p->factor,
               (long long)p->seed, p->output_compression);
    json_write_member(out, "image", image);
    json_write_member(out, "output_dir", q->output_dir);
    json_write_member(out, "file_stem", j->file_stem);
    json_write_member(out, "format", p->output_format);
    json_write_member(out, "checkpoint", checkpoint);
    buf_putc(out, '}');
    free(checkpoint);
    free(image);
    return true;
}

static bool write_request(const jobs *q, const job *j, buf *out, err *e) {
    const image_params *p = &j->params;
    if (p->is_upscale) return write_upscale(q, j, out, e);
    char *init = NULL, *mask = NULL;
    if (!find_picture(q, "init_image", p->init_image, &init, e)) return false;
    if (!find_picture(q, "mask", p->edits.mask, &mask, e)) {
        free(init);
        return false;
    }
    char *checkpoint = checkpoint_path(q, j), *model = p->model ? path_stem(p->model) : NULL;
    buf_printf(out, "{\"job\":\"%s\"", j->name);
    json_write_member(out, "prompt", p->texts.count ? p->texts.each[0].prompt : p->prompt);
    json_write_member(out, "negative_prompt", p->texts.count ? p->texts.each[0].negative_prompt : p->negative_prompt);
    if (p->width) buf_printf(out, ",\"width\":%d", p->width); /* without: the model's own */
    if (p->height) buf_printf(out, ",\"height\":%d", p->height);
    buf_printf(out, ",\"steps\":%d,\"cfg_scale\":%.9g,\"seed\":%lld,\"n\":%d,\"clip_skip\":%d", p->steps, p->cfg_scale,
               (long long)p->seed, p->n, p->clip_skip);
    json_write_member(out, "sampler", p->sampler);
    json_write_member(out, "scheduler", p->scheduler);
    json_write_member(out, "rng", p->rng);
    json_write_member(out, "emphasis", p->emphasis);
    json_write_member(out, "vae", p->vae);
    json_write_member(out, "init_image", init);
    json_write_member(out, "mask", mask);
    buf_putc(out, ',');
    image_edits_write(&p->edits, out);
    image_sampling_write(&p->sampling, out);
    buf_printf(out, "\"strength\":%.9g,\"vae_tiling\":\"auto\",\"quality\":%d,\"preview\":true", p->strength,
               p->output_compression);
    json_write_member(out, "output_dir", q->output_dir);
    json_write_member(out, "file_stem", j->file_stem);
    json_write_member(out, "format", p->output_format);
    json_write_member(out, "model_name", model ? model : "");
    json_write_member(out, "checkpoint", checkpoint);
    buf_putc(out, '}');
    free(model);
    free(checkpoint);
    free(mask);
    free(init);
    return true;
}

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
    if (!write_request(q, j, &body, &why)) {
        end_job(q, j, JOB_FAILED, &why);
    } else {
        j->status = JOB_RUNNING;
        reset_progress(j);
        q->running = j;
        q->finished = false;
        q->outcome = (err){0};
        submit_save(q, j);
        publish(q, j, 0);
        q->runner.start(q->runner.ctx, j, buf_str(&body), body.len);
    }
    buf_free(&body);
}

void jobs_kick(jobs *q) {
    while (!q->closing && !q->running && q->waiting.count && q->runner.ready(q->runner.ctx))
        start(q, list_remove(&q->waiting, 0));
}

static void requeue(jobs *q, job *j) {
    j->status = JOB_INTERRUPTED;
    reset_progress(j);
    list_insert(&q->waiting, 0, j);
    submit_save(q, j);
    publish(q, j, 0);
}

static void fail_as_poison(jobs *q, job *j, const err *cause) {
    err why;
    char message[400];
    err_set(&why, ERR_CRASHED, "the image worker died %d times while making this picture; last: %s", j->deaths,
            cause->msg);
    snprintf(message, sizeof message, "Job %s is given up: %s. Other settings or another model may do better.", j->name,
             why.msg);
    events_alert(q->events, "error", "job_failed", "sd", j->name, message);
    end_job(q, j, JOB_FAILED, &why);
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
        end_job(q, j, JOB_FAILED, why);
    else
        requeue(q, j);
}

static void finish_by_word(jobs *q, job *j) {
    if (!q->outcome.code)
        complete(q, j);
    else if (q->outcome.code == ERR_CANCELLED) /* not by us: the worker is being stopped */
        on_interruption(q, j, &q->outcome);
    else
        end_job(q, j, JOB_FAILED, &q->outcome);
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
        end_job(q, j, JOB_FAILED, why);
    jobs_kick(q);
}

/* ---- the worker's stream ---------------------------------------------------------------------------------------- */

void jobs_runner_phase(jobs *q, const char *phase) {
    job *j = q->running;
    if (!j || str_eq(j->phase, phase)) return;
    set_phase(j, phase);
    publish(q, j, 0);
}

static bool on_phase(jobs *q, job *j, const json_in *line, err *e) {
    const char *phase = NULL;
    if (!json_need_str(line, "phase", &phase, e)) return false;
    set_phase(j, phase);
    if (str_eq(j->phase, "sampling")) j->step = 0; /* of the next picture */
    publish(q, j, 0);
    return true;
}

static bool on_progress(jobs *q, job *j, const json_in *line, err *e) {
    const char *phase = j->phase;
    int step = 0, steps = 0;
    double step_ms = 0;
    if (!json_get_str(line, "phase", &phase, e) || !json_get_int(line, "step", &step, 0, 1 << 20, e) ||
        !json_get_int(line, "steps", &steps, 0, 1 << 20, e) ||
        !json_get_int(line, "image", &j->image, 0, PARAMS_BATCH_MAX, e) ||
        !json_get_num(line, "step_ms", &step_ms, 0, 1e9, e))
        return false;
    bool same = str_eq(j->phase, phase);
    char copy[sizeof j->phase]; /* phase may be j->phase itself */
    str_copy(copy, sizeof copy, phase);
    set_phase(j, copy);
    if (str_eq(j->phase, "upscaling")) j->tiles = steps;
    if (str_eq(j->phase, "sampling") || str_eq(j->phase, "upscaling")) {
        j->step = step;
        if (step_ms > 0) j->step_ms = j->step_ms > 0 ? 0.7 * j->step_ms + 0.3 * step_ms : step_ms;
    }
    publish(q, j, same ? EVENT_PROGRESS : 0);
    return true;
}

static bool on_preview(jobs *q, job *j, const json_in *line, err *e) {
    const char *jpeg = NULL;
    int step = 0, width = 0, height = 0;
    if (!json_need_str(line, "jpeg", &jpeg, e) || !json_get_int(line, "step", &step, 0, 1 << 20, e) ||
        !json_get_int(line, "width", &width, 1, PARAMS_SIZE_MAX, e) ||
        !json_get_int(line, "height", &height, 1, PARAMS_SIZE_MAX, e))
        return false;
    buf out;
    buf_init(&out, 1024 * 1024);
    buf_printf(&out, "{\"job\":\"%s\",\"step\":%d,\"width\":%d,\"height\":%d,\"jpeg\":", j->name, step, width, height);
    json_quote(&out, jpeg);
    buf_putc(&out, '}');
    if (!out.full) events_publish(q->events, "preview", j->name, buf_str(&out), out.len, EVENT_VOLATILE);
    buf_free(&out);
    return true;
}

static bool on_image(jobs *q, job *j, const json_in *line, err *e) {
    const char *file = NULL, *thumb = NULL, *parameters = "";
    history_picture p = {.job = j->id, .model = j->params.model, .seed = j->params.seed};
    if (!json_need_str(line, "file", &file, e) || !json_get_str(line, "thumb", &thumb, e) ||
        !json_get_str(line, "parameters", &parameters, e) ||
        !json_get_int(line, "index", &p.index, 0, PARAMS_BATCH_MAX - 1, e) ||
        !json_get_int(line, "width", &p.width, 1, 1 << 16, e) ||
        !json_get_int(line, "height", &p.height, 1, 1 << 16, e) ||
        !json_get_i64(line, "seed", &p.seed, 0, INT64_MAX, e) ||
        !json_get_i64(line, "bytes", &p.bytes, 0, INT64_MAX, e))
        return false;
    if (!str_starts(file, j->file_stem)) return err_set(e, ERR_FORMAT, "file '%.60s' is not of this job", file);
    if (str_eq(j->phase, "decoding") || str_eq(j->phase, "saving"))
        j->decode_ms = (double)(clock_mono_ms() - j->phase_since_ms);
    picture *pic = mem_alloc(1, sizeof *pic);
    *pic = (picture){.q = q, .p = p, .file = str_dup(file), .thumb = str_dup(thumb), .parameters = str_dup(parameters)};
    image_params_copy(&pic->params, &j->params);
    pic->params.seed = p.seed; /* of this picture alone: with them it can be made again by itself */
    pic->params.sampling.subseed += pic->params.sampling.subseed_strength > 0 ? p.index : 0;
    pic->params.n = 1;
    image_texts_pick(&pic->params.texts, (size_t)p.index, &pic->params.prompt, &pic->params.negative_prompt);
    if (!pic->params.width && !j->params.is_upscale) pic->params.width = p.width;
    if (!pic->params.height && !j->params.is_upscale) pic->params.height = p.height;
    pic->p.file = pic->file;
    pic->p.thumb = pic->thumb;
    pic->p.parameters = pic->parameters;
    pic->p.model = pic->params.model;
    pic->p.params = &pic->params;
    job_add_result(j, 0, p.seed, file, NULL);
    if (p.index + 1 < j->params.n) j->image = p.index + 1;
    history_record(q->history, &pic->p, on_recorded, pic);
    return true;
}

static bool on_error(jobs *q, const json_in *line, err *e) {
    json_in why;
    const char *code = "internal", *message = "the image worker gave no reason";
    if (!json_get_obj(line, "error", true, &why, e) || !json_get_str(&why, "code", &code, e) ||
        !json_get_str(&why, "message", &message, e))
        return false;
    q->finished = true;
    err_set(&q->outcome, err_from_name(code), "%s", message);
    return true;
}

static bool on_event(jobs *q, job *j, const json_in *line, err *e) {
    const char *event = NULL;
    if (!json_need_str(line, "event", &event, e)) return false;
    if (str_eq(event, "phase")) return on_phase(q, j, line, e);
    if (str_eq(event, "progress")) return on_progress(q, j, line, e);
    if (str_eq(event, "preview")) return on_preview(q, j, line, e);
    if (str_eq(event, "image")) return on_image(q, j, line, e);
    if (str_eq(event, "error")) return on_error(q, line, e);
    if (str_eq(event, "done")) q->finished = true;
    return true; /* events that a newer worker may add */
}

void jobs_runner_line(jobs *q, const char *line, size_t len) {
    job *j = q->running;
    if (!j || q->finished) return;
    err why = {0};
    yyjson_doc *doc = json_parse(line, len, &why);
    json_in root = json_root(doc);
    if (!doc || !on_event(q, j, &root, &why))
        log_warn("jobs", "%s: strange line from the worker: %s", j->name, why.msg);
    yyjson_doc_free(doc);
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
        list_insert(&q->waiting, q->waiting.count, s->j);
        publish(q, s->j, 0);
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
    if (!find(q, id)) return NULL;
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

bool jobs_cancel(jobs *q, int64_t id, err *e) {
    static const err cancelled = {.code = ERR_CANCELLED, .msg = "cancelled"};
    job *j = find(q, id);
    if (!j) return err_set(e, ERR_NOT_FOUND, "there is no job j-%lld in the queue", (long long)id);
    if (job_is_over(j->status))
        return err_set(e, ERR_CONFLICT, "job %s is over: %s", j->name, job_status_name(j->status));
    if (j->made) return err_set(e, ERR_CONFLICT, "there is nothing left to stop: the pictures of %s are made", j->name);
    if (j == q->running) {
        q->running = NULL;
        q->runner.cancel(q->runner.ctx);
    } else {
        list_remove(&q->waiting, list_index(&q->waiting, id));
    }
    end_job(q, j, JOB_CANCELLED, &cancelled);
    jobs_kick(q);
    return true;
}

/* ---- opening and closing ---------------------------------------------------------------------------------------- */

typedef struct recovery_scan {
    jobs *q;
    err why;
} recovery_scan;

static bool open_ids(db_conn *c, int64_t *ids, size_t cap, size_t *count, err *e) {
    /* What ran comes first; there was only one, but a restart during a restart must not lose order either. */
    sqlite3_stmt *s = db_query(c, e,
                               "SELECT id FROM jobs WHERE status IN ('queued','running','interrupted')"
                               " ORDER BY status = 'queued', id LIMIT ?",
                               "i", (int64_t)cap);
    *count = 0;
    while (s && db_next(c, s, e)) ids[(*count)++] = db_int(s, 0);
    return !e->code;
}

static void take_up(recovery_scan *r, db_conn *c, int64_t id) {
    err why = {0};
    job *j = job_select(c, id, &why);
    if (!j) {
        log_error("jobs", "j-%lld cannot be taken up again: %s", (long long)id, why.msg);
        db_exec(c, NULL, "UPDATE jobs SET status = 'failed', error_code = ?, error = ? WHERE id = ?", "ssi",
                err_name(why.code), why.msg, id);
        return;
    }
    if (j->status == JOB_RUNNING) {
        j->status = JOB_INTERRUPTED;
        job_update(c, j, NULL);
    }
    list_insert(&r->q->waiting, r->q->waiting.count, j);
}

static void do_recover(db_conn *c, void *arg) {
    recovery_scan *r = arg;
    int64_t ids[2 * JOBS_QUEUE_MAX];
    size_t count;
    db_exec(c, NULL,
            "DELETE FROM jobs WHERE id <= (SELECT max(id) FROM jobs) - ? AND"
            " status IN ('done','failed','cancelled')",
            "i", (int64_t)FINISHED_KEPT);
    if (!open_ids(c, ids, sizeof ids / sizeof *ids, &count, &r->why)) return;
    for (size_t i = 0; i < count; i++) take_up(r, c, ids[i]);
    uploads_collect(r->q->uploads, c);
}

static bool is_open_checkpoint(const jobs *q, const char *name) {
    char *stem = str_ndup(name, strcspn(name, "."));
    int64_t id = job_id_from_name(stem);
    free(stem);
    return id && find(q, id);
}

static bool sweep_checkpoint(void *ctx, const char *name) {
    jobs *q = ctx;
    if (str_starts(name, "j-") && !is_open_checkpoint(q, name)) {
        char *path = path_join(q->checkpoint_dir, name);
        remove(path);
        free(path);
    }
    return true;
}

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
    recovery_scan r = {.q = q};
    db_run(q->db, do_recover, &r);
    file_list_dir(q->checkpoint_dir, sweep_checkpoint, q, NULL);
    if (q->waiting.count) log_info("jobs", "%zu jobs of the last run are taken up again", q->waiting.count);
    if (!r.why.code) return q;
    if (e) *e = r.why;
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
        const job *waited = find(q, w->id);
        if (waited) w->over(w->ctx, waited);
        free(w);
    }
}

void jobs_free(jobs *q) {
    if (!q) return;
    while (q->unrecorded) {
        picture *next = q->unrecorded->next;
        picture_free(q->unrecorded);
        q->unrecorded = next;
    }
    list_free(&q->waiting);
    list_free(&q->leaving);
    free(q->output_dir);
    free(q->checkpoint_dir);
    free(q);
}
