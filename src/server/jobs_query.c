/* jobs_query.c - jobs as clients ask for them: rows from the disk, overlaid with what the queue knows better. */
#include "server/jobs.h"
#include "base/str.h"

#include <stdlib.h>
#include <string.h>

enum { PAGE_MAX = 200, ANSWER_MAX = 128 * 1024 * 1024 };

typedef struct query {
    jobs *q;
    int64_t id, before;
    char *status; /* ",queued,running," or NULL */
    int limit;
    jobs_done done;
    void *ctx;
    err why;
    job **found; /* newest first; one more than the limit when there is another page */
    int count;
    bool again; /* asked for the second time */
} query;

static void forget_found(query *r) {
    for (int i = 0; i < r->count; i++) job_free(r->found[i]);
    free(r->found);
    r->found = NULL;
    r->count = 0;
}

static void query_free(query *r) {
    forget_found(r);
    free(r->status);
    free(r);
}

static void answer(query *r, const buf *json) {
    if (!r->why.code && json->full) err_set(&r->why, ERR_TOO_LARGE, "the answer is too large: ask for fewer jobs");
    bool ok = !r->why.code;
    r->done(r->ctx, ok ? NULL : &r->why, ok ? buf_str(json) : NULL, ok ? json->len : 0);
}

/* The queue's own job is newer than its row. */
static void write_found(const query *r, const job *row, buf *out) {
    const job *live = jobs_find(r->q, row->id);
    if (live)
        jobs_write(r->q, live, out);
    else
        job_write(row, 0, out);
}

/* A job that failed or was cancelled, but whose finished pictures are still on their way into the history, would be
 * shown without them. Asking once more brings the answer behind them; when the disk refuses them, they are not waited
 * for. */
static bool ask_again(query *r, db_work work, db_done done) {
    bool early = false;
    for (int i = 0; i < r->count && !r->again; i++) {
        const job *live = jobs_find(r->q, r->found[i]->id);
        early = early || (live && job_is_over(live->status) && !job_all_recorded(live));
    }
    if (!early) return false;
    r->again = true;
    forget_found(r);
    db_submit(jobs_db(r->q), work, done, r);
    return true;
}

/* ---- one -------------------------------------------------------------------------------------------------------- */

static void do_get(db_conn *c, void *arg) {
    query *r = arg;
    r->found = mem_alloc(1, sizeof *r->found);
    r->found[0] = job_select(c, r->id, &r->why);
    r->count = r->found[0] ? 1 : 0;
}

static void got(void *arg) {
    query *r = arg;
    if (ask_again(r, do_get, got)) return;
    buf json;
    buf_init(&json, ANSWER_MAX);
    if (r->count) write_found(r, r->found[0], &json);
    answer(r, &json);
    buf_free(&json);
    query_free(r);
}

void jobs_get(jobs *q, int64_t id, jobs_done done, void *ctx) {
    query *r = mem_alloc(1, sizeof *r);
    *r = (query){.q = q, .id = id, .done = done, .ctx = ctx};
    db_submit(jobs_db(q), do_get, got, r);
}

/* ---- a page ----------------------------------------------------------------------------------------------------- */

static int page_ids(db_conn *c, query *r, int64_t *ids) {
    sqlite3_stmt *s =
        db_query(c, &r->why,
                 "SELECT id FROM jobs WHERE id < ?1 AND (?2 IS NULL OR instr(?2, ',' || status || ',') > 0)"
                 " ORDER BY id DESC LIMIT ?3",
                 "isi", r->before > 0 ? r->before : INT64_MAX, r->status, (int64_t)r->limit + 1);
    int n = 0;
    while (s && db_next(c, s, &r->why)) ids[n++] = db_int(s, 0);
    return r->why.code ? 0 : n;
}

static void do_list(db_conn *c, void *arg) {
    query *r = arg;
    int64_t ids[PAGE_MAX + 1];
    int n = page_ids(c, r, ids);
    r->found = mem_alloc((size_t)n, sizeof *r->found);
    for (int i = 0; i < n && !r->why.code; i++) {
        err why = {0};
        job *j = job_select(c, ids[i], &why);
        if (j)
            r->found[r->count++] = j;
        else if (why.code != ERR_FORMAT && why.code != ERR_INVALID) /* an unreadable row hides only itself */
            r->why = why;
    }
}

static void listed(void *arg) {
    query *r = arg;
    if (ask_again(r, do_list, listed)) return;
    buf json;
    buf_init(&json, ANSWER_MAX);
    buf_puts(&json, "{\"data\":[");
    int n = r->count < r->limit ? r->count : r->limit;
    for (int i = 0; i < n; i++) {
        if (i) buf_putc(&json, ',');
        write_found(r, r->found[i], &json);
    }
    if (r->count > r->limit)
        buf_printf(&json, "],\"next\":\"%s\"}", r->found[n - 1]->name);
    else
        buf_puts(&json, "],\"next\":null}");
    answer(r, &json);
    buf_free(&json);
    query_free(r);
}

void jobs_list(jobs *q, const char *status, int64_t before, int limit, jobs_done done, void *ctx) {
    query *r = mem_alloc(1, sizeof *r);
    *r = (query){.q = q, .before = before, .done = done, .ctx = ctx};
    r->limit = limit < 1 ? 1 : limit > PAGE_MAX ? PAGE_MAX : limit;
    r->status = str_empty(status) ? NULL : str_fmt(",%s,", status);
    db_submit(jobs_db(q), do_list, listed, r);
}
