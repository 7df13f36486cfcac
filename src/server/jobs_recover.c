/* jobs_recover.c - the queue as the last run of the server left it. */
#include "server/jobs_impl.h"

#include "base/file.h"
#include "base/log.h"
#include "base/path.h"
#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FINISHED_KEPT = 10000 }; /* jobs that are over and older than this many are forgotten; their pictures stay */

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
    job_list_insert(&r->q->waiting, r->q->waiting.count, j);
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
    return id && jobs_live(q, id);
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

bool jobs_recover(jobs *q, err *e) {
    recovery_scan r = {.q = q};
    db_run(q->db, do_recover, &r);
    file_list_dir(q->checkpoint_dir, sweep_checkpoint, q, NULL);
    if (q->waiting.count) log_info("jobs", "%zu jobs of the last run are taken up again", q->waiting.count);
    if (r.why.code && e) *e = r.why;
    return !r.why.code;
}
