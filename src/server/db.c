/* db.c - see db.h.
 *
 * Two lists under one mutex: tasks waiting for the disk thread, and tasks whose `done` waits for the loop. */
#include "server/db.h"
#include "server/schema.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/path.h"
#include "base/str.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    STATEMENTS_MAX = 64,                  /* distinct SQL texts in the program; more are prepared each time anew */
    BUSY_TIMEOUT_MS = 3000,               /* a server that was just killed may still be letting go of the lock */
    CHECK_BYTES_MAX = 64 * 1024 * 1024,   /* larger files are checked only after an unclean end */
    JOURNAL_BYTES_MAX = 16 * 1024 * 1024, /* what a WAL file is cut back to */
};

typedef struct cached_stmt {
    const char *sql; /* a literal: its address is the key */
    sqlite3_stmt *stmt;
} cached_stmt;

struct db_conn {
    sqlite3 *sql;
    cached_stmt cache[STATEMENTS_MAX];
    size_t cached;
    bool damage_reported;
};

typedef struct task {
    db_work work;
    db_done done;
    void *arg;
    struct task *next;
} task;

typedef struct task_list {
    task *first, **end;
} task_list;

struct db {
    db_conn conn;
    uv_thread_t thread;
    uv_mutex_t lock;
    uv_cond_t wake;
    uv_async_t finished; /* wakes the loop */
    task_list todo, over;
    bool stopping;
    size_t in_flight; /* loop thread only: submitted, and not through run_done yet; keeps the loop alive */
};

/* ---- errors and statements -------------------------------------------------------------------------------------- */

static bool sql_error(db_conn *c, err *e, const char *what) {
    int code = sqlite3_errcode(c->sql) & 0xff;
    const char *msg = sqlite3_errmsg(c->sql);
    switch (code) {
    case SQLITE_FULL:
        return err_set(e, ERR_IO, "database: %s: the disk is full", what);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        if (!c->damage_reported) log_error("db", "the database is damaged: %s (%s)", msg, what);
        c->damage_reported = true;
        return err_set(e, ERR_FORMAT, "database: %s: damaged file: %s", what, msg);
    case SQLITE_CONSTRAINT:
        return err_set(e, ERR_CONFLICT, "database: %s: %s", what, msg);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return err_set(e, ERR_BUSY, "database: %s: in use by another process", what);
    case SQLITE_NOMEM:
        return err_set(e, ERR_MEMORY, "database: %s: %s", what, msg);
    default:
        return err_set(e, ERR_IO, "database: %s: %s", what, msg);
    }
}

static sqlite3_stmt *prepare(db_conn *c, const char *sql, err *e) {
    for (size_t i = 0; i < c->cached; i++)
        if (c->cache[i].sql == sql) return c->cache[i].stmt;
    if (c->cached == STATEMENTS_MAX) {
        sqlite3_finalize(c->cache[0].stmt); /* the oldest; it is not in use: work functions run one at a time */
        memmove(c->cache, c->cache + 1, (STATEMENTS_MAX - 1) * sizeof *c->cache);
        c->cached--;
    }
    sqlite3_stmt *s = NULL;
    if (sqlite3_prepare_v3(c->sql, sql, -1, SQLITE_PREPARE_PERSISTENT, &s, NULL) != SQLITE_OK) {
        sql_error(c, e, "prepare");
        return NULL;
    }
    c->cache[c->cached++] = (cached_stmt){sql, s};
    return s;
}

static int bind_one(sqlite3_stmt *s, int i, char type, va_list *ap) {
    switch (type) {
    case 'i':
        return sqlite3_bind_int64(s, i, va_arg(*ap, int64_t));
    case 'd':
        return sqlite3_bind_double(s, i, va_arg(*ap, double));
    default:
        return sqlite3_bind_text(s, i, va_arg(*ap, const char *), -1, SQLITE_TRANSIENT);
    }
}

