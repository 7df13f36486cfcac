/* recovery.c - see recovery.h. */
#include "server/recovery.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"

#include <stdlib.h>

typedef struct change {
    char *worker, *json; /* json NULL: clear */
    err why;
    recovery_done done;
    void *ctx;
} change;

static void write_row(db_conn *c, void *arg) {
    change *r = arg;
    if (r->json)
        db_exec(c, &r->why,
                "INSERT INTO recovery (worker, request, saved_ms) VALUES (?, ?, ?) "
                "ON CONFLICT (worker) DO UPDATE SET request = excluded.request, saved_ms = excluded.saved_ms",
                "ssi", r->worker, r->json, clock_wall_ms());
    else
        db_exec(c, &r->why, "DELETE FROM recovery WHERE worker = ?", "s", r->worker);
}

static void written(void *arg) {
    change *r = arg;
    if (r->done)
        r->done(r->ctx, r->why.code ? &r->why : NULL);
    else if (r->why.code)
        log_error("db", "recovery state of the %s worker is not saved: %s", r->worker, r->why.msg);
    free(r->worker);
    free(r->json);
    free(r);
}

void recovery_set(db *d, const char *worker, const char *json, recovery_done done, void *ctx) {
    change *r = mem_alloc(1, sizeof *r);
    *r = (change){.worker = str_dup(worker), .json = str_dup(json), .done = done, .ctx = ctx};
    db_submit(d, write_row, written, r);
}

void recovery_clear(db *d, const char *worker, recovery_done done, void *ctx) {
    recovery_set(d, worker, NULL, done, ctx);
}

typedef struct lookup {
    const char *worker;
    char *json;
    err why;
} lookup;

static void read_row(db_conn *c, void *arg) {
    lookup *l = arg;
    sqlite3_stmt *s = db_query(c, &l->why, "SELECT request FROM recovery WHERE worker = ?", "s", l->worker);
    if (!s || !db_next(c, s, &l->why)) return;
    l->json = str_dup(db_text(s, 0));
    db_end(s);
}

char *recovery_get(db *d, const char *worker, err *e) {
    lookup l = {.worker = worker};
    db_run(d, read_row, &l);
    if (l.why.code && e) *e = l.why;
    return l.json;
}
