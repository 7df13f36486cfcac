/* history.c - see history.h. */
#include "server/history.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/path.h"
#include "base/str.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PAGE_MAX = 200,
    QUERY_WORDS_MAX = 32,
    CHECK_BATCH = 256,
    JSON_MAX = 64 * 1024 * 1024, /* a page of 200 entries with the longest prompts stays below */
};

struct history {
    db *db;
    char *output_dir;
};

history *history_open(db *d, const char *output_dir) {
    history *h = mem_alloc(1, sizeof *h);
    *h = (history){.db = d, .output_dir = str_dup(output_dir)};
    return h;
}

void history_close(history *h) {
    if (!h) return;
    free(h->output_dir);
    free(h);
}

/* ---- JSON ------------------------------------------------------------------------------------------------------- */

#define COLUMNS                                                                                                        \
    "id, file, thumb, width, height, seed, model, prompt, negative_prompt, parameters, params, job, created_ms, bytes"

static void write_url(buf *out, const char *key, const char *file) {
    if (!file) {
        json_write_member(out, key, NULL);
        return;
    }
    /* our own file names need no escaping in a URL: see is_own_name() */
    buf_printf(out, ",\"%s\":\"/outputs/%s\"", key, file);
}

/* A row of a query with COLUMNS, as the entry of docs/api.md. */
static void write_entry(sqlite3_stmt *s, buf *out) {
    buf_printf(out, "{\"id\":%lld", (long long)db_int(s, 0));
    json_write_member(out, "file", db_text(s, 1));
    write_url(out, "url", db_text(s, 1));
    write_url(out, "thumb_url", db_text(s, 2));
    buf_printf(out, ",\"width\":%lld,\"height\":%lld,\"seed\":%lld", (long long)db_int(s, 3), (long long)db_int(s, 4),
               (long long)db_int(s, 5));
    json_write_member(out, "model", db_text(s, 6));
    json_write_member(out, "prompt", db_text(s, 7));
    json_write_member(out, "negative_prompt", db_text(s, 8));
    json_write_member(out, "parameters", db_text(s, 9));
    buf_printf(out, ",\"params\":%s", db_text(s, 10));
    if (db_int(s, 11))
        buf_printf(out, ",\"job\":\"j-%lld\"", (long long)db_int(s, 11));
    else
        buf_puts(out, ",\"job\":null");
    buf_printf(out, ",\"created_ms\":%lld,\"bytes\":%lld}", (long long)db_int(s, 12), (long long)db_int(s, 13));
}

static bool write_by_id(db_conn *c, int64_t id, buf *out, err *e) {
    err why = {0};
    sqlite3_stmt *s = db_query(c, &why, "SELECT " COLUMNS " FROM images WHERE id = ?", "i", id);
    bool found = s && db_next(c, s, &why);
    if (found) {
        write_entry(s, out);
        db_end(s);
        return true;
    }
    if (!why.code) err_set(&why, ERR_NOT_FOUND, "there is no picture %lld", (long long)id);
    if (e) *e = why;
    return false;
}

bool history_of_job(db_conn *c, int64_t job, history_each fn, void *ctx, err *e) {
    err why = {0};
    buf json;
    buf_init(&json, JSON_MAX);
    sqlite3_stmt *s =
        db_query(c, &why, "SELECT " COLUMNS " FROM images WHERE job = ? ORDER BY job_index, id", "i", job);
    while (s && db_next(c, s, &why)) {
        buf_clear(&json);
        write_entry(s, &json);
        fn(ctx, db_int(s, 0), db_text(s, 1), db_int(s, 5), buf_str(&json));
    }
    buf_free(&json);
    if (why.code && e) *e = why;
    return !why.code;
}

/* ---- recording -------------------------------------------------------------------------------------------------- */

typedef struct record {
    history_picture p; /* its strings are owned here */
    char *params;
    history_recorded done;
    void *ctx;
    err why;
    int64_t id;
    bool fresh;
    buf json;
} record;

/* The worker's word is not taken for it: these names become paths and URLs. */
static bool is_own_name(const char *name) {
    if (!name || !path_is_plain_name(name) || name[0] == '.' || strlen(name) > 128) return false;
    for (const char *p = name; *p; p++)
        if (!isalnum((unsigned char)*p) && !strchr("-_.", *p)) return false;
    return true;
}

