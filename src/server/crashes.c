/* crashes.c - see crashes.h. */
#include "server/crashes.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "json/json.h"
#include "proc/backtrace.h"

#include <stdlib.h>
#include <string.h>

enum { ANSWER_MAX = 64 << 20, PAGE_BYTES = 16 << 20, BACKTRACE_MAX = 64 << 10 };

typedef struct row {
    char *worker, *cause, *model, *jobs, *lines;
    int64_t at_ms, started_ms, pid, signal, exit_code, oom;
    buf backtrace;
    err why;
} row;

static void do_insert(db_conn *c, void *arg) {
    row *r = arg;
    backtrace_name(r->lines, r->started_ms, &r->backtrace);
    if (!db_exec(c, &r->why,
                 "INSERT INTO crashes (at_ms, worker, pid, cause, signal, exit_code, oom, model, job, lines, backtrace)"
                 " VALUES (?, ?, ?, ?, nullif(?, 0), ?, ?, ?, ?, ?, ?)",
                 "isisiiissss", r->at_ms, r->worker, r->pid, r->cause, r->signal, r->exit_code, r->oom, r->model,
                 r->jobs, r->lines, buf_str(&r->backtrace)))
        return;
    db_exec(c, &r->why, "DELETE FROM crashes WHERE id <= (SELECT max(id) FROM crashes) - ?", "i",
            (int64_t)CRASHES_KEPT);
}

static void inserted(void *arg) {
    row *r = arg;
    if (r->why.code) log_warn("db", "a crash of the %s worker is not recorded: %s", r->worker, r->why.msg);
    char *const texts[] = {r->worker, r->cause, r->model, r->jobs, r->lines};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) free(texts[i]);
    buf_free(&r->backtrace);
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
               .jobs = copy(c->jobs && *c->jobs ? c->jobs : NULL),
               .lines = copy(c->last_lines ? c->last_lines : ""),
               .at_ms = clock_wall_ms(),
               .started_ms = c->started_ms,
               .pid = c->pid};
    buf_init(&r->backtrace, BACKTRACE_MAX);
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

/* The parts between separators, as an array of strings. */
static void write_parts(buf *out, const char *key, const char *text, char separator) {
    const char stops[] = {separator, 0};
    buf_printf(out, ",\"%s\":[", key);
    for (bool first = true; text && *text; first = false) {
        size_t len = strcspn(text, stops);
        char *part = str_ndup(text, len);
        if (!first) buf_putc(out, ',');
        json_quote(out, part);
        free(part);
        text += text[len] ? len + 1 : len;
    }
    buf_putc(out, ']');
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
    const char *jobs = db_text(s, 9);
    char *first = jobs ? str_ndup(jobs, strcspn(jobs, ",")) : NULL;
    write_text(out, "job", first);
    free(first);
    write_parts(out, "jobs", jobs, ',');
    write_parts(out, "backtrace", db_text(s, 10), '\n');
    write_text(out, "last_lines", db_text(s, 11));
    buf_putc(out, '}');
}

static void do_list(db_conn *c, void *arg) {
    query *q = arg;
    sqlite3_stmt *s = db_query(c, &q->why,
                               "SELECT id, at_ms, pid, worker, cause, signal, exit_code, oom, model, job,"
                               " backtrace, lines FROM crashes WHERE id < ? ORDER BY id DESC LIMIT ?",
                               "ii", q->before > 0 ? q->before : INT64_MAX, q->limit);
    buf_puts(&q->json, "{\"data\":[");
    int64_t count = 0, last = 0;
    while (s && db_next(c, s, &q->why)) {
        if (count++) buf_putc(&q->json, ',');
        write_row(&q->json, s);
        last = db_int(s, 0);
        if (q->json.len < PAGE_BYTES) continue; /* the rest is the next page's */
        db_end(s);
        q->limit = count;
        break;
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
