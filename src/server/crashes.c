/* crashes.c - see crashes.h. */
#include "server/crashes.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "json/json.h"

#include <stdlib.h>

enum { ANSWER_MAX = 64 << 20 };

typedef struct row {
    char *worker, *cause, *model, *job, *lines;
    int64_t at_ms, pid, signal, exit_code, oom;
    err why;
} row;

static void do_insert(db_conn *c, void *arg) {
    row *r = arg;
    if (!db_exec(c, &r->why,
                 "INSERT INTO crashes (at_ms, worker, pid, cause, signal, exit_code, oom, model, job, lines)"
                 " VALUES (?, ?, ?, ?, nullif(?, 0), ?, ?, ?, ?, ?)",
                 "isisiiisss", r->at_ms, r->worker, r->pid, r->cause, r->signal, r->exit_code, r->oom, r->model, r->job,
                 r->lines))
        return;
    db_exec(c, &r->why, "DELETE FROM crashes WHERE id <= (SELECT max(id) FROM crashes) - ?", "i",
            (int64_t)CRASHES_KEPT);
}

static void inserted(void *arg) {
    row *r = arg;
    if (r->why.code) log_warn("db", "a crash of the %s worker is not recorded: %s", r->worker, r->why.msg);
    char *const texts[] = {r->worker, r->cause, r->model, r->job, r->lines};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) free(texts[i]);
    free(r);
}

static char *copy(const char *text) {
    return text ? str_dup(text) : NULL;
}

void crashes_record(db *d, const crash *c) {
    row *r = mem_alloc(1, sizeof *r);
    *r = (row){.worker = copy(c->worker),
               .cause = copy(c->cause),
               .model = copy(c->model),
               .job = copy(c->job),
               .lines = copy(c->last_lines ? c->last_lines : ""),
               .at_ms = clock_wall_ms(),
               .pid = c->pid};
    if (c->how) {
        r->signal = c->how->signal;
        r->exit_code = c->how->code;
        r->oom = c->how->oom;
    }
    db_submit(d, do_insert, inserted, r);
}

/* ---- the list --------------------------------------------------------------------------------------------------- */

typedef struct query {
    int64_t before, limit;
    buf json;
    err why;
    crashes_done done;
    void *ctx;
} query;

static void write_text(buf *out, const char *key, const char *text) {
    buf_printf(out, ",\"%s\":", key);
    if (text)
        json_quote(out, text);
    else
        buf_puts(out, "null");
}

static void write_row(buf *out, sqlite3_stmt *s) {
    buf_printf(out, "{\"id\":%lld,\"at_ms\":%lld,\"pid\":%lld", (long long)db_int(s, 0), (long long)db_int(s, 1),
               (long long)db_int(s, 2));
    write_text(out, "worker", db_text(s, 3));
    write_text(out, "cause", db_text(s, 4));
    if (db_int(s, 5)) /* one or the other */
        buf_printf(out, ",\"signal\":%lld,\"exit_code\":null", (long long)db_int(s, 5));
    else
        buf_printf(out, ",\"signal\":null,\"exit_code\":%lld", (long long)db_int(s, 6));
    buf_printf(out, ",\"oom\":%s", db_int(s, 7) ? "true" : "false");
    write_text(out, "model", db_text(s, 8));
    write_text(out, "job", db_text(s, 9));
    write_text(out, "last_lines", db_text(s, 10));
    buf_putc(out, '}');
}

static void do_list(db_conn *c, void *arg) {
    query *q = arg;
    sqlite3_stmt *s = db_query(c, &q->why,
                               "SELECT id, at_ms, pid, worker, cause, signal, exit_code, oom, model, job, lines"
                               " FROM crashes WHERE id < ? ORDER BY id DESC LIMIT ?",
                               "ii", q->before > 0 ? q->before : INT64_MAX, q->limit);
    buf_puts(&q->json, "{\"data\":[");
    int64_t count = 0, last = 0;
    for (; s && db_next(c, s, &q->why); count++) {
        if (count) buf_putc(&q->json, ',');
        write_row(&q->json, s);
        last = db_int(s, 0);
    }
    if (count == q->limit)
        buf_printf(&q->json, "],\"next\":%lld}", (long long)last);
    else
        buf_puts(&q->json, "],\"next\":null}");
}

static void listed(void *arg) {
    query *q = arg;
    q->done(q->ctx, q->why.code ? &q->why : NULL, buf_str(&q->json), q->json.len);
    buf_free(&q->json);
    free(q);
}

void crashes_list(db *d, int64_t before, int limit, crashes_done done, void *ctx) {
    query *q = mem_alloc(1, sizeof *q);
    *q = (query){.before = before, .limit = limit, .done = done, .ctx = ctx};
    buf_init(&q->json, ANSWER_MAX);
    db_submit(d, do_list, listed, q);
}