static sqlite3_stmt *bind_all(db_conn *c, err *e, const char *sql, const char *types, va_list *ap) {
    sqlite3_stmt *s = prepare(c, sql, e);
    if (!s) return NULL;
    sqlite3_reset(s);
    sqlite3_clear_bindings(s);
    for (int i = 0; types[i]; i++) {
        if (bind_one(s, i + 1, types[i], ap) == SQLITE_OK) continue;
        sql_error(c, e, "bind");
        return NULL;
    }
    return s;
}

sqlite3_stmt *db_query(db_conn *c, err *e, const char *sql, const char *types, ...) {
    va_list ap;
    va_start(ap, types);
    sqlite3_stmt *s = bind_all(c, e, sql, types, &ap);
    va_end(ap);
    return s;
}

bool db_exec(db_conn *c, err *e, const char *sql, const char *types, ...) {
    va_list ap;
    va_start(ap, types);
    sqlite3_stmt *s = bind_all(c, e, sql, types, &ap);
    va_end(ap);
    if (!s) return false;
    int rc;
    while ((rc = sqlite3_step(s)) == SQLITE_ROW) {
    } /* a pragma may answer */
    bool ok = rc == SQLITE_DONE || sql_error(c, e, "write");
    sqlite3_reset(s);
    return ok;
}

bool db_next(db_conn *c, sqlite3_stmt *s, err *e) {
    int rc = sqlite3_step(s);
    if (rc == SQLITE_ROW) return true;
    if (rc != SQLITE_DONE) sql_error(c, e, "read");
    sqlite3_reset(s);
    return false;
}

void db_end(sqlite3_stmt *s) {
    sqlite3_reset(s);
}

const char *db_text(sqlite3_stmt *s, int column) {
    return (const char *)sqlite3_column_text(s, column);
}

int64_t db_int(sqlite3_stmt *s, int column) {
    return sqlite3_column_int64(s, column);
}

int64_t db_last_id(const db_conn *c) {
    return sqlite3_last_insert_rowid(c->sql);
}

int db_changes(const db_conn *c) {
    return sqlite3_changes(c->sql);
}

sqlite3 *db_handle(db_conn *c) {
    return c->sql;
}

bool db_begin(db_conn *c, err *e) {
    return db_exec(c, e, "BEGIN IMMEDIATE", "");
}

bool db_commit(db_conn *c, err *e) {
    if (db_exec(c, e, "COMMIT", "")) return true;
    db_rollback(c);
    return false;
}

void db_rollback(db_conn *c) {
    /* SQLite may have rolled back by itself (disk full); a second ROLLBACK would only be an error. */
    if (!sqlite3_get_autocommit(c->sql)) db_exec(c, NULL, "ROLLBACK", "");
}

static void conn_close(db_conn *c) {
    for (size_t i = 0; i < c->cached; i++) sqlite3_finalize(c->cache[i].stmt);
    sqlite3_close(c->sql);
    *c = (db_conn){0};
}

/* ---- opening ---------------------------------------------------------------------------------------------------- */

static bool script(db_conn *c, err *e, const char *sql, const char *what) {
    return sqlite3_exec(c->sql, sql, NULL, NULL, NULL) == SQLITE_OK || sql_error(c, e, what);
}

static bool query_int(db_conn *c, const char *sql, int64_t *out, err *e) {
    err why = {0};
    sqlite3_stmt *s = db_query(c, &why, sql, "");
    bool ok = s && db_next(c, s, &why);
    if (ok) {
        *out = db_int(s, 0);
        db_end(s);
    } else if (e) {
        *e = why;
    }
    return ok;
}

static bool quick_check(db_conn *c, err *e) {
    err why = {0};
    sqlite3_stmt *s = db_query(c, &why, "PRAGMA quick_check(1)", "");
    if (!s || !db_next(c, s, &why)) {
        if (e) *e = why;
        return false;
    }
    bool ok = str_eq(db_text(s, 0), "ok") || err_set(e, ERR_FORMAT, "database: damaged file: %.120s", db_text(s, 0));
    db_end(s);
    return ok;
}

