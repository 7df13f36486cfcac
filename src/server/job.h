/* job.h - one image request on its way: a value, its JSON and its row. No queue, no process. */
#ifndef MYSTI_SERVER_JOB_H
#define MYSTI_SERVER_JOB_H

#include "server/db.h"
#include "server/image_params.h"

typedef enum job_status {
    JOB_QUEUED,
    JOB_RUNNING,
    JOB_DONE,
    JOB_FAILED,
    JOB_CANCELLED,
    JOB_INTERRUPTED, /* its worker or the server died; it waits at the front of the queue to be taken up again */
} job_status;

const char *job_status_name(job_status s);
bool job_status_from_name(const char *name, job_status *out);
bool job_is_over(job_status s);

/* The phase of a job whose pictures are made, until they and its end are in the database (a full disk refuses them). */
#define JOB_PHASE_RECORDING "recording"

/* A finished picture of the job. */
typedef struct job_result {
    int64_t id; /* in the history; 0 while it is being recorded */
    int64_t seed;
    char *file;
    char *json; /* the history entry; NULL while it is being recorded */
} job_result;

typedef struct job {
    int64_t id;
    char name[24]; /* "j-12" */
    job_status status;
    image_params params;
    char *file_stem;                             /* of its files; unique */
    int64_t created_ms, started_ms, finished_ms; /* wall time; 0: not yet */
    int attempts;                                /* times it was started */
    int deaths;                                  /* workers that died while it ran */
    err error;                                   /* code 0: none; or why a picture of it will never be listed */

    /* Only while it is in the queue. */
    char phase[16];
    int step, image;
    int tiles;              /* of an upscale, which are its steps; 0: not known yet */
    double step_ms;         /* smoothed; 0: unknown */
    double decode_ms;       /* of the last picture; 0: unknown */
    int64_t phase_since_ms; /* monotonic */
    bool made;              /* all pictures are: it is done once they and its end are in the database */
    bool saving;            /* its end is on its way into the database */
    bool delayed;           /* a picture or its end could not be written yet: an alert told so */
    bool save_failed;       /* the last time: the log has it */
    job_result *results;
    size_t result_count;
} job;

job *job_new(const image_params *p); /* copies; status queued, no id yet */
void job_free(job *j);

const char *job_type(const job *j); /* "txt2img", "img2img" or "upscale" */

int job_steps(const job *j); /* all of one picture's; tiles of an upscale, 0 while not known */

void job_set_phase(job *j, const char *phase);

/* "j-12" -> 12; 0 when it is not a job's name. */
int64_t job_id_from_name(const char *name);

/* The time still needed, or -1 when unknown. */
int64_t job_eta_ms(const job *j);

/* Appends the job of docs/api.md. position: 1 is next; 0 when not waiting. */
void job_write(const job *j, int position, buf *out);

/* Takes note of a picture; a file that is known already is only completed. id 0 and json NULL: not recorded yet. */
void job_add_result(job *j, int64_t id, int64_t seed, const char *file, const char *json);
void job_drop_result(job *j, const char *file); /* it will never be in the history */
bool job_all_recorded(const job *j);

/* ---- rows, on the disk thread ------------------------------------------------------------------------------------ */

/* Sets id, name, file_stem and created_ms. */
bool job_insert(db_conn *c, job *j, err *e);

/* Writes status, times, attempts, deaths and error; looks at nothing else, so a shallow copy will do. */
bool job_update(db_conn *c, const job *j, err *e);

/* With its results. NULL: ERR_NOT_FOUND, or ERR_FORMAT when its parameters cannot be read. */
job *job_select(db_conn *c, int64_t id, err *e);

#endif
