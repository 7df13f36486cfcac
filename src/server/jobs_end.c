/* jobs_end.c - the way of a job and its pictures into the database, behind which it is over for everybody.
 *
 * What the database refuses (the disk is full) stays in memory and is tried again: pictures in `unrecorded`, jobs in
 * `leaving`. A server that is killed before runs the job again, which finds its pictures made. */
#include "server/jobs_impl.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>

enum { RETRY_MS = 2000 }; /* until what the database refused is tried again */

struct picture {
    jobs *q;
    history_picture p;
    char *file, *thumb, *parameters; /* behind p's pointers */
    image_params params;
    struct picture *next; /* in jobs.unrecorded */
};

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

static void saved(void *arg);

void jobs_save(jobs *q, const job *state) {
    save *s = mem_alloc(1, sizeof *s);
    bool over = job_is_over(state->status);
    const image_params *p = &state->params;
    *s = (save){.q = q,
                .state = *state,
                .checkpoint = over ? jobs_checkpoint_path(q, state) : NULL,
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
    if (!j->made && job_all_recorded(j)) {
        if (!j->save_failed) log_error("jobs", "the end of %s is not saved yet: %s", j->name, why->msg);
        j->save_failed = true;
        return; /* it failed or was cancelled, which its clients know */
    }
    if (j->delayed) return;
    j->delayed = true;
    if (j->made) jobs_publish(q, j, 0);
    char message[400];
    snprintf(message, sizeof message,
             "What job %s has finished is kept, and enters the history as soon as it can be written (%s).", j->name,
             why->msg);
    events_alert(q->events, "error", "history_delayed", NULL, j->name, message);
}

/* ---- the end of a job ------------------------------------------------------------------------------------------- */

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
    jobs_save(q, &end);
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
        jobs_tell_end(q, j);
    }
    job_list_remove(&q->leaving, job_list_index(&q->leaving, j->id));
    job_free(j);
}

static void saved(void *arg) {
    save *s = arg;
    job *j = jobs_live(s->q, s->state.id);
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
    job_list_insert(&q->leaving, q->leaving.count, j);
}

void jobs_complete(jobs *q, job *j) {
    j->made = true;
    job_set_phase(j, JOB_PHASE_RECORDING);
    if (j->delayed) jobs_publish(q, j, 0); /* else it takes no longer than a write */
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
    const job *j = jobs_live(f->q, f->id);
    if (j) jobs_tell_end(f->q, j);
    free(f);
}

void jobs_end(jobs *q, job *j, job_status status, const err *why) {
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
    job *j = jobs_live(q, p->p.job); /* NULL: the same picture of another attempt was faster */
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

/* With parameters of its own, with which it can be made again by itself. */
void jobs_record(jobs *q, job *j, const history_picture *p) {
    picture *pic = mem_alloc(1, sizeof *pic);
    *pic = (picture){
        .q = q, .p = *p, .file = str_dup(p->file), .thumb = str_dup(p->thumb), .parameters = str_dup(p->parameters)};
    image_params *own = &pic->params;
    image_params_copy(own, &j->params);
    own->seed = p->seed;
    own->sampling.subseed += own->sampling.subseed_strength > 0 ? p->index : 0;
    own->n = 1;
    image_texts_pick(&own->texts, (size_t)p->index, &own->prompt, &own->negative_prompt);
    if (!own->width && !own->is_upscale) own->width = p->width;
    if (!own->height && !own->is_upscale) own->height = p->height;
    pic->p.file = pic->file;
    pic->p.thumb = pic->thumb;
    pic->p.parameters = pic->parameters;
    pic->p.model = own->model;
    pic->p.params = own;
    job_add_result(j, 0, p->seed, p->file, NULL);
    history_record(q->history, &pic->p, on_recorded, pic);
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

void jobs_forget_pictures(jobs *q) {
    while (q->unrecorded) {
        picture *next = q->unrecorded->next;
        picture_free(q->unrecorded);
        q->unrecorded = next;
    }
}
