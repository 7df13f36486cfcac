/* settings.c - see settings.h. */
#include "server/settings.h"
#include "base/str.h"
#include "json/json.h"

#include <stdlib.h>

enum { ANSWER_MAX = SETTINGS_KEYS_MAX * (SETTINGS_BODY_MAX + 1024) };

typedef struct request {
    char *body; /* NULL: only ask */
    size_t len;
    settings_done done;
    void *ctx;
    err why;
    buf json;
} request;

static bool check_room(db_conn *c, err *e) {
    err why = {0};
    sqlite3_stmt *s = db_query(c, &why, "SELECT count(*) FROM settings", "");
    if (!s || !db_next(c, s, &why)) {
        *e = why;
        return false;
    }
    bool room = db_int(s, 0) <= SETTINGS_KEYS_MAX;
    db_end(s);
    return room || err_set(e, ERR_TOO_LARGE, "more than %d settings", SETTINGS_KEYS_MAX);
}

static bool put_one(db_conn *c, const char *key, yyjson_val *value, err *e) {
    if (strlen(key) == 0 || strlen(key) > SETTINGS_KEY_LEN_MAX)
        return err_set(e, ERR_INVALID, "a key must have 1 to %d characters", SETTINGS_KEY_LEN_MAX);
    if (yyjson_is_null(value)) return db_exec(c, e, "DELETE FROM settings WHERE key = ?", "s", key);
    char *text = yyjson_val_write(value, 0, NULL);
    if (!text) return err_set(e, ERR_INVALID, "%s: not writable as JSON", key);
    bool ok = db_exec(c, e,
                      "INSERT INTO settings (key, value) VALUES (?, ?)"
                      " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                      "ss", key, text);
    free(text);
    return ok;
}

static bool put_all(db_conn *c, yyjson_val *body, err *e) {
    if (!yyjson_is_obj(body)) return err_set(e, ERR_INVALID, "body: expected object");
    if (!db_begin(c, e)) return false;
    bool ok = true;
    yyjson_obj_iter it = yyjson_obj_iter_with(body);
    for (yyjson_val *key; ok && (key = yyjson_obj_iter_next(&it));)
        ok = put_one(c, yyjson_get_str(key), yyjson_obj_iter_get_val(key), e);
    ok = ok && check_room(c, e);
    if (ok) return db_commit(c, e);
    db_rollback(c);
    return false;
}

static void write_all(db_conn *c, request *r) {
    sqlite3_stmt *s = db_query(c, &r->why, "SELECT key, value FROM settings ORDER BY key", "");
    buf_putc(&r->json, '{');
    for (bool first = true; s && db_next(c, s, &r->why); first = false) {
        if (!first) buf_putc(&r->json, ',');
        json_quote(&r->json, db_text(s, 0));
        buf_printf(&r->json, ":%s", db_text(s, 1));
    }
    buf_putc(&r->json, '}');
}

static void work(db_conn *c, void *arg) {
    request *r = arg;
    if (r->body) {
        yyjson_doc *doc = json_parse(r->body, r->len, &r->why);
        if (doc) put_all(c, yyjson_doc_get_root(doc), &r->why);
        yyjson_doc_free(doc);
    }
    if (!r->why.code) write_all(c, r);
}

static void done(void *arg) {
    request *r = arg;
    bool ok = !r->why.code;
    r->done(r->ctx, ok ? NULL : &r->why, ok ? buf_str(&r->json) : NULL, ok ? r->json.len : 0);
    buf_free(&r->json);
    free(r->body);
    free(r);
}

static void submit(db *d, char *body, size_t len, settings_done fn, void *ctx) {
    request *r = mem_alloc(1, sizeof *r);
    *r = (request){.body = body, .len = len, .done = fn, .ctx = ctx};
    buf_init(&r->json, ANSWER_MAX);
    db_submit(d, work, done, r);
}

void settings_get(db *d, settings_done fn, void *ctx) {
    submit(d, NULL, 0, fn, ctx);
}

void settings_put(db *d, const char *body, size_t len, settings_done fn, void *ctx) {
    submit(d, str_ndup(body, len), len, fn, ctx);
}