static bool is_own_thumb(const char *thumb) {
    return !thumb || (str_starts(thumb, ".thumbs/") && is_own_name(thumb + strlen(".thumbs/")));
}

static bool insert(db_conn *c, record *r) {
    const history_picture *p = &r->p;
    return db_exec(c, &r->why,
                   "INSERT INTO images (file, thumb, width, height, seed, model, prompt, negative_prompt, parameters,"
                   " params, job, job_index, created_ms, bytes)"
                   " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, nullif(?, 0), ?, ?, ?) ON CONFLICT (file) DO NOTHING",
                   "ssiiisssssiiii", p->file, p->thumb, (int64_t)p->width, (int64_t)p->height, p->seed, p->model,
                   p->params->prompt, p->params->negative_prompt, p->parameters, r->params, p->job, (int64_t)p->index,
                   clock_wall_ms(), p->bytes);
}

/* The file was made once more (its job was taken up again after a crash): the entry stays the same. */
static bool find_existing(db_conn *c, record *r) {
    if (!db_exec(c, &r->why, "UPDATE images SET bytes = ?, missing = 0 WHERE file = ?", "is", r->p.bytes, r->p.file))
        return false;
    sqlite3_stmt *s = db_query(c, &r->why, "SELECT id FROM images WHERE file = ?", "s", r->p.file);
    if (!s || !db_next(c, s, &r->why)) return false;
    r->id = db_int(s, 0);
    db_end(s);
    return true;
}

static void do_record(db_conn *c, void *arg) {
    record *r = arg;
    if (!is_own_name(r->p.file) || !is_own_thumb(r->p.thumb)) {
        err_set(&r->why, ERR_FORMAT, "the worker named a strange file: '%.80s'", r->p.file);
        return;
    }
    if (!insert(c, r)) return;
    r->fresh = db_changes(c) == 1;
    if (r->fresh)
        r->id = db_last_id(c);
    else if (!find_existing(c, r))
        return;
    write_by_id(c, r->id, &r->json, &r->why);
}

static void recorded(void *arg) {
    record *r = arg;
    bool ok = !r->why.code;
    r->done(r->ctx, ok ? NULL : &r->why, r->id, r->fresh, ok ? buf_str(&r->json) : NULL, r->json.len);
    image_params *params = (image_params *)(uintptr_t)r->p.params; /* our copy: see history_record */
    image_params_free(params);
    free(params);
    free((char *)(uintptr_t)r->p.file);
    free((char *)(uintptr_t)r->p.thumb);
    free((char *)(uintptr_t)r->p.model);
    free((char *)(uintptr_t)r->p.parameters);
    free(r->params);
    buf_free(&r->json);
    free(r);
}

static char *params_text(const image_params *p) {
    buf json;
    buf_init(&json, JSON_MAX);
    image_params_write(p, &json);
    return buf_take(&json, NULL);
}

void history_record(history *h, const history_picture *p, history_recorded done, void *ctx) {
    record *r = mem_alloc(1, sizeof *r);
    image_params *params = mem_alloc(1, sizeof *params);
    image_params_copy(params, p->params);
    *r = (record){.p = *p, .params = params_text(p->params), .done = done, .ctx = ctx};
    r->p.params = params;
    r->p.file = str_dup(p->file);
    r->p.thumb = str_dup(p->thumb);
    r->p.model = str_dup(p->model ? p->model : "");
    r->p.parameters = str_dup(p->parameters ? p->parameters : "");
    buf_init(&r->json, JSON_MAX);
    db_submit(h->db, do_record, recorded, r);
}

/* ---- asking ----------------------------------------------------------------------------------------------------- */

typedef struct request {
    history *h;
    int64_t id, before;
    int limit;
    char *match;  /* FTS5 query, or NULL */
    bool nothing; /* a query of which no word is left finds nothing */
    history_done done;
    void *ctx;
    err why;
    buf json;
} request;

