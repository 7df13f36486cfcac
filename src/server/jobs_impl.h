/* jobs_impl.h - what the parts of the queue share, and nobody else: jobs.c (waiting and running), jobs_request.c (what
 * the worker is asked), jobs_stream.c (what it answers), jobs_end.c (the way into the database), jobs_recover.c (and
 * out of it at the next start). jobs_query.c needs only jobs.h.
 *
 * A job is in exactly one of three places: `waiting` (queued or interrupted, in order), `running`, or `leaving` (the
 * worker has nothing to do for it any more, but its end or a picture is not in the database yet). What is in none of
 * them lives in the database only. */
#ifndef MYSTI_SERVER_JOBS_IMPL_H
#define MYSTI_SERVER_JOBS_IMPL_H

#include "server/job_list.h"
#include "server/jobs.h"

enum { JOB_JSON_MAX = 16 * 1024 * 1024 };

typedef struct picture picture; /* a finished one on its way into the history */

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

/* ---- jobs.c ------------------------------------------------------------------------------------------------------ */

job *jobs_live(const jobs *q, int64_t id); /* wherever it is in memory; NULL: in the database only */
void jobs_publish(jobs *q, const job *j, unsigned flags);
void jobs_tell_end(jobs *q, const job *j); /* to whoever follows it or waits for it */
char *jobs_checkpoint_path(const jobs *q, const job *j);

/* ---- jobs_request.c ---------------------------------------------------------------------------------------------- */

/* Appends the request of docs/worker-protocol.md. */
bool jobs_write_request(const jobs *q, const job *j, buf *out, err *e);

/* ---- jobs_end.c -------------------------------------------------------------------------------------------------- */

/* Saves the state of a job that goes on. */
void jobs_save(jobs *q, const job *j);

/* Enters a finished picture of the job into the history, now or when there is room. */
void jobs_record(jobs *q, job *j, const history_picture *p);

/* Takes over the job, which is in no list: the worker has made all pictures and is free. Nobody hears of a job that is
 * done before its pictures can be listed and a restart of the server knows of it too: until then it runs on, on a full
 * disk for as long as that is full. */
void jobs_complete(jobs *q, job *j);

/* Takes over the job, which is in no list. Failed or cancelled: clients learn of it once the pictures that are on their
 * way are recorded or refused. */
void jobs_end(jobs *q, job *j, job_status status, const err *why);

void jobs_forget_pictures(jobs *q); /* that could not be recorded */

/* ---- jobs_recover.c ---------------------------------------------------------------------------------------------- */

/* Puts what the database holds into `waiting`, and removes checkpoints that belong to nothing. Blocks. */
bool jobs_recover(jobs *q, err *e);

#endif