static bool migrate(db_conn *c, err *e) {
    int64_t version = 0;
    if (!query_int(c, "PRAGMA user_version", &version, e)) return false;
    if (version > schema_version)
        return err_set(e, ERR_UNSUPPORTED, "the database was made by a newer version (schema %lld, this one knows %d)",
                       (long long)version, schema_version);
    for (; version < schema_version; version++) {
        char stamp[48];
        snprintf(stamp, sizeof stamp, "PRAGMA user_version = %lld", (long long)version + 1);
        if (!db_begin(c, e)) return false;
        if (!script(c, e, schema_migrations[version], "migrate") || !script(c, e, stamp, "migrate")) {
            db_rollback(c);
            return err_wrap(e, "schema %lld", (long long)version + 1);
        }
        if (!db_commit(c, e)) return false;
    }
    return true;
}

/* The exclusive lock keeps a second server out, and spares the -shm file. It must come before the first access. */
static bool configure(db_conn *c, err *e) {
    sqlite3_busy_timeout(c->sql, BUSY_TIMEOUT_MS);
    char limits[96];
    snprintf(limits, sizeof limits, "PRAGMA journal_size_limit = %d; PRAGMA cache_size = -1024", JOURNAL_BYTES_MAX);
    return script(c, e, "PRAGMA locking_mode = EXCLUSIVE", "lock") &&
           script(c, e, "PRAGMA journal_mode = WAL", "open") &&
           script(c, e, "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON", "configure") &&
           script(c, e, limits, "configure");
}

static bool conn_open(db_conn *c, const char *path, bool check, err *e) {
    *c = (db_conn){0};
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    bool ok = sqlite3_open_v2(path, &c->sql, flags, NULL) == SQLITE_OK || sql_error(c, e, "open");
    ok = ok && configure(c, e) && (!check || quick_check(c, e)) && migrate(c, e);
    if (!ok) conn_close(c);
    return ok;
}

/* The damaged file is kept, with what belongs to it: what is in it may still be read with the sqlite3 program. */
static bool move_aside(const char *path, err *e) {
    char date[20];
    clock_format_date(clock_wall_ms(), date);
    for (char *p = date; *p; p++)
        if (*p == ':' || *p == ' ') *p = '-';
    bool ok = true;
    static const char *const parts[] = {"", "-wal", "-shm"};
    for (size_t i = 0; ok && i < sizeof parts / sizeof *parts; i++) {
        char *from = str_fmt("%s%s", path, parts[i]);
        char *to = str_fmt("%s.corrupt-%s%s", path, date, parts[i]);
        if (path_exists(from) && rename(from, to) != 0)
            ok = err_set(e, ERR_IO, "cannot move the damaged database '%.150s' aside", from);
        else if (i == 0)
            log_error("db", "the damaged database was moved to '%s'; a fresh one is begun", to);
        free(from);
        free(to);
    }
    return ok;
}

static bool needs_check(const char *path) {
    char *wal = str_fmt("%s-wal", path);
    file_info info = {0};
    bool unclean = file_stat(wal, &info, NULL) && info.size > 0;
    free(wal);
    return unclean || (file_stat(path, &info, NULL) && info.size <= CHECK_BYTES_MAX);
}

static bool open_or_replace(db_conn *c, const char *path, err *e) {
    err why = {0};
    if (conn_open(c, path, needs_check(path), &why)) return true;
    if (why.code == ERR_FORMAT) {
        log_error("db", "'%s': %s", path, why.msg);
        return move_aside(path, e) && conn_open(c, path, false, e);
    }
    if (e) *e = why;
    return err_wrap(e, "'%.100s'", path);
}

/* ---- the disk thread -------------------------------------------------------------------------------------------- */

static void list_init(task_list *l) {
    l->first = NULL;
    l->end = &l->first;
}