static request *request_new(history *h, int64_t id, history_done done, void *ctx) {
    request *r = mem_alloc(1, sizeof *r);
    *r = (request){.h = h, .id = id, .done = done, .ctx = ctx};
    buf_init(&r->json, JSON_MAX);
    return r;
}

static void answered(void *arg) {
    request *r = arg;
    if (!r->why.code && r->json.full) err_set(&r->why, ERR_TOO_LARGE, "the page is too large: ask for fewer entries");
    bool ok = !r->why.code;
    r->done(r->ctx, ok ? NULL : &r->why, ok ? buf_str(&r->json) : NULL, ok ? r->json.len : 0);
    free(r->match);
    buf_free(&r->json);
    free(r);
}

static void do_get(db_conn *c, void *arg) {
    request *r = arg;
    write_by_id(c, r->id, &r->json, &r->why);
}

void history_get(history *h, int64_t id, history_done done, void *ctx) {
    db_submit(h->db, do_get, answered, request_new(h, id, done, ctx));
}

/* Every word becomes a quoted prefix: "a" "b" -> "a"* "b"*. Within quotes FTS5 knows nothing but "" for a quote. */
bool history_fts_query(const char *q, buf *out) {
    int words = 0;
    for (const char *p = q; *p && words < QUERY_WORDS_MAX;) {
        size_t n = strcspn(p, " \t\r\n");
        bool has_letter = false; /* FTS5's tokenizer drops punctuation; a phrase without a token would match nothing */
        for (size_t i = 0; i < n; i++) has_letter |= isalnum((unsigned char)p[i]) || (unsigned char)p[i] >= 0x80;
        if (has_letter) {
            buf_puts(out, words++ ? " \"" : "\"");
            for (size_t i = 0; i < n; i++) {
                if (p[i] == '"') buf_putc(out, '"');
                buf_putc(out, p[i]);
            }
            buf_puts(out, "\"*");
        }
        p += n;
        p += strspn(p, " \t\r\n");
    }
    return words > 0 && !out->full;
}

static sqlite3_stmt *open_page(db_conn *c, request *r) {
    int64_t before = r->before > 0 ? r->before : INT64_MAX;
    if (!r->match)
        return db_query(c, &r->why,
                        "SELECT " COLUMNS " FROM images WHERE missing = 0 AND id < ? ORDER BY id DESC LIMIT ?", "ii",
                        before, (int64_t)r->limit + 1);
    return db_query(c, &r->why,
                    "SELECT " COLUMNS " FROM images WHERE missing = 0 AND id < ? AND id IN"
                    " (SELECT rowid FROM images_fts WHERE images_fts MATCH ?) ORDER BY id DESC LIMIT ?",
                    "isi", before, r->match, (int64_t)r->limit + 1);
}

static sqlite3_stmt *open_count(db_conn *c, request *r) {
    if (!r->match) return db_query(c, &r->why, "SELECT count(*) FROM images WHERE missing = 0", "");
    return db_query(c, &r->why,
                    "SELECT count(*) FROM images WHERE missing = 0 AND id IN"
                    " (SELECT rowid FROM images_fts WHERE images_fts MATCH ?)",
                    "s", r->match);
}

static int64_t count_all(db_conn *c, request *r) {
    sqlite3_stmt *s = r->nothing ? NULL : open_count(c, r);
    if (!s || !db_next(c, s, &r->why)) return 0;
    int64_t n = db_int(s, 0);
    db_end(s);
    return n;
}

static void do_list(db_conn *c, void *arg) {
    request *r = arg;
    sqlite3_stmt *s = r->nothing ? NULL : open_page(c, r);
    int64_t last = 0;
    int n = 0;
    buf_puts(&r->json, "{\"data\":[");
    while (s && db_next(c, s, &r->why)) {
        if (n == r->limit) { /* the one too many only tells that there is another page */
            n++;
            db_end(s);
            break;
        }
        if (n++) buf_putc(&r->json, ',');
        last = db_int(s, 0);
        write_entry(s, &r->json);
    }
    if (n > r->limit)
        buf_printf(&r->json, "],\"next\":%lld", (long long)last);
    else
        buf_puts(&r->json, "],\"next\":null");
    buf_printf(&r->json, ",\"total\":%lld}", (long long)count_all(c, r));
}

void history_list(history *h, int64_t before, int limit, const char *q, history_done done, void *ctx) {
    request *r = request_new(h, 0, done, ctx);
    r->before = before;
    r->limit = limit < 1 ? 1 : limit > PAGE_MAX ? PAGE_MAX : limit;
    if (!str_empty(q)) {
        buf match;
        buf_init(&match, 4096);
        r->nothing = !history_fts_query(q, &match);
        r->match = buf_take(&match, NULL);
    }
    db_submit(h->db, do_list, answered, r);
}

/* ---- deleting --------------------------------------------------------------------------------------------------- */

static bool remove_file(const history *h, const char *name, err *e) {
    if (!name) return true;
    char *path = path_join(h->output_dir, name);
    bool ok = remove(path) == 0 || errno == ENOENT || err_sys(e, errno, "delete '%.100s'", name);
    free(path);
    return ok;
}

/* Files first: a crash in between leaves an entry that is found missing, never a picture that nobody lists. */
static void do_delete(db_conn *c, void *arg) {
    request *r = arg;
    sqlite3_stmt *s = db_query(c, &r->why, "SELECT file, thumb FROM images WHERE id = ?", "i", r->id);
    if (!s || !db_next(c, s, &r->why)) {
        if (!r->why.code) err_set(&r->why, ERR_NOT_FOUND, "there is no picture %lld", (long long)r->id);
        return;
    }
    bool ok = remove_file(r->h, db_text(s, 0), &r->why) && remove_file(r->h, db_text(s, 1), &r->why);
    db_end(s);
    if (!ok || !db_exec(c, &r->why, "DELETE FROM images WHERE id = ?", "i", r->id)) return;
    buf_printf(&r->json, "{\"id\":%lld}", (long long)r->id);
}

void history_delete(history *h, int64_t id, history_done done, void *ctx) {
    db_submit(h->db, do_delete, answered, request_new(h, id, done, ctx));
}

/* ---- are the files still there? --------------------------------------------------------------------------------- */

typedef struct check {
    history *h;
    int64_t after; /* the last id that was looked at */
    bool more;
    int lost, found;
    struct {
        int64_t id;
        bool missing;
    } changes[CHECK_BATCH];
    int count;
} check;

static bool collect_changes(db_conn *c, check *k, err *e) {
    sqlite3_stmt *s = db_query(c, e, "SELECT id, file, missing FROM images WHERE id > ? ORDER BY id LIMIT ?", "ii",
                               k->after, (int64_t)CHECK_BATCH);
    int rows = 0;
    k->count = 0;
    for (; s && db_next(c, s, e); rows++) {
        k->after = db_int(s, 0);
        char *path = path_join(k->h->output_dir, db_text(s, 1));
        bool missing = !path_exists(path);
        free(path);
        if (missing == (db_int(s, 2) != 0)) continue;
        k->changes[k->count].id = k->after;
        k->changes[k->count++].missing = missing;
    }
    k->more = rows == CHECK_BATCH;
    return !e->code;
}

static void do_check(db_conn *c, void *arg) {
    check *k = arg;
    err why = {0};
    bool ok = collect_changes(c, k, &why) && (k->count == 0 || db_begin(c, &why));
    for (int i = 0; ok && i < k->count; i++) {
        bool missing = k->changes[i].missing;
        ok = db_exec(c, &why, "UPDATE images SET missing = ? WHERE id = ?", "ii", (int64_t)missing, k->changes[i].id);
        k->lost += missing;
        k->found += !missing;
    }
    if (ok && k->count) ok = db_commit(c, &why);
    if (ok) return;
    k->more = false;
    log_warn("history", "checking the output folder: %s", why.msg);
}

static void checked(void *arg) {
    check *k = arg;
    if (k->more) {
        db_submit(k->h->db, do_check, checked, k);
        return;
    }
    if (k->lost) log_warn("history", "%d pictures are not in '%s' any more; hidden", k->lost, k->h->output_dir);
    if (k->found) log_info("history", "%d pictures are there again", k->found);
    free(k);
}

void history_check_files(history *h) {
    check *k = mem_alloc(1, sizeof *k);
    k->h = h;
    db_submit(h->db, do_check, checked, k);
}