static void list_add(task_list *l, task *t) {
    t->next = NULL;
    *l->end = t;
    l->end = &t->next;
}

static task *list_take(task_list *l) {
    task *t = l->first;
    if (!t) return NULL;
    l->first = t->next;
    if (!l->first) l->end = &l->first;
    return t;
}

static void disk_thread(void *arg) {
    db *d = arg;
    uv_mutex_lock(&d->lock);
    for (;;) {
        task *t = list_take(&d->todo);
        if (!t && d->stopping) break;
        if (!t) {
            uv_cond_wait(&d->wake, &d->lock);
            continue;
        }
        uv_mutex_unlock(&d->lock);
        t->work(&d->conn, t->arg);
        /* A work function that forgot its transaction must not hand it to the next. */
        db_rollback(&d->conn);
        uv_mutex_lock(&d->lock);
        list_add(&d->over, t);
        uv_async_send(&d->finished);
    }
    uv_mutex_unlock(&d->lock);
}

static void run_done(db *d) {
    for (;;) {
        uv_mutex_lock(&d->lock);
        task *t = list_take(&d->over);
        uv_mutex_unlock(&d->lock);
        if (!t) return;
        db_done done = t->done;
        void *arg = t->arg;
        free(t);
        if (--d->in_flight == 0) uv_unref((uv_handle_t *)&d->finished);
        if (done) done(arg);
    }
}

static void on_finished(uv_async_t *a) {
    run_done(a->data);
}

void db_submit(db *d, db_work work, db_done done, void *arg) {
    task *t = mem_alloc(1, sizeof *t);
    *t = (task){.work = work, .done = done, .arg = arg};
    if (d->in_flight++ == 0) uv_ref((uv_handle_t *)&d->finished);
    uv_mutex_lock(&d->lock);
    list_add(&d->todo, t);
    uv_cond_signal(&d->wake);
    uv_mutex_unlock(&d->lock);
}

typedef struct waited_task {
    db_work work;
    void *arg;
    uv_sem_t ready;
} waited_task;

static void run_and_post(db_conn *c, void *arg) {
    waited_task *w = arg;
    w->work(c, w->arg);
    uv_sem_post(&w->ready);
}

void db_run(db *d, db_work work, void *arg) {
    waited_task w = {.work = work, .arg = arg};
    if (uv_sem_init(&w.ready, 0) != 0) abort();
    db_submit(d, run_and_post, NULL, &w);
    uv_sem_wait(&w.ready);
    uv_sem_destroy(&w.ready);
}

db *db_open(uv_loop_t *loop, const char *path, err *e) {
    db *d = mem_alloc(1, sizeof *d);
    if (!open_or_replace(&d->conn, path, e)) {
        free(d);
        return NULL;
    }
    list_init(&d->todo);
    list_init(&d->over);
    d->finished.data = d;
    if (uv_mutex_init(&d->lock) || uv_cond_init(&d->wake) || uv_async_init(loop, &d->finished, on_finished) ||
        uv_thread_create(&d->thread, disk_thread, d)) {
        log_error("db", "cannot start the disk thread");
        abort(); /* out of handles before anything runs: there is nothing to save */
    }
    uv_unref((uv_handle_t *)&d->finished);
    return d;
}

static void free_db(uv_handle_t *h) {
    free(h->data);
}

static void nothing(db_conn *c, void *arg) {
    (void)c;
    (void)arg;
}

void db_close(db *d) {
    if (!d) return;
    while (d->in_flight) { /* a done callback may submit more */
        db_run(d, nothing, NULL);
        run_done(d);
    }
    uv_mutex_lock(&d->lock);
    d->stopping = true;
    uv_cond_signal(&d->wake);
    uv_mutex_unlock(&d->lock);
    uv_thread_join(&d->thread);
    conn_close(&d->conn);
    uv_cond_destroy(&d->wake);
    uv_mutex_destroy(&d->lock);
    uv_close((uv_handle_t *)&d->finished, free_db);
}
